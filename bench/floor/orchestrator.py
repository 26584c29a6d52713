"""The floor's orchestrator: reads what is new of an execution and writes what follows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from nats.aio.msg import Msg
from nats.js import api

from bench.floor import board

LOCK = "SELECT pg_advisory_xact_lock(%s)"
READ = "SELECT id, type, payload FROM event WHERE execution = %s AND id > %s ORDER BY id"
WRITE = "INSERT INTO event (execution, type, unit) VALUES (%s, %s, %s)"
#: Executions advanced at once.
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class State:
    """What is known of an execution: the last row seen and how much is done."""

    seen: int = 0
    done: int = 0
    scheduled: int = 0
    plan: dict[str, Any] = field(default_factory=dict)

    def after(self, rows: list[tuple[int, str, Any]]) -> State:
        """The state after these rows."""
        state = self
        for number, type_, payload in rows:
            state = replace(
                state,
                seen=number,
                done=state.done + (type_ == "done"),
                plan=payload if type_ == "started" else state.plan,
            )
        return state

    def due(self) -> range:
        """The units to schedule now. A wide plan runs all but its last at once, then that one."""
        size = self.plan["size"]
        if self.plan["shape"] == "wide":
            if self.scheduled == 0:
                return range(size - 1)
            return range(size - 1, size) if self.done == self.scheduled < size else range(0)
        return range(self.done, min(self.done + 1, size)) if self.done == self.scheduled else range(0)

    @property
    def ended(self) -> bool:
        return bool(self.done == self.plan["size"])


class Orchestrator:
    """Keeps the states of what runs."""

    def __init__(self, here: board.Board) -> None:
        self.here = here
        self.states: dict[int, State] = {}
        self.slots = asyncio.Semaphore(AT_ONCE)
        self.tasks: set[asyncio.Task[None]] = set()

    async def woken(self, message: Msg) -> None:
        task = asyncio.create_task(self.advance(message))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def advance(self, message: Msg) -> None:
        execution = int(message.data)
        async with self.slots:
            due = await self._write(execution)
            await asyncio.gather(
                *(
                    self.here.streams.publish(board.POINTER, f"{execution} {unit}".encode())
                    for unit in due
                )
            )
            await message.ack()

    async def _write(self, execution: int) -> range:
        async with self.here.rows.connection() as connection, connection.transaction():
            await connection.execute(LOCK, (execution,))
            known = self.states.get(execution, State())
            rows = await (await connection.execute(READ, (execution, known.seen))).fetchall()
            if not rows:
                return range(0)
            state = known.after(rows)
            due = state.due()
            new = [(execution, "scheduled", unit) for unit in due]
            if state.ended:
                new.append((execution, "ended", 0))
            async with connection.cursor() as cursor:
                await cursor.executemany(WRITE, new)
        if state.ended:
            self.states.pop(execution, None)
        else:
            self.states[execution] = replace(state, scheduled=state.scheduled + len(due))
        return due


async def main() -> None:
    async with board.board() as here:
        orchestrator = Orchestrator(here)
        await here.streams.subscribe(
            "floor.wakes.*",
            stream=board.WAKES,
            durable="orchestrator",
            cb=orchestrator.woken,
            manual_ack=True,
            config=api.ConsumerConfig(max_ack_pending=4 * AT_ONCE),
        )
        await board.stopped()


if __name__ == "__main__":
    asyncio.run(main())
