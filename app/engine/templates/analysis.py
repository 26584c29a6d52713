"""What a template's syntax tells about it: the names it uses, and how deeply it nests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from jinja2 import meta, nodes

#: Statements that give no names of their own.
_PLAIN = (nodes.Template, nodes.Output, nodes.If)
_NAMESPACES = frozenset({"ctx", "steps", "workload"})


@dataclass(frozen=True, slots=True)
class Needs:
    """The names templates use: ``names`` anywhere, ``workload`` only below it; or everything."""

    names: frozenset[str] = frozenset()
    workload: frozenset[str] = frozenset()
    everything: bool = False

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            self.names | other.names,
            self.workload | other.workload,
            self.everything or other.everything,
        )


class Study:
    """One walk over *tree*; *functions* are the names that every template knows."""

    def __init__(self, tree: nodes.Template, functions: Collection[str]) -> None:
        self.depth = 0
        self.nodes = 0
        self._uses: Counter[str] = Counter()
        self._called: Counter[str] = Counter()
        self._below: dict[str, list[str]] = {name: [] for name in _NAMESPACES}
        self._scopes = False
        self._walk(tree)
        known = set(meta.find_undeclared_variables(tree)) if self._scopes else set(self._uses)
        # Functions that are only called are no variables; data may have a field named ``now``.
        read = {name for name, count in self._uses.items() if count > self._called[name]}
        #: The names that the template does not make itself.
        self.outside = {name for name in known if name not in functions} | read & {*functions}

    @property
    def needs(self) -> Needs:
        names, everything = set(self.outside), False
        for namespace in _NAMESPACES & self.outside:
            keys = self._below[namespace]
            everything = everything or self._uses[namespace] > len(keys)
            if namespace != "workload":
                names |= {*keys}
        workload = frozenset(self._below["workload"]) if "workload" in names else frozenset()
        return Needs(frozenset(names - _NAMESPACES), workload, everything)

    def _walk(self, tree: nodes.Template) -> None:
        todo: list[tuple[nodes.Node, int]] = [(tree, 0)]
        while todo:
            node, depth = todo.pop()
            self.depth = max(self.depth, depth)
            self.nodes += 1
            self._note(node)
            todo.extend((child, depth + 1) for child in node.iter_child_nodes())

    def _note(self, node: nodes.Node) -> None:
        match node:
            case nodes.Name():
                self._uses[node.name] += 1
            case nodes.Call(node=nodes.Name(name=name)):
                self._called[name] += 1
            case nodes.Getattr(node=nodes.Name(name=name), attr=key) if name in _NAMESPACES:
                self._below[name].append(key)
            case nodes.Getitem(node=nodes.Name(name=name), arg=nodes.Const(value=str(key))) if (
                name in _NAMESPACES
            ):
                self._below[name].append(key)
            case nodes.Stmt() if not isinstance(node, _PLAIN):
                self._scopes = True
            case _:
                return
