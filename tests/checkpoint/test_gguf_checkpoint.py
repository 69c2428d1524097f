"""GGUF files of every architecture give the model and the weights they were written of.

tests/golden/gguf_cases.py writes them by llama.cpp's rules, under the names of the package gguf.
"""

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kvplan.checkpoint.checkpoint import open_checkpoint
from kvplan.checkpoint.names import names_of
from kvplan.checkpoint.names.released import file_tensors
from kvplan.specs.config_json import import_config
from kvplan.specs.document import Document
from kvplan.specs.families.common import Identity
from kvplan.specs.gguf_config import ARCHITECTURES
from kvplan.specs.gguf_names import NAMES

GOLDEN = Path(__file__).parents[1] / "golden"
cases = SimpleNamespace(**runpy.run_path(str(GOLDEN / "gguf_cases.py")))
golden_weights = runpy.run_path(str(GOLDEN / "weights.py"))["golden_weights"]


def described(name):
    """Return the model of a case as its config.json describes it."""
    case = cases.CASES[name]
    config = {**case.config, "model_type": case.model_type, "torch_dtype": "float32"}
    return import_config(Document("config.json", config, {}, {}), Identity("tiny", ""))


def unnamed(model):
    """Return a model without its name, and without what its files are stored in."""
    layers = tuple(replace(layer, stored_otherwise=()) for layer in model.layers)
    return replace(model, name="tiny", source="", layers=layers, weight_format="", stored_otherwise=())


@pytest.fixture
def opened(tmp_path):
    """A function that writes a case with matrices of a type, and returns the checkpoint and its weights."""

    def written(name, kind="F32"):
        model = described(name)
        weights = golden_weights(model, 0)
        path = tmp_path / "tiny.gguf"
        names = names_of(cases.CASES[name].model_type, model)
        cases.write(path, name, file_tensors(names, model, weights), kind)
        return open_checkpoint(path), weights

    return written


def test_every_architecture_has_a_case():
    assert {cases.architecture(name) for name in cases.CASES} == set(ARCHITECTURES) == set(NAMES)


@pytest.mark.parametrize("name", sorted(cases.CASES))
def test_the_model_is_that_of_the_same_config_json(name, opened):
    checkpoint, _ = opened(name)
    assert unnamed(checkpoint.model) == unnamed(described(name))


@pytest.mark.parametrize("name", sorted(cases.CASES))
def test_the_weights_are_those_the_file_was_written_of(name, opened):
    checkpoint, weights = opened(name)
    found = checkpoint.weights()
    assert found.keys() == weights.keys()
    for tensor, array in weights.items():
        assert found[tensor].shape == array.shape
        assert found[tensor].dtype == np.float32
        # Norms go by way of a sum with 1, rates of decay by way of their exponentials.
        np.testing.assert_allclose(found[tensor], array, rtol=0, atol=4e-7, err_msg=tensor)
