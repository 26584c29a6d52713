"""The floor's orchestrator: reads what is new of an execution and writes what follows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg
from nats.js import api

from bench.floor import board

LOCK = "SELECT pg_advisory_xact_lock(%s)"
READ = """
SELECT count(DISTINCT unit) FILTER (WHERE type = 'done'),
    (array_agg(payload) FILTER (WHERE type = 'started'))[1]
FROM event WHERE execution = %s
"""
WRITE = "INSERT INTO event (execution, type, unit) VALUES (%s, %s, %s)"
#: Executions advanced at once.
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class State:
    """What the rows say (``done``, ``plan``), and how many units were scheduled."""

    done: int
    plan: dict[str, Any]
    scheduled: int

    def due(self) -> range:
        """The units to schedule now. A wide plan runs all but its last at once, then that one."""
        size = self.plan["size"]
        if self.done < self.scheduled:
            return range(0)
        wide = self.plan["shape"] == "wide" and self.scheduled == 0
        return range(self.scheduled, size - 1 if wide else min(self.scheduled + 1, size))

    @property
    def ended(self) -> bool:
        return bool(self.done == self.plan["size"])


class Orchestrator:
    """Keeps how much of each execution is scheduled; the rows say the rest."""

    def __init__(self, here: board.Board) -> None:
        self.here = here
        self.scheduled: dict[int, int] = {}
        self.ended: set[int] = set()
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
            row = await (await connection.execute(READ, (execution,))).fetchone()
            assert row is not None
            state = State(row[0], row[1], self.scheduled.get(execution, 0))
            if execution in self.ended or not state.plan:
                return range(0)
            due = state.due()
            new = [(execution, "scheduled", unit) for unit in due]
            if state.ended:
                new.append((execution, "ended", 0))
            async with connection.cursor() as cursor:
                await cursor.executemany(WRITE, new)
        self.scheduled[execution] = state.scheduled + len(due)
        if state.ended:
            self.ended.add(execution)
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
            config=api.ConsumerConfig(max_ack_pending=4 * AT_ONCE, ack_wait=board.ACK_WAIT),
        )
        await board.stopped()


if __name__ == "__main__":
    asyncio.run(main())
