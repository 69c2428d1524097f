"""From a document to a typed value: pydantic checks, and every mistake is told in our own words.

pydantic's own text is never printed: each of its errors becomes one line with its place in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from kvplan.checks import NAME_RULE, FieldError
from kvplan.errors import Problem, SpecError, did_you_mean
from kvplan.specs.document import MAX_PROBLEMS, Document, dotted, holds_unprintable, quoted, shown

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
# Words that a message lists; of more it gives the first.
_MOST_LISTED = 24


def validate(document: Document, adapter: TypeAdapter[T]) -> T:
    """Return the document as the adapter's type.

    Validation runs on JSON text because only there does pydantic's strict mode take mappings for
    dataclasses; strict mode is what refuses ``"4096 "`` and ``true`` for an integer.

    Raises:
        SpecError: every mistake, each at its line and column.
    """
    if bad := [path for path, text in _texts(document.data, ()) if holds_unprintable(text)]:
        message = "holds an unprintable character"
        raise SpecError([document.problem(path, f"{dotted(path)}{message}") for path in bad[:MAX_PROBLEMS]])
    try:
        return adapter.validate_json(json.dumps(document.data), strict=True, extra="forbid")
    except ValidationError as error:
        schema = adapter.json_schema()
        found = error.errors(include_url=False)
        problems = [p for one in found[:MAX_PROBLEMS] for p in _problems(document, schema, one)]
        if len(found) > MAX_PROBLEMS:
            last = max(problems, key=lambda p: (p.line, p.column))
            more = f"{len(found) - MAX_PROBLEMS:,} more mistakes are not shown"
            problems.append(replace(last, message=more))
        raise SpecError(problems) from None


def _texts(data: object, path: Path) -> Iterator[tuple[Path, str]]:
    """Iterate over every text in the data, with its path."""
    if isinstance(data, str):
        yield path, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _texts(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _texts(value, (*path, index))


def _problems(document: Document, schema: Mapping[str, Any], error: Mapping[str, Any]) -> list[Problem]:
    path, kind = _within(document.data, error["loc"]), error["type"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return [_unknown_key(document, schema, path)]
    if kind in ("missing", "missing_argument"):
        owner, key = path[:-1], path[-1]
        return [document.problem(owner, f"{dotted(owner)}'{key}' is required", at_key=bool(owner))]
    if kind != "value_error":
        return [document.problem(path, f"{dotted(path)}{_complaint(kind, error)}")]
    return impossible(document, path, error["ctx"]["error"])


def impossible(document: Document, path: Path, error: ValueError) -> list[Problem]:
    """Return the mistakes that an object made from the data at a path found in its own values."""
    if not isinstance(error, FieldError):
        return [document.problem(path, f"{dotted(path)}{error}", at_key=bool(path))]
    places = [((*path, *where), text) for where, text in error.complaints]
    return [
        document.problem(place, f"{dotted(place)}{text}", at_key=_is_mapping(document.data, place))
        for place, text in places
    ]


def _is_mapping(data: Any, path: Path) -> bool:
    for step in path:
        data = data.get(step) if isinstance(data, dict) else data[step]
    return isinstance(data, dict)


def _complaint(kind: str, error: Mapping[str, Any]) -> str:
    context, value = error.get("ctx", {}), error["input"]
    match kind:
        case "enum" | "literal_error":
            return _not_one_of(value, context["expected"])
        case "greater_than_equal":
            return f"must be at least {context['ge']:,}, not {shown(value)}"
        case "less_than_equal":
            return f"must be at most {context['le']:,}, not {shown(value)}"
        case "too_short" | "string_too_short":
            return "must not be empty"
        case "too_long":
            return f"must have at most {context['max_length']:,} entries, not {context['actual_length']:,}"
        case "string_too_long":
            return f"must have at most {context['max_length']:,} characters, not {len(value):,}"
        case "string_pattern_mismatch":
            return f"{shown(value)} is no name: {NAME_RULE}"
        case _ if kind in _EXPECTED:
            return f"expected {_EXPECTED[kind]}, not {shown(value)}"
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}"


def _unknown_key(document: Document, schema: Mapping[str, Any], path: Path) -> Problem:
    owner, key = path[:-1], str(path[-1])
    known = _properties(schema, owner)
    suggestion = did_you_mean(key, known) or f"expected one of {', '.join(known)}"
    name = f"of {dotted(owner[-1:])[:-2]}" if owner and isinstance(owner[-1], str) else "known here"
    return document.problem(
        path, f"{dotted(owner)}{quoted(key)} is not a key {name} ({suggestion})", at_key=True
    )


def _not_one_of(value: object, expected: str) -> str:
    words = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    listed = ", ".join(words)
    if len(words) > _MOST_LISTED:
        listed = f"{len(words)} that are known, such as {', '.join(words[:3])}"
    if not isinstance(value, str):
        return f"expected one of {listed}, not {shown(value)}"
    suggestion = did_you_mean(value, words)
    end = f" ({suggestion})" if suggestion else ""
    return f"{shown(value)} is not one of {listed}{end}"


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
