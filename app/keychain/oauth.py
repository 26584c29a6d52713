"""Tokens of OAuth 2: for the client itself, or for a user by a refresh token.

What the entry writes as ``data`` (a form, or JSON by its content type), ``json`` or ``form`` is sent
as it is; ``client_id``, ``client_secret``, ``scopes``, ``refresh_token`` and what the credential
under ``auth`` holds fill in what it leaves out.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from app.engine.auth import first, resolve
from app.engine.credentials import secret_texts
from app.errors import ToolError
from app.keychain.google import seconds_left
from app.keychain.secrets import Means
from app.keychain.source import Found

#: What a token's answer says about it, which is no secret.
_ABOUT = frozenset(
    {"token_type", "expires_in", "expires_at", "expires_on", "ext_expires_in", "scope", "issued_at"}
    | {
        "not_before",
        "created_at",
        "refresh_expires_in",
        "refresh_token_expires_in",
        "session_state",
    }
)
_PARTS = ("grant_type", "client_id", "client_secret", "refresh_token", "audience", "resource")
_CLIENT = ("client_id", "client_secret")
#: Headers that hold no secret.
_PLAIN = frozenset({"accept", "cache-control", "content-type", "user-agent"})


def token_of(
    entry: Mapping[str, Any], means: Means, before: Mapping[str, Any] | None = None
) -> Found:
    """The token endpoint's answer. *before* is the answer that it takes the place of: where it
    brought a new refresh token, the old one is of no use any more."""
    access = resolve(entry["auth"], means.lookup) if entry.get("auth") else {}
    request = _Request.of(entry, access)
    means.lookup.conceal(*request.secrets)
    newer = (before or {}).get("refresh_token")
    if newer and request.fields.get("refresh_token") not in {None, newer}:
        try:
            answer = request.renewed(str(newer)).send(means)
        except ToolError as exc:
            if exc.kind != "auth":
                raise
            # Perhaps somebody revoked it and wrote a new one into the credential.
            answer = request.send(means)
    else:
        answer = request.send(means)
    return _found(entry, answer, means)


@dataclass(frozen=True, slots=True)
class _Request:
    """What is sent to the token endpoint; ``secrets`` are the texts in it that must not be shown."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    as_json: bool
    secrets: Sequence[str] = field(repr=False)

    @classmethod
    def of(cls, entry: Mapping[str, Any], access: Mapping[str, Any]) -> _Request:
        url = first(entry, "endpoint", "token_url", "url", "token_uri") or first(
            access, "token_url", "token_uri", "endpoint"
        )
        if url is None:
            raise ToolError("it needs 'endpoint', the URL of who hands out the token", kind="auth")
        given = entry.get("headers") or {}
        if not isinstance(given, Mapping):
            raise ToolError("its 'headers' are no mapping", kind="auth")
        headers = {str(name).lower(): str(value) for name, value in given.items()}
        written, as_json = _written(entry, headers.get("content-type", ""))
        fields = {**_filled_in(entry, access, written), **written}
        secrets = [*secret_texts(fields), *_in_headers(headers)]
        if "authorization" in headers:
            fields = {k: v for k, v in fields.items() if k in written or k not in _CLIENT}
        elif str(entry.get("client_auth", access.get("client_auth"))) == "basic":
            name, secret = (quote(str(fields.pop(part, ""))) for part in _CLIENT)
            line = base64.b64encode(f"{name}:{secret}".encode()).decode()
            headers["authorization"] = f"Basic {line}"
            secrets.append(line)
        method = str(entry.get("method") or "POST").upper()
        return cls(method, url, headers, fields, as_json, secrets)

    def renewed(self, refresh_token: str) -> _Request:
        return replace(self, fields={**self.fields, "refresh_token": refresh_token})

    def send(self, means: Means) -> dict[str, Any]:
        web = means.surroundings.web
        if self.method == "GET":
            mark = "&" if "?" in self.url else "?"
            url = f"{self.url}{mark}{urlencode(self.fields)}" if self.fields else self.url
            return web.get(url, self.headers).object()
        if self.as_json:
            content, kind = json.dumps(self.fields).encode(), "application/json"
        else:
            content, kind = urlencode(self.fields).encode(), "application/x-www-form-urlencoded"
        return web.send(
            self.method, self.url, {"content-type": kind, **self.headers}, content
        ).object()


def _in_headers(headers: Mapping[str, str]) -> list[str]:
    lines = [line for name, line in headers.items() if name not in _PLAIN]
    return [text for line in lines for text in (line, line.rpartition(" ")[2])]


def _written(entry: Mapping[str, Any], content_type: str) -> tuple[dict[str, Any], bool]:
    """The body as the entry writes it, and whether it is JSON."""
    for key in ("json", "form", "data", "body", "payload"):
        body = entry.get(key)
        if body is None:
            continue
        as_json = key == "json" or (key != "form" and "json" in content_type)
        if isinstance(body, str) and not as_json:
            body = dict(parse_qsl(body, keep_blank_values=True))
        if not isinstance(body, Mapping):
            raise ToolError(f"its {key!r} is no mapping of fields", kind="auth")
        return {str(name): value for name, value in body.items() if value is not None}, as_json
    return {}, "json" in content_type


def _filled_in(
    entry: Mapping[str, Any], access: Mapping[str, Any], written: Mapping[str, Any]
) -> dict[str, Any]:
    """The usual parts that the entry says beside its body, or its credential."""
    found = {name: value for name in _PARTS if (value := first(entry, name) or first(access, name))}
    if "refresh_token" in written and "grant_type" not in found:
        found["grant_type"] = "refresh_token"
    scopes = entry.get("scopes", access.get("scopes", access.get("scope")))
    if scopes:
        found["scope"] = " ".join(map(str, scopes)) if isinstance(scopes, list) else str(scopes)
    grant = str(written.get("grant_type") or found.get("grant_type") or "")
    if not grant:
        found["grant_type"] = "refresh_token" if "refresh_token" in found else "client_credentials"
    elif grant != "refresh_token":
        found.pop("refresh_token", None)
    return found


def _found(entry: Mapping[str, Any], answer: dict[str, Any], means: Means) -> Found:
    means.lookup.conceal(*token_texts(answer))
    name = first(entry, "token_field") or "access_token"
    token: Any = answer
    for part in name.split("."):
        token = token.get(part) if isinstance(token, Mapping) else None
    if not isinstance(token, str) or not token:
        raise ToolError(
            f"the answer has no {name!r}; it has {', '.join(sorted(answer)) or 'nothing'} "
            "('token_field' says which field is the token)",
            kind="auth",
        )
    # A field that is no secret by its name is one here.
    means.lookup.conceal(token)
    fields = {**answer, "token": token}
    fields.setdefault("access_token", token)
    fields.setdefault("token_type", "Bearer")
    return Found(fields, _life(answer, token))


def token_texts(answer: Mapping[str, Any]) -> list[str]:
    """The texts of the answer; its numbers say how long it holds, and are found everywhere."""
    parts = {
        name: value
        for name, value in answer.items()
        if name not in _ABOUT and not isinstance(value, int | float)
    }
    return list(secret_texts(parts))


def _life(answer: Mapping[str, Any], token: str) -> float | None:
    """Seconds that the token holds: as the answer says, else as the token itself does."""
    try:
        return max(0.0, float(answer["expires_in"]))
    except (KeyError, TypeError, ValueError):
        return seconds_left(token, time.time())
