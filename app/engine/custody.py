"""What the control plane keeps in confidence, and how it is sealed: the ports.

A sealed text opens only under the name it was sealed for (``about``), such as ``credential:pg``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol

from app.engine.output import OutputStore
from app.engine.tokens import TokenStore
from app.engine.variables import VariableStore
from app.errors import CallboardError


def for_credential(name: str) -> str:
    """What a credential of that name is sealed for."""
    return f"credential:{name}"


def for_token(cache_key: str) -> str:
    """What a kept entry of a keychain is sealed for."""
    return f"token:{cache_key}"


class SealError(CallboardError):
    """A sealed text cannot be opened: its key is missing, it was changed, or it is another's."""

    code = "sealed"
    status: ClassVar[int] = 500


class Sealer(Protocol):
    """Encrypts what the database keeps. Safe for threads."""

    @property
    def key_ids(self) -> frozenset[str]:
        """The keys that it can open with."""

    @property
    def sealing(self) -> str:
        """The id of the key that seals. Raises ``SealError`` where no key is configured."""

    def seal(self, plain: bytes, about: str) -> str:
        """*plain* as a text that only this key ring opens, and only for *about*."""

    def open(self, sealed: str, about: str) -> bytes:
        """What was sealed. Raises ``SealError``, which names *about* and never the content."""

    def key_id_of(self, sealed: str) -> str:
        """The id of the key that opens *sealed*. Raises ``SealError`` where it is no sealed text."""

    def renew(self, sealed: str, about: str) -> str:
        """*sealed* under the key that seals now; the same text where it is already."""


@dataclass(frozen=True, slots=True)
class CredentialDraft:
    """A credential to be kept. ``scope`` limits its use: ``{paths: […], pools: […]}``."""

    name: str
    type: str
    sealed: str = field(repr=False)
    meta: Mapping[str, Any] | None = None
    tags: Sequence[str] = ()
    description: str | None = None
    scope: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """A credential as it is kept; what it holds is sealed for ``credential:<name>``."""

    id: int
    name: str
    type: str
    sealed: str = field(repr=False)
    meta: Mapping[str, Any] | None
    tags: Sequence[str]
    description: str | None
    scope: Mapping[str, Any] | None
    created_at: datetime
    updated_at: datetime


class CredentialStore(Protocol):
    """Credentials by name. Every method raises ``UnavailableError`` where the database is away."""

    def put(self, draft: CredentialDraft) -> CredentialRow:
        """Keep it; one of the same name is replaced and keeps its id."""

    def named(self, name: str) -> CredentialRow | None:
        """The credential of that name."""

    def numbered(self, id: int) -> CredentialRow | None:  # noqa: A002 (its name in the table)
        """The credential of that id."""

    def rows(self, *, type: str | None = None, q: str | None = None) -> list[CredentialRow]:  # noqa: A002 (the same)
        """All by name; those of a type, those with *q* in name, description or a tag."""

    def delete(self, id: int) -> bool:  # noqa: A002 (its name in the table)
        """Forget it; False where there is none."""


@dataclass(frozen=True, slots=True)
class SealedRow:
    """A row that holds a sealed text. ``key`` finds it in its *table*, ``about`` is what it is for."""

    table: str
    key: int | str
    about: str
    sealed: str = field(repr=False)


class SealedRows(Protocol):
    """All that the database keeps sealed, whatever it is: for rotations and for a start's check."""

    @property
    def tables(self) -> Sequence[str]:
        """Where sealed texts are."""

    def key_ids(self) -> Mapping[str, int]:
        """How many rows are sealed with each key. What has expired does not count."""

    def under_other_keys(
        self, table: str, key_id: str, *, after: int | str | None, limit: int
    ) -> Sequence[SealedRow]:
        """At most *limit* rows, in order, that are not sealed with *key_id*; those behind *after*."""

    def replace(self, changes: Sequence[tuple[SealedRow, str]]) -> int:
        """Put a new text in each row that still holds the one it was read with; how many did."""


@dataclass(frozen=True, slots=True)
class Custody:
    """All that is kept beside the log and the catalog, and what seals it."""

    sealer: Sealer
    credentials: CredentialStore
    variables: VariableStore
    output: OutputStore
    tokens: TokenStore
