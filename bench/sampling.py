"""Samples of what processes do, by py-spy, and the functions that they spend their time in."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Samples a second of each process.
RATE = 100
#: Longer than any profile; recording ends when it is told to.
SECONDS = 3600
#: Seconds that writing the samples may take.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Samples:
    """How often each stack was seen on a CPU: its frames from the outermost, joined by ``;``."""

    stacks: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.stacks.values())

    def own(self) -> Counter[str]:
        """By function: samples in which it ran itself."""
        counted: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            counted[_function(stack.rsplit(";", 1)[-1])] += count
        return counted

    def within(self) -> Counter[str]:
        """By function: samples in which it, or what it called, ran."""
        counted: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            for function in {_function(frame) for frame in stack.split(";")}:
                counted[function] += count
        return counted


def _function(frame: str) -> str:
    """``name (file)`` without the line, which differs within one function."""
    return frame.rsplit(":", 1)[0] + ")" if frame.endswith(")") and ":" in frame else frame


def parse(text: str) -> Samples:
    """Samples from py-spy's raw format: a stack, a space and a count on each line."""
    counted: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        counted[stack] += int(count)
    return Samples(counted)


@contextlib.contextmanager
def recording(pids: Mapping[str, int], out: Path, form: str = "raw") -> Iterator[dict[str, Path]]:
    """Sample each of *pids* while the block runs; afterwards the files by name are there.

    *form* is ``raw`` (stacks and counts), ``flamegraph`` (SVG) or ``speedscope``. Processes are not
    stopped for a sample, so some come out torn and are left out.
    """
    program = _program()
    suffix = {"raw": "txt", "flamegraph": "svg", "speedscope": "json"}[form]
    files = {name: out / f"{name}.{suffix}" for name in pids}
    recorders = [
        subprocess.Popen(
            [
                *(program, "record", "--nonblocking", "--pid", str(pid)),
                *("--rate", str(RATE), "--duration", str(SECONDS)),
                *("--format", form, "--output", str(files[name])),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for name, pid in pids.items()
    ]
    try:
        yield files
    finally:
        for recorder in recorders:
            recorder.send_signal(signal.SIGINT)
        said = [recorder.communicate(timeout=PATIENCE)[0].decode() for recorder in recorders]
    for name, path in files.items():
        if not path.exists():
            raise RuntimeError(f"py-spy has no samples of {name}: {''.join(said)}")


def _program() -> str:
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise SystemExit("profiles need py-spy: pip install 'callboard[bench]'")
    return found


def interpreters(pids: Mapping[str, int]) -> dict[str, int]:
    """Those of *pids* that run Python, and ``zygote``, from which the worker's steps are forked."""
    found = {name: pid for name, pid in pids.items() if name not in {"postgres", "nats"}}
    children = psutil.Process(pids["worker"]).children()
    if children:
        found["zygote"] = children[0].pid
    return found


def table(samples: Samples, count: int) -> str:
    """The functions that ran most, as a Markdown table, in percent of all samples."""
    own, within, total = samples.own(), samples.within(), max(1, samples.total)
    lines = ["| itself | with what it calls | function |", "|---:|---:|---|"]
    lines += [
        f"| {100 * seen / total:.1f} % | {100 * within[name] / total:.1f} % | `{name}` |"
        for name, seen in own.most_common(count)
    ]
    return "\n".join(lines)
