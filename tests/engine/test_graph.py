"""The graph: what reaches what, which edges lead back, where branches meet."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.graph import build

DIAMOND = {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}
CYCLE = {"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": []}


@pytest.mark.parametrize(
    ("source", "target", "reaches", "leads"),
    [
        pytest.param("a", "d", True, True, id="over several arcs"),
        pytest.param("c", "b", True, False, id="back only over all arcs"),
        pytest.param("b", "b", True, False, id="itself around a cycle"),
        pytest.param("a", "a", False, False, id="not itself without one"),
        pytest.param("d", "a", False, False, id="not against the arrows"),
    ],
)
def test_reaching(source: str, target: str, reaches: bool, leads: bool) -> None:
    graph = build(CYCLE, "a")
    assert graph.reaches(source, target) is reaches
    assert graph.leads_to(source, target) is leads


def test_a_join_is_where_forward_arcs_meet() -> None:
    graph = build(DIAMOND, "a")
    assert [step for step in DIAMOND if graph.is_join(step)] == ["d"]
    assert graph.upstream["d"] == {"b", "c"}


def test_a_back_edge_makes_no_join() -> None:
    graph = build(CYCLE, "a")
    assert not graph.is_join("b")
    assert graph.in_cycle == {"b", "c"}
    assert [step for step in CYCLE if graph.branches_in_loop(step)] == ["b", "c"]


def test_a_step_may_lead_to_itself() -> None:
    graph = build({"a": ["a", "b"], "b": []}, "a")
    assert graph.reaches("a", "a")
    assert graph.in_cycle == {"a"}
    assert not graph.is_join("a")


def test_the_authors_order_decides_which_arc_leads_back() -> None:
    arcs = {"a": ["b", "c"], "b": ["c"], "c": ["b"]}
    assert build(arcs, "a").upstream["c"] == {"a", "b"}
    assert build({**arcs, "a": ["c", "b"]}, "a").upstream["b"] == {"a", "c"}


def test_targets_that_are_no_steps_and_repeated_arcs_do_not_count() -> None:
    graph = build({"a": ["b", "b", "end"], "b": []}, "a")
    assert graph.upstream["b"] == {"a"}
    assert not graph.is_join("b")


def test_steps_that_nothing_leads_to_are_part_of_the_graph() -> None:
    graph = build({"a": [], "lost": ["a"]}, "a")
    assert graph.reaches("lost", "a")
    assert graph.upstream["a"] == {"lost"}


def test_five_thousand_steps_in_a_row_need_neither_stack_nor_patience() -> None:
    names = [f"s{number}" for number in range(5_000)]
    arcs = {name: [following] for name, following in zip(names, [*names[1:], "end"], strict=True)}
    arcs[names[-1]] = [names[0]]
    started = time.process_time()
    graph = build(arcs, names[0])
    assert time.process_time() - started < 5
    assert graph.reaches(names[-1], names[-2])
    assert not graph.leads_to(names[-1], names[0])


GRAPHS = st.integers(1, 7).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, size - 1), max_size=4), min_size=size, max_size=size
    )
)


def _walk(arcs: Mapping[str, Sequence[str]], source: str) -> set[str]:
    """All that *source* reaches, found the slow way."""
    found: set[str] = set()
    rest = list(arcs[source])
    while rest:
        step = rest.pop()
        if step not in found:
            found.add(step)
            rest.extend(arcs[step])
    return found


@given(GRAPHS)
def test_any_graph_is_seen_as_a_slow_walk_sees_it(lists: list[list[int]]) -> None:
    arcs = {f"s{number}": [f"s{to}" for to in targets] for number, targets in enumerate(lists)}
    graph = build(arcs, "s0")
    for source in arcs:
        reached = _walk(arcs, source)
        assert {step for step in arcs if graph.reaches(source, step)} == reached
        assert (source in graph.in_cycle) is (source in reached)
        assert not graph.leads_to(source, source), "forward arcs have no cycle"
        for target in arcs:
            if graph.leads_to(source, target):
                assert target in reached
