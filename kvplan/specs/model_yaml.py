"""A model written as a model file."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import yaml

from kvplan.arch.model import Model
from kvplan.specs.model_file import FEED_FORWARDS, MIXERS, LayerKind, model_file

SCHEMA_LINE = "# yaml-language-server: $schema=model.schema.json\n"


class _Flow(list[Any]):
    """A list written on one line."""


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(
    _Flow, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


def model_yaml(model: Model, *, schema: bool = False) -> str:
    """Return the text of the model's file; ``schema`` adds the editor line of the bundled ones.

    Keys at their default are left out: the file says what is particular.
    """
    file = model_file(model)
    data: dict[str, Any] = file.model_dump(mode="json", exclude_defaults=True)
    data["kinds"] = {name: _kind(kind) for name, kind in file.kinds.items()}
    for key, listed in (("towers", file.towers), ("stored_otherwise", file.stored_otherwise)):
        if listed:
            data[key] = _plain(listed)
    for group in data["layers"]:
        group["pattern"] = _Flow(group["pattern"])
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return SCHEMA_LINE + text if schema else text


def _kind(kind: LayerKind) -> dict[str, Any]:
    given = ((key, getattr(kind, key)) for key in (*MIXERS, *FEED_FORWARDS))
    parts = {key: _plain(part) for key, part in given if part is not None}
    others = ((key, getattr(kind, key), field.default) for key, field in LayerKind.model_fields.items())
    return parts | {
        key: _plain(value) for key, value, default in others if value != default and key not in parts
    }


def _plain(value: Any) -> Any:
    """Return a value as YAML writes it; a dataclass without its fields at their default."""
    if is_dataclass(value):
        pairs = ((f, getattr(value, f.name)) for f in fields(value))
        return {f.name: _plain(found) for f, found in pairs if found != f.default}
    if isinstance(value, Enum):
        return value.value
    if not isinstance(value, tuple):
        return value
    return [_plain(item) for item in value] if any(map(is_dataclass, value)) else _Flow(value)
