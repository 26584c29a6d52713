"""The errors Callboard raises; each says what happened and, where we know it, what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class CallboardError(Exception):
    """Base of every error that is meant to be read by a person.

    ``message`` says what happened, ``remedy`` what to do. Neither ever holds a secret value.
    ``status`` is the HTTP status an API answers with, ``code`` a stable word for programs.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class NotFoundError(CallboardError):
    """What was asked for does not exist."""

    code = "not_found"
    status = 404


class ConflictError(CallboardError):
    """The request contradicts what the log already says."""

    code = "conflict"
    status = 409


class BadRequestError(CallboardError):
    """The request itself is wrong."""

    code = "bad_request"
    status = 422


class UnauthorizedError(CallboardError):
    """No token, or one that is not known."""

    code = "unauthorized"
    status = 401


class ForbiddenError(CallboardError):
    """The caller is known and may not do this."""

    code = "forbidden"
    status = 403


class UnavailableError(CallboardError):
    """Something we depend on does not answer; the same request may succeed later."""

    code = "unavailable"
    status = 503

    def __init__(
        self, message: str, *, remedy: str | None = None, retry_after: float = 1.0
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


class StartupError(CallboardError):
    """A process cannot start: a port in use, a wrong setting, a missing binary."""

    code = "startup"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a playbook. ``line`` and ``column`` count from 1; 0 means unknown.

    ``severity`` is error (it cannot run), warning (it runs, and hardly as meant) or info.
    """

    code: str
    message: str
    line: int = 0
    column: int = 0
    key: str = ""
    severity: str = "error"
    suggestion: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The finding as answers show it; ``path`` leads to the key, with dots between its parts."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "line": self.line,
            "column": self.column,
            "path": self.key,
            "suggestion": self.suggestion,
        }

    def __str__(self) -> str:
        where = f"line {self.line}, column {self.column}: " if self.line else ""
        hint = f" {self.suggestion}" if self.suggestion else ""
        return f"{where}{self.message}{hint} [{self.code}]"


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with a tool's keys; *path* leads there from the tool. The value is not told."""

    path: tuple[str | int, ...]
    code: str
    message: str
    suggestion: str | None = None
    severity: str = "error"


class InvalidPlaybookError(BadRequestError):
    """The playbook cannot run as written; ``findings`` says where and why, all at once."""

    code = "invalid_playbook"

    def __init__(self, findings: Sequence[Finding], *, source: str = "playbook") -> None:
        self.findings = tuple(findings)
        self.source = source
        lines = "\n".join(f"  {finding}" for finding in self.findings)
        super().__init__(f"{source} is not valid:\n{lines}")


class TemplateError(CallboardError):
    """A template could not be rendered; the message carries its text."""

    code = "template"
    status = 422


class ToolError(CallboardError):
    """A tool failed in a way it can describe.

    ``kind`` is one of connection, timeout, rate_limit, auth, not_found, client_error, server_error,
    schema, parse, db_connection, db_constraint, db_deadlock, db_timeout, cancelled, resource,
    exit, template, unknown. ``retryable`` says whether the same call may succeed later.
    ``details`` holds the helpers that policy rules read: ``http`` {status, headers}, ``pg`` {code,
    sqlstate}, ``py`` {exception, traceback}. ``data`` is what the tool produced all the same.
    """

    code = "tool"

    def __init__(
        self,
        message: str,
        *,
        kind: str = "unknown",
        retryable: bool = False,
        error_code: str | None = None,
        details: Mapping[str, Any] | None = None,
        data: Any = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable
        self.error_code = error_code
        self.details = dict(details or {})
        self.data = data

    @classmethod
    def from_dict(cls, error: Mapping[str, Any]) -> ToolError:
        """The error that ``to_dict`` gave, or any other that an event holds."""
        known = {"kind", "message", "retryable", "code"}
        return cls(
            str(error.get("message", "")),
            kind=str(error.get("kind", "unknown")),
            retryable=bool(error.get("retryable", False)),
            error_code=error.get("code"),
            details={key: value for key, value in error.items() if key not in known},
        )

    def to_dict(self) -> dict[str, Any]:
        """The error as policies, events and API answers show it: JSON values only."""
        return {
            "kind": self.kind,
            "message": self.message,
            "retryable": self.retryable,
            "code": self.error_code,
            **self.details,
        }
