"""The floor's control plane: each request writes one row."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from psycopg.types.json import Jsonb

from bench.floor import board

INSERT = "INSERT INTO event (execution, type, unit, payload) VALUES (%s, %s, %s, %s)"
#: Seconds between two looks while somebody waits.
LOOK = 0.002


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with board.board() as found:
        app.state.board = found
        yield


app = FastAPI(lifespan=_lifespan)


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/start")
async def start(request: Request) -> Response:
    """Begin an execution of ``{shape, size}``; its id."""
    plan = orjson.loads(await request.body())
    here: board.Board = app.state.board
    async with here.rows.connection() as connection:
        cursor = await connection.execute(
            "INSERT INTO event (execution, type, unit, payload)"
            " VALUES (nextval('execution'), 'started', 0, %s) RETURNING execution",
            (Jsonb(plan),),
        )
        row = await cursor.fetchone()
    assert row is not None
    await here.wake(row[0])
    return _answer({"execution_id": str(row[0])})


@app.post("/claim")
async def claim(request: Request) -> Response:
    """A worker begins a unit. Need not reach the disk at once: lost, it is claimed again."""
    body = orjson.loads(await request.body())
    here: board.Board = app.state.board
    async with here.rows.connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = off")
        await connection.execute(INSERT, (body["execution"], "claimed", body["unit"], None))
    return _answer({"granted": True})


@app.post("/report")
async def report(request: Request) -> Response:
    """A unit is done; on disk before the answer."""
    body = orjson.loads(await request.body())
    here: board.Board = app.state.board
    async with here.rows.connection() as connection:
        done = (body["execution"], "done", body["unit"], Jsonb(body["result"]))
        await connection.execute(INSERT, done)
    await here.wake(body["execution"])
    return _answer({"accepted": True})


@app.get("/ended/{execution}")
async def ended(execution: int, wait: float) -> Response:
    """Whether the execution has ended, as soon as it has, or after *wait* seconds."""
    here: board.Board = app.state.board
    deadline = time.monotonic() + wait
    while True:
        async with here.rows.connection() as connection:
            cursor = await connection.execute(
                "SELECT 1 FROM event WHERE execution = %s AND type = 'ended'", (execution,)
            )
            found = await cursor.fetchone()
        if found or time.monotonic() > deadline:
            return _answer({"status": "COMPLETED" if found else "RUNNING"})
        await asyncio.sleep(LOOK)


def _answer(body: dict[str, object]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")


if __name__ == "__main__":
    # Connections are kept while the other side has its turn.
    uvicorn.run(
        app,
        port=int(os.environ[board.PORT]),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=3600,
    )
