"""The engine's logits are those of Hugging Face transformers, in prefill and in decode.

The vectors under tests/golden were made by transformers itself; see the README there.
"""

import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.specs.config_json import TEXT_FAMILIES

GOLDEN = Path(__file__).parents[1] / "golden"
replay = runpy.run_path(str(GOLDEN / "replay.py"))
weights_of = runpy.run_path(str(GOLDEN / "weights.py"))["golden_weights"]
NAMES = replay["NAMES"]
MAX_TOKENS = replay["MAX_TOKENS"]

# Relative to the largest logit. 1e-4 is the promise; rounding alone stays within 1.2e-5 of transformers here.
TOLERANCE = 5e-5


@cache
def case_of(name):
    """The model, its weights, what is fed to it, and transformers' logits."""
    model, case = replay["read_model"](name), replay["read_case"](name)
    return model, weights_of(model, case.seed), case.tokens, case.logits


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("allocation", "chunk", "decode"),
    [
        pytest.param(Paged(16), MAX_TOKENS, True, id="paged"),
        pytest.param(Contiguous(MAX_TOKENS), 5, True, id="contiguous-in-chunks"),
        pytest.param(Paged(4), 7, False, id="small-pages-steps-as-chunks"),
    ],
)
def test_logits_equal_those_of_transformers(name, allocation, chunk, decode):
    model, weights, tokens, golden = case_of(name)
    found = replay["engine_logits"](model, weights, tokens, allocation, chunk=chunk, decode=decode)
    assert golden.difference(found) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_logits_say_something(name):
    """Neither flat over the vocabulary nor the same for every token."""
    model, _, tokens, golden = case_of(name)
    assert golden.prompts.shape == (sum(map(len, tokens.prompts)), model.vocab_size)
    assert golden.steps.shape == (*tokens.steps.shape, model.vocab_size)
    rows = np.concatenate([golden.prompts, *golden.steps])
    assert np.isfinite(rows).all()
    assert rows.std(axis=1).min() > 0.1 * golden.largest()
    assert len(np.unique(rows.argmax(axis=1))) > 10


def test_every_family_that_is_imported_has_a_case():
    """Wrappers have their text model's: the engine runs no encoder."""
    assert {replay["model_type"](name) for name in NAMES} >= TEXT_FAMILIES.keys()
