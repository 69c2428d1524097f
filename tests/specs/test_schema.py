"""The JSON Schemas beside the bundled files: fresh, valid, and true of every file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import jsonschema
import pytest

from kvplan.specs.schema import KINDS, schema
from kvplan.specs.strict_yaml import read_yaml

ROOT = Path(__file__).parents[2]
DOCUMENTED = ("Attention", "LatentAttention", "RopeParameters", "MLP", "Experts", "Device", "Memory")
DOCUMENTED += ("PlanFile", "DeploymentText", "WorkloadText")
FOLDERS = {"model": "models", "gpu": "gpus", "plan": "examples/plans"}
FILES = [(kind, path) for kind, folder in FOLDERS.items() for path in sorted((ROOT / folder).glob("*.yaml"))]


@cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_schema_is_fresh(kind) -> None:
    shipped = json.loads((ROOT / FOLDERS[kind] / f"{kind}.schema.json").read_text(encoding="utf-8"))
    assert shipped == schema(kind), f"run: kvplan schema {kind} -o {FOLDERS[kind]}/{kind}.schema.json"


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_is_a_schema(kind) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(kind))


@pytest.mark.parametrize(("kind", "path"), FILES, ids=[path.stem for _, path in FILES])
def test_a_bundled_file_names_its_schema_and_obeys_it(kind, path) -> None:
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    assert first_line == f"# yaml-language-server: $schema={kind}.schema.json"
    validator(kind).validate(read_yaml(path).data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_the_reader_refuses_is_refused_by_the_schema(kind) -> None:
    path = next(path for found, path in FILES if found == kind)
    data = read_yaml(path).data
    assert isinstance(data, dict)
    with pytest.raises(jsonschema.ValidationError, match="no_such_key"):
        validator(kind).validate({**data, "no_such_key": 1})


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_a_description(kind) -> None:
    definitions = [schema(kind), *schema(kind).get("$defs", {}).values()]
    documented = [d for d in definitions if d.get("title") in DOCUMENTED]
    assert len(documented) > 1
    for definition in documented:
        assert all("description" in field for field in definition["properties"].values())
