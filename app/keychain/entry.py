"""An entry of a keychain as written: its name, its kind, and how long and for whom it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.engine.tokens import ScopeType
from app.errors import ToolError
from app.keychain.entries import KINDS, kind_of

#: Seconds that an entry is kept where neither it nor its source says so, by scope.
LIFE = {"global": 86_400.0, "shared": 86_400.0, "local": 3_600.0}
_SCOPES: Mapping[str, ScopeType] = {
    "global": "global",
    "catalog": "global",
    "shared": "shared",
    "local": "local",
    "execution": "local",
}
_YES = frozenset({"true", "yes", "on", "1"})


@dataclass(frozen=True, slots=True)
class Entry:
    """``digest`` tells apart what the same entry gives for different workloads; empty where its
    templates read none."""

    name: str
    kind: str
    scope: ScopeType
    raw: Mapping[str, Any] = field(repr=False)
    ttl: float | None = None
    auto_renew: bool = False
    digest: str = ""

    @property
    def costs(self) -> bool:
        """Whether somebody else is asked for it, so that the answer is worth keeping."""
        local = str(self.raw.get("provider", "")).lower() in {"env", "environment", "file"}
        return KINDS[self.kind].secrets is not None and not local

    def life(self, expires_in: float | None) -> float:
        """Seconds that it is kept: never longer than its source says that it holds."""
        wanted = self.ttl if self.ttl is not None else expires_in
        if wanted is None:
            wanted = LIFE[self.scope]
        return wanted if expires_in is None else min(wanted, expires_in)


def entry_of(raw: Mapping[str, Any], digest: str) -> Entry:
    """The entry that *raw* writes. Raises ``ToolError`` that names the key."""
    said = str(raw.get("scope") or "global").lower()
    if said not in _SCOPES:
        raise ToolError(
            f"its scope {said!r} is none; use local, shared or global (those of OAuth go under "
            "'scopes')",
            kind="auth",
        )
    return Entry(
        name=str(raw["name"]),
        kind=kind_of(raw),
        scope=_SCOPES[said],
        raw=raw,
        ttl=_seconds(raw.get("ttl_seconds", raw.get("ttl"))),
        auto_renew=str(raw.get("auto_renew", False)).lower() in _YES,
        digest=digest,
    )


def _seconds(value: Any) -> float | None:
    if value in (None, ""):
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise ToolError("its 'ttl_seconds' is no number of seconds above 0", kind="auth")
    return seconds
