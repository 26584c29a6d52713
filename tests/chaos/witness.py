"""The side effects of programs, as they really happened: one line in a file for each run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """One unit of work."""

    execution_id: int
    step: str
    visit: int
    iteration: int


class Witness:
    """The file below *folder* that programs of steps, whoever they run as, append to."""

    def __init__(self, folder: Path) -> None:
        marks = folder / "marks"
        marks.mkdir(parents=True)
        marks.chmod(0o777)  # the programs of different steps have different users
        self.path = folder / "witness.txt"
        self.path.touch()
        self.path.chmod(0o666)

    def runs(self) -> Mapping[Place, Sequence[float]]:
        """When each unit of work was done, in unix seconds, as often as it was."""
        found: dict[Place, list[float]] = defaultdict(list)
        for line in self.path.read_text().splitlines():
            key, at = line.split(" ")
            execution_id, step, visit, iteration = key.split(":")
            place = Place(int(execution_id), step, int(visit), int(iteration))
            found[place].append(float(at))
        return found
