"""The plan says what runs when and beside what, names what is touched, and never shows a secret."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.engine.decide import Limits
from app.engine.plans import touches
from app.engine.plans.mermaid import label, mermaid
from app.engine.plans.outline import outline
from app.engine.plans.plan import Plan, explain
from app.engine.plans.touches import INLINE, Child, host_of
from app.engine.playbook import AdmitRule, Cursor, Executor, Frame, Loop, Playbook, Task
from tests.engine.driver import playbook_of


def plan_of(workflow: str, **executor: Any) -> Plan:
    playbook = playbook_of(workflow)
    return explain(replace(playbook, executor=Executor(**executor)) if executor else playbook)


def step(name: str, *targets: str, mode: str = "inclusive") -> str:
    arcs = ", ".join(f"{{step: {target}}}" for target in targets)
    return f"  - {{step: {name}, next: {{spec: {{mode: {mode}}}, arcs: [{arcs}]}}}}\n"


def flow(*steps: str) -> str:
    return "workflow:\n" + "".join(steps)


# ---------------------------------------------------------------------- order
def test_a_step_stands_behind_the_longest_way_to_it() -> None:
    plan = plan_of(flow(step("a", "b", "d"), step("b", "c"), step("c", "d"), step("d")))
    assert plan.levels == (("a",), ("b",), ("c",), ("d",))
    assert plan.steps["d"].joins == ("a", "c")
    assert plan.steps["c"].joins == ()


def test_a_way_back_is_marked_and_takes_no_part_in_the_order() -> None:
    plan = plan_of(
        flow(step("a", "b"), step("b", "a", "c", mode="exclusive"), step("c", "c", "end"))
    )
    assert plan.levels == (("a",), ("b",), ("c",))
    assert plan.cycles == (("b", "a"), ("c", "c"))
    assert [arc.back for arc in plan.steps["b"].arcs] == [True, False]
    assert [step_.repeats for step_ in plan.steps.values()] == [True, True, True]
    assert plan.steps["c"].arcs[1].ends


def test_steps_that_nothing_leads_to_are_named_and_the_final_step_is_not_among_them() -> None:
    plan = plan_of(flow(step("a"), step("lost", "a"), step("tidy")), final_step="tidy")
    assert plan.unreached == ("lost",)
    assert plan.levels == (("a",),)
    text = outline(plan)
    assert "lost · noop · default.io · never runs: no path leads here" in text
    assert "tidy · noop · default.io · finally, when nothing else runs" in text
    assert "finally([finally]) --> s2" in mermaid(plan)


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        pytest.param(
            flow(step("a", "b", "c"), step("b", "d"), step("c", "d"), step("d")),
            [("a", [("b",), ("c",)], ("d",))],
            id="a diamond",
        ),
        pytest.param(
            flow(step("a", "b", "c", mode="exclusive"), step("b"), step("c")),
            [],
            id="one or the other is not at the same time",
        ),
        pytest.param(
            flow(step("a", "b", "c", "d"), step("b", "e"), step("c", "e"), step("d"), step("e")),
            [("a", [("b",), ("c",), ("d",)], ("e",))],
            id="two of three are joined",
        ),
        pytest.param(
            flow(step("a", "b", "c"), step("b", "c"), step("c")),
            [("a", [("b",)], ("c",))],
            id="a shortcut to the join is no branch",
        ),
        pytest.param(
            flow(step("a", "b", "c"), step("b", "x"), step("x", "a"), step("c")),
            [("a", [("b", "x"), ("c",)], ())],
            id="a branch that leads back",
        ),
        pytest.param(
            flow(step("x"), step("a", "b", "c"), step("b"), step("c")),
            [],
            id="a fork that is never reached",
        ),
    ],
)
def test_forks_name_what_may_run_at_the_same_time(workflow: str, expected: Any) -> None:
    found = [
        (fork.step, [branch.steps for branch in fork.branches], fork.joins)
        for fork in plan_of(workflow).forks
    ]
    assert found == expected


def test_a_large_playbook_has_a_plan_that_is_not_larger_than_it_has_to_be() -> None:
    """Each step forks off all that follow: naming them all would take millions of names."""
    count = 1_000
    steps = [step(f"s{n}", f"s{n + 1}", f"leaf{n}") + step(f"leaf{n}") for n in range(count)]
    plan = plan_of(flow(*steps, step(f"s{count}")))
    assert len(plan.levels) == count + 1
    assert plan.forks[0].branches[0].count == 2 * count - 1
    assert max(len(branch.steps) for fork in plan.forks for branch in fork.branches) == 50
    assert len(outline(plan)) < 500_000


# ---------------------------------------------------------------------- a step
def test_a_step_tells_where_it_runs_and_how_often() -> None:
    plan = plan_of("""
workflow:
  - step: a
    pool: gpu
    timeout: 30s
    set: {ctx.x: 1}
    loop: {in: "{{ rows }}", iterator: row, spec: {mode: parallel, max_in_flight: 7}}
    tool:
      - name: get
        kind: http
        url: https://api.example.com/x
        spec: {policy: {rules: [
          {when: "{{ output.error.retryable }}",
           then: {do: retry, attempts: 5, delay: 2, backoff: exponential, max_delay: 30}},
          {else: {then: {do: fail}}}]}}
      - {name: sum, kind: python, code: "result = 1"}
    next: {arcs: [{step: b, when: "{{ output.status == 'error' }}", set: {ctx.y: 1}}, {step: end}]}
  - step: b
    loop: {in: [1, 2], iterator: n}
    tool: {kind: noop}
""")
    planned = plan.steps["a"]
    assert (planned.queue, planned.timeout, planned.sets) == ("gpu.cpu", 30.0, ("ctx.x",))
    assert planned.loop is not None
    assert (planned.loop.mode, planned.loop.over, planned.loop.window) == (
        "parallel",
        "{{ rows }}",
        "7",
    )
    assert planned.tasks[0].policy == (
        "retry, 5 attempts in all, exponential from 2 s up to 30 s when {{ output.error.retryable }}",
        "fail in any case",
    )
    assert [(arc.step, arc.sets, arc.failure, arc.ends) for arc in planned.arcs] == [
        ("b", ("ctx.y",), True, False),
        ("end", (), False, True),
    ]
    assert plan.queues == ("gpu.cpu", "default.io")
    loop = plan.steps["b"].loop
    assert loop is not None
    assert (loop.mode, loop.over, loop.window) == ("sequential", "2 items", "1")
    assert outline(plan).splitlines() == [
        "t",
        "  begins at a · 2 steps · queues gpu.cpu, default.io",
        "  limits: 10000 visits of a step, 5 lost attempts",
        "",
        " 1  a · http → python · gpu.cpu",
        "      for each row in {{ rows }}, up to 7 at once (parallel)",
        "      get: retry, 5 attempts in all, exponential from 2 s up to 30 s when {{ output.error.ret…",
        "      get: fail in any case",
        "      timeout 30 s",
        "      sets ctx.x",
        "      uses host api.example.com",
        "      ├▶ b  when {{ output.status == 'error' }}  also after a failure  sets ctx.y",
        "      └■ end  otherwise",
        " 2  b · noop · default.io",
        "      for each n in 2 items, one at a time (sequential)",
        "      └■",
        "",
        "Touches",
        "  host  api.example.com  in a",
        "  what programs and SQL reach by themselves is not known before they run",
    ]


def _with(playbook: Playbook, name: str, **changes: Any) -> Playbook:
    return replace(
        playbook, steps={**playbook.steps, name: replace(playbook.steps[name], **changes)}
    )


def test_admission_guards_and_cursors_are_told() -> None:
    playbook = playbook_of(flow(step("a")))
    claim = Task("claim", "postgres", {"auth": "pg_main", "claim": "UPDATE secret_table"})
    playbook = _with(
        playbook,
        "a",
        admit=(AdmitRule("{{ x }}"), AdmitRule(None, allow=False)),
        guard="{{ y }}",
        loop=Loop(None, "row", parallel=True, max_in_flight=4, cursor=Cursor(claim, Frame(20))),
        output_select={"total": "data.total"},
    )
    plan = explain(playbook)
    lines = [line.strip() for line in outline(plan).splitlines()]
    assert "admission: begins when {{ x }}" in lines
    assert "admission: is passed over in any case" in lines
    assert "only when {{ y }}" in lines
    assert "keeps at hand total" in lines
    assert "uses credential pg_main" in lines
    told = "for each row in what postgres claims, 20 rows at once, by row, up to 4 at once (cursor)"
    assert told in lines
    assert "secret_table" not in outline(plan)


def test_limits_are_those_of_the_playbook_then_of_the_installation() -> None:
    playbook = playbook_of(flow(step("a")))
    assert explain(playbook, Limits(max_visits=7, pool="p")).limits["max_visits"] == 7
    assert explain(playbook, Limits(pool="p")).queues == ("p.io",)
    own = replace(playbook, executor=Executor(max_visits=3, timeout=90.0, no_next_is_error=True))
    assert explain(own, Limits(max_visits=7)).limits["max_visits"] == 3
    assert "limits: 90 s in all, 3 visits of a step, 5 lost attempts, a branch that" in outline(
        explain(own)
    )


# ---------------------------------------------------------------------- what it touches
@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://api.example.com/v1?x=1", "api.example.com"),
        ("http://api.example.com:8080", "api.example.com:8080"),
        ("https://api.example.com/{{ workload.city }}", "api.example.com"),
        ("https://api.{{ region }}.example.com/x", "api.{{ region }}.example.com"),
        ("{{ workload.base }}/x", "{{ workload.base }}"),
        ("{{ scheme }}://{{ host }}/x", "{{ host }}"),
        ("https://{{ user }}:{{ word }}@{{ host }}/x", "{{ host }}"),
        ("https://me:hunter2@api.example.com/x", "api.example.com"),
        ("postgresql://me:hunter2@db.example.com:5432/x", "postgresql://db.example.com:5432"),
        ("s3://bucket/key", "s3://bucket"),
        ("http://[::1]:80/x", "[::1]:80"),
        ("localhost", "localhost"),
        ("https://me:hunter2/x@host", INLINE),
        ("user=me password=hunter2", INLINE),
    ],
)
def test_the_host_of_an_address(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"auth": "pg_main"}, ["pg_main"]),
        ({"auth": "{{ workload.pg }}"}, ["{{ workload.pg }}"]),
        ({"credential": "pg_main"}, ["pg_main"]),
        ({"auth": {"source": "secret", "name": "warehouse"}}, ["warehouse"]),
        ({"auth": {"type": "bearer", "credential": "api"}}, ["api"]),
        ({"auth": {"pg": {"source": "secret", "key": "one"}, "gcs": {"source": "env", "name": "two"}}},
         ["one", "two"]),
        ({"auth": {"source": "inline", "token": "hunter2"}}, [INLINE]),
        ({"auth": {"type": "basic", "username": "me", "password": "hunter2"}}, [INLINE]),
        ({"auth": {"type": "api_key", "key": "hunter2"}}, [INLINE]),
        ({"auth": "postgresql://me:hunter2@db/x"}, [INLINE]),
        ({"source": {"auth": "from"}, "target": {"auth": "to"}}, ["from", "to"]),
        ({}, []),
    ],
)  # fmt: skip
def test_credentials_are_named_and_never_shown(config: dict[str, Any], expected: Any) -> None:
    assert list(touches.of_task(Task("t", "postgres", config)).credentials) == expected


def test_files_keychain_and_sub_playbooks() -> None:
    script = Task("t", "python", {"script": {"uri": "tools/x.py", "source": {"type": "file"}}})
    assert touches.of_task(script).files == ("tools/x.py",)
    duck = Task("t", "duckdb", {"database": "data/x.duckdb"})
    assert touches.of_task(duck).files == ("data/x.duckdb",)
    call = Task("t", "playbook", {"path": "jobs/{{ name }}", "return_step": "end"})
    started = Task("t", "playbook", {"path": "jobs/b", "version": 3})
    playbook = playbook_of("""
workflow:
  - step: a
    tool: {kind: http, url: "https://x.org/", headers: {auth: "Bearer {{ keychain.api_token.value }}"}}
""")
    playbook = replace(
        _with(playbook, "a", tasks=(*playbook.steps["a"].tasks, call, started)),
        keychain=(
            {
                "name": "api_token",
                "kind": "oauth2",
                "endpoint": "https://login.x.org/token",
                "auth": "client",
                "data": {"client_secret": "hunter2"},
            },
        ),
    )
    plan = explain(playbook)
    assert plan.touches.keychain == ("api_token",)
    assert plan.keychain == ("api_token (oauth2)",)
    assert plan.touches.hosts == ("login.x.org", "x.org")
    assert plan.touches.children == (Child("jobs/{{ name }}", True), Child("jobs/b", False, "3"))
    text = outline(plan)
    assert "playbook    jobs/{{ name }} (waits for it)  in a" in text
    assert "playbook    jobs/b version 3 (does not wait)  in a" in text
    assert "hunter2" not in f"{text}{plan}"


@pytest.mark.parametrize(
    ("config", "waits"),
    [
        ({}, False),
        ({"return_step": "end"}, True),
        ({"result_step": "end"}, True),
        ({"return_result": True}, True),
        ({"wait": "yes"}, True),
        ({"wait": "false"}, False),
        ({"wait": "{{ workload.wait }}"}, True),
    ],
)
def test_who_waits_for_a_sub_playbook(config: dict[str, Any], waits: bool) -> None:
    task = Task("t", "playbook", {"path": "x", **config})
    assert touches.of_task(task).children == (Child("x", waits),)


def test_a_step_that_only_calls_playbooks_needs_no_worker() -> None:
    playbook = _with(
        playbook_of(flow(step("a"))), "a", tasks=(Task("a", "playbook", {"path": "x"}),)
    )
    assert explain(playbook).steps["a"].queue is None


def test_no_literal_of_a_playbook_is_shown() -> None:
    """Keys and names are; whatever stands where a value may be could be a secret."""
    plan = plan_of("""
workload: {api_key: hunter2}
workflow:
  - step: a
    input: {token: hunter2}
    set: {ctx.token: hunter2}
    loop: {in: [hunter2], iterator: x}
    tool:
      kind: http
      url: https://me:hunter2@api.example.com/hunter2?key=hunter2
      headers: {authorization: Bearer hunter2}
      json: {url: "https://hunter2.example.com", password: hunter2}
      auth: {type: bearer, token: hunter2}
      spec: {policy: {rules: [
        {when: "{{ output.status == 'error' }}", then: {do: continue, set: {ctx.b: hunter2}}}]}}
    next: {arcs: [
      {step: b, when: "{{ a.key == 'sk-hunter2-hunter2-hunter2-hunter2' }}", set: {ctx.c: hunter2}}]}
  - step: b
    tool: {kind: python, code: "token = 'hunter2'"}
""")
    assert "hunter2" not in f"{plan}{outline(plan)}{mermaid(plan)}"
    assert "when {{ a.key == '…' }}" in outline(plan)


# ---------------------------------------------------------------------- Mermaid
def test_the_flowchart_marks_loops_joins_conditions_and_ways_back() -> None:
    plan = plan_of("""
workflow:
  - step: a
    tool: {kind: noop}
    next: {spec: {mode: inclusive}, arcs: [{step: b}, {step: c, when: "{{ x > 1 }}"}]}
  - step: b
    loop: {in: "{{ rows }}", iterator: row, spec: {mode: parallel}}
    tool: {kind: http, url: "https://x.org"}
    next: [{step: d}]
  - step: c
    tool: {kind: noop}
    next: [{step: d}]
  - step: d
    tool: {kind: noop}
    next: {arcs: [{step: a, when: "{{ again }}"}, {step: end}]}
""")
    assert mermaid(plan).splitlines() == [
        "flowchart TD",
        "  begin((start)) --> s0",
        '  s0["a<br/>noop"]',
        '  s1[["b<br/>http<br/>for each row #40;parallel#41;"]]',
        '  s2["c<br/>noop"]',
        '  s3{{"d<br/>noop"}}',
        "  s0 --> s1",
        '  s0 -->|"#123;#123; x #62; 1 #125;#125;"| s2',
        "  s1 --> s3",
        "  s2 --> s3",
        '  s3 -.->|"#123;#123; again #125;#125;"| s0',
        '  s3 -->|"otherwise"| done',
        "  done((end))",
    ]


@pytest.mark.parametrize(
    "hostile",
    [
        '"] --> x["',
        "end",
        "%%{init: {'theme': 'dark'}}%%",
        "<script>alert(1)</script>",
        "`markdown`",
        "a\nclick s0 href 'https://evil'",
        "#quot;",
        "1. first",
        "- item",
        'x"|y|"z',
        "a;b",
    ],
)
def test_what_authors_write_is_text_and_no_syntax(hostile: str) -> None:
    escaped = label(hostile)
    assert not set(escaped) & set('"<>`{}[]|%\n')
    # Every '#' and ';' that is left belongs to a character's number.
    rest = re.sub(r"#\d+;", "", escaped)
    assert "#" not in rest
    assert ";" not in rest
    assert not rest.startswith(("-", "1."))


# ---------------------------------------------------------------------- the examples
EXAMPLES = sorted((Path(__file__).parents[3] / "playbooks").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_have_a_plan_with_every_step(path: Path) -> None:
    from app.engine.language.parse import parse
    from app.wiring import ToolKinds

    plan = explain(parse(path.read_text(), ToolKinds()))
    assert plan.unreached == ()
    placed = {name for level in plan.levels for name in level}
    assert placed | {plan.final_step} - {None} == {*plan.steps}
    text, chart = outline(plan), mermaid(plan)
    for name in plan.steps:
        assert f"{name} · " in text
        assert f'"{label(name)}<br/>' in chart
