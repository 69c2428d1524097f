"""Laws of the cache that hold for every context, window, block and format."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.arch.retention import Chunked, Compressed, Full, PerRequest, Sliding, Unfinished
from kvplan.plan.kept_tokens import paged_tokens, paged_window_tokens, window_tokens

contexts = st.integers(1, 3_000)
KV_BY_BITS = ("int4", "int8", "bf16", "fp32")


def most_blocks_held(context, window, block):
    """Run a request token by token over a block table; return the most blocks it ever held.

    A block is taken when a token first needs it, after every block whose tokens have all left the
    window of the new token was given back.
    """
    held, most = set(), 0
    for token in range(context):
        first_seen = token - window + 1
        held = {number for number in held if (number + 1) * block - 1 >= first_seen}
        held.add(token // block)
        most = max(most, len(held))
    return most


@settings(max_examples=400)
@given(st.integers(1, 400), st.integers(1, 80), st.integers(1, 24))
def test_paged_windows_equal_a_simulated_block_table(context, window, block):
    assert paged_window_tokens(context, window, block) == most_blocks_held(context, window, block) * block


@settings(max_examples=100)
@given(st.integers(1, 400), st.integers(1, 24))
def test_paged_full_attention_equals_a_simulated_block_table(context, block):
    assert paged_tokens(context, block) == most_blocks_held(context, context, block) * block


@settings(max_examples=400)
@given(st.integers(1, 10**6), st.integers(1, 10**5), st.integers(1, 512))
def test_waste_of_one_layer(context, window, block):
    """Less than one block is wasted in a full layer, less than two in a window."""
    assert 0 <= paged_tokens(context, block) - context < block
    assert 0 <= paged_window_tokens(context, window, block) - window_tokens(context, window) < 2 * block


MODELS = ("llama-3.1-8b", "gemma-2-9b", "gpt-oss-20b", "deepseek-v3", "qwen3-next-80b-a3b", "mistral-7b-v0.1")


@pytest.mark.parametrize(("kv", "contiguous"), [("bf16", False), ("int4", True)])
def test_live_is_within_allocated(representative, kv, contiguous, plan):
    capacity = plan(representative, kv=kv, contiguous=contiguous)
    longest = capacity.deployment.max_tokens
    whole = capacity.whole_cache
    for context in {1, 15, 16, 17, 127, 128, 129, 4_095, 4_096, 4_097, longest - 1, longest}:
        if context <= longest:
            assert 0 < whole.live_bytes(context) <= whole.allocated_bytes(context)


@pytest.mark.parametrize("block", [1, 100])
def test_waste_of_a_request(representative, block, plan):
    """Paged waste is under one block per sequence and full layer, under two per windowed one.

    A layer of chunks holds the blocks of a whole one while the next begins.
    """
    capacity = plan(representative, block=block)
    whole, allowed = capacity.whole_cache, 0
    for run, cached in zip(capacity.model.slot_runs(), whole.runs, strict=True):
        match run.slot.retention:
            case Full() | Compressed():
                tokens = block
            case Unfinished(ratio=ratio):
                tokens = ratio
            case Sliding():
                tokens = 2 * block
            case Chunked(chunk=chunk):
                tokens = 2 * block + chunk
            case PerRequest():
                tokens = 0
        allowed += cached.layers.number * cached.entry_bytes.number * tokens
    for context in (1, 99, 100, 101, 1_600, 4_096, 4_097, 10_007):
        assert 0 <= whole.allocated_bytes(context) - whole.live_bytes(context) < allowed


@settings(max_examples=50)
@given(first=contexts, second=contexts)
@pytest.mark.parametrize("name", MODELS)
def test_monotone_in_context(name, first, second, plan):
    cache = plan(name).whole_cache
    low, high = sorted((first, second))
    assert cache.live_bytes(low) <= cache.live_bytes(high)
    assert cache.allocated_bytes(low) <= cache.allocated_bytes(high)


@pytest.mark.parametrize("context", [1, 5_000])
def test_monotone_in_bits(representative, context, plan):
    sizes = [plan(representative, kv=kv).whole_cache.live_bytes(context) for kv in KV_BY_BITS]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(sizes)


@settings(max_examples=30)
@given(found=st.lists(st.integers(1, 10**7), min_size=1, max_size=20))
@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_arrays_equal_numbers(name, contiguous, found, plan):
    cache = plan(name, contiguous=contiguous).whole_cache
    array = np.array(found, dtype=np.int64)
    assert cache.live_bytes(array).tolist() == [cache.live_bytes(c) for c in found]
    assert cache.allocated_bytes(array).tolist() == [cache.allocated_bytes(c) for c in found]


def test_explained_bytes_equal_the_plain_ones(representative, plan):
    cache = plan(representative).whole_cache
    for context in (1, 128, 4_097):
        assert cache.live("live", context).number == cache.live_bytes(context)
        assert cache.allocated("allocated", context).number == cache.allocated_bytes(context)
