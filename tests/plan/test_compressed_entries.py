"""Compressed caches: pairs and traffic listed one by one, and the bytes that transformers' own cache has."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.entry_indexer import EntryIndexer
from kvplan.arch.hyper_connections import HyperConnections
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model, Run, slot_runs
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.work import decode_step
from kvplan.errors import UsageError
from kvplan.plan.attention_kinds import attention_kinds
from kvplan.plan.cache import request_cache
from kvplan.plan.cache_notes import cache_notes
from kvplan.plan.change import parse_changes
from kvplan.plan.compressed_entries import (
    compressed_entries_read,
    compressed_entries_written,
    compressed_pairs,
    compressed_step_entries,
    selected_compressed_pairs,
    selected_entries_read,
    selected_step_entries,
    waiting_step_read,
    waiting_step_written,
    waiting_tokens_read,
    waiting_tokens_written,
)
from kvplan.plan.listing import kept_in_words
from kvplan.plan.operator import Collective
from kvplan.plan.operators import stage_operators
from kvplan.plan.rank import rank_of
from kvplan.plan.setup import Load, Setup
from kvplan.plan.stages import pipeline_stages
from kvplan.plan.time_notes import time_notes
from kvplan.storage import kv_format, state_layout

RATIOS = (1, 3, 4, 7)
# DeepSeek-V4-Flash's attention: 2 layers with a window alone, 21 compress 4 tokens, 20 compress 128.
WINDOW = CompressedAttention(64, 512, 1024, 64, 8, 1024, 128, RopeParameters(10_000.0, interleaved=True))
HEAVY = replace(WINDOW, compress_ratio=128)
SPARSE = replace(WINDOW, compress_ratio=4, indexer=EntryIndexer(64, 128, 512))
RUNS = tuple(Run(Layer(mixer, MLP(64)), count) for mixer, count in ((WINDOW, 2), (SPARSE, 21), (HEAVY, 20)))


def entries(query, ratio):
    """The entries a query sees: of runs whose last token is not behind it."""
    return [entry for entry in range(query + 1) if (entry + 1) * ratio - 1 <= query]


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_query_sees_the_entries_of_runs_that_ended(ratio):
    seen = [len(entries(query, ratio)) for query in range(60)]
    for past, new in product(range(40), range(20)):
        queries = seen[past : past + new]
        assert compressed_pairs(past, new, ratio) == sum(queries), (past, new)
        for topk in (1, 2, 5):
            chosen = sum(min(count, topk) for count in queries)
            assert selected_compressed_pairs(past, new, ratio, topk) == chosen, (past, new, topk)
            assert selected_entries_read(past, new, ratio, topk) == chosen
        assert compressed_entries_written(past, new, ratio) == len(
            [token for token in range(past, past + new) if (token + 1) % ratio == 0]
        )


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("step", [1, 2, 5, 50])
def test_steps_read_and_write_what_waits_as_a_list_does(ratio, step):
    """A list of tokens that wait: a step that ends a run reads it, and writes what is left of its own."""
    for past, new in product(range(2 * ratio), range(1, 20)):
        waiting, read, written, seen = past % ratio, 0, 0, 0
        for start in range(past, past + new, step):
            count = min(step, past + new - start)
            ends = waiting + count >= ratio
            stays = (waiting + count) % ratio if ends else count
            assert waiting_step_read(start, count, ratio) == (waiting if ends else 0)
            assert waiting_step_written(start, count, ratio) == stays
            assert compressed_step_entries(start, count, ratio) == len(entries(start + count - 1, ratio))
            read, written = read + (waiting if ends else 0), written + stays
            seen += len(entries(start + count - 1, ratio))
            waiting = stays if ends else waiting + count
        assert waiting_tokens_read(past, new, step, ratio) == read
        assert waiting_tokens_written(past, new, step, ratio) == written
        assert compressed_entries_read(past, new, step, ratio) == seen


def test_formulas_of_arrays():
    past, new = np.array([0, 5, 100, 7]), np.array([4, 1, 300, 9])
    for law in (compressed_pairs, compressed_step_entries, waiting_step_read, waiting_step_written):
        each = [law(p, n, 4) for p, n in zip(past.tolist(), new.tolist(), strict=True)]
        assert law(past, new, 4).tolist() == each
    for law in (selected_compressed_pairs, selected_step_entries):
        each = [law(p, n, 4, 6) for p, n in zip(past.tolist(), new.tolist(), strict=True)]
        assert law(past, new, 4, 6).tolist() == each


# ------------------------------------------------------------------ bytes


def cache_of(runs=RUNS, layout="transformers", allocation=None, kv="bf16"):
    allocation = allocation or Paged(16)
    return request_cache(
        slot_runs(runs), 1, kv_format(kv), state_layout(layout), "bf16", allocation, "a test"
    )


@pytest.mark.parametrize(
    ("context", "measured"), [(41, 5_881_344), (169, 14_335_488), (256, 13_160_448), (512, 14_921_728)]
)
def test_live_bytes_are_those_of_transformers_cache(context, measured):
    """Measured on DeepSeek-V4-Flash with transformers 5.23; of a full window it keeps all but the oldest."""
    newest = 43 * 2 * 512 * 2 if context >= 128 else 0
    assert cache_of().live_bytes(context) == measured + newest


def test_every_token_adds_6880_bytes_in_the_long_run():
    """21 layers of (512 + 128) x 2 / 4 bytes, and 20 of 512 x 2 / 128."""
    cache = cache_of()
    assert cache.live_bytes(1 << 20) - cache.live_bytes(1 << 19) == 6_880 << 19
    assert cache.growth("g", "").number == 43 * 2_048 + 6_880


def test_what_is_held_of_every_request():
    """Room for 3 and 127 tokens that wait, and the last run's part in the next entry."""
    overlap, sparse, heavy = 4 * 2 * 640 * 2, 3 * 4 * 640 * 2, 127 * 2 * 512 * 2
    assert cache_of().state("s", "").number == 21 * (overlap + sparse) + 20 * heavy


def test_serving_engines_store_the_windows_vector_once():
    once, twice = (cache_of(layout=layout).live_bytes(100) for layout in ("vllm", "transformers"))
    # vLLM's index keys: 128 bytes and a float32 scale, not 256.
    assert twice - once == 43 * 100 * 512 * 2 + 21 * 25 * (256 - 132)


@pytest.mark.parametrize(
    ("allocation", "entries_of_4"), [(Paged(16), 32), (Paged(1), 25), (Contiguous(1_000), 250)]
)
def test_entries_are_handed_out_in_blocks_or_for_the_longest(allocation, entries_of_4):
    """After 100 tokens: 25 entries, in 2 blocks of 16."""
    window = {Paged(16): 112, Paged(1): 100, Contiguous(1_000): 128}[allocation] * 2_048
    fixed = 3 * 4 * 640 * 2 + 4 * 2 * 640 * 2
    found = cache_of(RUNS[1:2], allocation=allocation).allocated_bytes(100)
    assert found == 21 * (window + entries_of_4 * 640 * 2 + fixed)


def test_eight_bits_are_for_vectors_and_not_for_what_waits():
    cache = cache_of(RUNS[2:], kv="fp8")
    assert cache.live_bytes(257) == 20 * (128 * 2 * 512 + 2 * 512 + 1 * 2 * 512 * 2)


# ------------------------------------------------------------------ what is not modelled


@pytest.fixture
def flash():
    layers = tuple(run.layer for run in RUNS)
    return Model("flash", "a test", "bf16", 256, 100, 1 << 20, layers)


def test_guesses_are_refused():
    with pytest.raises(UsageError, match="guesses back that were compressed"):
        request_cache(
            slot_runs(RUNS), 1, kv_format("bf16"), state_layout("vllm").speculating(2), "bf16", Paged(16), ""
        )


def test_kernels_over_entries_are_refused(flash, plan):
    with pytest.raises(UsageError, match="compressed entries lie on a GPU"):
        attention_kinds(flash, plan(flash).deployment)


@pytest.mark.parametrize(("asked", "why"), [("spec=4@70%", "guesses back"), ("prefix=50%", "for a prefix")])
def test_changes_that_take_tokens_back_are_refused(asked, why, flash, plan):
    (change,) = parse_changes(asked)
    with pytest.raises(UsageError, match=why):
        change.applied(Setup(flash, plan(flash).deployment, Load(16, 8192)))


# ------------------------------------------------------------------ what is said


@pytest.mark.parametrize(("layout", "count"), [("transformers", 1), ("vllm", 0)])
def test_a_note_says_when_a_vector_is_counted_twice(layout, count, flash, plan):
    notes = cache_notes(flash, plan(flash, state=layout).deployment)
    assert sum("counted twice" in note for note in notes) == count


def test_no_time_of_it_was_measured(flash, plan):
    notes = time_notes(flash, [plan(flash).deployment])
    assert any("no public time of compressed attention" in note for note in notes)


def test_layers_keep_a_window_and_entries(flash):
    windows = ["1 sliding 128", *(f"1 sliding 128 and 1 in {ratio}" for ratio in (4, 128))]
    assert kept_in_words(flash.layers) == " + ".join(windows)


# ------------------------------------------------------------------ residual streams


def test_every_residual_stream_is_alive_and_is_sent_on(flash, plan):
    """Of 4 streams of 256, in bf16: 3 more a token of a step, and 4 instead of one to the next stage."""
    streams = HyperConnections(4)
    layers = tuple(replace(layer, hyper_connections=streams) for layer in flash.layers)
    several = replace(flash, layers=layers, hyper_connections=streams)
    one, four = (plan(model, pipeline=3) for model in (flash, several))
    alive = [capacity.most_loaded.activations.number for capacity in (one, four)]
    assert alive[1] - alive[0] == 3 * 256 * 8_192 * 2

    def sent(model):
        first, *_ = pipeline_stages(model, 3)
        operators = stage_operators(rank_of(model, one.deployment), first)
        (send,) = (operator for operator in operators if operator.runs_as is Collective.SEND)
        return send.work(decode_step(7, 100)).collective_bytes

    assert (sent(flash), sent(several)) == (7 * 256 * 2, 4 * 7 * 256 * 2)
