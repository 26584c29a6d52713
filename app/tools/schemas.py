"""The JSON Schema of what a tool takes, in YAML: every name of a key, and templates where they may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from app.tools.complaints import names_of

Schema = dict[str, Any]

#: A text with a template in it, which may become anything.
TEMPLATE: Schema = {"type": "string", "pattern": r"\{\{|\{%"}
_TITLES = frozenset({"title", "default"})


def schema(model: type[BaseModel], needs: Sequence[Sequence[str]], about: str) -> Schema:
    """What *model* reads. Further keys are allowed: they are ignored, and said so elsewhere."""
    whole = model.model_json_schema(by_alias=True, mode="validation")
    definitions = whole.get("$defs", {})
    fields = whole.get("properties", {})
    properties: Schema = {}
    names = names_of(model)
    for name, group in names.items():
        field = _templated(_inlined(fields[group[0]], definitions))
        if name != group[0]:
            field = {**field, "description": f"The same as {group[0]}."}
        properties[name] = field
    required = [(name,) for name in whole.get("required", ())]
    asked = [_given(group, names) for group in (*required, *needs)]
    return {
        "description": about,
        "type": "object",
        "properties": properties,
        **({"allOf": asked} if asked else {}),
    }


def _given(group: Sequence[str], names: Mapping[str, tuple[str, ...]]) -> Schema:
    """One of *group*, under any of its names, is there: itself, or below ``spec``."""
    keys = [{"required": [name]} for key in group for name in names.get(key, (key,))]
    return {"anyOf": [*keys, {"properties": {"spec": {"anyOf": keys}}, "required": ["spec"]}]}


def _inlined(data: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(data, list):
        return [_inlined(item, definitions) for item in data]
    if not isinstance(data, dict):
        return data
    if "$ref" in data:
        return _inlined(definitions[data["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in data.items()}


def _templated(field: Schema) -> Schema:
    """*field* with a template allowed in every place that is not text anyway."""
    kept = {key: value for key, value in field.items() if key not in _TITLES}
    about = {"description": kept.pop("description")} if "description" in kept else {}
    if not kept or ("type" not in kept and "anyOf" not in kept and "enum" not in kept):
        return {**kept, **about}
    if kept.get("type") == "string" and "enum" not in kept and "const" not in kept:
        return {**kept, **about}
    if "anyOf" in kept:
        options = _flat([_templated(option) for option in kept["anyOf"]])
        if any(_is_text(option) for option in options):
            return {"anyOf": options, **about}
        return {"anyOf": [*options, TEMPLATE], **about}
    if "items" in kept:
        kept["items"] = _templated(kept["items"])
    if isinstance(kept.get("additionalProperties"), dict):
        kept["additionalProperties"] = _templated(kept["additionalProperties"])
    if "properties" in kept:
        kept["properties"] = {name: _templated(value) for name, value in kept["properties"].items()}
    return {"anyOf": [kept, TEMPLATE], **about}


def _is_text(option: Schema) -> bool:
    return option.get("type") == "string" and "enum" not in option and "pattern" not in option


def _flat(options: Sequence[Schema]) -> list[Schema]:
    """Alternatives of alternatives are alternatives; each once, and templates left to the caller."""
    flat: list[Schema] = []
    for option in options:
        for each in option["anyOf"] if set(option) == {"anyOf"} else [option]:
            if each not in flat and each != TEMPLATE:
                flat.append(each)
    return flat
