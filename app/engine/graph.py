"""The graph of steps: reachability, back edges, joins. Computed once per playbook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Graph:
    """What routing asks of the arcs.

    Sets of steps are kept as bit masks over ``index``: a playbook of 5,000 steps needs a few
    megabytes instead of millions of set entries.
    """

    index: Mapping[str, int] = field(default_factory=dict)
    reach: Sequence[int] = ()
    forward: Sequence[int] = ()
    upstream: Mapping[str, frozenset[str]] = field(default_factory=dict)
    in_cycle: frozenset[str] = frozenset()

    def reaches(self, source: str, target: str) -> bool:
        """There is a path of one or more arcs from *source* to *target*."""
        return bool(self.reach[self.index[source]] >> self.index[target] & 1)

    def leads_to(self, source: str, target: str) -> bool:
        """The same over forward arcs only: *source* may still come before *target* in this turn."""
        return bool(self.forward[self.index[source]] >> self.index[target] & 1)

    def is_join(self, step: str) -> bool:
        """More than one step leads here by a forward arc."""
        return len(self.upstream.get(step, ())) > 1

    def branches_in_loop(self, step: str) -> bool:
        """One of its arcs lies on a cycle: what it does not take now it may take next turn."""
        return step in self.in_cycle


def build(arcs: Mapping[str, Sequence[str]], entry: str) -> Graph:
    """Analyse *arcs* (step to targets, in order). Targets that are not steps are ignored.

    A back edge leads to a step that is still open in a depth-first walk from *entry* that takes
    arcs in their order, so the author's order decides in graphs without a natural one.
    """
    steps = list(arcs)
    targets = {
        step: [target for target in dict.fromkeys(arcs[step]) if target in arcs] for step in steps
    }
    order, back = _walk(steps, targets, entry)
    index = {step: number for number, step in enumerate(steps)}
    forward = [0] * len(steps)
    upstream: dict[str, set[str]] = {step: set() for step in steps}
    for step in order:  # children before parents, along forward arcs
        mask = 0
        for target in targets[step]:
            if (step, target) not in back:
                mask |= 1 << index[target] | forward[index[target]]
                upstream[target].add(step)
        forward[index[step]] = mask
    reach = _closure(steps, targets, index, forward, back)
    in_cycle = frozenset(
        step
        for step in steps
        if any(
            target == step or reach[index[target]] >> index[step] & 1 for target in targets[step]
        )
    )
    return Graph(
        index,
        reach,
        forward,
        {step: frozenset(names) for step, names in upstream.items()},
        in_cycle,
    )


def _walk(
    steps: list[str], targets: Mapping[str, list[str]], entry: str
) -> tuple[list[str], set[tuple[str, str]]]:
    """Depth-first finishing order, and the back edges; without recursion, so depth does not matter."""
    order: list[str] = []
    back: set[tuple[str, str]] = set()
    state: dict[str, int] = {}  # 1 open, 2 finished
    for root in [entry, *steps]:
        if root in state or root not in targets:
            continue
        state[root] = 1
        stack = [(root, iter(targets[root]))]
        while stack:
            step, rest = stack[-1]
            target = next(rest, None)
            if target is None:
                state[step] = 2
                order.append(step)
                stack.pop()
            elif state.get(target) == 1:
                back.add((step, target))
            elif target not in state:
                state[target] = 1
                stack.append((target, iter(targets[target])))
    return order, back


def _closure(
    steps: list[str],
    targets: Mapping[str, list[str]],
    index: Mapping[str, int],
    forward: list[int],
    back: set[tuple[str, str]],
) -> list[int]:
    """Reachability over all arcs: grow the forward sets through back edges until nothing changes."""
    reach = list(forward)
    if not back:
        return reach
    changed = True
    while changed:
        changed = False
        for step in reversed(steps):
            mask = reach[index[step]]
            for target in targets[step]:
                mask |= 1 << index[target] | reach[index[target]]
            if mask != reach[index[step]]:
                reach[index[step]] = mask
                changed = True
    return reach
