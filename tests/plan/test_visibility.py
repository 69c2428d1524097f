"""Pairs, tokens and groups of keys against loops over every query and key."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.arch.retention import Chunked, Full, PerRequest, Sliding
from kvplan.arch.selected import TopBlocks, TopTokens
from kvplan.arch.slot import Sight
from kvplan.plan.visibility import (
    Stretch,
    chunk_pairs,
    full_pairs,
    groups_read,
    groups_written,
    selected_pairs,
    tokens_read,
    visible_pairs,
    waiting_read,
    window_pairs,
)
from kvplan.results import fact

RETENTIONS = [
    Full(),
    *(Sliding(window, sinks) for window in (1, 2, 3, 7) for sinks in (0, 1, 4)),
    *(Chunked(chunk) for chunk in (1, 2, 3, 8)),
]
SELECTED = [
    *(TopTokens(tokens) for tokens in (1, 2, 5, 11)),
    *(TopBlocks(blocks, tokens) for blocks, tokens in ((1, 1), (1, 4), (2, 3), (3, 2), (3, 5))),
]
GROUP = 4


def sees(retention, query, key):
    """Whether a query sees a key, from the definition of each retention."""
    match retention:
        case Full():
            return key <= query
        case Sliding(window=window, sink_tokens=sinks):
            return key <= query and (key > query - window or key < sinks)
        case Chunked(chunk=chunk):
            return key <= query and key // chunk == query // chunk


def number_seen(selected, query):
    """How many keys a query sees where an indexer chooses them, from the definition of each choice."""
    match selected:
        case TopTokens(tokens=most):
            return min(most, query + 1)
        case TopBlocks(blocks=most, block_tokens=length):
            before, so_far = divmod(query, length)
            return (min(most, before + 1) - 1) * length + so_far + 1


def stretch(past, new, step=1):
    return Stretch(*(fact("tokens", number, "a test") for number in (past, new, step)))


def steps_of(past, new, step):
    """Each step's queries, and how many tokens are stored once they are."""
    queries = list(range(past, past + new))
    for first in range(0, new, step):
        some = queries[first : first + step]
        yield some, some[-1] + 1


def seen_in_step(retention, queries):
    return {key for query in queries for key in range(query + 1) if sees(retention, query, key)}


@pytest.mark.parametrize("retention", RETENTIONS, ids=str)
def test_pairs(retention):
    for past, new in product(range(14), range(20)):
        queries = range(past, past + new)
        expected = sum(sees(retention, q, k) for q in queries for k in range(past + new))
        assert visible_pairs("p", Sight(retention), stretch(past, new), "a test").number == expected


@pytest.mark.parametrize("retention", RETENTIONS, ids=str)
def test_tokens_read(retention):
    for past, new, step in product(range(12), range(14), (1, 2, 3, 5, 20)):
        expected = sum(len(seen_in_step(retention, queries)) for queries, _ in steps_of(past, new, step))
        found = tokens_read("t", Sight(retention), stretch(past, new, step), "a test").number
        assert found == expected, (past, new, step)


@pytest.mark.parametrize("selected", SELECTED, ids=str)
def test_an_indexer_leaves_so_many_keys_in_sight(selected):
    """Pairs, and what decode reads, a token a step; prefill reads all in view instead."""
    for past, new in product(range(24), range(20)):
        expected = sum(number_seen(selected, query) for query in range(past, past + new))
        asked, sight = stretch(past, new), Sight(Full(), selected)
        assert visible_pairs("p", sight, asked, "a test").number == expected, (past, new)
        assert tokens_read("t", sight, asked, "a test").number == expected, (past, new)


def test_groups_read():
    """A step reads complete groups whole, and what waits behind them key by key."""
    group = fact("group_tokens", GROUP, "a test")
    for past, new, step in product(range(14), range(14), (1, 2, 3, 5, 20)):
        whole, single = 0, 0
        for _, stored in steps_of(past, new, step):
            whole += len({key // GROUP for key in range(stored) if (key // GROUP + 1) * GROUP <= stored})
            single += sum((key // GROUP + 1) * GROUP > stored for key in range(stored))
        asked = stretch(past, new, step)
        assert groups_read("g", asked, group).number == whole, (past, new, step)
        assert waiting_read("w", asked, group).number == single, (past, new, step)


def test_groups_written():
    for past, new in product(range(20), range(20)):
        completed = sum((token + 1) % GROUP == 0 for token in range(past, past + new))
        assert groups_written(past, new, GROUP) == completed


sights = st.one_of(
    st.just(Sight(Full())),
    st.builds(Sight, st.builds(Sliding, st.integers(1, 300), st.integers(0, 20))),
    st.builds(Sight, st.builds(Chunked, st.integers(1, 300))),
    st.builds(Sight, st.just(Full()), st.builds(TopTokens, st.integers(1, 300))),
    st.builds(Sight, st.just(Full()), st.builds(TopBlocks, st.integers(1, 20), st.integers(1, 40))),
)


@settings(max_examples=200)
@given(sights, st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_pieces_make_the_whole(sight, past, first, second):
    def pairs(before, new):
        return visible_pairs("p", sight, stretch(before, new), "a test").number

    assert pairs(past, first) + pairs(past + first, second) == pairs(past, first + second)


@settings(max_examples=200)
@given(sights, st.integers(0, 500), st.integers(1, 200))
def test_a_token_at_a_time_reads_what_it_multiplies(sight, past, new):
    asked = stretch(past, new)
    pairs = visible_pairs("p", sight, asked, "a test").number
    assert tokens_read("t", sight, asked, "a test").number == pairs


def test_by_hand():
    assert full_pairs(0, 4) == 10
    assert full_pairs(1_000, 1) == 1_001
    assert window_pairs(0, 4, 2) == 1 + 2 + 2 + 2
    assert window_pairs(8_191, 1, 4_096) == 4_096
    assert chunk_pairs(0, 5, 4) == 1 + 2 + 3 + 4 + 1
    assert selected_pairs(0, 5, 3) == 1 + 2 + 3 + 3 + 3
    # DeepSeek-V3.2 behind 100,000 tokens: 2,048 of them.
    assert selected_pairs(100_000, 1, 2_048) == 2_048
    # 100 tokens in steps of 64: the second step reads all 100.
    assert tokens_read("t", Sight(Full()), stretch(0, 100, 64), "a test").number == 64 + 100
    # Through a window of 10 it reads its own 36, and the 9 its first query still sees.
    assert tokens_read("t", Sight(Sliding(10)), stretch(0, 100, 64), "a test").number == 64 + 36 + 9


def test_pairs_of_arrays():
    past, new = np.array([0, 5, 100, 7]), np.array([4, 1, 300, 0])
    numbers = list(zip(past.tolist(), new.tolist(), strict=True))
    assert full_pairs(past, new).tolist() == [full_pairs(p, n) for p, n in numbers]
    assert window_pairs(past, new, 6).tolist() == [window_pairs(p, n, 6) for p, n in numbers]
    assert chunk_pairs(past, new, 6).tolist() == [chunk_pairs(p, n, 6) for p, n in numbers]
    assert selected_pairs(past, new, 6).tolist() == [selected_pairs(p, n, 6) for p, n in numbers]


def test_a_state_is_not_made_of_tokens():
    with pytest.raises(ValueError, match="has no formula of tokens"):
        visible_pairs("p", Sight(PerRequest()), stretch(1, 1), "a test")
