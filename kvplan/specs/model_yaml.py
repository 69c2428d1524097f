"""A model written as a model file."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import yaml

from kvplan.arch.model import Model
from kvplan.specs.model_file import KIND_CLASSES, model_file

SCHEMA_LINE = "# yaml-language-server: $schema=model.schema.json\n"


class _Flow(list[str]):
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
    data: dict[str, Any] = model_file(model).model_dump(mode="json", exclude_defaults=True)
    data["kinds"] = {name: _without_defaults(kind) for name, kind in data["kinds"].items()}
    for group in data["layers"]:
        group["pattern"] = _Flow(group["pattern"])
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return SCHEMA_LINE + text if schema else text


def _without_defaults(kind: dict[str, Any]) -> dict[str, Any]:
    """Drop fields equal to their dataclass default, which pydantic keeps inside dataclasses."""
    slim: dict[str, Any] = {}
    for key, value in kind.items():
        if key not in KIND_CLASSES:
            slim[key] = value
            continue
        defaults = {f.name: f.default for f in fields(KIND_CLASSES[key]) if f.default is not MISSING}
        slim[key] = {k: v for k, v in value.items() if k not in defaults or defaults[k] != v}
    return slim
