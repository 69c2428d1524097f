"""Cache bytes by hand: entries under every format, windows, blocks, rings, states and ranks."""

import pytest

from kvplan.plan.entry_bytes import attention_entry_bytes, latent_entry_bytes, state_entry_bytes
from kvplan.plan.kept_tokens import (
    all_tokens,
    contiguous_tokens,
    paged_tokens,
    paged_window_tokens,
    ring_tokens,
    window_tokens,
)

GIB = 1 << 30


def growth(capacity):
    return capacity.whole_cache.growth("bytes_per_token", "").number


def growth_per_gpu(capacity):
    return {stage.cache.growth("bytes_per_token_per_gpu", "").number for stage in capacity.stages}


# ------------------------------------------------------------------ bytes per token


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-3.1-8b", 131_072),  # 32 layers x 2 x 8 heads x 128 x 2 bytes
        ("llama-2-70b", 327_680),  # 80 x 2 x 8 x 128 x 2: grouped, not 64 heads
        ("llama-2-7b", 524_288),  # 32 x 2 x 32 x 128 x 2: one KV head per query head
        ("deepseek-v3", 70_272),  # 61 x (512 + 64) x 2
        ("deepseek-v2-lite", 31_104),  # 27 x 576 x 2
        ("falcon-7b", 8_192),  # 32 x 2 x 1 x 64 x 2: one head
        ("falcon-40b", 122_880),  # 60 x 2 x 8 x 64 x 2
        ("gpt2", 36_864),  # 12 x 2 x 12 x 64 x 2
        ("gemma-2-9b", 344_064),  # 42 x 2 x 8 x 256 x 2, while all 42 grow
        ("gemma-3-27b", 507_904),  # 62 x 2 x 16 x 128 x 2
        ("gpt-oss-20b", 49_152),  # 24 x 2 x 8 x 64 x 2
        ("gpt-oss-120b", 73_728),  # 36 x 2 x 8 x 64 x 2
        ("qwen3-next-80b-a3b", 24_576),  # 12 of 48 layers x 2 x 2 x 256 x 2
        ("qwen3-30b-a3b", 98_304),  # 48 x 2 x 4 x 128 x 2
    ],
)
def test_bf16(name, expected, plan):
    assert growth(plan(name)) == expected


@pytest.mark.parametrize(
    ("name", "kv", "expected"),
    [
        ("llama-3.1-8b", "fp16", 131_072),
        ("llama-3.1-8b", "fp32", 262_144),
        ("llama-3.1-8b", "fp8", 65_536),
        ("llama-3.1-8b", "int8", 66_560),  # 32 x 8 x 2 x (128 + 2): one float16 scale a vector
        ("llama-3.1-8b", "int4", 34_816),  # 32 x 8 x 2 x (64 + 4): scale and minimum
        ("deepseek-v3", "fp8", 35_136),  # 61 x 576
        ("deepseek-v3", "int8", 35_380),  # 61 x (512 + 2 + 64 + 2)
        ("deepseek-v3", "int4", 18_056),  # 61 x (256 + 4 + 32 + 4)
        ("gpt-oss-20b", "int4", 13_824),  # 24 x 8 x 2 x (32 + 4)
    ],
)
def test_formats_with_their_scales(name, kv, expected, plan):
    assert growth(plan(name, kv=kv)) == expected


def test_an_odd_head_rounds_up_to_a_byte():
    assert attention_entry_bytes(3, 5, 7, 4, 4) == 3 * (3 + 4 + 8)
    assert latent_entry_bytes(5, 3, 4, 4) == 3 + 2 + 8


def test_keys_and_values_may_differ_in_width():
    assert attention_entry_bytes(4, 192, 128, 16, 0) == 4 * (192 + 128) * 2


# ------------------------------------------------------------------ ranks


@pytest.mark.parametrize("tensor", [1, 2, 4, 8, 16])
def test_a_latent_is_whole_on_every_rank(tensor, plan):
    assert growth_per_gpu(plan("deepseek-v3", tensor=tensor)) == {70_272}


@pytest.mark.parametrize(
    ("tensor", "expected"), [(1, 131_072), (2, 65_536), (4, 32_768), (8, 16_384), (16, 16_384), (32, 16_384)]
)
def test_kv_heads_are_divided_then_repeated(tensor, expected, plan):
    """Llama-3.1-8B has 8: on 16 ranks each still keeps one, 32 layers x 2 x 128 x 2 bytes."""
    capacity = plan("llama-3.1-8b", tensor=tensor)
    assert growth_per_gpu(capacity) == {expected}
    assert growth(capacity) == 131_072


def test_a_state_is_divided_with_its_heads(plan):
    (stage,) = plan("qwen3-next-80b-a3b", tensor=4).stages
    assert stage.cache.state("s", "").number == 77_856_768 // 4
    assert growth_per_gpu(plan("qwen3-next-80b-a3b", tensor=4)) == {12 * 2 * 1 * 256 * 2}


def test_a_pipeline_stage_caches_its_own_layers(plan):
    stages = plan("deepseek-v3", pipeline=4).stages
    assert [s.cache.growth("g", "").number for s in stages] == [17_280, 17_280, 18_432, 17_280]


# ------------------------------------------------------------------ one sequence of 8,192 tokens, bf16


@pytest.mark.parametrize(
    ("name", "state", "expected", "gib"),
    [
        ("deepseek-v3", "transformers", 575_668_224, "0.536"),  # 8,192 x 70,272
        # 21 layers x 8,192 B x (8,192 + 4,096): the local ones stop at their window.
        ("gemma-2-9b", "transformers", 2_113_929_216, "1.969"),
        # 12 layers x 2,048 B x (8,192 + 128).
        ("gpt-oss-20b", "transformers", 204_472_320, "0.190"),
        # 12 layers x 2,048 B x 8,192 = 201,326,592, and the state of 36 layers in one of three layouts.
        ("qwen3-next-80b-a3b", "transformers", 201_326_592 + 77_856_768, "0.260"),
        ("qwen3-next-80b-a3b", "vllm-fp32", 201_326_592 + 77_266_944, "0.259"),
        ("qwen3-next-80b-a3b", "vllm", 201_326_592 + 39_518_208, "0.224"),
    ],
)
def test_8192_tokens(name, state, expected, gib, plan):
    live = plan(name, state=state).whole_cache.live("kv_live_bytes", 8_192).number
    assert live == expected
    assert f"{live / GIB:.3f}" == gib


def test_gemma_2_local_layers_stop_at_4096(plan):
    cache = plan("gemma-2-9b").whole_cache
    assert cache.live_bytes(4_096) == 42 * 8_192 * 4_096
    assert cache.live_bytes(4_097) - cache.live_bytes(4_096) == 21 * 8_192
    sliding, full = cache.runs
    assert (sliding.layers.number, full.layers.number) == (21, 21)
    assert [sliding.live.tokens(c) for c in (1, 4_095, 4_096, 4_097, 8_192)] == [
        1,
        4_095,
        4_096,
        4_096,
        4_096,
    ]
    assert full.live.tokens(8_192) == 8_192


def test_mistral_stops_growing_altogether(plan):
    cache = plan("mistral-7b-v0.1").whole_cache
    assert cache.live_bytes(4_096) == cache.live_bytes(32_768) == 32 * 4_096 * 4_096


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        # 8,192 channels x 4 columns x 2 bytes + 32 heads x 128 x 128 x 4 bytes = 2,162,688; 36 layers.
        ("transformers", 77_856_768),
        # 8,192 x 3 x 2 + 32 x 128 x 128 x 4 = 2,146,304; 36 layers.
        ("vllm-fp32", 77_266_944),
        # 8,192 x 3 x 2 + 32 x 128 x 128 x 2 = 1,097,728; 36 layers.
        ("vllm", 39_518_208),
    ],
)
def test_qwen3_next_state_layouts(state, expected, plan):
    cache = plan("qwen3-next-80b-a3b", state=state).whole_cache
    assert cache.state("s", "").number == expected
    assert cache.live_bytes(1) == expected + 24_576
    assert cache.live_bytes(100_000) == expected + 100_000 * 24_576


def test_kv_formats_leave_a_state_alone(plan):
    for kv in ("fp8", "int4", "fp32"):
        cache = plan("qwen3-next-80b-a3b", kv=kv).whole_cache
        assert cache.state("s", "").number == 77_856_768


def test_state_entry():
    assert state_entry_bytes(8_192, 3, 2, 524_288, 2) == 49_152 + 1_048_576


# ------------------------------------------------------------------ tokens


def test_laws_by_hand():
    assert all_tokens(17) == 17
    assert [window_tokens(c, 8) for c in (7, 8, 9)] == [7, 8, 8]
    assert [paged_tokens(c, 16) for c in (1, 16, 17)] == [16, 16, 32]
    # A window of 8 over blocks of 4 can straddle three; of 5, never more than two; of 1, one.
    assert [paged_window_tokens(c, 8, 4) for c in (1, 4, 5, 8, 9, 100)] == [4, 4, 8, 8, 12, 12]
    assert [paged_window_tokens(100, w, 4) for w in (1, 2, 5, 6, 9)] == [4, 8, 8, 12, 12]
    # Llama-style windows: 4,096 over blocks of 16 take 257 blocks, not 256.
    assert paged_window_tokens(8_192, 4_096, 16) == 257 * 16
    assert [contiguous_tokens(c, 100) for c in (1, 100)] == [100, 100]
    assert [ring_tokens(c, 8, 100) for c in (1, 100)] == [8, 8]
    assert ring_tokens(1, 200, 100) == 100


def test_allocated_in_blocks(plan):
    # gpt-oss-20b, 8,193 tokens: 513 blocks of 16 in 12 full layers, ceil(127 / 16) + 1 = 9 in 12 others.
    cache = plan("gpt-oss-20b").whole_cache
    assert cache.allocated_bytes(8_193) == 12 * 2_048 * 16 * (513 + 9)


def test_allocated_contiguously(plan):
    # Gemma-2-9B to its 8,192 tokens: 21 layers x 8,192 B x 8,192, and 21 rings of 4,096, for any request.
    cache = plan("gemma-2-9b", contiguous=True).whole_cache
    assert cache.allocated_bytes(1) == cache.allocated_bytes(8_192) == 21 * 8_192 * (8_192 + 4_096)
    short = plan("gemma-2-9b", contiguous=True, max_tokens=1_000).whole_cache
    assert short.allocated_bytes(1) == 42 * 8_192 * 1_000


def test_a_state_is_allocated_once(plan):
    cache = plan("qwen3-next-80b-a3b", state="vllm").whole_cache
    assert cache.allocated_bytes(1) == 39_518_208 + 24_576 * 16
