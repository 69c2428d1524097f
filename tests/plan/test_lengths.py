"""Waste under a distribution of lengths: by hand, against one request at a time, and what must hold."""

from dataclasses import replace
from fractions import Fraction
from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.scale_down import scaled_down
from kvplan.errors import UsageError
from kvplan.plan.lengths import LengthDistribution, requests_held, waste

KIB = 1 << 10
LLAMA = 131_072  # bytes a token: 32 layers x 2 x 8 heads x 128 x 2


def wasted(distribution, plan, model="llama-3.1-8b", **options):
    capacity = plan(model, **options)
    return waste(capacity.whole_cache, capacity.deployment.allocation, distribution)


def refusal(call, *arguments):
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    assert len(caught.value.lines()) == 1
    return caught.value.lines()[0]


# ------------------------------------------------------------------ distributions


def test_fixed():
    fixed = LengthDistribution.fixed(700)
    assert (fixed.lengths, fixed.weights, fixed.requests) == ((700,), (1,), 1)
    assert fixed.mean_tokens == fixed.longest_tokens == 700


def test_uniform_has_every_length_once():
    assert LengthDistribution.uniform(3, 6) == LengthDistribution((3, 4, 5, 6), (1, 1, 1, 1))
    assert LengthDistribution.uniform(1, 16).mean_tokens == Fraction(17, 2)
    assert LengthDistribution.uniform(5, 5) == LengthDistribution.fixed(5)


def test_weights_count():
    """One request of 10 tokens and three of 20: 70 tokens in 4 requests."""
    assert LengthDistribution((10, 20), (1, 3)).mean_tokens == Fraction(35, 2)


@pytest.mark.parametrize(
    ("low", "high"), [(256, 8 * KIB), (32, 2 * KIB), (1, 128 * KIB), (1_000, 1_001), (7, 7)]
)
def test_log_uniform_has_the_mean_of_the_whole_distribution(low, high):
    """Summed over every length; no octave is more likely than another."""
    found = LengthDistribution.log_uniform(low, high)
    assert found.requests == 64
    assert low <= min(found.lengths)
    assert found.longest_tokens <= high
    mean = sum(n * log((n + 1) / n) for n in range(low, high + 1)) / log((high + 1) / low)
    assert float(found.mean_tokens) == pytest.approx(mean, rel=2e-3)


def test_log_uniform_octaves_are_as_likely():
    """1 to 255 are the eight octaves 1, 2-3, 4-7, ..., 128-255: 8 of 64 quantiles each."""
    found = LengthDistribution.log_uniform(1, 255)
    octaves = [0] * 8
    for length, weight in zip(found.lengths, found.weights, strict=True):
        octaves[length.bit_length() - 1] += weight
    assert octaves == [8] * 8
    assert found.weights[0] == 8  # all of the first octave are the length 1


def test_log_uniform_of_one_quantile_is_the_middle():
    """The root of 1 x 256."""
    assert LengthDistribution.log_uniform(1, 255, quantiles=1) == LengthDistribution.fixed(16)


def test_no_distribution():
    assert refusal(LengthDistribution, (), ()) == "0 lengths cannot have 0 weights"
    assert refusal(LengthDistribution, (1, 2), (1,)) == "2 lengths cannot have 1 weights"
    assert refusal(LengthDistribution, (1, 2), (1, 0)) == "a length has a weight of at least 1, not 0"
    assert refusal(LengthDistribution.fixed, 0) == "a request has 1 to 1,099,511,627,776 tokens, not 0"
    assert "not 1,099,511,627,777" in refusal(LengthDistribution.fixed, 2**40 + 1)
    for make in (LengthDistribution.uniform, LengthDistribution.log_uniform):
        assert refusal(make, 8_192, 256) == "lengths from 8,192 to 256 are no range of 1 or more tokens"
        assert refusal(make, 0, 5) == "lengths from 0 to 5 are no range of 1 or more tokens"
    assert refusal(LengthDistribution.uniform, 1, 2**20 + 1) == (
        "1 to 1,048,577 are more than 1,048,576 different lengths"
    )
    assert LengthDistribution.uniform(1, 2**20).requests == 2**20
    assert "at least 1 quantile" in refusal(LengthDistribution.log_uniform, 1, 5, 0)


# ------------------------------------------------------------------ waste by hand


def test_blocks_of_16(plan):
    """Lengths 1 to 16 take a block each: 8.5 tokens live, 7.5 empty."""
    found = wasted(LengthDistribution.uniform(1, 16), plan)
    assert found.live_bytes == Fraction(17, 2) * LLAMA
    assert found.allocated_bytes == 16 * LLAMA
    assert found.fragmentation_bytes == Fraction(15, 2) * LLAMA
    assert found.reserved_bytes == 0
    assert found.live_share == Fraction(17, 32)


@pytest.mark.parametrize(
    ("block", "tokens"), [(1, 0), (16, Fraction(15, 2)), (32, Fraction(31, 2)), (256, Fraction(255, 2))]
)
def test_the_last_block_is_half_empty_on_average(block, tokens, plan):
    """Whatever the lengths, as long as all remainders are as likely: (block - 1) / 2 tokens."""
    found = wasted(LengthDistribution.uniform(1, 2_048), plan, block=block)
    assert found.fragmentation_bytes == tokens * LLAMA


def test_points_at_even_steps_would_hide_it(plan):
    """Why a uniform distribution has every length: 64 middles of 1 to 8,192 are all whole blocks."""
    middles = LengthDistribution(tuple(range(64, 8_193, 128)), (1,) * 64)
    assert wasted(middles, plan).fragmentation_bytes == 0
    assert wasted(LengthDistribution.uniform(1, 8_192), plan).fragmentation_bytes == Fraction(15, 2) * LLAMA


def test_contiguous_reserves_the_longest(plan):
    """Lengths 1 to 16 of 2,048: 2,039.5 tokens are taken and empty, none by rounding."""
    found = wasted(LengthDistribution.uniform(1, 16), plan, contiguous=True, max_tokens=2_048)
    assert found.live_bytes == Fraction(17, 2) * LLAMA
    assert found.allocated_bytes == 2_048 * LLAMA
    assert found.reserved_bytes == Fraction(4_079, 2) * LLAMA
    assert found.fragmentation_bytes == 0


def test_weights_of_lengths_are_weights_of_bytes(plan):
    """One of 10 tokens, three of 20: blocks of 16 and 3 x 32, live 10 and 3 x 20."""
    found = wasted(LengthDistribution((10, 20), (1, 3)), plan)
    assert found.allocated_bytes == Fraction(16 + 96, 4) * LLAMA
    assert found.live_share == Fraction(70, 112)  # of all requests together, not the mean of 10/16 and 20/32


def test_windows(plan):
    """Gemma 2 9B at 5,000 tokens: 21 layers hold 5,008; 21 see 4,096 and hold 257 blocks, 4,112."""
    found = wasted(LengthDistribution.fixed(5_000), plan, "gemma-2-9b")
    assert found.live_bytes == 21 * (5_000 + 4_096) * 8_192
    assert found.fragmentation_bytes == 21 * (8 + 16) * 8_192
    ring = wasted(LengthDistribution.fixed(5_000), plan, "gemma-2-9b", contiguous=True, max_tokens=8_192)
    assert ring.reserved_bytes == 21 * (8_192 - 5_000) * 8_192  # the rings are full


def test_states_are_used_whole(plan):
    """Qwen3-Next: 12 layers x 2,048 bytes a token, and 36 states that waste nothing."""
    short, longer = (
        wasted(LengthDistribution.fixed(n), plan, "qwen3-next-80b-a3b", state="vllm-fp32") for n in (1, 17)
    )
    # 36 layers x (8,192 channels x 3 columns x 2 bytes + 32 x 128 x 128 x 4 bytes)
    state = 36 * (8_192 * 3 * 2 + 32 * 128 * 128 * 4)
    assert short.live_bytes == state + 24_576
    assert short.fragmentation_bytes == longer.fragmentation_bytes == 15 * 24_576
    assert longer.allocated_bytes == state + 32 * 24_576


def test_keys_in_groups(plan):
    """int8-kivi, blocks of 64, 70 tokens: 2 groups of keys for one complete, room for 64 that wait for 6."""
    found = wasted(LengthDistribution.fixed(70), plan, kv="int8-kivi", block=64)
    value, group, waiting = 8 * (128 + 2), 8 * (64 * 128 + 128 * 2), 8 * 128 * 2
    assert found.live_bytes == 32 * (70 * value + 1 * group + 6 * waiting)
    assert found.allocated_bytes == 32 * (128 * value + 2 * group + 64 * waiting)


def test_ranks_and_stages_waste_their_share(plan):
    """Four of eight heads and half of the layers: a quarter of each figure."""
    whole = wasted(LengthDistribution.uniform(1, 16), plan)
    capacity = plan("llama-3.1-8b", tensor=2, pipeline=2)
    for stage in capacity.stages:
        share = waste(stage.cache, capacity.deployment.allocation, LengthDistribution.uniform(1, 16))
        assert share.fragmentation_bytes * 4 == whole.fragmentation_bytes
        assert share.live_share == whole.live_share


def test_paged_attention_paper(plan):
    """arXiv 2309.06180, figure 2: 20.4% to 38.2% of contiguous caches hold tokens, and 96.3% of vLLM's.

    Not its workload, its order: 13B, up to 2,048 tokens, the mean its ShareGPT requests end with,
    161 + 338 (figure 11).
    """
    end = LengthDistribution.fixed(499)
    mixed = LengthDistribution.log_uniform(32, 2_048)
    assert 450 < mixed.mean_tokens < 530
    for lengths in (end, mixed):
        contiguous = wasted(lengths, plan, "llama-2-13b", contiguous=True, max_tokens=2_048)
        paged = wasted(lengths, plan, "llama-2-13b", max_tokens=2_048)
        assert 0.204 < contiguous.live_share < 0.382
        assert paged.live_share > 0.963


# ------------------------------------------------------------------ waste, what must hold

MODELS = ("llama-3.1-8b", "gemma-2-9b", "gpt-oss-20b", "deepseek-v3", "qwen3-next-80b-a3b", "mistral-7b-v0.1")
distributions = st.dictionaries(st.integers(1, 8_192), st.integers(1, 9), min_size=1, max_size=12).map(
    lambda found: LengthDistribution(tuple(found), tuple(found.values()))
)


@settings(max_examples=40)
@given(distribution=distributions, block=st.sampled_from([1, 16, 100]))
@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_mean_of_one_request_at_a_time(name, contiguous, distribution, block, plan):
    capacity = plan(name, block=block, contiguous=contiguous, max_tokens=8_192)
    cache = capacity.whole_cache
    drawn = [
        n for n, weight in zip(distribution.lengths, distribution.weights, strict=True) for _ in range(weight)
    ]
    found = waste(cache, capacity.deployment.allocation, distribution)
    assert found.live_bytes * len(drawn) == sum(cache.live(str(n), n).number for n in drawn)
    assert found.allocated_bytes * len(drawn) == sum(cache.allocated(str(n), n).number for n in drawn)
    assert found.fragmentation_bytes >= 0
    assert found.reserved_bytes >= 0
    assert (found.fragmentation_bytes if contiguous else found.reserved_bytes) == 0
    assert 0 < found.live_share <= 1


@settings(max_examples=60)
@given(distribution=distributions, block=st.integers(1, 300))
@pytest.mark.parametrize("name", MODELS)
def test_paged_waste_is_under_a_block(name, distribution, block, plan):
    """Less than one block per sequence and full layer, less than two where a window cuts off both ends."""
    capacity = plan(name, block=block)
    allowed = sum(
        run.layers.number * run.entry_bytes.number * block * (2 if run.live.constants else 1)
        for run in capacity.whole_cache.runs
        if run.live is not None
    )
    found = waste(capacity.whole_cache, capacity.deployment.allocation, distribution)
    assert found.fragmentation_bytes < allowed


@pytest.mark.parametrize("doubled", [1, 500])
def test_larger_blocks_never_waste_less(doubled, representative, plan):
    """Where the larger block is a multiple of the smaller."""
    distribution = LengthDistribution.log_uniform(1, 1_024)
    small, large = (wasted(distribution, plan, representative, block=b) for b in (doubled, 2 * doubled))
    assert small.live_bytes == large.live_bytes
    assert small.fragmentation_bytes <= large.fragmentation_bytes


def test_what_cannot_be_held(plan):
    assert refusal(wasted_contiguous(plan), LengthDistribution.uniform(2_048, 2_049)) == (
        "requests of up to 2,049 tokens are longer than the longest context, 2,048   (--max-length)"
    )
    huge = LengthDistribution.fixed(2**40)
    assert "past 2^53" in refusal(waste, plan("llama-3.1-8b").whole_cache, Paged(16), huge)
    # 2^36 tokens of 2^17 bytes are 2^53, and still exact.
    exact = waste(plan("llama-3.1-8b").whole_cache, Paged(16), LengthDistribution.fixed(2**36))
    assert exact.live_bytes == 2**53


def wasted_contiguous(plan):
    cache = plan("llama-3.1-8b", contiguous=True, max_tokens=2_048).whole_cache
    return lambda distribution: waste(cache, Contiguous(2_048), distribution)


# ------------------------------------------------------------------ requests held


def test_requests_by_hand(plan):
    """Llama 3.1 8B: whole blocks of 16 tokens are 2 MiB; lengths 1 to 16 take one, 17 to 32 two."""
    capacity = plan("llama-3.1-8b")
    pool = capacity.stages[0].pool.number
    assert requests_held(capacity, LengthDistribution.uniform(1, 16)) == pool // (2 << 20)
    assert requests_held(capacity, LengthDistribution.uniform(1, 32)) == pool * 2 // (6 << 20)
    two_replicas = requests_held(plan("llama-3.1-8b", data=2), LengthDistribution.uniform(1, 32))
    assert two_replicas == 2 * (pool * 2 // (6 << 20))


@pytest.mark.parametrize("options", [{}, {"pipeline": 3}, {"tensor": 2, "data": 3}, {"contiguous": True}])
@pytest.mark.parametrize("tokens", [1, 1_000, 8_192])
@pytest.mark.parametrize("name", ["llama-3.1-8b", "gemma-2-9b", "qwen2.5-7b"])
def test_one_length_is_the_exact_search(name, tokens, options, plan):
    """Where nothing is random, it is the capacity found by search, stages and replicas included."""
    if name == "qwen2.5-7b" and "tensor" in options:
        options = {**options, "tensor": 4}
    capacity = plan(name, max_tokens=8_192, **options)
    found = requests_held(capacity, LengthDistribution.fixed(tokens))
    assert found == capacity.max_batch(tokens)
    assert found > 0


def test_none_fit(plan):
    """70B on one GPU is short of memory before the first token; 8B holds no request of 100 GiB."""
    assert plan("llama-3.3-70b").stages[0].shortfall.number > 0
    assert requests_held(plan("llama-3.3-70b"), LengthDistribution.fixed(1)) == 0
    long = plan("llama-3.1-8b", max_tokens=1 << 20)
    assert requests_held(long, LengthDistribution.fixed(100 << 13)) == 0


def test_paging_holds_more_than_reserving(representative, bundled, plan):
    small = scaled_down(bundled(representative))
    lengths = LengthDistribution.log_uniform(16, 1_024)
    paged, contiguous = (
        requests_held(plan(small, max_tokens=1_024, contiguous=whole), lengths) for whole in (False, True)
    )
    assert paged > contiguous > 0


@settings(max_examples=60)
@given(distribution=distributions, block=st.integers(1, 256), times=st.integers(2, 8))
@pytest.mark.parametrize("name", ["llama-3.1-8b", "gemma-2-9b", "gpt-oss-20b"])
def test_more_waste_never_holds_more(name, distribution, block, times, plan):
    held = [requests_held(plan(name, block=b), distribution) for b in (block, block * times)]
    assert held[0] >= held[1]
    longest = LengthDistribution.fixed(distribution.longest_tokens)
    assert requests_held(plan(name, block=block), longest) <= held[0]


def test_longer_than_the_deployment_allows(plan):
    capacity = plan("llama-3.1-8b", max_tokens=4_096)
    assert requests_held(capacity, LengthDistribution.fixed(4_096)) > 0
    line = refusal(requests_held, capacity, LengthDistribution((1, 4_097), (9, 1)))
    assert (
        line == "requests of up to 4,097 tokens are longer than the longest context, 4,096   (--max-length)"
    )


def test_a_request_that_int64_would_wrap(plan):
    capacity = plan("llama-3.1-8b")
    endless = replace(capacity, deployment=replace(capacity.deployment, max_tokens=1 << 41))
    assert "past 2^53" in refusal(requests_held, endless, LengthDistribution.fixed(1 << 40))
