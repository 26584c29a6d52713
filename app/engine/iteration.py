"""The names that exist only inside a loop."""

from __future__ import annotations

from typing import Any

from app.engine.playbook import Loop


def loop_names(loop: Loop, item: Any, index: int, size: int) -> dict[str, Any]:
    """What the body of *loop* sees of iteration *index* (from 0) out of *size* known so far.

    With a cursor that hands out whole frames, *item* is the list of rows.
    """
    last = index == size - 1
    position = {"_index": index, "_total": size, "_first": index == 0, "_last": last}
    names = {
        "iter": {loop.iterator: item, **position},
        loop.iterator: item,
        **position,
        "loop_index": index,
        "loop": {
            "index": index,
            "first": index == 0,
            "last": last,
            "length": size,
            "done": False,
        },
    }
    if loop.cursor is not None and isinstance(item, list):
        names["frame"] = {"rows": item, "size": len(item), "index": index}
    return names
