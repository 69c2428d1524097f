"""A text continued by a checkpoint: its tokens are those of reading everything again for each."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from kvplan.allocation import Paged
from kvplan.check import text_run
from kvplan.check.beside_transformers import BesideTransformers
from kvplan.check.continuation import shown_text
from kvplan.check.scenario import Scenario
from kvplan.check.text_run import Prompt, as_it_runs, continue_text
from kvplan.checkpoint.checkpoint import open_checkpoint
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder
from kvplan.storage import kv_format

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "checkpoint" / "make_checkpoint.py"))
FP32 = kv_format("fp32")
TOKENS = np.array([40, 41, 90, 200, 17])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released") / "tiny"
    MAKE["write_checkpoint"](folder)
    return open_checkpoint(folder)


@pytest.fixture
def run(checkpoint, monkeypatch):
    """A function that continues the tokens, by at most so many."""
    monkeypatch.setattr(text_run, "beside_transformers", lambda *_: BesideTransformers(None, "not asked"))

    def continued(new_tokens, **options):
        scenario = Scenario((len(TOKENS),), new_tokens, 3, 0, FP32, Paged(4))
        prompt, tokenizer = Prompt("any", TOKENS, 99), checkpoint.tokenizer()
        return continue_text(
            checkpoint, checkpoint.model, tokenizer, prompt, scenario, lambda _: None, **options
        )

    return continued


def test_every_token_is_the_best_of_reading_all_before_it_again(run, checkpoint):
    (added,) = run(12).measurement.tokens
    decoder, sequence = Decoder(as_it_runs(checkpoint.model), checkpoint.weights(), 64), TOKENS.tolist()
    for token in added:
        cache = Cache(as_it_runs(checkpoint.model), FP32, Paged(64), 64, 1)
        logits = decoder.forward(cache, [(cache.add(), np.array(sequence))], Counter())
        assert token == logits[0].argmax()
        sequence.append(token)
    assert len(added) == 12 or added[-1] in (0, 2)
    assert not {0, 2} & {*added[:-1]}


def test_the_plan_is_of_what_was_added(run):
    done = run(12)
    (added,) = done.measurement.tokens
    assert done.agree
    assert done.prediction.cache_live_bytes.number == 2 * 2 * 2 * 16 * 4 * (len(TOKENS) + len(added) - 1)
    assert done.ran.dtype == "fp32"
    assert done.model.dtype == "bf16"


def test_the_stop_token_is_counted_and_not_told(run, checkpoint):
    """The third token that is added is said to end the text."""
    (added,) = run(6).measurement.tokens
    third = added[2]
    assert third not in added[:2]
    tokenizer = checkpoint.tokenizer()
    tokenizer.stop_tokens = frozenset({third})
    told = []
    done = continue_text(
        checkpoint,
        checkpoint.model,
        tokenizer,
        Prompt("any", TOKENS, 5),
        Scenario((5,), 6, 3, 0, FP32, Paged(4)),
        lambda _: None,
        told.append,
    )
    assert done.measurement.tokens == (added[:3],)
    assert done.continuation.stopped
    assert done.continuation.added == "".join(told)
    before, whole = tokenizer.decode(TOKENS), tokenizer.decode([*TOKENS, *added[:2]])
    assert whole.startswith(before)
    assert done.continuation.added == shown_text(whole[len(before) :])


def test_what_memory_does_not_hold_is_not_asked_for(run, monkeypatch):
    def asked(*_):
        raise AssertionError("transformers was asked")

    monkeypatch.setattr(text_run, "beside_transformers", asked)
    done = run(3, transformers=False)
    assert done.continuation.beside.told == "both models do not fit this machine's memory"
    assert "transformers_logit_difference" not in {check.name for check in done.checks}
