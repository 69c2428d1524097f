"""From a document to a typed value: pydantic checks, and every mistake is told in our own words.

pydantic's own text is never printed: each of its errors becomes one line with its place in the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from kvplan.errors import Problem, SpecError, did_you_mean
from kvplan.specs.document import Document

T = TypeVar("T")
Path = tuple[str | int, ...]

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "none_required": "nothing",
}


def validate(document: Document, adapter: TypeAdapter[T]) -> T:
    """Return the document as the adapter's type.

    Validation runs on JSON text because only there does pydantic's strict mode take mappings for
    dataclasses; strict mode is what refuses ``"4096 "`` and ``true`` for an integer.

    Raises:
        SpecError: every mistake, each at its line and column.
    """
    try:
        return adapter.validate_json(json.dumps(document.data), strict=True, extra="forbid")
    except ValidationError as error:
        schema = adapter.json_schema()
        found = error.errors(include_url=False)
        raise SpecError([_problem(document, schema, one) for one in found]) from None


def _problem(document: Document, schema: Mapping[str, Any], error: Mapping[str, Any]) -> Problem:
    path: Path = _within(document.data, error["loc"])
    kind = error["type"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return _unknown_key(document, schema, path)
    if kind in ("missing", "missing_argument"):
        owner, key = path[:-1], path[-1]
        return document.problem(owner, f"{_dotted(owner)}'{key}' is required", at_key=bool(owner))
    at_key = kind == "value_error" and bool(path) and not isinstance(path[-1], int)
    return document.problem(path, f"{_dotted(path)}{_complaint(kind, error)}", at_key=at_key)


def _complaint(kind: str, error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    if kind in ("enum", "literal_error"):
        return _not_one_of(error["input"], context["expected"])
    if kind == "value_error":
        return str(context["error"])
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, not {_shown(error['input'])}"
    if kind.startswith(("greater_than", "less_than")):
        return f"{error['msg'].replace('Input should be', 'must be')}, not {_shown(error['input'])}"
    if kind == "too_short":
        return "must not be empty"
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}"


def _unknown_key(document: Document, schema: Mapping[str, Any], path: Path) -> Problem:
    owner, key = path[:-1], str(path[-1])
    known = _properties(schema, owner)
    suggestion = did_you_mean(key, known) or f"expected one of {', '.join(known)}"
    name = f"of {owner[-1]}" if owner and isinstance(owner[-1], str) else "known here"
    return document.problem(
        path, f"{_dotted(owner)}'{key[:40]}' is not a key {name} ({suggestion})", at_key=True
    )


def _not_one_of(value: object, expected: str) -> str:
    words = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    suggestion = did_you_mean(str(value), words)
    end = f" ({suggestion})" if suggestion else ""
    return f"{_shown(value)} is not one of {', '.join(words)}{end}"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return str(value)[:40]


def _within(data: object, location: Path) -> Path:
    """Return the part of pydantic's location that is a path in the data, plus a missing last key.

    pydantic names the union member it tried inside the path; those steps are not in the file.
    """
    path: list[str | int] = []
    for index, step in enumerate(location):
        is_key = isinstance(data, dict) and step in data
        is_index = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if is_key or is_index:
            data = data[step]  # type: ignore[index]
        elif index < len(location) - 1:
            continue
        path.append(step)
    return tuple(path)


def _dotted(path: Path) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return f"{text}: " if text else ""


def _properties(schema: Mapping[str, Any], path: Path) -> list[str]:
    """Return the keys the schema knows at a path."""
    node: Mapping[str, Any] = _resolved(schema, schema)
    for step in path:
        if isinstance(step, int):
            node = _resolved(schema, node.get("items", {}))
        else:
            properties = node.get("properties", {})
            node = _resolved(schema, properties.get(step) or node.get("additionalProperties") or {})
    return list(node.get("properties", {}))


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    for option in node.get("anyOf", ()):
        if option.get("type") != "null":
            return _resolved(schema, option)
    if "$ref" in node:
        found: Mapping[str, Any] = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        return found
    return node
