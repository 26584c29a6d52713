"""Runs the tasks of a step in order, as their policy rules say. One worker, one attempt."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from app.actors.auth_names import with_auth
from app.actors.rendering import Given
from app.actors.secrets import SECRETS
from app.engine.names import scope_key
from app.engine.playbook import Rule, Step, Task
from app.engine.policy import Action, choose, delay, jump_target
from app.engine.programs import filled
from app.engine.references import selection, whole
from app.engine.templates.sandbox import Result
from app.engine.templates.scope import Scope
from app.engine.templates.template import compile_text, render
from app.errors import CallboardError, TemplateError, ToolError
from app.tools import Context, Parked, Tool, load_tool
from app.wire import Resume

#: Waits up to this (seconds) hold the worker's slot; longer ones go through the log.
INLINE_DELAY = 5.0
#: What a parked step keeps.
PROGRESS = ("index", "results", "previous", "local", "ctx", "tries", "parked_at")
#: Names that no input takes the place of.
_ENGINE_NAMES = frozenset(
    {"ctx", "execution_id", "iter", "job", "output", "results", "steps", "workload"}
    | {"_attempt", "_prev", "_task"}
)
#: Names that code does not see: of the engine, and of what must stay in the worker.
_NOT_FOR_CODE = frozenset({"_tries", "keychain", "now_at", "output", "results"})
#: A sequence that runs more tasks than this jumps in circles.
MAX_TASKS = 1_000_000
#: What in a python program may read a variable without naming it.
_ANY_NAME = re.compile(
    r"\b(variables|context|globals|locals|vars|dir|eval|exec|compile|inspect|sys|importlib)\b"
    r"|__|\*\*"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step ended: a result or an error, what it set, and whether to come back later."""

    result: Any = None
    error: Mapping[str, Any] | None = None
    ctx: Mapping[str, Any] = field(default_factory=dict)
    retry_in: float | None = None
    #: What a parked step goes on with, once ``call`` has ended or ``retry_in`` seconds are over.
    progress: Mapping[str, Any] | None = None
    call: Mapping[str, Any] | None = None
    #: What the task was given that failed last.
    given: Given | None = None
    #: The parts that the step's ``output_select`` names, by name.
    selected: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempted:
    """What one call of a tool gave: data or an error, and how long it took."""

    data: Any
    error: ToolError | None
    duration_ms: float
    attempt: int

    def envelope(self) -> Result:
        """``output`` as policy rules see it."""
        error = self.error.to_dict() if self.error else None
        details = self.error.details if self.error else {}
        http = details.get("http")
        if http is None and isinstance(self.data, dict) and "status_code" in self.data:
            http = {"status": self.data["status_code"], "headers": self.data.get("headers", {})}
        return Result(
            status="error" if self.error else "ok",
            data=self.data,
            ref=None,
            error=error,
            meta={"attempt": self.attempt, "duration_ms": self.duration_ms},
            http=http or {},
            pg=details.get("pg", {}),
            py=details.get("py", {}),
        )


class StepFailure(Exception):  # noqa: N818 (carries the outcome out of the loop, never escapes)
    """The step ends badly with ``error``."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message")))
        self.error = error


class Wait(Exception):  # noqa: N818 (carries the outcome out of the loop, never escapes)
    """The step is put off for ``seconds``, which is too long to hold a slot."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"waits for {seconds:g} s")
        self.seconds = seconds


class TaskSequence:
    """One run of a step: the tasks, what they gave so far, and the names that templates see.

    With *resume* it goes on where an earlier attempt was parked. *elsewhere* are the names whose
    values are fetched when they are read.
    """

    def __init__(
        self,
        step: Step,
        scope: Scope,
        context: Context,
        deadline: float,
        resume: Resume | None = None,
        *,
        elsewhere: frozenset[str] = frozenset(),
    ) -> None:
        self.step = step
        self.scope = scope
        self.context = context
        self.deadline = deadline
        self.elsewhere = elsewhere
        self.results: dict[str, Any] = {}
        self.ctx: dict[str, Any] = {}
        self.local: dict[str, Any] = {}
        self.previous: Any = None
        self.tries: dict[str, int] = {}
        self.step_input: dict[str, Any] = {}
        self.last_error: Mapping[str, Any] | None = None
        self.given: Given | None = None
        self.index = 0
        #: When the attempt was parked that this one goes on with, in seconds since 1970.
        self.parked_at: float | None = None
        #: What the task at ``index`` waited for, where it did.
        self.child = resume.child if resume else None
        if resume is not None:
            self._restore(resume.progress)

    def _restore(self, progress: Mapping[str, Any]) -> None:
        for name in PROGRESS:
            setattr(self, name, progress.get(name, getattr(self, name)))

    def run(self) -> Outcome:
        """Run to the end. Whatever goes wrong is in the outcome; nothing is raised."""
        try:
            self.step_input = render(self.step.input, self.scope)
            retry_in = self._run_tasks()
            if retry_in is not None:
                return Outcome(
                    error=self.last_error, ctx=self.ctx, retry_in=retry_in, given=self.given
                )
            result = self._result()
            return Outcome(
                result=result, ctx=self.ctx, selected=selection(self.step.output_select, result)
            )
        except StepFailure as failure:
            return Outcome(error=failure.error, ctx=self.ctx, given=self.given)
        except Parked as parked:
            return Outcome(progress=self._progress(), call=parked.call.to_dict())
        except Wait as wait:
            return Outcome(progress=self._progress(), retry_in=wait.seconds)
        except CallboardError as exc:
            return Outcome(error=_as_error(exc), ctx=self.ctx)

    # ------------------------------------------------------------------ the tasks
    def _run_tasks(self) -> float | None:
        ran = 0
        while self.index < len(self.step.tasks):
            task = self.step.tasks[self.index]
            attempted = self._waited_for(task) or self._call(task)
            action = self._after(task, attempted)
            ran += 1
            if ran > MAX_TASKS:
                raise _limit(f"more than {MAX_TASKS} tasks were run; do they jump in circles?")
            match action.do:
                case "retry":
                    wait = self._retry(task, action, attempted)
                    if wait is not None:
                        return wait
                case "jump":
                    self.index = self._jump(self.index, action)
                case "break":
                    return None
                case "fail":
                    raise StepFailure(self._failed(task, attempted))
                case _:
                    self.index += 1
        return None

    def _progress(self) -> dict[str, Any]:
        self.parked_at = time.time()
        return {name: getattr(self, name) for name in PROGRESS}

    def _waited_for(self, task: Task) -> Attempted | None:
        """The outcome of the sub-playbook that the task was parked for, once."""
        child, self.child = self.child, None
        if child is None:
            return None
        error = ToolError.from_dict(child["error"]) if child["error"] else None
        seconds = max(0.0, time.time() - self.parked_at) if self.parked_at else 0.0
        tool, result = load_tool(task.kind), child["result"]
        if tool.resumed is not None:
            request = _validated(task, tool, self._config(task, tool, self._names(task)))
            result, error = tool.resumed(request, result, error, seconds), None
        return Attempted(result, error, seconds * 1000, self.tries.get(task.name, 1))

    def _call(self, task: Task) -> Attempted:
        self.tries[task.name] = attempt = self._tried(task) + 1
        started = time.perf_counter()
        data, error = None, None
        self.given = None
        try:
            if self.context.cancelled.is_set():
                raise ToolError("the attempt was stopped", kind="cancelled")
            data = self._run_tool(task)
        except ToolError as exc:
            data, error = exc.data, exc
        except TemplateError as exc:
            error = ToolError(str(exc), kind="template")
        return Attempted(data, error, (time.perf_counter() - started) * 1000, attempt)

    def _run_tool(self, task: Task) -> Any:
        tool = load_tool(task.kind)
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ToolError(
                f"step {self.step.name!r} ran out of time before task {task.name!r}",
                kind="timeout",
                retryable=True,
            )
        scope = self._names(task)
        config = self._config(task, tool, scope)
        self.given = Given(self._written(task), config)
        model = _validated(task, tool, config)
        variables = _durable(scope, self._unread(tool, config))
        if tool.program and "workload" in str(config.get(tool.program)):
            variables = {"workload": dict(scope.workload), **variables}
        return tool.run(model, replace(self.context, timeout=left, variables=variables))

    def _config(self, task: Task, tool: Tool, scope: Scope) -> dict[str, Any]:
        """The tool's config with templates rendered and the step's input merged over its own."""
        given = render(task.config.get("input") or task.config.get("args") or {}, scope)
        if isinstance(given, Mapping):
            given = {**self._loop_input(tool), **given, **self.step_input}
            # What a sub-playbook is given are names of its own, not of the call.
            scope = scope if tool.own_names else _with_input(scope, given)
        scope = with_auth(scope, task.config, self.context)
        config: dict[str, Any] = {"input": given}
        for key, value in task.config.items():
            if key in {"input", "args"}:
                continue
            if key in tool.verbatim:
                is_program = key == tool.program and isinstance(value, str)
                config[key] = filled(value, scope) if is_program else value
            elif key in tool.text:
                config[key] = _as_text(value, scope)
            else:
                config[key] = render(value, scope)
        return config

    def _written(self, task: Task) -> dict[str, Any]:
        """The task as the playbook has it, with its input under the name that ``_config`` uses."""
        own = task.config.get("input") or task.config.get("args") or {}
        if isinstance(own, Mapping):
            own = {**own, **self.step.input}
        return {**task.config, "input": own}

    def _unread(self, tool: Tool, config: Mapping[str, Any]) -> frozenset[str]:
        """Names of large values that the task's own code surely does not read."""
        unread = self.elsewhere - self.ctx.keys()
        if not unread or tool.program is None:
            return unread
        code = config.get(tool.program)
        if not isinstance(code, str) or _ANY_NAME.search(code):
            return frozenset()
        return frozenset(name for name in unread if name not in code)

    def _loop_input(self, tool: Tool) -> dict[str, Any]:
        """Code in a loop sees the item and its place without asking for them."""
        loop = self.step.loop
        if loop is None or tool.program is None:
            return {}
        names = (loop.iterator, "_index", "_total", "loop_index")
        return {name: self.scope.local[name] for name in names if name in self.scope.local}

    # ------------------------------------------------------------------ after a task
    def _after(self, task: Task, attempted: Attempted) -> Action:
        """Keep what the task gave, apply what it and its rule set, and choose what follows."""
        failed = attempted.error is not None
        if not failed:
            self._assign(task.set, {"output": _as_output(attempted.data)}, task)
        action = self._chosen(task, attempted)
        if action.do in {"continue", "break", "jump"}:
            if not failed:
                self.previous = attempted.data
            if not failed or attempted.data is not None:
                self.results[task.name] = attempted.data
            if action.do == "continue":
                self.tries.pop(task.name, None)
        return action

    def _chosen(self, task: Task, attempted: Attempted) -> Action:
        """What the task's rules say; what the one that holds sets is set."""
        failed = attempted.error is not None
        if not task.rules:
            return choose((), {}, failed=failed)
        envelope = attempted.envelope()
        try:
            action = choose(task.rules, self._names(task, output=envelope), failed=failed)
            if action.rule is not None:
                self._assign(action.rule.set, {"output": envelope}, task)
        except TemplateError as exc:
            raise StepFailure(
                {"kind": "template", "message": str(exc), "retryable": False}
            ) from exc
        return action

    def _assign(self, assignments: Mapping[str, Any], extra: Mapping[str, Any], task: Task) -> None:
        for key, template in assignments.items():
            value = render(template, self._names(task, **extra))
            if key.startswith("iter."):
                known = self.local.get("iter", self.scope.local.get("iter", {}))
                self.local["iter"] = {**known, scope_key(key): value}
            elif key.startswith("step."):
                self.local[scope_key(key)] = value
            else:
                self.ctx[scope_key(key)] = value

    def _retry(self, task: Task, action: Action, attempted: Attempted) -> float | None:
        """Wait and let the task run again; the seconds, where the wait is too long for a slot."""
        rule = action.rule or Rule(None)
        tries = attempted.attempt
        if tries >= rule.attempts:
            raise StepFailure(self._failed(task, attempted))
        asked = attempted.error.details.get("retry_after") if attempted.error else None
        share = random.random()  # noqa: S311 (spreads retries, guards nothing)
        wait = delay(rule, tries, share, asked=asked)
        if wait > INLINE_DELAY and not self.results and len(self.step.tasks) == 1:
            self.last_error = self._failed(task, attempted)
            return wait
        if wait > INLINE_DELAY:
            raise Wait(wait)
        if self.context.cancelled.wait(min(wait, max(0.0, self.deadline - time.monotonic()))):
            raise StepFailure(
                {"kind": "cancelled", "message": "the attempt was stopped", "retryable": False}
            )
        return None

    def _tried(self, task: Task) -> int:
        """Tries so far, those before this attempt included."""
        earlier = self.scope.local.get("_tries", 0) if len(self.step.tasks) == 1 else 0
        return self.tries.get(task.name, earlier)

    def _jump(self, index: int, action: Action) -> int:
        to = action.rule.to if action.rule else None
        target = jump_target([task.name for task in self.step.tasks], index, to)
        if target is None:
            raise StepFailure(
                {
                    "kind": "limit",
                    "message": f"there is no task {to!r} to jump to",
                    "retryable": False,
                }
            )
        return target

    def _failed(self, task: Task, attempted: Attempted) -> dict[str, Any]:
        if attempted.error is not None:
            return {**attempted.error.to_dict(), "task": task.name}
        message = f"a rule of task {task.name!r} says fail"
        return {"kind": "rule", "message": message, "retryable": False, "task": task.name}

    # ------------------------------------------------------------------ names and result
    def _names(self, task: Task, **extra: Any) -> Scope:
        results = {
            name: Result(value) if type(value) is dict else value
            for name, value in self.results.items()
        }
        names = {
            **results,
            **self.local,
            "results": results,
            "_prev": _as_output(self.previous),
            "_task": task.name,
            "_attempt": self.tries.get(task.name, 1),
            **extra,
        }
        if "output" not in names:
            names["output"] = _as_output(self.previous)
        scope = self.scope.with_local(names)
        return scope.with_ctx(self.ctx) if self.ctx else scope

    def _result(self) -> Any:
        """A single tool gives its data; a sequence its tasks' fields flattened, then each by name."""
        if not self.step.sequence:
            return self.results.get(self.step.tasks[0].name)
        flat: dict[str, Any] = {}
        if all(isinstance(value, dict) for value in self.results.values()):
            for value in self.results.values():
                flat.update(value)
        # Of a task that looks secrets up only its own word is taken for what it found.
        told = {task.name for task in self.step.tasks if task.kind == SECRETS}
        return {**{name: flat[name] for name in flat if name not in told}, **self.results}


def _as_error(exc: CallboardError) -> dict[str, Any]:
    if isinstance(exc, ToolError):  # of a template that reads the keychain
        return exc.to_dict()
    kind = "template" if isinstance(exc, TemplateError) else exc.code
    return {"kind": kind, "message": str(exc), "retryable": False}


def _limit(message: str) -> StepFailure:
    return StepFailure({"kind": "limit", "message": message, "retryable": False})


def _with_input(scope: Scope, given: Mapping[str, Any]) -> Scope:
    """*scope* with the step's input, by its names and below ``input``; the engine's names stay."""
    if not given:
        return scope
    names = {name: given for name in ("input", "args") if name not in scope}
    names |= {name: value for name, value in given.items() if name not in _ENGINE_NAMES}
    return scope.with_local(names)


def _as_text(value: Any, scope: Scope) -> Any:
    if isinstance(value, str):
        return compile_text(value).render(scope)
    if isinstance(value, list):
        return [_as_text(item, scope) for item in value]
    return render(value, scope)


def _as_output(data: Any) -> Any:
    return Result(data) if type(data) is dict else data


def _durable(scope: Scope, unread: frozenset[str]) -> dict[str, Any]:
    """What code sees as ``variables``: everything flat, without the names of the engine."""
    return {name: whole(scope.flat(name)) for name in scope.names() if name not in unread} | {
        name: value
        for name, value in scope.local.items()
        if name not in _NOT_FOR_CODE and value is not None
    }


def _validated(task: Task, tool: Tool, config: Mapping[str, Any]) -> Any:
    try:
        return tool.input.model_validate(config)
    except ValidationError as exc:
        raise ToolError(_complaint(task, exc), kind="schema") from exc


def _complaint(task: Task, exc: ValidationError) -> str:
    problems = "; ".join(
        f"{'.'.join(str(part) for part in error['loc']) or task.kind}: {error['msg']}"
        for error in exc.errors()
    )
    return f"task {task.name!r} ({task.kind}): {problems}"
