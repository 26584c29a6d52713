"""The values that a worker's steps refer to: fetched when they are read, and kept for the next step."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from app.engine.encoding import loads
from app.engine.iteration import loop_names
from app.engine.playbook import Step
from app.engine.ports import Pointer
from app.engine.references import REF, is_reference, opened, whole
from app.engine.templates.scope import Lazy, Scope
from app.errors import ToolError, UnavailableError
from app.services.weighted import Weighted
from app.services.work import Worked
from app.wire import ArtifactAnswer, ArtifactRequest, Resume, ValueRequest, Variables

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Bytes of JSON that a worker process keeps of what its steps have read.
KEPT_BYTES = 134_217_728
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Asker:
    """The attempt that reads: *stop* ends its wait, as does *deadline* (``time.monotonic``)."""

    pointer: Pointer
    stop: threading.Event
    deadline: float

    def insist(self, what: str, ask: Callable[[], T]) -> T:
        """What *ask* gives, asked until the control plane answers: an outage is no reason to fail a
        step, being stopped or late is. Raises ``ToolError`` for these, and whatever else *ask* does.
        """
        pause = 0.1
        while True:
            try:
                return ask()
            except UnavailableError as exc:
                if time.monotonic() > self.deadline:
                    raise ToolError(
                        f"{what} could not be had in time: {exc}", kind="timeout", retryable=True
                    ) from exc
                log.warning("control_plane.unavailable", what=what, error=str(exc))
                # Full jitter spreads the return of many workers.
                if self.stop.wait(random.uniform(0, pause)):  # noqa: S311 (guards nothing)
                    raise ToolError("the attempt was stopped", kind="cancelled") from exc
                pause = min(pause * 2, _LONGEST_PAUSE)


class Fetcher:
    """Asks the control plane for values. One per process; the encoded values are shared."""

    def __init__(self, work: Worked, *, kept: int = KEPT_BYTES) -> None:
        self._work = work
        self._texts: Weighted[tuple[str, int | None], bytes] = Weighted(kept)

    def text(self, asker: Asker, ref: str, item: int | None = None) -> bytes:
        """The value as JSON, asked for until it is given: an outage is no reason to fail a step.

        Raises ``ToolError`` where the attempt was stopped or its time is over, and the error of
        the control plane for a value that is not there.
        """

        def load() -> tuple[bytes, int]:
            text = self._insist(asker, ref, item)
            return text, len(text)

        return self._texts.get((ref, item), load)

    def fresh(self, asker: Asker, ref: str) -> bytes:
        """The same for a reference that a playbook made up: whether *asker* may read it is asked
        each time, and what it stands for is not kept for others."""
        return self._insist(asker, ref, None)

    def keep(
        self, request: ArtifactRequest, pieces: Callable[[], Iterable[bytes]]
    ) -> ArtifactAnswer:
        """One try to keep an artifact. Raises what the control plane says."""
        return self._work.artifact(request, pieces)

    def _insist(self, asker: Asker, ref: str, item: int | None) -> bytes:
        request = ValueRequest(**asker.pointer._asdict(), ref=ref, item=item)
        return asker.insist(ref, lambda: self._work.value(request))


@dataclass(slots=True)
class Fetched:
    """What one attempt has read: each value is parsed once."""

    fetcher: Fetcher
    asker: Asker
    _values: dict[str, Any] = field(default_factory=dict)

    def load(self, reference: Mapping[str, Any]) -> Any:
        """The value that *reference* stands for."""
        ref = reference[REF]["ref"]
        if ref not in self._values:
            self._values[ref] = loads(self.fetcher.text(self.asker, ref))
        return self._values[ref]

    def open(self, value: Any) -> Any:
        """*value* as templates read it."""
        return opened(value, self.load)

    def scope(self, step: Step, variables: Variables, local: Mapping[str, Any]) -> Scope:
        """The names that the step's templates see. The item of a loop is fetched at once."""
        names = {**variables.local, **local}
        item = variables.item
        if item is not None:
            assert step.loop is not None
            value = loads(self.fetcher.text(self.asker, item.ref, item.index))
            index, size = self.asker.pointer.iteration, variables.local["_total"]
            names.update(loop_names(step.loop, value, index, size))
        return Scope(
            variables.workload, self._layer(variables.results), self._layer(variables.ctx), names
        )

    def resume(self, resume: Resume) -> Resume:
        """*resume* with what it refers to; the step goes on with all of it."""
        child = resume.child
        if child is not None:
            child = {**child, "result": whole(self.open(child["result"]))}
        return Resume(progress=whole(self.open(resume.progress)), child=child)

    def _layer(self, values: dict[str, Any]) -> Mapping[str, Any]:
        """A layer of names as templates read them; nothing is fetched before it is read."""
        if not any(is_reference(value) for value in values.values()):
            return values
        return Lazy(values, lambda name: self.open(values[name]))


def referring(*layers: Mapping[str, Any]) -> Iterator[str]:
    """The names whose value is somewhere else."""
    for layer in layers:
        yield from (name for name, value in layer.items() if is_reference(value))
