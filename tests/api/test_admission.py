"""Beyond what a process can work on, requests are refused at once instead of waiting for ever."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.api.plane import CHAIN, Plane, build, served


class Door:
    """Holds everybody who looks at an execution until it is opened; ``full`` once *most* wait."""

    def __init__(self, plane: Plane, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.opened = threading.Event(), threading.Event()
        self._waiting: list[int] = []
        look = plane.control.executions.get

        def get(execution_id: int) -> object:
            self._waiting.append(execution_id)
            if len(self._waiting) == most:
                self.full.set()
            assert self.opened.wait(60)
            return look(execution_id)

        monkeypatch.setattr(plane.control.executions, "get", get)


@pytest.mark.parametrize("most", [1, 3])
def test_more_requests_than_it_can_work_on_are_told_to_come_again(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = build(api_requests=most)
    plane.control.catalog.register(CHAIN)
    execution_id = plane.started()
    door = Door(plane, most, monkeypatch)
    with (
        served(plane.app) as url,
        httpx2.Client(base_url=url, timeout=60) as client,
        ThreadPoolExecutor(most) as pool,
    ):
        cancel = f"/api/executions/{execution_id}/cancel"
        waiting = [pool.submit(client.post, cancel) for _ in range(most)]
        assert door.full.wait(60)
        refused = client.get("/api/executions")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "unavailable"
        assert refused.json()["remedy"]
        assert client.get("/livez").status_code == 200
        assert client.get("/metrics").status_code == 200
        door.opened.set()
        answers = [future.result(60).json()["status"] for future in waiting]
        assert sorted(answers) == ["already_completed"] * (most - 1) + ["cancelled"]
        assert client.get("/api/executions").status_code == 200
