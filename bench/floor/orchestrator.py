"""The floor's orchestrator: reads what is new of an execution and writes what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
#: Children of a parent, one per unit; their ids.
BEGET = """
INSERT INTO event (execution, type, unit, payload)
SELECT nextval('execution'), 'started', 0, jsonb_build_object(
    'shape', 'chain', 'size', 1, 'parent', %s::bigint, 'unit', unit)
FROM unnest(%s::int[]) AS unit RETURNING execution
"""
#: Executions advanced at once.
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class State:
    """What the rows say (``done``, ``plan``), and how many units were scheduled."""

    done: int
    plan: dict[str, Any]
    scheduled: int

    def due(self) -> range:
        """The units to schedule now. A wide plan runs all but its last at once, then that one.

        Of a loop all run at once, and all children of a parent.
        """
        size = self.plan["size"]
        if self.done < self.scheduled:
            return range(0)
        first = {"wide": size - 1, "loop": size, "children": size}
        ahead = first.get(self.plan["shape"], 1) if self.scheduled == 0 else 1
        return range(self.scheduled, min(self.scheduled + ahead, size))

    @property
    def begets(self) -> bool:
        """Its units are executions of their own."""
        return bool(self.plan["shape"] == "children")

    @property
    def ended(self) -> bool:
        return bool(self.done == self.plan["size"])


@dataclass(frozen=True, slots=True)
class Following:
    """What a decision has others do: units of the execution, and executions to look at."""

    units: Sequence[int] = ()
    wakes: Sequence[int] = ()


class Orchestrator:
    """Keeps how much of each execution is scheduled; the rows say the rest."""

    def __init__(self, here: board.Board) -> None:
        self.here = here
        self.scheduled: dict[int, int] = {}
        self.ended: set[int] = set()
        self.slots = asyncio.Semaphore(AT_ONCE)
        self.tasks = board.Tasks()

    async def woken(self, message: Msg) -> None:
        self.tasks.start(self.advance(message))

    async def advance(self, message: Msg) -> None:
        execution = int(message.data)
        async with self.slots:
            following = await self._write(execution)
            await asyncio.gather(
                *(
                    self.here.streams.publish(board.POINTER, f"{execution} {unit}".encode())
                    for unit in following.units
                ),
                *(self.here.wake(other) for other in following.wakes),
            )
            await message.ack()

    async def _write(self, execution: int) -> Following:
        async with self.here.rows.connection() as connection, connection.transaction():
            await connection.execute(LOCK, (execution,))
            row = await (await connection.execute(READ, (execution,))).fetchone()
            assert row is not None
            state = State(row[0], row[1], self.scheduled.get(execution, 0))
            if execution in self.ended or not state.plan:
                return Following()
            due = state.due()
            new = [(execution, "scheduled", unit) for unit in due]
            parent = state.plan.get("parent") if state.ended else None
            if state.ended:
                new.append((execution, "ended", 0))
            if parent is not None:
                new.append((parent, "done", state.plan["unit"]))
            async with connection.cursor() as cursor:
                await cursor.executemany(WRITE, new)
            children: list[int] = []
            if state.begets and due:
                born = await connection.execute(BEGET, (execution, list(due)))
                children = [identity for (identity,) in await born.fetchall()]
            # While the lock is held: who has it next counts from here.
            self.scheduled[execution] = state.scheduled + len(due)
            if state.ended:
                self.ended.add(execution)
        wakes = children if parent is None else [parent]
        return Following(() if state.begets else due, wakes)


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
        await orchestrator.tasks.stopped()


if __name__ == "__main__":
    asyncio.run(main())
