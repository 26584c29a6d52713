"""``gcp``: Google Secret Manager.

A credential holds a service account's JSON, an ``access_token``, or a user's ``refresh_token``;
without one the worker's own identity is used where that is allowed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.engine.auth import first
from app.errors import ToolError
from app.keychain.google import access_token, service_account
from app.keychain.providers import Surroundings, Wanted
from app.keychain.web import Web

ENDPOINT = "https://secretmanager.googleapis.com"
_NAME = re.compile(
    r"projects/[\w.:-]+(?P<region>/locations/(?P<location>[a-z0-9-]+))?"
    r"/secrets/[\w-]+(?P<version>/versions/[\w-]+)?"
)


@dataclass(frozen=True, slots=True)
class SecretManager:
    """Secrets of Google Cloud projects."""

    token: str = field(repr=False)
    project: str | None
    endpoint: str | None
    web: Web

    def read(self, wanted: Wanted) -> str | dict[str, Any]:
        name = (
            wanted.name if "/" in wanted.name else f"projects/{self._own()}/secrets/{wanted.name}"
        )
        match = _NAME.fullmatch(name)
        if match is None:
            raise ToolError(
                f"{wanted.name!r} is no secret's name; write projects/P/secrets/S or S",
                kind="not_found",
            )
        if match["version"] is None:
            name = f"{name}/versions/{wanted.version or 'latest'}"
        url = f"{self._base(match['location'])}/v1/{name}:access"
        answer = self.web.get(url, {"authorization": f"Bearer {self.token}"}).object()
        payload = answer.get("payload")
        try:
            data = payload["data"] if isinstance(payload, Mapping) else ""
            return base64.b64decode(data, validate=True).decode()
        except (KeyError, TypeError, binascii.Error, UnicodeDecodeError):
            raise ToolError(
                f"secret {wanted.name!r} of provider 'gcp' is not text", kind="auth"
            ) from None

    def _own(self) -> str:
        if self.project is None:
            raise ToolError(
                "the secret's name has no project; write projects/P/secrets/S, or give 'project'",
                kind="not_found",
            )
        return self.project

    def _base(self, location: str | None) -> str:
        if self.endpoint:
            return self.endpoint.rstrip("/")
        return f"https://secretmanager.{location}.rep.googleapis.com" if location else ENDPOINT


def open(  # noqa: A001 (the port's)
    access: Mapping[str, Any], about: Mapping[str, Any], surroundings: Surroundings
) -> SecretManager:
    """See ``Provider.open``. Another ``endpoint`` than Google's is the credential's."""
    account = service_account(access)
    project = first(about, "project", "project_id") or first(account, "project_id", "project")
    return SecretManager(
        token=access_token(access, surroundings),
        project=project,
        endpoint=first(access, "endpoint"),
        web=surroundings.web,
    )
