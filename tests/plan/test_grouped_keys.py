"""Caches whose keys are quantised in groups: bytes by hand, by a loop over tokens, and what is refused."""

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Run, slot_runs
from kvplan.errors import UsageError
from kvplan.plan.cache import request_cache
from kvplan.plan.grouped_keys import grouped_growth_bytes
from kvplan.storage import kv_format, state_layout

# Bits of an element, bytes of scale and minimum.
BITS = {"int8-kivi": (8, 2), "int4-kivi": (4, 4), "int2-kivi": (2, 4)}


def cache_of(kv, allocation, layers=3, **attention):
    mixer = Attention(4, 2, 16, **attention)
    runs = slot_runs([Run(Layer(mixer, MLP(64)), layers)])
    return request_cache(runs, 1, kv_format(kv), state_layout("transformers"), "fp32", allocation, "a test")


# ------------------------------------------------------------------ by hand


def test_llama_int4(plan):
    """8 heads of 128: values 64 + 4 bytes a token; keys 64 x 128 / 2 + 128 x 4 a group; 256 while waiting."""
    whole = plan("llama-3.1-8b", kv="int4-kivi", block=64).whole_cache
    a_group = 8 * (64 * 68 + 64 * 64 + 128 * 4)
    assert whole.live_bytes(64) == 32 * a_group == 32 * 64 * 1_120
    assert whole.live_bytes(63) == 32 * 8 * 63 * (68 + 256)
    assert whole.live_bytes(65) == 32 * (a_group + 8 * (68 + 256))
    tail = 8 * 64 * 256
    assert whole.allocated_bytes(1) == whole.allocated_bytes(64) == 32 * (a_group + tail)
    assert whole.allocated_bytes(65) == 32 * (2 * a_group + tail)
    assert whole.growth("bytes_per_token", "").number == 32 * 1_120


def test_llama_int8(plan):
    """Values 128 + 2 bytes a token; keys 64 x 128 + 128 x 2 a group: 132 a token."""
    whole = plan("llama-3.1-8b", kv="int8-kivi", block=128).whole_cache
    assert whole.growth("bytes_per_token", "").number == 32 * 8 * (130 + 132)
    assert whole.live_bytes(6_400) == 100 * 64 * 32 * 8 * 262
    assert whole.allocated_bytes(6_401) == 32 * 8 * (6_528 * 262 + 64 * 256)


def test_contiguously(plan):
    whole = plan("llama-3.1-8b", kv="int4-kivi", contiguous=True, max_tokens=640).whole_cache
    assert whole.allocated_bytes(1) == whole.allocated_bytes(640) == 32 * (640 * 1_120 + 8 * 64 * 256)


def test_sizes_against_plain_formats(plan):
    """Nearly as small as one scale a token: a quarter of fp16 and a half, within 15 %."""
    fp16 = plan("llama-3.1-8b", kv="fp16").whole_cache.live_bytes(65_536)
    for kv, share in (("int8-kivi", 2), ("int4-kivi", 4)):
        live = plan("llama-3.1-8b", kv=kv, block=64).whole_cache.live_bytes(65_536)
        assert fp16 / share < live < 1.15 * fp16 / share


def test_growth_rounds_up_to_a_byte():
    # 3 layers x (64 x 10 + 33) = 2,019 bytes a group: 31.55 a token.
    assert grouped_growth_bytes(3, 10, 33, 64) == 32
    assert grouped_growth_bytes(1, 10, 64, 64) == 11


# ------------------------------------------------------------------ token by token


def stored_bytes(kv, context):
    """Bytes of one layer: 2 heads of 16 elements, of tokens stored one by one."""
    bits, scale = BITS[kv]
    values = sum(2 * (16 * bits // 8 + scale) for _ in range(context))
    complete = context // 64 * 64
    groups = {key // 64 for key in range(complete)}
    waiting = range(complete, context)
    return values + len(groups) * 2 * 16 * (64 * bits // 8 + scale) + len(waiting) * 2 * 16 * 2


@pytest.mark.parametrize("kv", BITS)
def test_live_bytes_token_by_token(kv):
    cache = cache_of(kv, Paged(64))
    contexts = np.arange(1, 700)
    array = cache.live_bytes(contexts)
    for context in contexts.tolist():
        expected = 3 * stored_bytes(kv, context)
        assert cache.live_bytes(context) == array[context - 1] == expected, context
        assert expected <= cache.allocated_bytes(context)
    for context in (1, 63, 64, 65, 300, 640):
        assert cache.live("live", context).number == cache.live_bytes(context)
        assert cache.allocated("allocated", context).number == cache.allocated_bytes(context)


@pytest.mark.parametrize("block", [64, 192])
def test_allocated_bytes_are_blocks_and_room_for_a_group(block):
    cache = cache_of("int8-kivi", Paged(block))
    contexts = np.arange(1, 1_000)
    found = cache.allocated_bytes(contexts)
    for context in contexts.tolist():
        blocks = -(-context // block)
        a_block = block * 2 * 18 + block // 64 * 2 * 16 * (64 + 2)
        assert found[context - 1] == 3 * (blocks * a_block + 64 * 2 * 16 * 2)


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("allocation", "attention", "message", "hint"),
    [
        (Paged(16), {}, "blocks of 16 tokens are not whole groups", "--block-size 64"),
        (Paged(100), {}, "blocks of 100 tokens are not whole groups", "--block-size 128"),
        (Contiguous(1_000), {}, "1,000 tokens are not whole groups", "--max-length 960"),
        (Contiguous(10), {}, "10 tokens are not whole groups", "--max-length 64"),
        (Contiguous(1_024), {"sliding_window": 64}, "a window lets go of them one by one", "--kv int8 "),
        (Paged(64), {"attention_chunk_size": 64}, "a window lets go of them one by one", "--kv int8 "),
        (Paged(64), {"sliding_window": 64, "sink_tokens": 4}, "a window lets go", "--kv int8 "),
    ],
)
def test_what_cannot_be_whole_groups(allocation, attention, message, hint):
    with pytest.raises(UsageError, match=message) as refusal:
        cache_of("int8-kivi", allocation, **attention)
    assert hint in refusal.value.hint


def test_latents_have_no_channels_to_group(plan):
    with pytest.raises(UsageError, match="latent attention caches none") as refusal:
        plan("deepseek-v3", kv="int4-kivi", block=64)
    assert refusal.value.hint.startswith("--kv int4 ")


def test_the_command_line(refused, command):
    asked = ("capacity", "llama-3.1-8b", "--gpu", "h100-sxm", "--kv", "int4-kivi")
    assert refused(*asked)[0].endswith("(--block-size 64)")
    status, out, _ = command(*asked, "--block-size", "64")
    assert status == 0
    assert "35,840 B per token" in out


def test_a_state_needs_no_groups(plan):
    cache = plan("qwen3-next-80b-a3b", kv="int8-kivi", block=64).whole_cache
    assert cache.state("s", "").number == 77_856_768
    assert cache.live_bytes(64) == 77_856_768 + 12 * 2 * (64 * 258 + 256 * 66)


def test_a_window_of_what_stays_is_refused():
    """Its layers keep whole groups, and would read parts of them."""
    with pytest.raises(UsageError, match="some layers look back through a window"):
        cache_of("int4-kivi", Paged(64), visible_window=32)
