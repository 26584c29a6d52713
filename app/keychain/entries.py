"""The entries of a keychain by kind: each a function from what is written to its fields.

The entry arrives rendered. What comes back says how long it holds, where its source tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.engine.auth import fields_of, first, resolve
from app.engine.credentials import Credential
from app.errors import ToolError
from app.keychain.google import id_token, seconds_left
from app.keychain.oauth import token_of, token_texts
from app.keychain.secrets import Means, concealed, one_of_map, opened, read, wanted_of
from app.keychain.source import Found

#: Fields of an entry that are about it, and none of what it holds.
ABOUT = frozenset(
    {"name", "kind", "type", "scope", "auto_renew", "ttl_seconds", "description", "renew_before"}
)
#: Seconds that a token of Google holds where it does not say.
_GOOGLE_LIFE = 3600.0


@dataclass(frozen=True, slots=True)
class Kind:
    """How entries of a kind are resolved.

    ``secrets`` are the texts of its fields that must not be shown, for a kind of entry that is kept
    because somebody else is asked for it; None for one that is not.
    """

    resolve: Callable[[Mapping[str, Any], Means, Mapping[str, Any] | None], Found]
    secrets: Callable[[Mapping[str, Any]], list[str]] | None = None


def kind_of(entry: Mapping[str, Any]) -> str:
    """The entry's kind by its name here; told by its keys where it says none. Raises ``ToolError``."""
    said = entry.get("kind") or entry.get("type")
    if not said:
        said = next((kind for key, kind in _BY_KEY.items() if key in entry), None)
    name = _ALIASES.get(str(said).lower(), str(said).lower())
    if name.startswith("google_") and name not in KINDS:
        name = "credential"
    if name not in KINDS:
        raise ToolError(
            f"it is of no known kind ({said!r}); use {', '.join(sorted(KINDS))}", kind="auth"
        )
    return name


# ---------------------------------------------------------------------- written down
def _static(entry: Mapping[str, Any], means: Means, _: Mapping[str, Any] | None) -> Found:
    data = next((entry[key] for key in ("data", "map", "values") if key in entry), None)
    if data is None:
        data = {key: value for key, value in entry.items() if key not in ABOUT}
    if not isinstance(data, Mapping) or not data:
        raise ToolError("it needs 'data', a mapping of its fields", kind="auth")
    means.lookup.conceal(*Credential("", "", data).secrets())
    return Found(dict(data))


def _bearer(entry: Mapping[str, Any], means: Means, _: Mapping[str, Any] | None) -> Found:
    token = first(entry, "token", "access_token", "value")
    if token is None and entry.get("auth"):
        token = first(resolve(entry["auth"], means.lookup), "token", "access_token", "value")
    if token is None:
        raise ToolError("it needs 'token', or an 'auth' that has one", kind="auth")
    means.lookup.conceal(token)
    return Found({"token": token, "access_token": token, "token_type": "Bearer"})


def _credential(entry: Mapping[str, Any], means: Means, _: Mapping[str, Any] | None) -> Found:
    named = next((entry[key] for key in ("ref", "credential", "auth") if entry.get(key)), None)
    if named is None:
        raise ToolError("it needs 'credential', the name of one", kind="auth")
    if isinstance(named, str):
        fields = fields_of(means.lookup.credential(named))
    else:
        fields = resolve(named, means.lookup)
    wanted = entry.get("map")
    if not isinstance(wanted, Mapping) or not wanted:
        return Found(fields)
    missing = [str(source) for source in wanted.values() if source not in fields]
    if missing:
        raise ToolError(
            f"the credential has no field {missing[0]!r}; it has {', '.join(sorted(fields))}",
            kind="auth",
        )
    return Found({str(name): fields[source] for name, source in wanted.items()})


# ---------------------------------------------------------------------- asked for
def _secrets(entry: Mapping[str, Any], means: Means, _: Mapping[str, Any] | None) -> Found:
    about = {"provider": "gcp", **entry}
    reader = opened(about, means)
    mapped = entry.get("map") or entry.get("secrets")
    if not isinstance(mapped, Mapping) or not mapped:
        # Without its own name, which is the entry's.
        one = {key: value for key, value in about.items() if key != "name"}
        if not any(key in one for key in ("secret", "path", "key")):
            raise ToolError("it needs 'map', such as {password: NAME OF A SECRET}", kind="auth")
        value = read(reader, wanted_of(one), means)
        return Found(dict(value) if isinstance(value, Mapping) else {"value": value})
    return Found(
        {str(name): one_of_map(reader, each, entry, means) for name, each in mapped.items()}
    )


def _all(fields: Mapping[str, Any]) -> list[str]:
    return [text for value in fields.values() for text in concealed(value)]


def _google_id_token(entry: Mapping[str, Any], means: Means, _: Mapping[str, Any] | None) -> Found:
    audience = first(entry, "target_audience", "audience")
    if audience is None:
        raise ToolError("it needs 'target_audience', the URL that the token is for", kind="auth")
    token = id_token(_account(entry, means), audience, means.surroundings)
    means.lookup.conceal(token)
    left = seconds_left(token, time.time())
    fields = {"id_token": token, "token": token, "token_type": "Bearer"}
    return Found(fields, _GOOGLE_LIFE if left is None else left)


def _account(entry: Mapping[str, Any], means: Means) -> Mapping[str, Any]:
    named = entry.get("service_account_credential") or entry.get("credential")
    if named:
        return resolve(named, means.lookup)
    secret = entry.get("service_account_secret")
    if not secret:
        return resolve(entry["auth"], means.lookup) if entry.get("auth") else {}
    about = {"provider": "gcp", **{k: v for k, v in entry.items() if k != "name"}}
    found = read(opened(about, means), wanted_of({"name": secret}), means)
    return found if isinstance(found, Mapping) else {"value": found}


def _oauth(entry: Mapping[str, Any], means: Means, before: Mapping[str, Any] | None) -> Found:
    return token_of(entry, means, before)


KINDS: Mapping[str, Kind] = {
    "static": Kind(_static),
    "bearer": Kind(_bearer),
    "credential": Kind(_credential),
    "secrets": Kind(_secrets, secrets=_all),
    "google_id_token": Kind(_google_id_token, secrets=token_texts),
    "oauth2": Kind(_oauth, secrets=token_texts),
}
_ALIASES = {
    "credential_ref": "credential",
    "secret_manager": "secrets",
    "secret": "secrets",
    "oauth": "oauth2",
    "bearer_token": "bearer",
}
#: What an entry without a kind is, by the first of these keys that it has.
_BY_KEY = {
    "provider": "secrets",
    "endpoint": "oauth2",
    "token_url": "oauth2",
    "target_audience": "google_id_token",
    "token": "bearer",
    "ref": "credential",
    "credential": "credential",
    "map": "secrets",
    "data": "static",
}
