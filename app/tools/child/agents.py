"""Calls an agent in the child: whatever ``module:attribute`` leads to, by the methods it has."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

#: The methods that run an agent, the first found is called. ADK's runners have run_async only.
METHODS: Mapping[str, tuple[str, ...]] = {
    "custom": ("run", "invoke", "run_async", "ainvoke"),
    "langchain": ("invoke", "ainvoke"),
    "adk": ("run_async", "run"),
}
#: What must be installed, one of them.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "langchain": ("langchain_core", "langchain"),
    "adk": ("google.adk",),
}


class Unfit(Exception):  # noqa: N818 (an outcome, answered by program)
    """The agent cannot be called as asked; ``kind`` is that of the error."""

    def __init__(self, message: str, kind: str = "schema") -> None:
        super().__init__(message)
        self.kind = kind


def value(job: Mapping[str, Any]) -> Any:
    """What the agent of *job* gives for its payload. Raises ``Unfit``, and what the agent raises."""
    _check_library(job["framework"])
    action = _action(_found(job["entrypoint"]), job)
    given = action(*_positional(action, job), **_named(action, job))
    return _settled(given)


def _check_library(framework: str) -> None:
    names = LIBRARIES.get(framework, ())
    if names and not any(map(_is_there, names)):
        raise Unfit(
            f"framework {framework} needs {' or '.join(names)}, which the worker's python does not "
            "have; install it there, or name another interpreter with 'python'",
            kind="not_found",
        )


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package it would be in
        return False


def _found(entrypoint: str) -> Any:
    """The object at ``module:attribute`` (or ``module.attribute``)."""
    module, _, path = entrypoint.partition(":")
    if not path:
        module, _, path = entrypoint.rpartition(".")
    if not module or not path:
        raise Unfit(f"entrypoint {entrypoint!r} names no attribute; write module:attribute")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module}.".startswith(f"{exc.name}."):
            raise  # the module is there, and what it imports is not
        raise Unfit(
            f"there is no module {module!r}; install it where the worker runs, or name its folder "
            "under deps.sys_path",
            kind="not_found",
        ) from exc
    for name in path.split("."):
        if not hasattr(found, name):
            raise Unfit(f"{entrypoint!r} leads nowhere: there is no {name!r}", kind="not_found")
        found = getattr(found, name)
    return found


def _action(found: Any, job: Mapping[str, Any]) -> Callable[..., Any]:
    """What is to be called: *found* itself, or a method of it, of its instance, of what it makes."""
    mode = job["mode"]
    if mode == "factory" or (mode in {"auto", "class"} and inspect.isclass(found)):
        found = _settled(found())
    if mode == "call" or (mode == "auto" and inspect.isroutine(found)):
        return _callable(found, job)
    methods = METHODS[job["framework"]]
    for name in methods:
        method = getattr(found, name, None)
        if callable(method):
            assert callable(method)
            return method  # type: ignore[no-any-return]  # whatever the user's object has
    if job["framework"] == "custom":
        return _callable(found, job)
    raise Unfit(f"{job['entrypoint']} has none of the methods {', '.join(methods)}")


def _callable(found: Any, job: Mapping[str, Any]) -> Callable[..., Any]:
    if not callable(found):
        raise Unfit(
            f"{job['entrypoint']} is neither a function nor has it one of the methods "
            f"{', '.join(METHODS[job['framework']])}"
        )
    return found  # type: ignore[no-any-return]  # the same


def _positional(action: Callable[..., Any], job: Mapping[str, Any]) -> list[Any]:
    """The payload, where the first parameter is none that the payload names itself."""
    if job["framework"] == "adk":
        return []  # its runners take all by name
    known = {**job["payload"], **job["invoke"]}
    for name, parameter in _parameters(action).items():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY}:
            return [job["payload"]]
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            return [] if name in known else [job["payload"]]
        break
    return []


def _named(action: Callable[..., Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """``invoke_kwargs``, and of the payload what the parameters name (all of it for ``**any``)."""
    if job["framework"] == "adk":
        return {**job["payload"], **job["invoke"]}
    parameters = _parameters(action)
    takes_payload = bool(_positional(action, job))
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    first = next(iter(parameters), None) if takes_payload else None
    fitting = {
        name: item
        for name, item in job["payload"].items()
        if (takes_all and not takes_payload) or (name in parameters and name != first)
    }
    return {**fitting, **job["invoke"]}


def _parameters(action: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(action).parameters
    except (TypeError, ValueError):  # of some written in C nobody knows
        return {"payload": inspect.Parameter("payload", inspect.Parameter.POSITIONAL_ONLY)}


def _settled(given: Any) -> Any:
    """*given* when it is there: coroutines are awaited, what comes in pieces is a list of them."""
    if inspect.isawaitable(given) or isinstance(given, AsyncIterator):
        import asyncio  # many agents do without, and every fork would have to carry it

        return asyncio.run(_awaited(given))
    return list(given) if isinstance(given, Iterator) else given


async def _awaited(given: Any) -> Any:
    if inspect.isawaitable(given):
        given = await given
    if isinstance(given, AsyncIterator):
        return [each async for each in given]
    return given
