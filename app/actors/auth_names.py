"""What a tool's templates read of its own ``auth``: ``{{ auth.token }}``, ``{{ auth.alias.token }}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine.templates.scope import Lazy, Scope
from app.engine.templates.template import render
from app.tools import Context
from app.tools.auth import resolve

#: The keys of a tool that name credentials, each also the name that its templates see.
KEYS = ("auth", "credential", "credentials")


def with_auth(scope: Scope, config: Mapping[str, Any], context: Context) -> Scope:
    """*scope* with the credentials that *config* names, each looked up when a template reads it."""
    given = {key: config[key] for key in KEYS if config.get(key) and key not in scope}
    if not given:
        return scope

    def fields(key: str) -> Any:
        auth = render(given[key], scope)
        if _is_aliases(auth):
            return Lazy(auth, lambda alias: resolve(auth[alias], context))
        return resolve(auth, context)

    return scope.with_local({key: _Later(fields, key) for key in given})


def _is_aliases(auth: Any) -> bool:
    return isinstance(auth, Mapping) and all(isinstance(one, Mapping) for one in auth.values())


class _Later(Mapping[str, Any]):
    """The fields of one credential, found out at the first look."""

    def __init__(self, find: Any, key: str) -> None:
        self._find = find
        self._key = key
        self._found: Mapping[str, Any] | None = None

    def _fields(self) -> Mapping[str, Any]:
        if self._found is None:
            self._found = self._find(self._key)
        assert self._found is not None
        return self._found

    def __getitem__(self, name: str) -> Any:
        return self._fields()[name]

    def __iter__(self) -> Any:
        return iter(self._fields())

    def __len__(self) -> int:
        return len(self._fields())
