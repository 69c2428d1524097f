"""A model written as a model file."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import yaml

from kvplan.arch.model import Model
from kvplan.specs.model_file import KIND_CLASSES, LayerKind, model_file

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
    for group in data["layers"]:
        group["pattern"] = _Flow(group["pattern"])
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return SCHEMA_LINE + text if schema else text


def _kind(kind: LayerKind) -> dict[str, Any]:
    parts = {key: _plain(part) for key in KIND_CLASSES if (part := getattr(kind, key)) is not None}
    default = LayerKind.model_fields["block"].default
    return parts if kind.block is default else {**parts, "block": kind.block.value}


def _plain(value: Any) -> Any:
    """Return a value as YAML writes it; a dataclass without its fields at their default."""
    if is_dataclass(value):
        pairs = ((f, getattr(value, f.name)) for f in fields(value))
        return {f.name: _plain(found) for f, found in pairs if found != f.default}
    if isinstance(value, Enum):
        return value.value
    return _Flow(value) if isinstance(value, tuple) else value
