"""Tokens kept and paid for under windows with sinks and under chunks, against lists of visible keys."""

from math import lcm

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.retention import Chunked, Full, PerRequest, Sliding
from kvplan.plan.kept_tokens import allocated_law, live_law

RETENTIONS = [
    Full(),
    *(Sliding(window, sinks) for window in (1, 2, 3, 5, 8, 9) for sinks in (0, 1, 2, 4, 7)),
    *(Chunked(chunk) for chunk in (1, 2, 3, 5, 6, 7, 8, 9, 12)),
]


def visible(retention, query):
    """The keys a query at this position sees, from the definition of each retention."""
    match retention:
        case Full():
            return set(range(query + 1))
        case Sliding(window=window, sink_tokens=sinks):
            return {key for key in range(query + 1) if key > query - window or key < sinks}
        case Chunked(chunk=chunk):
            return {key for key in range(query + 1) if key // chunk == query // chunk}


def blocks_touched(retention, context, block):
    return {key // block for key in visible(retention, context - 1)}


@pytest.mark.parametrize("retention", RETENTIONS, ids=str)
def test_live_tokens_are_those_the_last_token_sees(retention):
    law = live_law(retention, "a test")
    for context in range(1, 40):
        assert law.tokens(context) == len(visible(retention, context - 1)), context


def test_sinks_by_hand():
    # 3 sinks and a window of 4: the 8th token no longer sees the 4th.
    law = live_law(Sliding(4, 3), "a test")
    assert [law.tokens(c) for c in (1, 4, 6, 7, 8, 100)] == [1, 4, 6, 7, 7, 7]
    paged = allocated_law(Sliding(4, 3), Paged(2), "a test")
    # Blocks of 2: sinks pin blocks 0 and 1, the window straddles three others at most.
    assert [paged.tokens(c) for c in (1, 3, 8, 9, 10, 11, 100)] == [2, 4, 8, 10, 10, 10, 10]


def test_chunks_by_hand():
    law = live_law(Chunked(8_192), "a test")
    assert [law.tokens(c) for c in (1, 8_192, 8_193, 16_384, 20_000)] == [1, 8_192, 1, 8_192, 3_616]
    paged = allocated_law(Chunked(8_192), Paged(16), "a test")
    assert [paged.tokens(c) for c in (1, 8_192, 8_193, 1 << 20)] == [16, 8_192, 8_192, 8_192]
    # Chunks of 7 over blocks of 4 begin anywhere in a block, so one can touch three.
    odd = allocated_law(Chunked(7), Paged(4), "a test")
    assert [odd.tokens(c) for c in (4, 5, 9, 100)] == [4, 8, 12, 12]


@pytest.mark.parametrize("block", [1, 2, 3, 4, 5, 7, 8, 16])
@pytest.mark.parametrize("retention", [r for r in RETENTIONS if not isinstance(r, Chunked)], ids=str)
def test_blocks_are_the_most_ever_touched(retention, block):
    law, most = allocated_law(retention, Paged(block), "a test"), 0
    for context in range(1, 60):
        most = max(most, len(blocks_touched(retention, context, block)))
        assert law.tokens(context) == most * block, context


@pytest.mark.parametrize("block", [1, 2, 3, 4, 5, 6, 7, 8, 16])
@pytest.mark.parametrize("retention", [r for r in RETENTIONS if isinstance(r, Chunked)], ids=str)
def test_a_chunk_holds_its_last_blocks_up_to_the_most_one_can_touch(retention, block):
    """A table of the last blocks, as many as some chunk touches, never lacks one that is seen."""
    period = lcm(retention.chunk, block)
    most = max(len(blocks_touched(retention, context, block)) for context in range(1, period + 1))
    law, table = allocated_law(retention, Paged(block), "a test"), []
    for context in range(1, 3 * period + 1):
        if (context - 1) // block not in table:
            table.append((context - 1) // block)
        table = table[-most:]
        assert blocks_touched(retention, context, block) <= set(table)
        assert law.tokens(context) == len(table) * block, context


@pytest.mark.parametrize("longest", [1, 5, 20, 100])
@pytest.mark.parametrize("retention", RETENTIONS, ids=str)
def test_rings_hold_what_is_ever_seen(retention, longest):
    law = allocated_law(retention, Contiguous(longest), "a test")
    ever = max(len(visible(retention, query)) for query in range(longest))
    for context in range(1, longest + 1):
        assert law.tokens(context) == ever


@settings(max_examples=200)
@given(
    st.one_of(
        st.builds(Sliding, st.integers(1, 5_000), st.integers(0, 100)),
        st.builds(Chunked, st.integers(1, 10_000)),
    ),
    st.integers(1, 300),
    st.lists(st.integers(1, 10**9), min_size=1, max_size=10),
)
def test_live_is_within_allocated_and_arrays_equal_numbers(retention, block, contexts):
    laws = [live_law(retention, "a test")]
    laws += [allocated_law(retention, a, "a test") for a in (Paged(block), Contiguous(10**9))]
    array = np.array(contexts, dtype=np.int64)
    for law in laws:
        found = law.tokens(array)
        assert found.dtype == np.int64
        assert found.tolist() == [law.tokens(context) for context in contexts]
    for context in contexts:
        live, *allocated = (law.tokens(context) for law in laws)
        assert all(live <= tokens for tokens in allocated)


def test_a_state_has_no_tokens():
    assert live_law(PerRequest(), "a test") is None
    assert allocated_law(PerRequest(), Paged(16), "a test") is None
    assert allocated_law(PerRequest(), Contiguous(16), "a test") is None
