"""The forms of a playbook: every key the language knows, with one sentence about it.

From here come the checks of keys, the JSON Schema and the page of keys.
"""

from __future__ import annotations

from app.engine.language.grammar.shapes import (
    Either,
    Form,
    Key,
    ListOf,
    Of,
    Older,
    Plain,
    any_value,
    choice,
    condition,
    count,
    flag,
    mapping,
    name,
    switch,
    text,
    time,
)
from app.engine.language.grammar.task_forms import TASK_FORMS, TOOLS

_STEP_REF = Plain("name of a step", {"type": ["string", "integer"]})
_TEXTS = ListOf(text())
_KIND = Plain(
    "`Playbook` or `Agent`",
    {"type": "string", "pattern": "^([Pp]laybook|[Aa]gent|PLAYBOOK|AGENT)$"},
)

DOCUMENT = Form(
    "playbook",
    "The whole document. Keys that are not listed are ignored.",
    (
        Key(
            "apiVersion",
            "The version of the language.",
            choice("noetl.io/v2", "noetl.io/v10"),
            required=True,
        ),
        Key("kind", "What the document is.", _KIND, required=True),
        Key("metadata", "Its name, and what people should know.", Of("metadata"), required=True),
        Key(
            "workload",
            "Defaults of its variables; the payload of an execution replaces top-level keys.",
            mapping(),
        ),
        Key("keychain", "Credentials that its tools use.", ListOf(Of("keychain entry"))),
        Key("executor", "What holds for a whole execution.", Of("executor")),
        Key("workbook", "Tools that several steps share.", ListOf(Of("workbook entry"))),
        Key("workflow", "The steps.", ListOf(Of("step"), least=1), required=True),
        Key("name", "Its name.", text(), older="Write it as metadata.name."),
        Key("path", "Its path in the catalog.", text(), older="Write it as metadata.path."),
    ),
    open=True,
    refused={"vars": "Use 'workload'."},
)

METADATA = Form(
    "metadata",
    "Who the playbook is. Further keys are kept.",
    (
        Key("name", "The playbook's name.", text()),
        Key("path", "Its path in the catalog; by default its name.", text()),
        Key("description", "What it is for.", text()),
        Key("tags", "Words to find it by.", Either((_TEXTS, text()))),
        Key("version", "A version of the author's choice.", text()),
        Key("labels", "Names and values for tools around it.", mapping()),
        Key("exposed_in_ui", "Whether a page offers it to people.", switch()),
        Key("exposes_as_mcp", "Whether it is offered as a tool over MCP.", any_value()),
        Key("agent", "Whether it acts as an agent, or how.", any_value()),
        Key("capabilities", "What it can do, in words.", any_value()),
    ),
    open=True,
    any_of=("name", "path"),
)

KEYCHAIN = Form(
    "keychain entry",
    "A credential, under the name that templates use: `keychain.<name>.<field>`.",
    (
        Key("name", "The name in templates.", text(), required=True),
        Key(
            "kind", "Where it comes from, such as `secrets` or `oauth2`.", text(), aliases=("type",)
        ),
        Key("scope", "Who shares it: `global`, `local` and others.", text()),
        Key("auth", "The credential that opens the source.", any_value()),
        Key("map", "Which field of the source becomes which name.", mapping()),
        Key("provider", "Who keeps the secret.", text()),
        Key("auto_renew", "Whether a token is fetched again before it ends.", flag()),
    ),
    open=True,
)

EXECUTOR = Form(
    "executor",
    "What holds for a whole execution.",
    (
        Key("profile", "Where it is meant to run.", choice("local", "distributed", "auto")),
        Key("version", "The runtime it was written for.", text()),
        Key("requires", "What it needs to run at all.", Of("requires")),
        Key("spec", "How it runs.", Of("executor spec")),
    ),
)

REQUIRES = Form(
    "requires",
    "What the playbook needs to run at all.",
    (
        Key("tools", "Kinds of tools that must be there.", _TEXTS),
        Key("features", "Features, in words.", _TEXTS),
        Key("credentials", "Credentials that it uses under computed names.", _TEXTS),
    ),
)

EXECUTOR_SPEC = Form(
    "executor spec",
    "How an execution runs.",
    (
        Key("entry_step", "Where it begins; else at `start`, else at the first step.", _STEP_REF),
        Key("final_step", "Runs once at the end, whatever happened.", _STEP_REF),
        Key("no_next_is_error", "A branch may only end at `end` or the final step.", switch()),
        Key("timeout", "How long an execution may take.", time()),
        Key("policy", "Defaults and limits.", Of("executor policy")),
    ),
)

EXECUTOR_POLICY = Form(
    "executor policy",
    "Defaults and limits of an execution.",
    (
        Key("defaults", "Read, without effect.", any_value()),
        Key("results", "Read, without effect.", any_value()),
        Key("limits", "What an execution may use.", Of("limits")),
    ),
)

LIMITS = Form(
    "limits",
    "What an execution may use.",
    (
        Key(
            "timeout",
            "How long an execution may take.",
            time(),
            aliases=("timeout_seconds",),
        ),
        Key("max_visits", "How often one step may be entered.", count()),
    ),
    open=True,
)

WORKBOOK = Form(
    "workbook entry",
    "A tool under a name, which steps use by `kind: workbook`.",
    (
        Key("name", "The name that steps refer to.", text(), required=True),
        Key("tool", "The tool.", TOOLS),
        Key("desc", "For people.", text()),
        Key("assert", "Read, without effect.", any_value()),
        Key("type", "The tool's kind.", text(), older="Write 'tool: {kind: …}'."),
    ),
    open=True,
)

STEP = Form(
    "step",
    "A node of the graph: a tool, and where it leads.",
    (
        Key("step", "Its name, which no other step has.", name(), required=True),
        Key("desc", "For people.", any_value()),
        Key("tool", "One tool, or a list of them that runs as one.", TOOLS),
        Key("input", "Merged over the `input` of its tools.", mapping()),
        Key("loop", "Runs the step once per item.", Of("loop")),
        Key("set", "Assigned when the step has ended well, before its arcs.", mapping()),
        Key("output", "Which parts of a large result stay at hand.", Of("output")),
        Key(
            "next",
            "Where it leads.",
            Either(
                (
                    Of("next"),
                    Older(text(), "Write 'next: {arcs: [{step: …}]}'."),
                    Older(Of("arc"), "Write 'next: {arcs: [{step: …}]}'."),
                    Older(
                        ListOf(Either((Of("arc"), text()))), "Write 'next: {arcs: [{step: …}]}'."
                    ),
                    Plain("nothing", {"type": "null"}),
                )
            ),
        ),
        Key("spec", "How it runs.", Of("step spec")),
        Key(
            "timeout",
            "How long one attempt may take.",
            time(),
            aliases=("timeout_seconds",),
        ),
        Key("pool", "The worker pool that runs it.", text()),
        Key("args", "Its input.", mapping(), older="Write 'input'."),
        Key(
            "when",
            "The step is passed over where this does not hold.",
            condition(),
            older="Put the condition on the arc that leads here.",
        ),
        Key(
            "case",
            "Conditions and what follows from them.",
            any_value(),
            older="Use 'next' with arcs and 'when'.",
        ),
        Key("vars", "Assigned when the step has ended well.", mapping(), older="Use 'set'."),
    ),
    strict=True,
    refused={
        "set_ctx": "Use 'set'.",
        "set_iter": "Use 'set'.",
        "result": "Use 'output'.",
        "outcome": "Use 'next' with arcs and 'when'.",
        "type": "Write 'tool: {kind: …}'.",
    },
)

STEP_SPEC = Form(
    "step spec",
    "How a step runs.",
    (
        Key("policy", "When it may begin.", Of("step policy")),
        Key("timeout", "How long one attempt may take.", time()),
        Key("pool", "The worker pool that runs it.", text()),
    ),
)

STEP_POLICY = Form(
    "step policy",
    "Rules about the step as a whole.",
    (
        Key("admit", "Asked before the step begins.", Of("admission")),
        Key("lifecycle", "Read, without effect.", any_value()),
        Key("failure", "Read, without effect.", any_value()),
        Key("emit", "Read, without effect.", any_value()),
    ),
)

ADMISSION = Form(
    "admission",
    "Whether a step may begin; one that may not is skipped.",
    (
        Key("mode", "The first rule that holds decides.", choice("exclusive")),
        Key("rules", "Asked in order.", ListOf(Of("admission rule"))),
    ),
)

_ALLOW = Plain(
    "true or false", {"anyOf": [{"type": "boolean"}, {"enum": ["true", "false", "True", "False"]}]}
)
ADMISSION_RULE = Form(
    "admission rule",
    "A condition, and whether the step may begin where it holds.",
    (
        Key("when", "The condition.", condition()),
        Key("then", "What follows.", Of("admission verdict")),
        Key("else", "What follows where no rule before held.", Of("admission verdict")),
    ),
)
ADMISSION_VERDICT = Form(
    "admission verdict",
    "Whether the step may begin.",
    (
        Key("allow", "Whether the step may begin.", _ALLOW),
        Key("then", "The same, one level down, after `else`.", Of("admission verdict")),
    ),
)

OUTPUT = Form(
    "output",
    "Which parts of a large result stay at hand without fetching it.",
    (
        Key("output_select", "Dotted paths; each is read under its last part.", _TEXTS),
        Key("select", "The same, with names.", ListOf(Of("selection"))),
        Key(
            "store",
            "Read, without effect: where a result is kept follows from its size.",
            any_value(),
        ),
    ),
    open=True,
)
SELECTION = Form(
    "selection",
    "A part of a result, and its name.",
    (
        Key("path", "The dotted path.", text(), required=True),
        Key("as", "The name; by default the last part of the path.", text()),
    ),
)

LOOP = Form(
    "loop",
    "Runs the step once per item of a collection, or of what a cursor claims.",
    (
        Key("in", "The collection.", any_value()),
        Key("cursor", "Where rows are claimed.", Of("cursor")),
        Key("iterator", "The item's name in templates; by default `item`.", text()),
        Key("spec", "How it goes.", Of("loop spec")),
        Key(
            "mode",
            "How items follow each other.",
            choice("sequential", "parallel", "async", "cursor"),
            older="Write it below 'spec'.",
        ),
        Key("max_in_flight", "How many run at once.", count(), older="Write it below 'spec'."),
        Key("frame", "What a cursor claims.", Of("frame"), older="Write it below 'spec'."),
    ),
    strict=True,
    one_of=("in", "cursor"),
)
LOOP_SPEC = Form(
    "loop spec",
    "How a loop goes.",
    (
        Key(
            "mode",
            "One at a time, several at once, or as rows are claimed.",
            choice("sequential", "parallel", "async", "cursor"),
        ),
        Key("max_in_flight", "How many run at once.", count()),
        Key("frame", "What a cursor claims at once.", Of("frame")),
        Key("policy", "A hint about where items run.", Of("loop policy")),
    ),
    strict=True,
)
LOOP_POLICY = Form(
    "loop policy",
    "A hint about where items run.",
    (Key("exec", "Read, without effect.", choice("distributed", "local")),),
)
CURSOR = Form(
    "cursor",
    "A tool that is run again and again until it gives no rows. Keys of that tool may stand here, too.",
    (
        Key("kind", "The tool's kind.", text(), required=True),
        Key("auth", "The credential's name, or its fields.", any_value()),
        Key("claim", "The SQL (or call) that claims rows; it sees `__frame_max_rows`.", text()),
        Key("options", "Further keys of the tool.", mapping()),
    ),
    open=True,
    shared=True,
)
FRAME = Form(
    "frame",
    "What a cursor claims at once, and how its rows are worked on.",
    (
        Key("max_rows", "How many rows one claim may take.", count()),
        Key("row_concurrency", "How many rows of a frame run at once.", count()),
        Key("process", "The body runs once per row, or once per frame.", choice("row", "frame")),
        Key("max_attempts", "How often a body that failed is tried in all.", count()),
        Key("retry_mode", "What is tried again.", text()),
        Key("lease_seconds", "Read, without effect.", any_value()),
        Key("heartbeat_seconds", "Read, without effect.", any_value()),
        Key("max_seconds", "Read, without effect.", any_value()),
        Key("max_bytes", "Read, without effect.", any_value()),
        Key("verify_ipc", "Read, without effect.", any_value()),
    ),
)

NEXT = Form(
    "next",
    "Where a step leads.",
    (
        Key("spec", "How arcs are chosen.", Of("next spec")),
        Key(
            "arcs",
            "The arcs, in order.",
            Either((ListOf(Of("arc")), Plain("nothing", {"type": "null"}))),
        ),
    ),
    strict=True,
)
NEXT_SPEC = Form(
    "next spec",
    "How arcs are chosen.",
    (
        Key("mode", "The first arc that holds, or all.", choice("exclusive", "inclusive")),
        Key(
            "on_no_match",
            "Where no arc holds the execution may complete, or the branch ends without a word.",
            choice("complete", "quiet"),
        ),
    ),
    strict=True,
)
ARC = Form(
    "arc",
    "An edge of the graph.",
    (
        Key("step", "Where it leads.", _STEP_REF, required=True),
        Key("when", "It is taken where this holds; without it, always.", condition()),
        Key("set", "Assigned before the target starts.", mapping()),
        Key("desc", "For people.", any_value()),
        Key("cond", "Its condition.", condition(), older="Write 'when'."),
        Key("args", "Values for the target.", mapping(), older="Write 'set'."),
    ),
    strict=True,
)

FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        DOCUMENT,
        METADATA,
        EXECUTOR,
        EXECUTOR_SPEC,
        EXECUTOR_POLICY,
        LIMITS,
        REQUIRES,
        KEYCHAIN,
        WORKBOOK,
        STEP,
        STEP_SPEC,
        STEP_POLICY,
        ADMISSION,
        ADMISSION_RULE,
        ADMISSION_VERDICT,
        OUTPUT,
        SELECTION,
        LOOP,
        LOOP_SPEC,
        LOOP_POLICY,
        CURSOR,
        FRAME,
        NEXT,
        NEXT_SPEC,
        ARC,
        *TASK_FORMS,
    )
}
"""All forms by name, in the order in which a reader meets them."""
