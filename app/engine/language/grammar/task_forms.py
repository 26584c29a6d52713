"""The forms of a tool: what every kind takes beside its own keys, and its policy rules."""

from __future__ import annotations

from app.engine.language.grammar.shapes import (
    Either,
    Form,
    Key,
    ListOf,
    MapOf,
    Of,
    Older,
    Plain,
    any_value,
    choice,
    condition,
    flag,
    mapping,
    text,
    time,
)

#: One tool, or several: each a tool, or in the older form its label and the tool.
TOOLS = Either(
    (
        Of("tool"),
        ListOf(
            Either(
                (Of("tool"), Older(MapOf(Of("tool")), "Write the label as 'name' beside 'kind'."))
            ),
            least=1,
        ),
    )
)

TOOL = Form(
    "tool",
    "One call of a tool: its kind, the keys of that kind (see [tools](tools.md)), and these.",
    (
        Key("kind", "Which tool.", text(), required=True),
        Key("name", "The task's name in a sequence.", text(), aliases=("label",)),
        Key("desc", "For people.", any_value()),
        Key("input", "Values for the tool's code.", Either((mapping(), text()))),
        Key("args", "Values for the tool's code.", any_value(), older="Write 'input'."),
        Key("auth", "The name of a credential, or its fields.", any_value()),
        Key("set", "Assigned when the task has ended well.", mapping()),
        Key("output", "Which parts of a large result stay at hand.", Of("output")),
        Key("output_select", "The same: dotted paths.", ListOf(text())),
        Key("spec", "Its policy; other keys below it count as the tool's own.", Of("tool spec")),
        Key("retry", "When to try again.", any_value(), older="Use 'spec.policy.rules'."),
        Key("eval", "What follows from an outcome.", any_value(), older="Use 'spec.policy.rules'."),
    ),
    open=True,
    shared=True,
)

TOOL_SPEC = Form(
    "tool spec",
    "A tool's policy; other keys count as the tool's own.",
    (
        Key("policy", "What follows from an outcome.", Of("policy")),
        Key("timeout", "How long one call may take.", time()),
    ),
    open=True,
    shared=True,
)

POLICY = Form(
    "policy",
    "What follows from the outcome of a task.",
    (
        Key("mode", "The first rule that holds decides.", choice("exclusive")),
        Key(
            "on_unmatched",
            "What follows where no rule holds.",
            choice("continue", "fail"),
        ),
        Key("rules", "Read in order after each try.", ListOf(Of("rule"))),
    ),
    open=True,
)

RULE = Form(
    "rule",
    "A condition, and what follows where it holds.",
    (
        Key("when", "The condition; it sees `output`.", condition()),
        Key("then", "What follows.", Of("action")),
        Key("else", "What follows where no rule before held.", Of("action")),
    ),
)

_TRIES = Plain(
    "whole number",
    {
        "anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "string", "pattern": r"^\s*[1-9][0-9]*\s*$"},
        ]
    },
)
ACTION = Form(
    "action",
    "What follows where a rule holds.",
    (
        Key("do", "What to do.", choice("continue", "retry", "break", "jump", "fail")),
        Key("attempts", "For `retry`: how many tries in all; by default 3.", _TRIES),
        Key(
            "delay",
            "For `retry`: how long to wait.",
            time(),
            aliases=("delay_seconds",),
        ),
        Key(
            "backoff",
            "For `retry`: how the delay grows.",
            choice("none", "fixed", "constant", "linear", "exponential"),
        ),
        Key(
            "max_delay",
            "For `retry`: the longest wait.",
            time(),
            aliases=("max_delay_seconds", "cap"),
        ),
        Key("jitter", "For `retry`: wait a random part of the delay.", flag()),
        Key("to", "For `jump`: the task, or `previous`.", text()),
        Key("set", "Assigned first.", mapping()),
        Key("then", "The same, one level down, after `else`.", Of("action")),
    ),
)

TASK_FORMS = (TOOL, TOOL_SPEC, POLICY, RULE, ACTION)
