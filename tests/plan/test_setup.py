"""What a load shares and what a layer keeps: by hand, and against blocks that are counted one by one."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.allocation import Contiguous, Paged
from kvplan.errors import UsageError
from kvplan.plan.setup import Load, Setup, Speculation


@pytest.fixture
def setup_of(plan):
    """A function from a model, a load and what :func:`plan` takes to a setup."""

    def make(model="llama-3.1-8b", load=None, **options):
        capacity = plan(model, **options)
        return Setup(capacity.model, capacity.deployment, load or Load(16, 8192))

    return make


# ------------------------------------------------------------------ a prefix


@pytest.mark.parametrize(
    ("percent", "context", "tokens"),
    [
        (50, 8192, 4096),
        (50, 8191, 4096),  # 512 blocks, the last one not full
        (50, 8193, 4096),  # 513 blocks: half of them, rounded down
        (25, 100, 16),  # 7 blocks: 1.75 of them
        (99, 16, 0),  # a prompt of one block has no block to share
        (99, 17, 16),
        (99, 1600, 1584),
        (1, 8192, 80),  # 512 blocks: 5.12 of them
        (0, 8192, 0),
    ],
)
def test_a_prefix_is_whole_blocks(setup_of, percent, context, tokens):
    assert setup_of(load=Load(16, 8192, shared_percent=percent)).shared_tokens(context) == tokens


@given(percent=st.integers(1, 99), context=st.integers(1, 5000), block=st.sampled_from([1, 16, 64]))
def test_a_prefix_leaves_every_request_a_token_and_is_as_large_as_asked(plan, percent, context, block):
    capacity = plan("gpt2", block=block, max_tokens=5000)
    setup = Setup(capacity.model, capacity.deployment, Load(1, 5000, shared_percent=percent))
    found = setup.shared_tokens(context)
    blocks = len(range(0, context, block))
    assert found % block == 0
    assert 0 <= found < context
    assert found * 100 <= blocks * block * percent < (found + block) * 100


def test_a_contiguous_cache_shares_no_prefix(setup_of):
    with pytest.raises(UsageError, match="a contiguous cache shares no prefix: each request has a place"):
        setup_of(load=Load(16, 8192, shared_percent=1), contiguous=True)
    assert setup_of(contiguous=True).shared_tokens(8192) == 0


def test_a_prefix_is_refused_whichever_comes_first(setup_of):
    shared = setup_of(load=Load(16, 8192, shared_percent=50))
    assert shared.deployment.allocation == Paged(16)
    with pytest.raises(UsageError, match="shares no prefix"):
        replace(shared, deployment=replace(shared.deployment, allocation=Contiguous(131_072)))


# ------------------------------------------------------------------ what a layer keeps


def kept(setup):
    return [setup.keeps_every_token(slot) for slot in setup.model.stored_slots()]


@pytest.mark.parametrize(
    ("model", "full"),
    [
        ("llama-3.1-8b", 32),
        ("deepseek-v3", 61),
        ("gemma-3-27b", 10),  # 62 layers: every sixth sees all
        ("mistral-7b-v0.1", 0),
        ("qwen3-next-80b-a3b", 12),  # 48 layers: every fourth is attention
        ("gpt-oss-120b", 18),  # 36 layers: every other
        ("phi-3.5-mini", 32),  # a window of 262,144 that never slides in 131,072 tokens
    ],
)
def test_layers_that_keep_every_token(setup_of, model, full):
    assert sum(kept(setup_of(model))) == full


def test_a_window_keeps_all_tokens_of_requests_no_longer_than_it(setup_of):
    assert all(kept(setup_of("mistral-7b-v0.1", max_tokens=4096, load=Load(1, 4096))))
    assert not any(kept(setup_of("mistral-7b-v0.1", max_tokens=4097, load=Load(1, 4096))))


# ------------------------------------------------------------------ a step


def test_a_step_passes_the_guesses_and_one_token_more():
    assert Load(1, 1).new_tokens == 1
    assert Load(1, 1, speculation=Speculation(4, 70)).new_tokens == 5
