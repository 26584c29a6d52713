"""Outcomes and a join counter in Postgres, for queues that bring none of their own."""

from __future__ import annotations

SCHEMA = """
CREATE TABLE outcome (
    execution bigint NOT NULL,
    step int NOT NULL,
    result int NOT NULL,
    PRIMARY KEY (execution, step)
);
CREATE TABLE joining (execution bigint PRIMARY KEY, remaining int NOT NULL);
"""

RECORD = "INSERT INTO outcome VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
#: Before a fan-out: how many arrive.
EXPECT = "INSERT INTO joining VALUES (%s, %s)"
#: Records an outcome and says how many are still missing; a step that is repeated counts once.
ARRIVE = """
    WITH arrived AS (
        INSERT INTO outcome VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING execution
    )
    UPDATE joining SET remaining = remaining - (SELECT count(*) FROM arrived)
    WHERE execution = %s RETURNING remaining
"""
#: Executions (their ids, the number of their last step) that have ended.
ENDED = "SELECT count(*) FROM outcome WHERE execution = ANY(%s) AND step = %s"
OUTCOMES = "SELECT count(*) FROM outcome WHERE execution = ANY(%s) AND result = 1"
