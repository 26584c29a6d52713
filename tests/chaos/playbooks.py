"""What runs meanwhile: playbooks of ten steps whose every program leaves a line at the witness.

The same workload gives the same outcome, whatever breaks.
"""

from __future__ import annotations

from collections.abc import Mapping

HEAD = """\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: {name}, path: chaos/{name}}}
workload: {{n: 0, slow: 0, witness: ""}}
"""
#: A line is one write to a file opened for appending, so that lines of several programs stay whole.
SIGN = """\
import os, time
line = f"{idempotency_key} {time.time():.3f}\\n".encode()
file = os.open(witness, os.O_WRONLY | os.O_APPEND)
os.write(file, line)
os.close(file)
"""
#: Fails once per step, and leaves its line only when it does not.
FLAKY = """\
import pathlib
mark = pathlib.Path(witness).parent / "marks" / idempotency_key
if not mark.exists():
    mark.touch()
    raise ConnectionError("the first try fails")
"""
SHELL = """\
printf '%s %s\\n' "$CALLBOARD_IDEMPOTENCY_KEY" "$(date +%s.%3N)" >> "$INPUT_WITNESS"
echo "$INPUT_N"
"""


def _indented(text: str, by: int) -> str:
    return "".join(" " * by + line + "\n" for line in text.splitlines())


def python(step: str, result: str, to: str, *, before: str = "", **more: str) -> str:
    """A step that signs, and gives what the expression *result* says; *to* is the rest of it."""
    names = {"witness": "{{ workload.witness }}", "n": "{{ workload.n }}", **more}
    inputs = ", ".join(f"{name}: '{value}'" for name, value in names.items())
    code = _indented(f"{before}{SIGN}result = {result}\n", 6)
    return f"- step: {step}\n  tool:\n    kind: python\n    input: {{{inputs}}}\n    code: |\n{code}{to}"


def shell(step: str, to: str) -> str:
    inputs = "{witness: '{{ workload.witness }}', n: '{{ workload.n }}'}"
    return (
        f"- step: {step}\n  tool:\n    kind: shell\n    input: {inputs}\n"
        f"    cmds:\n    - |\n{_indented(SHELL, 6)}{to}"
    )


def noop(step: str, to: str, result: str = "{{ workload.n }}") -> str:
    return f"- step: {step}\n  tool: {{kind: noop, result: '{result}'}}\n{to}"


def slow(step: str, to: str) -> str:
    """A step that takes a while, so that something runs wherever a fault hits."""
    wait = "import time\ntime.sleep(float(slow))\n"
    return python(step, "{'slept': n}", to, before=wait, slow="{{ workload.slow }}")


def then(*steps: str, mode: str = "") -> str:
    arcs = ", ".join(f"{{step: {step}}}" for step in steps)
    return f"  next: {{{f'spec: {{mode: {mode}}}, ' if mode else ''}arcs: [{arcs}]}}\n"


def _book(name: str, *steps: str) -> str:
    return HEAD.format(name=name) + "workflow:\n" + "".join(steps)


CHAIN = _book(
    "chain",
    noop("start", then("s2")),
    python("s2", "{'n': n + 1}", then("s3")),
    shell("s3", then("s4")),
    noop("s4", then("s5"), "{{ s2.n + 1 }}"),
    slow("s5", then("s6")),
    python("s6", "{'n': m * 2}", then("s7"), m="{{ s4 }}"),
    noop("s7", then("s8")),
    shell("s8", then("s9")),
    python("s9", "{'n': n}", then("s10")),
    noop("s10", "", "{{ s6.n + s9.n }}"),
)

BRANCHES = _book(
    "branches",
    noop("start", then("a1", "b1", "c1", mode="inclusive")),
    python("a1", "{'n': n + 1}", then("a2")),
    slow("a2", then("join")),
    shell("b1", then("b2")),
    python("b2", "{'n': n + 2}", then("join")),
    python("c1", "{'n': n + 3}", then("join")),
    python("join", "{'n': a + b + c}", "  next: {arcs: [{step: odd, when: '{{ join.n % 2 == 1 }}'}, "
           "{step: even}]}\n", a="{{ a1.n }}", b="{{ b2.n }}", c="{{ c1.n }}"),
    noop("odd", then("end"), "odd"),
    noop("even", then("end"), "even"),
    noop("end", "", "{{ join.n }}"),
)  # fmt: skip

LOOP = _book(
    "loop",
    noop("start", then("fan")),
    python("fan", "{'square': i * i}", then("sum"), i="{{ iter.i }}").replace(
        "  tool:\n",
        "  loop: {in: 5, iterator: i, spec: {mode: parallel, max_in_flight: 3}}\n  tool:\n",
    ),
    python("sum", "{'n': sum(r['square'] for r in rows) + n}", then("slow"), rows="{{ fan.results }}"),
    slow("slow", then("again")),
    python("again", "{'n': k + 1}", "  set: {ctx.turns: '{{ ctx.turns | default(0) + 1 }}'}\n"
           "  next: {arcs: [{step: again, when: '{{ ctx.turns < 2 }}'}, {step: end}]}\n",
           k="{{ sum.n }}"),
    noop("end", "", "{{ again.n }}"),
)  # fmt: skip

RETRIES = _book(
    "retries",
    noop("start", then("flaky")),
    python("flaky", "{'n': n}", then("s3"), before=FLAKY).replace(
        "    code:",
        "    spec: {policy: {rules: [{when: \"{{ output.status == 'error' }}\", "
        "then: {do: retry, attempts: 8, delay: 0.1}}]}}\n    code:",
    ),
    shell("s3", then("s4")),
    python("s4", "{'n': n + 4}", then("broken")),
    python("broken", "1 // 0", "  next: {arcs: [{step: rescue, when: \"{{ output.status == 'error' }}\"},"
           " {step: s7}]}\n"),
    python("rescue", "{'n': n + 6}", then("s7")),
    slow("s7", then("s8")),
    noop("s8", then("s9"), "{{ s4.n }}"),
    python("s9", "{'n': n + 9}", then("s10")),
    noop("s10", "", "{{ rescue.n + s9.n }}"),
)  # fmt: skip

CHILD = _book(
    "child",
    noop("start", then("c2")),
    python("c2", "{'n': n * 10}", then("c3")),
    slow("c3", then("answer")),
    noop("answer", "", '{{ {"n": c2.n} }}'),
)

PARENT = _book(
    "parent",
    noop("start", then("p2")),
    python("p2", "{'n': n + 1}", then("ask")),
    "- step: ask\n  tool:\n    kind: playbook\n    path: chaos/child\n    return_step: answer\n"
    "    input: {n: '{{ p2.n }}', slow: '{{ workload.slow }}', witness: '{{ workload.witness }}'}\n"
    + then("p4"),
    python("p4", "{'n': a + 1}", then("p5"), a="{{ ask.n }}"),
    shell("p5", then("end")),
    noop("end", "", "{{ p4.n }}"),
)

#: By path; the child is registered, and started by its parent only.
STARTED: Mapping[str, str] = {
    "chaos/chain": CHAIN,
    "chaos/branches": BRANCHES,
    "chaos/loop": LOOP,
    "chaos/retries": RETRIES,
    "chaos/parent": PARENT,
}
ALL: Mapping[str, str] = {**STARTED, "chaos/child": CHILD}
