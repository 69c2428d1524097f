"""What a run's logits are compared with: the same sequences read at once, by the experts the run chose."""

import numpy as np
import pytest

from kvplan.allocation import Paged
from kvplan.check import simulation
from kvplan.check.scenario import Scenario
from kvplan.check.simulation import LOGIT_TOLERANCE, simulate
from kvplan.engine import expert_block
from kvplan.engine.block_selector import BlockSelector
from kvplan.engine.choices import EarlierChoices
from kvplan.engine.compressed_history import CompressedHistory
from kvplan.engine.random_weights import random_weights
from kvplan.engine.token_indexer import TokenIndexer
from kvplan.storage import kv_format

CHUNK = 32
# Prompts in chunks, one alone in its last chunk; reading all of a sequence at once takes more rows than any.
SCENARIO = Scenario((40, 65, 97), 5, CHUNK, 2, kv_format("fp32"), Paged(16))
# The best experts; the best groups first; the best two in order. So many experts differ where a router has
# every other one three times, of DeepSeek-V3 three groups of 32.
ROUTERS = {"olmoe-1b-7b": 22, "deepseek-v3": 96, "phi-3.5-moe": 6}


def cached_error(model):
    return simulate(model, SCENARIO, lambda _: None, layers=5, hidden_size=64).measurement.errors.cached


def repeat_experts(monkeypatch, different):
    """Give every router its first rows again and again: which of the experts alike is chosen is chance."""

    def repeated(model, seed):
        weights = random_weights(model, seed)
        for name, weight in weights.items():
            if ".mlp.gate." in name:
                weight[:] = weight[np.arange(len(weight)) % different]
        return weights

    monkeypatch.setattr(simulation, "random_weights", repeated)


def favour(monkeypatch, by):
    """Favour a router's first experts by so much in chunks and decode steps, and its last ones later."""
    choose = expert_block.choose_experts

    def choose_experts(arch, logits, *others, **settle):
        most = by if len(logits) <= CHUNK else -by
        added = np.linspace(most, -most, arch.num_experts, dtype=np.float32)
        return choose(arch, logits + added, *others, **settle)

    monkeypatch.setattr(expert_block, "choose_experts", choose_experts)


@pytest.mark.parametrize("name", ROUTERS)
def test_experts_whose_scores_are_equal_but_for_rounding_are_no_error(name, bundled, monkeypatch):
    repeat_experts(monkeypatch, ROUTERS[name])
    favour(monkeypatch, 1e-6)
    assert cached_error(bundled(name)) < LOGIT_TOLERANCE
    monkeypatch.setattr(EarlierChoices, "settle", lambda *given: given[-1])
    assert cached_error(bundled(name)) > 100 * LOGIT_TOLERANCE, "without it the test would prove nothing"


@pytest.mark.parametrize("name", ROUTERS)
def test_a_router_that_chooses_otherwise_later_is_seen(name, bundled, monkeypatch):
    repeat_experts(monkeypatch, ROUTERS[name])
    favour(monkeypatch, 1e-3)
    assert cached_error(bundled(name)) > 100 * LOGIT_TOLERANCE


@pytest.mark.parametrize("name", ROUTERS)
def test_one_wrong_choice_of_one_token_is_seen(name, bundled, monkeypatch):
    """In one decode step, one layer's router takes its worst experts for the best."""
    choose, made = expert_block.choose_experts, 0

    def choose_experts(arch, logits, *others, **settle):
        nonlocal made
        made += len(logits) == len(SCENARIO.prompt_tokens)
        if made == 3 and len(logits) == len(SCENARIO.prompt_tokens):
            logits = logits.copy()
            logits[1] = -logits[1]
        return choose(arch, logits, *others, **settle)

    monkeypatch.setattr(expert_block, "choose_experts", choose_experts)
    assert cached_error(bundled(name)) > 10 * LOGIT_TOLERANCE
    assert made > 3


@pytest.mark.parametrize(
    ("name", "indexer"),
    [
        ("deepseek-v3.2", TokenIndexer),
        ("deepseek-v4-flash", CompressedHistory),
        ("minimax-m3", BlockSelector),
    ],
)
def test_indexers_of_every_kind_are_held_to_what_they_chose(name, indexer, bundled, monkeypatch):
    held, settle = set(), EarlierChoices.settle

    def seen(choices, who, *others):
        held.add(type(who))
        return settle(choices, who, *others)

    monkeypatch.setattr(EarlierChoices, "settle", seen)
    assert cached_error(bundled(name)) < LOGIT_TOLERANCE
    assert indexer in held
