"""The user's program as code, where a ``return`` at its top level is one that Python compiles."""

from __future__ import annotations

import ast
import functools
import re
import types
import warnings
from collections.abc import Iterator
from typing import NamedTuple

#: What a program with a top-level ``return`` usually shows at first sight.
_RETURN = re.compile(r"^return\b", re.MULTILINE)
#: The function that a program with a top-level ``return`` becomes; it returns ``...`` at its end.
BODY = "__step__"
#: What its last statement becomes instead where that is the only ``return``: with the sign of the
#: assignment as long as the word, so that columns in tracebacks stay right.
VALUE = "__rv_"
#: An assignment, or an argument by name.
_BARE_EQUALS = re.compile(r"(?<![=<>!:])=(?!=)")
#: What a line that goes on with the statement before may begin with; "" is an empty one.
_WITHIN = ("", " ", "\t", ")", "]", "}", "#")


class Program(NamedTuple):
    """What runs, and where a top-level ``return`` of it shows: ``BODY``, ``VALUE`` or nowhere."""

    code: types.CodeType
    gives: str
    defines_main: bool


def compiled(source: str, filename: str, *, again: bool) -> Program:
    """The program in *source*; with *again* it is kept for the next run, which is of the same one.

    Raises what Python raises for programs it cannot compile.
    """
    return (_kept(source, filename) if again else None) or _program(source, filename)


@functools.lru_cache(maxsize=1)
def _kept(source: str, filename: str) -> Program | None:
    """The program; None where Python complains of it, for each run shall print that anew."""
    try:
        with warnings.catch_warnings(record=True) as heard:
            program = _program(source, filename)
    except Exception:  # noqa: BLE001 (whatever it is, the run itself hears it)
        return None
    return None if heard else program


def _program(source: str, filename: str) -> Program:
    code, gives = _compiled(source, filename)
    constants = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return Program(code, gives, any(each.co_name == "main" for each in constants))


def _compiled(source: str, filename: str) -> tuple[types.CodeType, str]:
    at = _last_return(source)
    try:
        if at is not None:
            assigned = f"{source[:at]}{VALUE}={source[at + len('return') :]}"
            return compile(assigned, filename, "exec", dont_inherit=True), VALUE
        if not _RETURN.search(source):
            return compile(source, filename, "exec", dont_inherit=True), ""
    except SyntaxError:
        pass  # there are others, or it says more than an assignment can
    return _with_return(source, filename)


def _last_return(source: str) -> int | None:
    """Where the only top-level ``return`` of a simple program begins, which is also its end.

    As an assignment it needs no function around the program, which would cost half of the time
    that a short step takes. Only for a program that surely has it there, and not in a text.
    """
    if any(sign in source for sign in ('"""', "'''", "\\\n", "\f")):
        return None
    found = [match.start() for match in _RETURN.finditer(source)]
    if len(found) != 1 or _BARE_EQUALS.search(source, found[0]):
        return None
    rest = source[found[0] :].splitlines()[1:]
    return found[0] if all(line[:1] in _WITHIN for line in rest) else None


def _with_return(source: str, filename: str) -> tuple[types.CodeType, str]:
    """The program as a function, where the ``return`` in it is one of the top level."""
    tree = ast.parse(source, filename)
    # Otherwise it stands in a text, or in a class, which the compiler complains of.
    if not _returns(tree):
        return compile(source, filename, "exec", dont_inherit=True), ""
    return compile(_as_function(tree), filename, "exec", dont_inherit=True), BODY


def _returns(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.Return) for node in _own_nodes(tree))


def _own_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node of the module's own scope: not those inside functions, classes or lambdas."""
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            # Their targets are their own; a walrus inside them is ours.
            todo.extend(item for item in ast.walk(node) if isinstance(item, ast.NamedExpr))
        elif not isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        ):
            todo.extend(ast.iter_child_nodes(node))


def _as_function(tree: ast.Module) -> ast.Module:
    """The module with its body in a function, so that ``return`` is legal, and every name that it
    assigns declared global, so that nothing else changes."""
    head: list[ast.stmt] = []
    body = list(tree.body)
    while body and _must_lead(body[0], first=not head):
        head.append(body.pop(0))
    body = [_Plain().visit(node) for node in body]
    wrapped = ast.Module(body=body, type_ignores=[])
    assigned = sorted({name for node in _own_nodes(wrapped) for name in _assigned(node)})
    first = ast.parse(f"def {BODY}():\n  {'global ' + ', '.join(assigned) if assigned else 'pass'}")
    last = ast.Return(value=ast.Constant(value=...))
    function = first.body[0]
    assert isinstance(function, ast.FunctionDef)
    function.body += [*body, last]
    return ast.fix_missing_locations(ast.Module(body=[*head, function], type_ignores=[]))


class _Plain(ast.NodeTransformer):
    """Drops what a function may not say of a global name: annotations and ``global`` itself."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        return ast.copy_location(ast.Pass(), node)

    def visit_FunctionDef(self, node: ast.AST) -> ast.AST:
        return node  # its scope is its own

    visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_FunctionDef  # noqa: N815 (ast's names)


def _must_lead(node: ast.stmt, *, first: bool) -> bool:
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return True
    return first and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _assigned(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [(item.asname or item.name).split(".")[0] for item in aliases]
        case (
            ast.ExceptHandler(name=str(name))
            | ast.MatchAs(name=str(name))
            | ast.MatchStar(name=str(name))
        ):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
        case _:
            return []
