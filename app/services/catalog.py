"""The catalog: playbooks are checked, versioned, and compiled once per version."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.engine.language.examine import CheckedKinds, Examined, examine
from app.engine.language.parse import parse
from app.engine.language.source import read
from app.engine.playbook import Playbook
from app.engine.ports import Catalog, CatalogEntry
from app.errors import BadRequestError, Finding, NotFoundError, UnavailableError
from app.services.cache import Lru
from app.services.schema import schema_of
from app.services.weighted import Weighted

PLAYBOOK_KINDS = {"playbook", "agent"}
#: Playbooks looked at once, and seconds to wait for a turn: the largest take seconds of a core, and
#: the rest of the API must go on meanwhile.
AT_ONCE, PATIENCE = 2, 10.0
#: Bytes of resources that are kept as they were read, and what one takes beside its content.
KEPT_BYTES, ENTRY_BYTES = 16_777_216, 1_024


@dataclass(frozen=True, slots=True)
class Stored:
    """A new version of a resource, and what is suspicious about it."""

    entry: CatalogEntry
    warnings: tuple[Finding, ...] = ()


class CatalogService:
    """Registers resources and gives back playbooks ready to run."""

    def __init__(self, catalog: Catalog, kinds: CheckedKinds, *, max_bytes: int) -> None:
        self._catalog = catalog
        self._kinds = kinds
        self._max_bytes = max_bytes
        self._entries: Weighted[int, CatalogEntry] = Weighted(KEPT_BYTES)
        self._playbooks: Lru[int, Playbook] = Lru(256)
        self._turns = threading.BoundedSemaphore(AT_ONCE)

    def register(
        self, content: str, *, resource_type: str = "Playbook", source: str = "playbook"
    ) -> CatalogEntry:
        """Check and store *content* as the next version of its path.

        Raises ``InvalidPlaybookError`` with every finding; nothing is stored then.
        """
        return self.submit(content, resource_type=resource_type, source=source).entry

    def submit(
        self, content: str, *, resource_type: str = "Playbook", source: str = "playbook"
    ) -> Stored:
        """``register``, with the warnings."""
        document = read(content, name=source, max_bytes=self._max_bytes).data
        declared = document.get("kind") if isinstance(document, Mapping) else None
        kind = str(declared or resource_type)
        if kind.lower() in PLAYBOOK_KINDS or not isinstance(document, Mapping):
            examined = self.examine(content, source=source)
            playbook = examined.accepted(source)
            entry = self._catalog.add(playbook.path, _cased(kind), content, meta=playbook.meta)
            self._playbooks.put(entry.catalog_id, playbook)
            return Stored(entry, examined.warnings)
        metadata = document.get("metadata")
        meta: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else {}
        path = meta.get("path") or document.get("path") or meta.get("name") or document.get("name")
        if not path:
            raise BadRequestError(
                f"the {kind} has no name", remedy="give it metadata.name or metadata.path"
            )
        return Stored(self._catalog.add(str(path), kind, content, meta=meta))

    def check(self, content: str, *, source: str = "playbook") -> Playbook:
        """Parse without storing. Raises ``InvalidPlaybookError``."""
        return self.examine(content, source=source).accepted(source)

    def examine(self, content: str, *, source: str = "playbook") -> Examined:
        """Everything there is to say about a playbook; nothing is stored.

        Raises ``UnavailableError`` where too many others are being looked at.
        """
        if not self._turns.acquire(timeout=PATIENCE):
            raise UnavailableError(
                "the server is busy with other playbooks", remedy="try again", retry_after=PATIENCE
            )
        try:
            return examine(content, self._kinds, name=source, max_bytes=self._max_bytes)
        finally:
            self._turns.release()

    def schema(self, kind: str | None = None) -> dict[str, Any]:
        """The JSON Schema of playbooks, or of one tool. Raises ``NotFoundError``."""
        return schema_of(self._kinds, kind)

    def entry(
        self, path: str | None = None, *, version: int | None = None, catalog_id: int | None = None
    ) -> CatalogEntry:
        """One resource, by id or by path (the newest version by default). Raises ``NotFoundError``."""
        if catalog_id is not None:
            found = self._kept(catalog_id)
            what = f"catalog id {catalog_id}"
        elif path and version is None:
            newest = self._catalog.newest(path)
            found = None if newest is None else self._kept(newest)
            what = f"path {path!r}"
        elif path:
            found = self._catalog.find(path, version)
            what = f"path {path!r} version {version}"
        else:
            raise BadRequestError("neither path nor catalog_id was given")
        if found is None:
            raise NotFoundError(
                f"nothing is registered under {what}", remedy="see 'callboard catalog list'"
            )
        return found

    def _kept(self, catalog_id: int) -> CatalogEntry | None:
        """The resource of that id; what is registered never changes, so it is read once."""
        found = self._entries.peek(catalog_id)
        if found is None:
            found = self._catalog.get(catalog_id)
            if found is not None:
                self._entries.put(catalog_id, found, len(found.content) + ENTRY_BYTES)
        return found

    def find(self, path: str) -> CatalogEntry | None:
        """The newest version of *path*, None where there is none."""
        return self._catalog.find(path)

    def entries(self, *, kind: str | None = None, path: str | None = None) -> list[CatalogEntry]:
        return self._catalog.entries(kind=kind, path=path)

    def playbook(self, catalog_id: int) -> Playbook:
        """The compiled playbook of that version; it never changes, so it is kept."""
        found = self._playbooks.get(catalog_id)
        if found is None:
            entry = self.entry(catalog_id=catalog_id)
            found = parse(entry.content, self._kinds, name=entry.path, max_bytes=self._max_bytes)
            self._playbooks.put(catalog_id, found)
        return found


def decode_content(content: str) -> str:
    """YAML text from YAML text or its base64 form, which is what NoETL's clients send."""
    compact = "".join(content.split())
    if ":" not in compact and len(compact) % 4 == 0 and compact:
        try:
            return base64.b64decode(compact, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return content
    return content


def envelope_of(body: bytes) -> tuple[str, str]:
    """(content, resource_type) from a JSON envelope, raw YAML, or base64 of YAML.

    Raises ``BadRequestError`` where the body is empty or not text.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise BadRequestError(
            "the body is not UTF-8 text", remedy="send YAML, or JSON with 'content'"
        ) from exc
    if not text.strip():
        raise BadRequestError("the body is empty", remedy="send YAML, or JSON with 'content'")
    try:
        data = json.loads(text)
    except ValueError:
        return decode_content(text), "Playbook"
    if isinstance(data, dict) and isinstance(data.get("content"), str):
        return decode_content(data["content"]), str(data.get("resource_type") or "Playbook")
    if isinstance(data, str):
        return decode_content(data), "Playbook"
    return text, "Playbook"


def _cased(kind: str) -> str:
    return kind.capitalize() if kind.lower() in PLAYBOOK_KINDS else kind
