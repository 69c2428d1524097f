"""The tokens of a request shared by context-parallel ranks."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.attention import Attention
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.retention import Chunked, Full, PerRequest, Sliding
from kvplan.errors import UsageError
from kvplan.plan.capacity import plan_capacity
from kvplan.plan.capacity_report import capacity_report
from kvplan.plan.deployment import Parallelism
from kvplan.plan.kept_tokens import allocated_law, live_law
from kvplan.plan.verdict import verdict


def planned(plan, name, gpu="h100-sxm", *, cut, **options):
    """Plan a bundled model on accelerators it is cut over."""
    alone = plan(name, gpu, **options)
    return plan_capacity(alone.model, replace(alone.deployment, parallelism=cut))


def fullest(owners):
    return max(Counter(owners).values())


# ------------------------------------------------------------------ laws


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_tokens_are_dealt_in_turn(ranks):
    law = live_law(Full(), "a test", ranks)
    for context in range(1, 60):
        assert law.tokens(context) == fullest(token % ranks for token in range(context)), context


@pytest.mark.parametrize("block", [1, 2, 3, 16])
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_the_blocks_are_the_same_whether_tokens_or_blocks_are_dealt(ranks, block):
    law = allocated_law(Full(), Paged(block), "a test", ranks)
    for context in range(1, 200):
        by_block = fullest(token // block % ranks for token in range(0, context, block))
        by_token = -(-fullest(token % ranks for token in range(context)) // block)
        assert law.tokens(context) == by_block * block == by_token * block, context


@pytest.mark.parametrize("longest", [1, 7, 64])
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_a_contiguous_cache_is_shared(ranks, longest):
    law = allocated_law(Full(), Contiguous(longest), "a test", ranks)
    for context in range(1, longest + 1):
        assert law.tokens(context) == fullest(token % ranks for token in range(longest))


@pytest.mark.parametrize("retention", [Sliding(7), Sliding(7, 3), Chunked(7)], ids=str)
@pytest.mark.parametrize("allocation", [Paged(4), Contiguous(50)], ids=str)
def test_windows_and_chunks_are_whole_on_every_rank(retention, allocation):
    contexts = np.arange(1, 50)
    for law in (live_law, lambda r, s, n=1: allocated_law(r, allocation, s, n)):
        assert law(retention, "a test", 4).tokens(contexts).tolist() == (
            law(retention, "a test").tokens(contexts).tolist()
        )


def test_a_state_is_whole_on_every_rank():
    assert live_law(PerRequest(), "a test", 2) is None
    assert allocated_law(PerRequest(), Paged(16), "a test", 2) is None


# ------------------------------------------------------------------ plans by hand


def test_llama_on_two_ranks(plan):
    capacity = planned(plan, "llama-3.1-8b", cut=Parallelism(context=2))
    (stage,) = capacity.stages
    # Of 4,096 tokens each rank has 2,048, of 4,097 the first has 2,049: 32 layers x 4,096 B each.
    live, allocated = stage.cache.live_bytes, stage.cache.allocated_bytes
    assert (live(4_096), live(4_097)) == (2_048 * 131_072, 2_049 * 131_072)
    assert (allocated(4_096), allocated(4_097)) == (2_048 * 131_072, 2_064 * 131_072)
    # Each holds all weights. A step of 8,192 tokens is 4,096 on each: half of 905,969,664 bytes.
    assert stage.weights.number == 16_060_522_496
    assert stage.activations.number == 452_984_832
    assert stage.overhead.number == 1_024 << 20
    # 76,968,728,985 - 16,060,522,496 - 452,984,832 - 1,073,741,824
    assert stage.pool.number == 59_381_479_833
    assert capacity.max_batch(4_096) == 221  # 59,381,479,833 / 268,435,456 = 221.2
    assert capacity.max_batch(8_192) == 110  # 110.6
    assert capacity.whole_cache.live_bytes(4_096) == 4_096 * 131_072


def test_windows_of_gemma_3_stay_whole(plan):
    # 10 full layers and 52 of 1,024 tokens, each 16 heads x (128 + 128) x 2 B = 8,192 B a token.
    (stage,) = planned(plan, "gemma-3-27b", cut=Parallelism(context=2)).stages
    assert stage.cache.live_bytes(4_096) == 10 * 2_048 * 8_192 + 52 * 1_024 * 8_192 == 603_979_776
    # In blocks of 16 a window touches 65 at most.
    assert stage.cache.allocated_bytes(4_097) == 10 * 2_064 * 8_192 + 52 * 1_040 * 8_192


def test_latents_are_shared_by_tokens_only(plan):
    # DeepSeek-V2-Lite, 27 layers of 1,152 B: the tensor-parallel ranks of a group hold the same tokens.
    (stage,) = planned(plan, "deepseek-v2-lite", cut=Parallelism(tensor=2, context=4)).stages
    assert stage.cache.live_bytes(10_001) == 2_501 * 27 * 1_152


def test_states_are_whole_on_every_rank(plan):
    # Qwen3-Next: 12 full layers of 2 heads x (256 + 256) x 2 B; 36 states as without context parallelism.
    (alone,) = planned(plan, "qwen3-next-80b-a3b", "h200-sxm", cut=Parallelism(tensor=2)).stages
    (shared,) = planned(plan, "qwen3-next-80b-a3b", "h200-sxm", cut=Parallelism(tensor=2, context=2)).stages
    assert alone.cache.live_bytes(0) == shared.cache.live_bytes(0) > 0
    assert alone.cache.live_bytes(1_000) - alone.cache.live_bytes(0) == 12 * 1_024 * 1_000
    assert shared.cache.live_bytes(1_000) - shared.cache.live_bytes(0) == 12 * 1_024 * 500


def test_the_chunk_of_a_step_is_shared_and_rounded_up(plan):
    # 3 ranks: 2,731 of 8,192 tokens x 55,296 elements x 2 B (see test_activation.py).
    (stage,) = planned(plan, "llama-3.1-8b", cut=Parallelism(context=3)).stages
    _, mlp, head = (q.number for q in stage.activations.inputs)
    assert mlp == 2_731 * 55_296 * 2
    assert head == 2_731 * 4_096 * 2 + 328_335_360


def test_experts_are_shared_by_context_parallel_ranks_too(plan):
    # Mixtral on tp 2 x cp 2: four GPUs hold two of eight experts each; without, a half of each of eight.
    whole, cut = (
        planned(plan, "mixtral-8x7b", cut=Parallelism(tensor=2, context=2, expert=experts)).stages[0]
        for experts in (4, 1)
    )
    assert cut.weights.number - whole.weights.number == 32 * (4 - 2) * 3 * 14_336 * 4_096 * 2
    with pytest.raises(UsageError):
        Parallelism(tensor=2, context=2, expert=2)


def test_keys_quantised_in_groups_are_refused(plan):
    with pytest.raises(UsageError) as error:
        planned(plan, "llama-3.1-8b", cut=Parallelism(context=2), kv="int8-kivi", block=64)
    assert error.value.message == (
        "int8-kivi quantises the keys of 64 tokens together: context parallel 2 deals them to different ranks"
    )
    assert error.value.hint == "--kv int8 has a scale for each token"


# ------------------------------------------------------------------ boundaries


def bytes_needed(capacity, context, *, block):
    """Count one rank's bytes of a request layer by layer, in bf16: written apart from the planner."""
    cut, needed = capacity.deployment.parallelism, 0
    for layer in capacity.model.layers:
        mixer = layer.mixer
        if isinstance(mixer, Attention):
            per_token = 2 * max(1, mixer.num_key_value_heads // cut.tensor) * mixer.head_dim * 2
            window = mixer.sliding_window
        elif isinstance(mixer, LatentAttention):
            per_token, window = (mixer.kv_lora_rank + mixer.qk_rope_head_dim) * 2, None
        else:
            keys = mixer.linear_num_key_heads * mixer.linear_key_head_dim
            values = mixer.linear_num_value_heads * mixer.linear_value_head_dim
            state = (2 * keys + values) * mixer.linear_conv_kernel_dim * 2
            needed += (state + values * mixer.linear_key_head_dim * 4) // cut.tensor
            continue
        blocks = len(range(0, context, block))
        if window is None:
            blocks = len(range(0, blocks, cut.context))  # dealt in turn; the first rank has most
        else:
            blocks = min(blocks, len(range(0, window - 1, block)) + 1)
        needed += per_token * blocks * block
    return needed


@pytest.mark.parametrize(
    ("name", "gpu", "cut"),
    [
        ("llama-3.1-8b", "rtx4090", Parallelism(context=2)),
        ("llama-3.1-70b", "h100-sxm", Parallelism(tensor=4, context=3)),
        ("gemma-3-27b", "h100-sxm", Parallelism(context=4)),
        ("gpt-oss-20b", "rtx5090", Parallelism(context=2)),
        ("mistral-7b-v0.1", "rtx4090", Parallelism(context=2)),
        ("deepseek-v3", "h200-sxm", Parallelism(tensor=8, context=2, expert=16)),
        ("qwen3-next-80b-a3b", "h200-sxm", Parallelism(tensor=2, context=2)),
    ],
)
@pytest.mark.parametrize("block", [16, 100])
def test_n_fits_and_one_more_does_not(name, gpu, cut, block, plan):
    capacity = planned(plan, name, gpu, cut=cut, block=block)
    (stage,) = capacity.stages
    longest = capacity.deployment.max_tokens
    assert capacity.max_batch(4_097) > 0
    for context in (1, 1_000, 4_097, longest):
        batch = capacity.max_batch(context)
        each = bytes_needed(capacity, context, block=block)
        assert each == stage.cache.allocated_bytes(context)
        assert batch * each <= stage.pool.number < (batch + 1) * each
        assert batch == 0 or capacity.fits(batch, context)
        assert not capacity.fits(batch + 1, context)
    for batch in (7, 64):
        context = capacity.max_context(batch)
        assert batch * bytes_needed(capacity, context, block=block) <= stage.pool.number
        assert context == longest or (
            batch * bytes_needed(capacity, context + 1, block=block) > stage.pool.number
        )


def test_a_grid_equals_single_calls(plan):
    capacity = planned(plan, "gemma-3-27b", cut=Parallelism(context=2, data=2))
    batches, contexts = np.arange(1, 120, 7), np.array([1, 1_023, 4_097, 65_537, 131_072, 131_073])
    grid = capacity.fits_grid(batches, contexts)
    assert grid.any()
    assert not grid.all()
    assert grid.tolist() == [[capacity.fits(int(b), int(c)) for c in contexts] for b in batches]


# ------------------------------------------------------------------ the report


def report_of(capacity):
    return capacity_report(capacity, [4_096], [1], decide_context=4_096, decide_batch=1, inputs=())


def test_the_pool_of_two_ranks(plan):
    report = report_of(planned(plan, "llama-3.1-8b", cut=Parallelism(context=2)))
    kv = {q.name: q.value for q in report.section("kv").quantities}
    assert kv["bytes_per_token"] == 131_072
    assert kv["bytes_per_token_per_gpu"] == 65_536
    assert kv["pool_blocks"] == 28_315  # 59,381,479,833 / (16 x 131,072) = 28,315.3
    assert kv["pool_tokens"] == 28_315 * 16 * 2


def test_the_pool_where_windows_are_whole(plan):
    capacity = planned(plan, "gemma-3-27b", cut=Parallelism(context=2))
    kv = {q.name: q.value for q in report_of(capacity).section("kv").quantities}
    # 8,192 B a token: half a token in 10 layers, a whole one in 52.
    assert kv["bytes_per_token_per_gpu"] == 10 * 4_096 + 52 * 8_192 == 466_944
    assert kv["pool_blocks"] == capacity.stages[0].pool.number // (16 * 2 * 466_944)
    assert kv["pool_tokens"] == kv["pool_blocks"] * 16 * 2


def test_the_average_over_ranks_is_rounded_up(plan):
    (stage,) = planned(plan, "llama-3.1-8b", cut=Parallelism(context=3)).stages
    assert stage.cache.growth("growth", "").number == 43_691  # 131,072 / 3 = 43,690.7


def test_the_report_says_it(plan):
    report = report_of(planned(plan, "llama-3.1-8b", cut=Parallelism(context=2)))
    assert "on 2 x NVIDIA H100 SXM5 80GB, cp 2 (" in report.heading
    held = "each GPU of a context-parallel group holds 1 in 2 of a request's tokens in full-attention layers"
    assert f"{held} (--cp)" in report.notes
    assert report.notes[-1].endswith("(tp 1 x pp 1 x dp 1 x cp 2)")
    found = {q.name: q.value for q in report.section("deployment").quantities}
    assert (found["expert_parallel"], found["context_parallel"]) == (1, 2)
    windows = report_of(planned(plan, "gemma-3-27b", cut=Parallelism(context=2))).notes
    assert f"{held}; windows, chunks and states are whole on every one (--cp)" in windows


def test_what_would_fit_keeps_the_ranks(plan):
    # 141.1 GB of weights on cards of 77.0 GB planned, whichever rank of a context-parallel group they are.
    found = verdict(planned(plan, "llama-3.1-70b", cut=Parallelism(context=2)), 4_096, 1)
    assert found.text.endswith("It fits on 4 of these GPUs (--gpus 4 --tp 2).")
