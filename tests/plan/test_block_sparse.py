"""What attention over chosen blocks multiplies and reads: sets of keys listed one by one, and hand counts."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from kvplan.allocation import Paged
from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.block_indexer import BlockIndexer
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.work import Work, decode_step, prefill_step
from kvplan.errors import UsageError
from kvplan.plan.attention_kinds import attention_kinds
from kvplan.plan.cache import request_cache
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.plan.operator_formulas import selected_block_step_tokens
from kvplan.plan.operators import stage_operators
from kvplan.plan.rank import Rank
from kvplan.plan.requests import Request
from kvplan.plan.run import predict_run
from kvplan.plan.stages import pipeline_stages
from kvplan.plan.time_notes import time_notes
from kvplan.plan.visibility import selected_block_pairs, selected_block_tokens_read
from kvplan.storage import kv_format, state_layout, weight_format

SIZES = [(1, 1), (1, 5), (2, 3), (3, 4), (4, 1), (3, 16)]
# MiniMax-M3's attention: 64 query heads, 4 KV heads of 128, index heads of 128, 16 blocks of 128 tokens.
SPARSE = Attention(64, 4, 128, qk_norm=QkNorm.HEAD, indexer=BlockIndexer(4, 128, 128, 16))
FULL = replace(SPARSE, indexer=None)


def keys_seen(query, blocks, tokens, rng):
    """The keys of a query's own block and of others before it, any of them, as many as it may see."""
    own = query // tokens
    others = rng.permutation(own)[: blocks - 1].tolist()
    return {key for key in range(query + 1) if key // tokens in {own, *others}}


@pytest.mark.parametrize(("blocks", "tokens"), SIZES)
def test_a_query_sees_its_own_block_so_far_and_whole_ones_before_it(blocks, tokens):
    """Whichever blocks are chosen, pairs and tokens read are as many; so a plan can know them."""
    rng = np.random.default_rng(1)
    seen = [len(keys_seen(query, blocks, tokens, rng)) for query in range(60)]
    for past, new in product(range(40), range(20)):
        expected = sum(seen[past : past + new])
        assert selected_block_pairs(past, new, blocks, tokens) == expected, (past, new)
        assert selected_block_tokens_read(past, new, blocks, tokens) == expected, (past, new)


@pytest.mark.parametrize(("blocks", "tokens"), SIZES)
def test_a_step_reads_at_most_what_its_queries_see_together(blocks, tokens):
    """One query reads just that; several choose for themselves, and may choose the same."""
    for past, new, seed in product(range(40), (1, 2, 5), range(4)):
        rng = np.random.default_rng(seed)
        together = set().union(*(keys_seen(q, blocks, tokens, rng) for q in range(past, past + new)))
        most = selected_block_step_tokens(past, new, blocks, tokens)
        assert len(together) <= most <= past + new, (past, new)
        assert new > 1 or most == len(together), past


def test_by_hand():
    # MiniMax-M3 sees 2,048 tokens of its first 2,048, and then 15 blocks and its own so far.
    assert selected_block_pairs(0, 2_048, 16, 128) == 2_048 * 2_049 // 2
    assert selected_block_pairs(2_048, 1, 16, 128) == 15 * 128 + 1
    assert selected_block_pairs(100_000, 1, 16, 128) == 15 * 128 + 100_000 % 128 + 1
    assert selected_block_pairs(0, 1_000_000, 16, 128) == 2_048 * 2_049 // 2 + sum(
        15 * 128 + query % 128 + 1 for query in range(2_048, 1_000_000)
    )


def test_pairs_of_arrays():
    past, new = np.array([0, 5, 100, 7]), np.array([4, 1, 300, 0])
    numbers = zip(past.tolist(), new.tolist(), strict=True)
    assert selected_block_pairs(past, new, 3, 4).tolist() == [
        selected_block_pairs(p, n, 3, 4) for p, n in numbers
    ]


# ------------------------------------------------------------------ of a model


def model_of(*mixers):
    layers = tuple(Layer(mixer, MLP(64)) for mixer in mixers)
    return Model("sparse", "a test", "bf16", 256, 100, 1 << 20, layers)


def test_a_cache_keeps_an_index_key_beside_keys_and_values():
    """Of a token, in bf16: 2 x 4 x 128 elements, and 128 more in sparse layers."""
    model = model_of(FULL, SPARSE, SPARSE)
    found = predict_run(model, (Request(1_000, 25),), kv_format("bf16"), Paged(16), 512)
    assert found.cache_live_bytes.value == 1_024 * (3 * 2_048 + 2 * 256)


@pytest.mark.parametrize(
    ("layout", "kv", "key"),
    [
        ("transformers", "bf16", 256),
        ("transformers", "fp8", 128),
        ("vllm", "fp8", 256),
        ("sglang", "bf16", 256),
    ],
)
def test_serving_engines_keep_index_keys_of_blocks_in_bf16(layout, kv, key):
    """Whatever keys and values are in; those of DeepSeek's indexers would be e4m3 with a scale, 132 bytes."""
    runs = model_of(SPARSE).slot_runs()
    cache = request_cache(runs, 1, kv_format(kv), state_layout(layout), "bf16", Paged(16), "a test")
    assert [run.entry_bytes.value for run in cache.runs] == [2_048 if kv == "bf16" else 1_024, key]


def test_a_decode_step_by_hand():
    """Behind 5,000 tokens a layer scores all 5,001 and attends to 15 blocks and 9 tokens of its own."""
    model, requests = model_of(SPARSE), (Request(5_000, 2),)
    decode = predict_run(model, requests, kv_format("bf16"), Paged(16), 512).decode
    seen = 15 * 128 + 5_000 % 128 + 1
    _, attention, read, written = (figure.value for figure in decode.figures())
    assert attention == 2 * seen * 64 * 256 + 2 * 5_001 * 4 * 128
    assert read == seen * 2_048 + 5_001 * 256
    assert written == 2_048 + 256


def test_a_prompt_reads_all_in_view_and_multiplies_what_is_chosen():
    """3,000 tokens in pieces of 1,024: the pieces read 1,024, 2,048 and 3,000 tokens of both entries."""
    model = model_of(SPARSE)
    prefill = predict_run(model, (Request(3_000, 1),), kv_format("bf16"), Paged(16), 1_024).prefill
    _, attention, read, _ = (figure.value for figure in prefill.figures())
    chosen = sum(min(query // 128, 15) * 128 + query % 128 + 1 for query in range(3_000))
    assert attention == 2 * chosen * 64 * 256 + 2 * (3_000 * 3_001 // 2) * 4 * 128
    assert read == (1_024 + 2_048 + 3_000) * (2_048 + 256)


def test_steps_add_up_to_the_phases_of_a_run():
    """The prompt ends in a piece of one token, which reads all in view nevertheless."""
    model, request = model_of(FULL, SPARSE), Request(4_097, 4)
    found = predict_run(model, (request,), kv_format("bf16"), Paged(16), 1_024)
    (stage,) = pipeline_stages(model, 1)
    formats = (weight_format("bf16"), kv_format("bf16"), state_layout("transformers"))
    operators = stage_operators(Rank(model, Parallelism(), *formats, Paged(16)), stage)
    prefill = [
        prefill_step(1, min(1_024, 4_097 - start), start, last=start + 1_024 >= 4_097)
        for start in range(0, 4_097, 1_024)
    ]
    decode = [decode_step(1, 4_097 + made) for made in range(3)]
    for phase, steps in ((found.prefill, prefill), (found.decode, decode)):
        work = sum((operator.work(step) for step in steps for operator in operators), start=Work())
        done = (work.matmul_flops, work.attention_flops, work.kv_read_bytes, work.kv_write_bytes)
        assert done == tuple(figure.value for figure in phase.figures())


def test_a_tensor_parallel_rank_chooses_for_its_own_kv_heads(roofline_of, works):
    """Of 4 index heads a rank of 4 has one; index keys, which all heads share, every rank has whole."""
    model, step = model_of(SPARSE), (decode_step(1, 5_000), 1)
    whole, quarter = (works(roofline_of(model, tensor=ranks), step) for ranks in (1, 4))
    for name in ("index_q_proj", "index_scores"):
        for amount in ("matmul_flops", "attention_flops"):
            assert getattr(whole[name], amount) == 4 * getattr(quarter[name], amount), name
    assert whole["index_k_proj"].matmul_flops == quarter["index_k_proj"].matmul_flops == 2 * 256 * 128
    assert whole["index_scores"].kv_read_bytes == quarter["index_scores"].kv_read_bytes == 5_001 * 256
    assert whole["attention"].kv_read_bytes == 4 * quarter["attention"].kv_read_bytes


def test_layers_that_choose_are_a_kind_of_their_own(gpu):
    formats = (weight_format("bf16"), kv_format("bf16"), state_layout("transformers"))
    deployment = Deployment(gpu("h100-sxm"), Parallelism(), *formats, Paged(16), max_tokens=8_192)
    kinds = attention_kinds(model_of(FULL, SPARSE, SPARSE), deployment)
    assert [(kind.name, kind.label, count) for kind, count in kinds.items()] == [
        ("full", "full", 1),
        ("top_16x128", "full, top 16 blocks of 128", 2),
    ]


def test_keys_of_an_indexer_are_not_grouped():
    with pytest.raises(UsageError, match="an indexer reads its keys one by one"):
        predict_run(model_of(SPARSE), (Request(100, 2),), kv_format("int4-kivi"), Paged(64), 512)


def test_no_public_time_is_of_chosen_blocks():
    said = "no public time of attention over chosen blocks is among them"
    assert said in time_notes(model_of(FULL, SPARSE), ())
    assert said not in time_notes(model_of(FULL), ())
