"""Import of config files written in a test."""

import json

import pytest

from kvplan.errors import SpecError
from kvplan.specs.config_json import import_config
from kvplan.specs.families.common import Identity
from kvplan.specs.strict_json import read_json


@pytest.fixture
def from_config(tmp_path):
    """A function that imports a config.json with these keys."""

    def read(model_type, **keys):
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"model_type": model_type, **keys}), encoding="utf-8")
        return import_config(read_json(path), Identity("imported", "a test"))

    return read


@pytest.fixture
def config_refusal(from_config):
    """A function that returns what is said of a config.json with these keys, which is refused."""

    def read(model_type, **keys):
        with pytest.raises(SpecError) as refused:
            from_config(model_type, **keys)
        return " ".join(refused.value.lines())

    return read
