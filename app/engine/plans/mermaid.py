"""A plan as a Mermaid flowchart: loops as double-sided boxes, back edges dotted."""

from __future__ import annotations

from app.engine.plans.plan import Plan, PlannedArc, PlannedStep

#: Text of a label longer than this is cut.
WIDEST = 60
#: Characters that mean something to Mermaid, HTML or Markdown inside a quoted label.
_SPECIAL = frozenset('"#&<>`{}[]()|\\%;*_~$@')


def mermaid(plan: Plan) -> str:
    """The flowchart's text. Whatever a playbook's author wrote in it is text, never syntax."""
    ids = {name: f"s{number}" for number, name in enumerate(plan.steps)}
    lines = ["flowchart TD", f"  begin((start)) --> {ids[plan.entry]}"]
    lines += [f"  {ids[name]}{_node(step)}" for name, step in plan.steps.items()]
    ended = False
    for name, step in plan.steps.items():
        for place, arc in enumerate(step.arcs):
            target = ids.get(arc.step, "done")
            ended = ended or target == "done"
            lines.append(f"  {ids[name]} {_arrow(step, place, arc)} {target}")
    if ended:
        lines.append("  done((end))")
    if plan.final_step in ids:
        lines.append(f"  finally([finally]) --> {ids[plan.final_step]}")
    for name in plan.unreached:
        lines.append(f"  style {ids[name]} stroke-dasharray: 4 4")
    return "\n".join(lines) + "\n"


def _node(step: PlannedStep) -> str:
    kinds = " → ".join(task.kind for task in step.tasks)
    parts = [label(step.name), label(kinds)]
    if step.loop is not None:
        parts.append(label(f"for each {step.loop.iterator} ({step.loop.mode})"))
    text = "<br/>".join(parts)
    if step.loop is not None:
        return f'[["{text}"]]'
    return f'{{{{"{text}"}}}}' if step.joins else f'["{text}"]'


def _arrow(step: PlannedStep, place: int, arc: PlannedArc) -> str:
    line = "-.->" if arc.back else "-->"
    text = arc.when or ("otherwise" if place and not step.inclusive else "")
    return f'{line}|"{label(text)}"|' if text else line


def label(text: str) -> str:
    """*text* inside a quoted label. Leading list marks and headings would be Markdown."""
    line = " ".join(text.split())
    line = line if len(line) <= WIDEST else f"{line[: WIDEST - 1]}…"
    escaped = "".join(f"#{ord(char)};" if char in _SPECIAL else char for char in line)
    head, rest = escaped[:1], escaped[1:]
    if head in "-+=" and head:
        return f"#{ord(head)};{rest}"
    digits = len(escaped) - len(escaped.lstrip("0123456789"))
    if digits and escaped[digits : digits + 1] in {".", ")"}:
        return f"{escaped[:digits]}#{ord(escaped[digits])};{escaped[digits + 1 :]}"
    return escaped
