"""The JSON Schema of a playbook, from the forms and from what the installed tools take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine.language.grammar.forms import FORMS
from app.engine.language.grammar.shapes import Form, Key, Schema, schema_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IDENTITY = "urn:callboard:schema:playbook"


#: The use of a tool of the workbook, which the parser puts in its place.
WORKBOOK_TOOL: Schema = {
    "description": "A tool of the workbook. Further keys go over that tool's own.",
    "properties": {"task": {"type": "string", "description": "The entry's name."}},
    "anyOf": [{"required": ["name"]}, {"required": ["task"]}],
}


def document_schema(tools: Mapping[str, Schema]) -> Schema:
    """Of a whole playbook; *tools* are the schemas of the kinds there are."""
    definitions = {_slug(form.name): form_schema(form) for form in FORMS.values()}
    every = {**tools, "workbook": WORKBOOK_TOOL}
    definitions["tool"] |= _kinds(every)
    definitions["cursor"]["properties"]["kind"] |= {"enum": sorted(tools)}
    definitions["requires"]["properties"]["tools"] |= {"items": {"enum": sorted(every)}}
    definitions |= {f"tool-{kind}": schema for kind, schema in sorted(every.items())}
    document = definitions.pop("playbook")
    return {
        "$schema": DIALECT,
        "$id": IDENTITY,
        "title": "Callboard playbook",
        **document,
        "$defs": definitions,
    }


def tool_schema(kind: str, schema: Schema) -> Schema:
    """Of one tool with all of its keys, by itself."""
    envelope = form_schema(FORMS["tool"])
    properties = {**envelope["properties"], **schema.get("properties", {})}
    properties["kind"] = {"const": kind}
    used = {_slug(name): form_schema(form) for name, form in FORMS.items() if name != "playbook"}
    return {
        "$schema": DIALECT,
        "$id": f"{IDENTITY}:tool:{kind}",
        "title": f"Callboard tool {kind}",
        **envelope,
        **schema,
        "properties": properties,
        "required": ["kind"],
        "$defs": used,
    }


def form_schema(form: Form) -> Schema:
    """Of one form. A closed form allows no further keys: they would have no effect."""
    properties: dict[str, Any] = {}
    for key in form.keys:
        for name in key.names:
            properties[name] = _property(key, name)
    for name, remedy in form.refused.items():
        properties[name] = {"not": {}, "description": f"Not part of the language. {remedy}"}
    schema: Schema = {"description": form.about, "type": "object", "properties": properties}
    required = [key for key in form.keys if key.required]
    schema["required"] = [key.name for key in required if not key.aliases]
    choices = [[*key.names] for key in required if key.aliases]
    if form.any_of:
        choices.append(list(form.any_of))
    if choices:
        schema["allOf"] = [{"anyOf": [{"required": [name]} for name in names]} for names in choices]
    if form.one_of:
        schema["oneOf"] = [{"required": [name]} for name in form.one_of]
    if not form.open:
        schema["additionalProperties"] = False
    return schema


def _property(key: Key, name: str) -> Schema:
    # The key's sentence wins over that of the form it refers to.
    schema = {**schema_of(key.shape), "description": key.about}
    if key.older:
        schema |= {"deprecated": True, "description": f"{key.about} Older: {key.older}"}
    elif name != key.name:
        schema["description"] = f"The same as {key.name}."
    return schema


def _kinds(tools: Mapping[str, Schema]) -> Schema:
    """What a tool must be, kind by kind."""
    return {
        "allOf": [
            {"properties": {"kind": {"enum": sorted(tools)}}},
            *(
                {
                    "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                    "then": {"$ref": f"#/$defs/tool-{kind}"},
                }
                for kind in sorted(tools)
            ),
        ]
    }


def _slug(name: str) -> str:
    return name.replace(" ", "-")
