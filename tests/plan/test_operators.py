"""The work of operators: against the phases of whole runs, brute force, and figures worked out by hand."""

from dataclasses import fields, replace

import numpy as np
import pytest

from kvplan.allocation import Paged
from kvplan.arch.entry import IndexKey, Latent
from kvplan.arch.retention import Chunked, Full, PerRequest, Sliding
from kvplan.arch.work import Work, decode_step, prefill_step
from kvplan.errors import UsageError
from kvplan.plan.deployment import Parallelism
from kvplan.plan.operators import stage_operators
from kvplan.plan.rank import Rank
from kvplan.plan.requests import Request
from kvplan.plan.run import predict_run
from kvplan.plan.stages import pipeline_stages
from kvplan.plan.weights import weights_bytes
from kvplan.storage import TensorRole, kv_format, state_layout, weight_format

AMOUNTS = [field.name for field in fields(Work)]
# Llama-3.1-8B by hand: 32 layers of width 4,096, 32 query and 8 KV heads of 128, an MLP of 14,336.
QKV, OUT, MLP, HEAD = 4_096 * (4_096 + 2 * 1_024), 4_096 * 4_096, 3 * 4_096 * 14_336, 128_256 * 4_096
MATRICES = 32 * (QKV + OUT + MLP)


# ------------------------------------------------------------------ every bundled model, against whole runs


@pytest.mark.parametrize("kv", ["bf16", "int8", "int4-kivi"])
def test_steps_add_up_to_the_phases_of_a_run(representative, kv, bundled):
    model = replace(bundled(representative), dtype="fp32", weight_format="")
    requests = (Request(37, 5), Request(4_500, 3))
    slots = [run.slot for run in model.slot_runs()]
    groupable = all(
        isinstance(slot.retention, Full | PerRequest) and slot.visible_window is None for slot in slots
    )
    other = any(isinstance(slot.entry, Latent | IndexKey) for slot in slots)
    if kv == "int4-kivi" and (not groupable or other):
        with pytest.raises(UsageError, match=r"groups keys|quantises the keys"):
            predict_run(model, requests, kv_format(kv), Paged(64), 256)
        return
    found = predict_run(model, requests, kv_format(kv), Paged(64), 256)
    rank = Rank(
        model,
        Parallelism(),
        weight_format("fp32"),
        kv_format(kv),
        state_layout("transformers"),
        Paged(64),
    )
    (stage,) = pipeline_stages(model, 1)
    operators = stage_operators(rank, stage)
    prefill, decode = [], []
    for request in requests:
        for start in range(0, request.prompt_tokens, 256):
            new = min(256, request.prompt_tokens - start)
            prefill.append(prefill_step(1, new, start, last=start + new == request.prompt_tokens))
        decode += [decode_step(1, request.prompt_tokens + made) for made in range(request.output_tokens - 1)]
    for phase, steps in ((found.prefill, prefill), (found.decode, decode)):
        work = sum((operator.work(step) for step in steps for operator in operators), start=Work())
        done = (work.matmul_flops, work.attention_flops, work.kv_read_bytes, work.kv_write_bytes)
        assert done == tuple(figure.value for figure in phase.figures())


def test_a_grid_of_steps_is_each_step_by_itself(representative, roofline_of):
    roofline = roofline_of(representative, tensor=1)
    batches, contexts = np.array([[1.0], [3.0], [64.0]]), np.array([1.0, 700.0, 4_097.0, 9_000.0])
    grid = roofline.work(roofline.decode(batches, contexts))
    times = roofline.times(roofline.decode(batches, contexts))
    for row, batch in enumerate((1, 3, 64)):
        for column, context in enumerate((1, 700, 4_097, 9_000)):
            step = roofline.decode(batch, context)
            alone = roofline.work(step)
            for name in AMOUNTS:
                of_grid = np.broadcast_to(getattr(grid, name), (3, 4))[row, column]
                assert of_grid == pytest.approx(getattr(alone, name), rel=1e-12), name
            for name in ("bound_s", "estimate_s"):
                of_grid = np.broadcast_to(getattr(times, name), (3, 4))[row, column]
                assert of_grid == pytest.approx(getattr(roofline.times(step), name), rel=1e-12), name


def test_a_large_step_reads_every_weight_once(representative, bundled, roofline_of):
    """All tensors a plan stores, less towers, layers for images, and tables of which it looks rows up."""
    model, tokens = bundled(representative), 1 << 24
    (stage,) = pipeline_stages(model, 1)
    whole = weights_bytes(model, stage, 1, weight_format("bf16")).number
    looked_up = (TensorRole.EMBEDDING, TensorRole.POSITIONS)
    tables = [weight for weight in model.input_weights() if weight.role in looked_up]
    unread = [weight for weight in model.input_weights() if weight.role is TensorRole.TOWER] + tables
    for run in model.runs():
        unread += [w for w in model.layer_weights(run.layer) if run.layer.images_only] * run.count
        # Tables of experts hold numbers of 4 bytes.
        experts = [w for w in model.layer_weights(run.layer) if w.role in looked_up]
        whole -= sum(4 * w.elements for w in experts) * run.count
    rows = sum(tokens * 2 * weight.shape[1] for weight in tables)
    tied = 2 * tables[0].elements if model.tie_word_embeddings else 0
    roofline = roofline_of(representative, "h200-sxm")
    read = roofline.work(roofline.decode(tokens, 1)).weight_bytes
    assert read == whole - sum(2 * weight.elements for weight in unread) + tied + rows


# ------------------------------------------------------------------ brute force: speculation, shared prefixes


def seen_by(query, retention):
    """Positions of the keys that the query at a position sees."""
    match retention:
        case Sliding(window=window):
            return range(max(0, query - window + 1), query + 1)
        case Chunked(chunk=chunk):
            return range(query // chunk * chunk, query + 1)
        case Full():
            return range(query + 1)


@pytest.mark.parametrize(("context", "new"), [(1, 5), (509, 5), (511, 3), (513, 1), (700, 600), (5, 1_400)])
def test_a_step_of_gemma_3_sees_what_its_windows_show(context, new, roofline_of, works, bundled):
    """Gemma-3-1B: 22 layers look back 512 tokens and 4 see everything; 4 query heads, one KV head of 256."""
    kinds = {run.slot.retention: run.count for run in bundled("gemma-3-1b").slot_runs()}
    assert sorted(kinds.values()) == [4, 22]
    found = works(
        roofline := roofline_of("gemma-3-1b", kv="bf16"), roofline.decode(3, context, new_tokens=new)
    )
    for retention, layers in kinds.items():
        name = "attention_full" if isinstance(retention, Full) else "attention_window_512"
        queries = range(context, context + new)
        pairs = sum(len(seen_by(query, retention)) for query in queries)
        keys = set().union(*(seen_by(query, retention) for query in queries))
        assert found[name].attention_flops == 3 * layers * pairs * 4 * (2 * 256 + 2 * 256)
        assert found[name].kv_read_bytes == 3 * layers * len(keys) * 2 * 256 * 2
    assert found["kv_write"].kv_write_bytes == 3 * 26 * new * 2 * 256 * 2


def test_chunked_attention_reads_the_chunk_it_stands_in(bundled, roofline_of):
    model = bundled("llama-3.2-1b")
    layer = model.layers[0]
    chunked = replace(layer, mixer=replace(layer.mixer, attention_chunk_size=96))
    roofline = roofline_of(replace(model, layers=(chunked,) * 2))
    for context, new in ((1, 1), (95, 1), (96, 1), (100, 7), (90, 300), (191, 2)):
        work = roofline.work(roofline.decode(2, context, new))
        queries = range(context, context + new)
        pairs = sum(len(seen_by(query, Chunked(96))) for query in queries)
        keys = set().union(*(seen_by(query, Chunked(96)) for query in queries))
        assert work.attention_flops == 2 * 2 * pairs * 32 * (2 * 64 + 2 * 64)
        assert work.kv_read_bytes == 2 * 2 * len(keys) * 8 * 2 * 64 * 2


def test_a_cached_prefix_is_read_but_not_multiplied_with_weights(roofline_of):
    """1,000 of 3,000 tokens are there: 2,000 pass, and see 1,001 to 3,000 keys each."""
    roofline = roofline_of("llama-3.1-8b")
    work = roofline.work(*roofline.prefill(1, 3_000, 1_000))
    assert work.matmul_flops == 2 * (2_000 * MATRICES + HEAD)
    assert work.attention_flops == 32 * 32 * 4 * 128 * sum(range(1_001, 3_001))
    assert work.kv_read_bytes == 3_000 * 131_072
    assert work.kv_write_bytes == 2_000 * 131_072


# ------------------------------------------------------------------ intensity of decode attention, by hand


@pytest.mark.parametrize(
    ("model", "kv", "expected"),
    [
        # 2 operations for each byte pair of a key or value and each query head of its group
        ("llama-2-7b", "bf16", 1.0),
        ("llama-3.1-8b", "bf16", 4.0),
        ("llama-3.3-70b", "bf16", 8.0),
        ("falcon-7b", "bf16", 71.0),
        ("llama-3.1-8b", "fp8", 8.0),
        ("llama-3.1-8b", "fp32", 2.0),
        # 128 bytes and a scale of 2 for 128 elements; 64 bytes, a scale and a minimum of 2 each
        ("llama-3.1-8b", "int8", 8 * 128 / 130),
        ("llama-3.1-8b", "int4", 16 * 64 / 68),
        # 128 heads over latents of 512 and keys of 64: 2 x 128 x (2 x 512 + 64) / (2 x 576)
        ("deepseek-v3", "bf16", 2 * 128 * 1_088 / 1_152),
        ("deepseek-v2-lite", "bf16", 2 * 16 * 1_088 / 1_152),
    ],
)
@pytest.mark.parametrize(("batch", "context"), [(1, 1), (8, 4_096), (300, 4_095)])
def test_decode_attention_does_as_much_for_a_byte_at_any_size(
    model, kv, expected, batch, context, roofline_of, works
):
    roofline = roofline_of(model, "h200-sxm", kv=kv)
    attention = works(roofline, roofline.decode(batch, context))["attention"]
    assert attention.flops / attention.memory_bytes == pytest.approx(expected, rel=1e-12)


def test_verifying_five_tokens_reads_the_cache_once(roofline_of, works):
    roofline = roofline_of("llama-3.1-8b")
    one, five = (works(roofline, roofline.decode(1, 8_191, n))["attention"] for n in (1, 5))
    assert five.kv_read_bytes == one.kv_read_bytes + 4 * 131_072
    assert five.attention_flops == 32 * 32 * 4 * 128 * (8_192 + 8_193 + 8_194 + 8_195 + 8_196)


# ------------------------------------------------------------------ Llama-3.1-8B, by hand


def test_decode_reads_all_parameters_but_the_embedding(roofline_of):
    """8,030,261,248 parameters, of which the embedding's 525,336,576 are looked up: 8,192 bytes a token."""
    roofline = roofline_of("llama-3.1-8b")
    for batch in (1, 8, 64):
        read = roofline.work(roofline.decode(batch, 4_096)).weight_bytes
        assert read == (8_030_261_248 - 525_336_576) * 2 + batch * 8_192


def test_operators_of_a_decode_step(roofline_of, works):
    roofline = roofline_of("llama-3.1-8b")
    found = works(roofline, roofline.decode(8, 4_096))
    assert list(found) == [
        *("embedding", "norms", "qkv_proj", "attention", "kv_write", "o_proj", "gate_up_proj", "down_proj"),
        *("lm_head", "host"),
    ]
    assert found["embedding"] == Work(weight_bytes=8 * 8_192, activation_bytes=8 * 8_192)
    assert found["qkv_proj"] == Work(
        matmul_flops=2 * 32 * 8 * QKV,
        weight_bytes=2 * 32 * QKV,
        activation_bytes=2 * 32 * 8 * (4_096 + 4_096 + 2 * 1_024),
    )
    assert found["gate_up_proj"] == Work(
        matmul_flops=2 * 32 * 8 * 2 * 4_096 * 14_336,
        weight_bytes=2 * 32 * 2 * 4_096 * 14_336,
        activation_bytes=2 * 32 * 8 * (4_096 + 2 * 14_336),
    )
    assert found["down_proj"].activation_bytes == 2 * 32 * 8 * (14_336 + 4_096)
    assert found["o_proj"].weight_bytes == 2 * 32 * OUT
    assert found["attention"] == Work(
        attention_flops=8 * 32 * 4_097 * 32 * 512,
        kv_read_bytes=8 * 4_097 * 131_072,
        activation_bytes=2 * 32 * 8 * 2 * 4_096,
    )
    assert found["kv_write"] == Work(kv_write_bytes=8 * 131_072)
    assert found["lm_head"].matmul_flops == 2 * 8 * HEAD
    assert found["lm_head"].weight_bytes == 2 * (HEAD + 4_096), "with the last norm"
    assert found["norms"].weight_bytes == 2 * 32 * 2 * 4_096
    # two norms that take two vectors and leave two, and gate, up and their product
    assert found["norms"].activation_bytes == 2 * 32 * 8 * (2 * 4 * 4_096 + 3 * 14_336)
    assert found["host"] == Work()


def test_operations_of_a_prompt(roofline_of):
    """2 a parameter and token, logits of the last alone, and 4 x 128 for each of n (n + 1) / 2 pairs."""
    roofline = roofline_of("llama-3.1-8b")
    work = roofline.work(*roofline.prefill(1, 8_000))
    assert work.matmul_flops == 2 * (8_000 * MATRICES + HEAD)
    assert work.matmul_flops == pytest.approx(2 * 8_000 * 7.5e9, rel=0.08)
    assert work.attention_flops == 32 * 32 * 512 * 8_000 * 8_001 // 2


def test_the_head_is_left_alone_by_chunks_before_the_last(roofline_of, works):
    roofline = roofline_of("llama-3.1-8b", chunk=1_000)
    (first, _), *_, (last, _) = roofline.prefill(1, 2_500)
    assert works(roofline, (first, 1))["lm_head"] == Work()
    assert works(roofline, (last, 1))["lm_head"].matmul_flops == 2 * HEAD


@pytest.mark.parametrize(
    ("model", "row"),
    [("gpt2", 2 * 768 * 2), ("gemma-2-2b", 2_304 * 2), ("deepseek-v3", 7_168 * 2)],
)
def test_a_token_looks_up_a_row_of_each_table(model, row, roofline_of, works):
    roofline = roofline_of(model, "h200-sxm")
    assert works(roofline, roofline.decode(7, 100))["embedding"].weight_bytes == 7 * row


def test_a_packed_embedding_has_packed_rows(roofline_of, works):
    """Q4_K: 144 bytes for 256 weights; 4,096 of them are 16 such blocks."""
    roofline = roofline_of("llama-3.1-8b", weights="q4_k")
    assert works(roofline, roofline.decode(1, 1))["embedding"].weight_bytes == 16 * 144


def test_norms_within_attention_and_sinks_are_read_too(roofline_of, works):
    """Qwen3-8B: 36 layers, two norms of 4,096 and two of 128. gpt-oss-20b: 24, two of 2,880, 64 sinks."""
    for model, expected in (
        ("qwen3-8b", 36 * (2 * 4_096 + 2 * 128) * 2),
        ("gpt-oss-20b", 24 * (2 * 2_880 + 64) * 2),
        ("deepseek-v2-lite", 27 * (2 * 2_048 + 512) * 2),
    ):
        roofline = roofline_of(model)
        assert works(roofline, roofline.decode(1, 1))["norms"].weight_bytes == expected, model


# ------------------------------------------------------------------ latents and states


def test_latents_stay_latent_in_decode_and_become_keys_in_prefill(roofline_of, works):
    """DeepSeek-V3: 61 layers, 128 heads; kv_b is 512 x 128 x (128 + 128); keys of 192, values of 128."""
    roofline = roofline_of("deepseek-v3", "h200-sxm", weights="fp8")
    decode = works(roofline, roofline.decode(4, 999))
    assert decode["attention"].attention_flops == 4 * 61 * 1_000 * 128 * 2 * (2 * 512 + 64)
    assert decode["kv_b_proj"].matmul_flops == 2 * 4 * 61 * 512 * 128 * 256
    prefill = works(roofline, *roofline.prefill(1, 1_000, 600))
    pairs = sum(range(601, 1_001))
    assert prefill["attention"].attention_flops == 61 * pairs * 128 * 2 * (192 + 128)
    assert prefill["kv_b_proj"].matmul_flops == 2 * 1_000 * 61 * 512 * 128 * 256, "of cached latents too"
    assert prefill["attention"].kv_read_bytes == 61 * 1_000 * 576 * 2


def test_a_recurrence_reads_and_writes_its_state_however_long_the_context(roofline_of, works):
    roofline = roofline_of("qwen3-next-80b-a3b", "h200-sxm")
    short, long = (works(roofline, roofline.decode(2, context))["recurrence"] for context in (1, 100_000))
    assert short == long
    # 36 layers of 32 value heads of 128 x 128 in fp32, and 3 columns of 8,192 channels in bf16
    assert short.kv_read_bytes == short.kv_write_bytes
    prefill = works(roofline, *roofline.prefill(1, 4_000))["recurrence"]
    assert prefill.kv_read_bytes == short.kv_read_bytes / 2, "one request, one step"
    assert prefill.attention_flops == 4_000 * short.attention_flops / 2


# ------------------------------------------------------------------ cut over GPUs


@pytest.mark.parametrize(
    "model", ["llama-3.3-70b", "qwen2.5-72b", "gemma-2-27b", "mixtral-8x7b", "falcon-180b"]
)
@pytest.mark.parametrize("tensor", [2, 4, 8])
def test_tensor_parallel_ranks_do_the_whole_together(model, tensor, roofline_of, works):
    alone, cut = roofline_of(model, "h200-sxm"), roofline_of(model, "h200-sxm", tensor=tensor)
    for steps in ((alone.decode(6, 3_000),), alone.prefill(2, 5_000, 100)):
        whole, piece = works(alone, *steps), works(cut, *steps)
        for name in whole.keys() - {"embedding", "norms", "router", "lm_head", "host"}:
            for amount in (
                "matmul_flops",
                "attention_flops",
                "weight_bytes",
                "kv_read_bytes",
                "kv_write_bytes",
            ):
                done, expected = tensor * getattr(piece[name], amount), getattr(whole[name], amount)
                # biases behind a sum are on every rank
                assert expected <= done * (1 + 1e-12), (name, amount)
                assert done <= expected * 1.0001, (name, amount)
        assert piece["norms"].weight_bytes == whole["norms"].weight_bytes
        head = piece["lm_head"].matmul_flops * tensor / whole["lm_head"].matmul_flops
        assert 1 <= head < 1.001, "rows are padded"


def test_more_ranks_than_kv_heads_hold_a_head_each(roofline_of, works):
    """Llama-3.1-405B has 8 KV heads of 128: 16 ranks hold one each, and 8 of its 128 query heads."""
    roofline = roofline_of("llama-3.1-405b", "h200-sxm", tensor=16)
    found = works(roofline, roofline.decode(1, 999))["attention"]
    assert found.kv_read_bytes == 126 * 1_000 * 2 * 128 * 2
    assert found.attention_flops == 126 * 1_000 * 8 * 4 * 128


def test_every_tensor_parallel_rank_keeps_whole_latents(roofline_of, works):
    whole, piece = (
        works(roofline := roofline_of("deepseek-v3", "h200-sxm", tensor=ranks), roofline.decode(1, 999))
        for ranks in (1, 8)
    )
    assert piece["attention"].kv_read_bytes == whole["attention"].kv_read_bytes == 61 * 1_000 * 576 * 2
    assert piece["attention"].attention_flops * 8 == whole["attention"].attention_flops


@pytest.mark.parametrize("model", ["llama-3.1-8b", "gemma-3-27b", "mixtral-8x7b", "qwen3-next-80b-a3b"])
@pytest.mark.parametrize("stages", [2, 3, 5])
def test_pipeline_stages_do_the_whole_together(model, stages, roofline_of, works):
    """A micro-batch passes every stage once: 4 of them are a batch of 4 x stages."""
    alone, cut = roofline_of(model, "h200-sxm"), roofline_of(model, "h200-sxm", pipeline=stages)
    whole, pieces = works(alone, alone.decode(4, 3_000)), works(cut, cut.decode(4 * stages, 3_000))
    assert pieces.keys() - whole.keys() == {"send"}
    for name, work in whole.items():
        for amount in AMOUNTS:
            assert getattr(pieces[name], amount) == pytest.approx(getattr(work, amount), rel=1e-12), name


def test_a_batch_is_spread_over_replicas_and_stages_and_the_fullest_counts(roofline_of):
    alone, cut = roofline_of("llama-3.1-8b"), roofline_of("llama-3.1-8b", data=3, pipeline=2)
    for batch, each in ((1, 1), (6, 1), (7, 2), (12, 2), (13, 3)):
        assert (
            cut.work(cut.decode(batch, 99)).kv_read_bytes == alone.work(alone.decode(each, 99)).kv_read_bytes
        )
    read = cut.work(*cut.prefill(7, 1_000))
    assert read.kv_write_bytes == 3 * 1_000 * 131_072, "a replica reads three of seven prompts"


def test_context_parallel_ranks_share_what_is_attended_to(roofline_of, works):
    alone, cut = roofline_of("gemma-3-27b"), roofline_of("gemma-3-27b", context=2)
    whole, half = (works(one, one.decode(2, 9_999)) for one in (alone, cut))
    assert half["attention_full"].kv_read_bytes * 2 == whole["attention_full"].kv_read_bytes
    assert half["attention_full"].attention_flops * 2 == whole["attention_full"].attention_flops
    assert half["attention_window_1024"] == whole["attention_window_1024"], "every rank keeps a window"
    assert half["qkv_proj"] == whole["qkv_proj"], "every rank makes the new token's query"
    assert half["kv_write"] == whole["kv_write"], "one rank stores the new token"


def test_context_parallel_ranks_share_a_prompts_tokens(roofline_of, works):
    alone, cut = roofline_of("llama-3.1-8b"), roofline_of("llama-3.1-8b", context=4)
    whole, part = works(alone, *alone.prefill(1, 8_000)), works(cut, *cut.prefill(1, 8_000))
    for name in ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"):
        assert part[name].matmul_flops * 4 == whole[name].matmul_flops
        assert part[name].weight_bytes == whole[name].weight_bytes
    assert part["attention"].attention_flops * 4 == whole["attention"].attention_flops
    assert part["kv_write"].kv_write_bytes * 4 == whole["kv_write"].kv_write_bytes
    assert part["attention"].kv_read_bytes * 4 == whole["attention"].kv_read_bytes
