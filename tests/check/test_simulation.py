"""The plan and the run agree for every bundled model, and a wrong formula is seen."""

import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.check.scenario import Scenario, mixed_lengths, room_for
from kvplan.check.simulation import simulate
from kvplan.engine.kv_tiles import KVTiles
from kvplan.plan import kept_tokens, step_work, visibility, weights
from kvplan.storage import kv_format

MIXES = {
    "one short request": Scenario((5,), 3, 256, 1, kv_format("fp32"), Paged(16)),
    "four of many lengths, past every window": Scenario(
        (9, 64, 150, 197), 6, 64, 2, kv_format("bf16"), Paged(64)
    ),
    "three in a contiguous int8 cache": Scenario((1, 70, 140), 5, 50, 3, kv_format("int8"), Contiguous(192)),
}


def nothing(_):
    pass


def test_every_figure_of_every_model_agrees(model_name, bundled):
    check_figures(bundled(model_name), "one short request")


def test_every_figure_agrees_past_every_window(representative, bundled):
    check_figures(bundled(representative), "four of many lengths, past every window")


@pytest.mark.parametrize(
    "name",
    "deepseek-v2-lite gemma-2-9b gpt-oss-20b gpt2 jamba-v0.1 llama-4-scout qwen3-next-80b-a3b".split(),
)
def test_every_figure_agrees_in_a_contiguous_cache(name, bundled):
    check_figures(bundled(name), "three in a contiguous int8 cache")


def check_figures(model, mix):
    simulation = simulate(model, MIXES[mix], nothing)
    assert [(c.name, c.predicted.value, c.measured.value) for c in simulation.disagreeing] == []
    assert len(simulation.checks) >= 13
    assert len(simulation.layer_checks) == len(simulation.ran.layers)


def wrong(formula, change):
    """A formula that gives something else, and is told like the right one."""
    return type(formula)(lambda *args: change(formula.function(*args)), formula.unit, formula.source)


@pytest.mark.parametrize(
    ("model", "module", "name", "seen"),
    [
        ("llama-3.1-8b", step_work, "matrices_flops", {"prefill_matmul_flops", "decode_matmul_flops"}),
        ("llama-3.1-8b", step_work, "head_flops", {"prefill_matmul_flops", "decode_matmul_flops"}),
        ("llama-3.1-8b", step_work, "attention_flops", {"prefill_attention_flops", "decode_attention_flops"}),
        ("llama-3.1-8b", weights, "bytes_of_layers", {"weights_bytes"}),
        (
            "llama-3.1-8b",
            visibility,
            "full_tokens_read",
            {"prefill_cache_read_bytes", "decode_cache_read_bytes"},
        ),
        ("gemma-2-9b", kept_tokens, "window_tokens", {"cache_live_bytes"}),
        ("llama-3.1-8b", kept_tokens, "paged_tokens", {"cache_allocated_bytes"}),
    ],
)
def test_a_formula_that_is_off_by_one_is_seen(model, module, name, seen, bundled, monkeypatch):
    broken = wrong(getattr(module, name), lambda value: value + 1)
    monkeypatch.setattr(module, name, broken)
    simulation = simulate(bundled(model), MIXES["one short request"], nothing)
    assert not simulation.agree
    assert seen <= {check.name for check in simulation.disagreeing}


def test_an_engine_that_loses_a_token_is_seen(bundled, monkeypatch):
    """The engine forgets one key of every prompt: the logits tell, where no count does."""
    original = KVTiles.store

    def store(tiles, places, keys, values, hot):
        if len(keys) > 1:
            keys = keys.copy()
            keys[-2] = 0
        original(tiles, places, keys, values, hot)

    monkeypatch.setattr(KVTiles, "store", store)
    mix = Scenario((40,), 4, 16, 1, kv_format("fp32"), Paged(16))
    simulation = simulate(bundled("llama-3.1-8b"), mix, nothing)
    assert [check.name for check in simulation.disagreeing] == ["cached_logit_error"]


def test_lengths_differ_and_the_longest_is_last():
    for batch, longest, seed in [(1, 5, 0), (4, 512, 0), (8, 100, 3), (16, 1, 1)]:
        lengths = mixed_lengths(batch, longest, seed)
        assert len(lengths) == batch
        assert lengths[-1] == longest == max(lengths)
        assert list(lengths) == sorted(lengths)
        assert min(lengths) >= max(1, longest // 16)
    assert len(set(mixed_lengths(8, 512, 0))) > 4
    assert mixed_lengths(4, 512, 0) != mixed_lengths(4, 512, 1)


def test_contiguous_room_is_whole_tiles():
    assert [room_for(n) for n in (1, 64, 65, 544)] == [64, 64, 128, 576]
