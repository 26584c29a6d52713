from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param({}, {"status": "ok", "message": "probe"}, id="says the step's name"),
        pytest.param(
            {"message": "hello"}, {"status": "ok", "message": "hello"}, id="or the message"
        ),
        pytest.param({"result": [1]}, [1], id="gives the result as it is"),
        pytest.param({"result": None}, None, id="even if that is null"),
        pytest.param(
            {"name": "x", "spec": {}},
            {"status": "ok", "message": "probe"},
            id="ignores what else a playbook carries",
        ),
    ],
)
def test_noop(call: Any, config: dict[str, Any], expected: Any) -> None:
    assert call("noop", config) == expected
