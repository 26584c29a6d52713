"""Keeps large values out of the log: the event carries a reference, another place the value.

Up to ``inline`` bytes of JSON a value stays in its event, up to ``blob_bytes`` it goes to
``transient`` in the same transaction, and above to the blob store. A blob is written before the
event is committed: one that nobody refers to does no harm, a reference to nothing would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from app.engine.encoding import dumps
from app.engine.events import (
    ChildEnded,
    CtxUpdated,
    Event,
    LoopStarted,
    StepDone,
    StepFailed,
    StepParked,
)
from app.engine.ports import BlobStore, LogTransaction
from app.engine.references import FIELDS, Place, is_reference, reference
from app.errors import BadRequestError

#: Characters of a value's sha256 that end its name; they are checked when it is read.
DIGEST = 32


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the limits are: above *inline* bytes by reference, above *most* refused.

    Without a blob store everything that is not inline goes to ``transient``.
    """

    inline: int = 65_536
    most: int = 104_857_600
    blob_bytes: int = 1_048_576
    blobs: BlobStore | None = None

    def lighten(
        self,
        log: LogTransaction,
        execution_id: int,
        event: Event,
        selected: Mapping[str, Any] | None = None,
    ) -> Event:
        """*event* with each large value replaced by a reference, the value stored along with it.

        *selected* are parts of a step's result that its reference shall tell. Raises
        ``BadRequestError`` for what cannot be kept.
        """
        keeping = _Keeping(self, log, execution_id)
        step = getattr(event, "step", "")
        match event:
            case StepDone():
                place = f"{step}/{event.visit}/{event.iteration}"
                result = keeping.light(f"result/{place}", step, event.result, selected)
                ctx = keeping.light_each(f"ctx/{place}", step, event.ctx)
                event = replace(event, result=result, ctx=ctx)
            case StepFailed():
                place = f"{step}/{event.visit}/{event.iteration}"
                event = replace(event, ctx=keeping.light_each(f"ctx/{place}", step, event.ctx))
            case StepParked():
                place = f"{step}/{event.visit}/{event.iteration}/{event.attempt}"
                progress = keeping.light(f"parked/{place}", step, event.progress)
                call = keeping.light_call(f"call/{place}", step, event.call)
                event = replace(event, progress=progress, call=call)
            case ChildEnded():
                place = f"{step}/{event.visit}/{event.iteration}/{event.attempt}"
                event = replace(event, result=keeping.light(f"child/{place}", step, event.result))
            case LoopStarted():
                items = keeping.light(f"items/{step}/{event.visit}", step, event.items)
                event = replace(event, items=items)
            case CtxUpdated():
                values = keeping.light_each(f"set/{step}/{event.visit}", step, event.values)
                event = replace(event, values=values or {})
            case _:
                pass  # the others carry nothing that grows with the data
        return event


@dataclass(frozen=True, slots=True)
class _Keeping:
    """The values of one event on their way."""

    storage: Storage
    log: LogTransaction
    execution_id: int

    def light_each(
        self, prefix: str, step: str, values: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        if not values:
            return None
        return {key: self.light(f"{prefix}/{key}", step, value) for key, value in values.items()}

    def light_call(
        self, name: str, step: str, call: Mapping[str, Any] | None
    ) -> Mapping[str, Any] | None:
        """The sub-playbook that a parked attempt asks for; its payload is the playbook's own data."""
        if call is None:
            return None
        return {**call, "payload": self.light(name, step, call.get("payload") or {})}

    def light(
        self, name: str, step: str, value: Any, selected: Mapping[str, Any] | None = None
    ) -> Any:
        """*value*, or the reference that stands for it."""
        if value is None:
            return None
        # A result may not be made to look like a reference by what is selected of it.
        selected = {name: part for name, part in (selected or {}).items() if name not in FIELDS}
        text = dumps(value)
        # Data that looks like a reference is kept elsewhere, however small: in an event it would
        # be taken for one.
        if len(text) <= self.storage.inline and not is_reference(value):
            # What was selected reads the same, whether the result is large or small.
            return {**selected, **value} if selected and isinstance(value, Mapping) else value
        if len(text) > self.storage.most:
            raise BadRequestError(
                f"a value of {len(text)} bytes is above the limit of {self.storage.most} "
                "(setting CALLBOARD_RESULT_BYTES)"
            )
        if selected and size_of(selected) > self.storage.inline:
            raise BadRequestError(
                f"output_select takes {size_of(selected)} bytes, above the limit of "
                f"{self.storage.inline} (setting CALLBOARD_INLINE_BYTES)",
                remedy="select less; the rest of the result can be read all the same",
            )
        place = Place(self.execution_id, f"{name}/{digest(text)}")
        store = self._keep(place, step, value, text)
        return reference(place, store, len(text), value, selected)

    def _keep(self, place: Place, step: str, value: Any, text: bytes) -> str:
        blobs = self.storage.blobs
        if blobs is None or len(text) <= self.storage.blob_bytes:
            self.log.store_value(place.execution_id, place.name, value, source_step=step)
            return "kv"
        blobs.put(key_of(place), text)
        return blobs.kind


def key_of(place: Place) -> str:
    """The key of a blob: the same value of the same step has the same."""
    return f"{place.execution_id}/{place.name}"


def digest(text: bytes) -> str:
    """What a value's name ends with."""
    return sha256(text).hexdigest()[:DIGEST]


def size_of(value: Any) -> int:
    """Bytes of *value* as JSON. Raises ``BadRequestError`` for what the store cannot keep."""
    return len(dumps(value))
