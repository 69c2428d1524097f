"""Where tokens are kept: against a list of which positions every retention still shows."""

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.retention import Chunked, Compressed, Full, Sliding
from kvplan.engine.placement import blocks_needed, placement

WINDOWS = [Sliding(5), Sliding(8), Sliding(1), Sliding(5, 2), Sliding(4, 9)]
RETENTIONS = [Full(), *WINDOWS, Chunked(6), Chunked(8)]
PAGED = [Paged(1), Paged(3), Paged(4), Paged(16)]
LONGEST = 41


def in_view(retention, length):
    """The positions the last token of a sequence sees, by the definition of each retention."""
    last = length - 1
    match retention:
        case Sliding(window=window, sink_tokens=sinks):
            return [k for k in range(length) if k > last - window or k < sinks]
        case Chunked(chunk=chunk):
            return [k for k in range(length) if k // chunk == last // chunk]
    return list(range(length))


def shown(placed, length):
    """The positions in the placement's spans, each found at the slot it was put in."""
    found = []
    for span in placed.spans(length):
        slots = np.arange(span.start, span.stop)
        positions = slots + span.first_position if span.positions is None else span.positions[slots]
        blocks, offsets = placed.slots(positions)
        assert [span.blocks[slot // placed.block_tokens] for slot in slots] == blocks.tolist()
        assert (slots % placed.block_tokens).tolist() == offsets.tolist()
        found += positions.tolist()
    return found


@pytest.mark.parametrize("retention", RETENTIONS, ids=str)
@pytest.mark.parametrize("allocation", [*PAGED, Contiguous(LONGEST), Contiguous(6)], ids=str)
def test_what_is_in_view_is_what_the_retention_says(retention, allocation):
    placed = placement(retention, allocation)
    longest = min(LONGEST, getattr(allocation, "max_tokens", LONGEST))
    for length in range(longest + 1):
        assert sorted(shown(placed, length)) == in_view(retention, length)


@pytest.mark.parametrize("retention", RETENTIONS, ids=str)
@pytest.mark.parametrize("allocation", [*PAGED, Contiguous(LONGEST)], ids=str)
def test_growing_in_any_steps_overwrites_nothing_in_view(retention, allocation):
    """A shadow of the slots, written as a sequence grows by 1, 2, 3... tokens, still has what is shown."""
    placed = placement(retention, allocation)
    for stride in (1, 2, 3, 7, 20):
        slots = {}
        for start in range(0, LONGEST, stride):
            length = min(LONGEST, start + stride)
            held = placed.held(length)
            slots = {place: p for place, p in slots.items() if place[0] in held}
            positions = np.arange(start, length)
            positions = positions[placed.stored(positions, length)]
            for block, offset, p in zip(*placed.slots(positions), positions, strict=True):
                assert block in held
                slots[int(block), int(offset)] = int(p)
            for p in in_view(retention, length):
                block, offset = placed.slots(np.array([p]))
                assert slots[int(block[0]), int(offset[0])] == p


@pytest.mark.parametrize("retention", RETENTIONS, ids=str)
@pytest.mark.parametrize("allocation", PAGED, ids=str)
def test_a_window_holds_the_most_blocks_it_ever_touches(retention, allocation):
    """Brute force over every length: never fewer than are touched, and the most at the longest."""
    placed, most = placement(retention, allocation), 0
    for length in range(1, 200):
        touched = {p // allocation.block_tokens for p in in_view(retention, length)}
        most = max(most, len(touched))
        held = placed.held(length)
        assert touched <= set(held)
        assert len(held) == len(set(held))
        assert blocks_needed(placed, [length]) == len(held)
    assert len(placed.held(199)) == most


def test_a_ring_is_as_long_as_the_window_and_no_longer():
    rings = [(Sliding(128), 128), (Sliding(100, 4), 104), (Chunked(96), 96), (Full(), 512)]
    for retention, capacity in rings:
        placed = placement(retention, Contiguous(512))
        assert placed.capacity == capacity == placed.blocks * placed.block_tokens
    assert placement(Sliding(1000), Contiguous(512)).capacity == 512
    # Tiles of 64 where they divide the ring, else the longest that does: 2,047 = 23 x 89.
    assert placement(Sliding(128), Contiguous(512)).block_tokens == 64
    assert placement(Sliding(2047), Contiguous(4096)).block_tokens == 23


@pytest.mark.parametrize("retention", RETENTIONS, ids=str)
@pytest.mark.parametrize("allocation", [*PAGED, Contiguous(LONGEST)], ids=str)
def test_a_trim_is_refused_when_something_it_shows_again_is_gone(retention, allocation):
    """Against a shadow: after growing to a length by single tokens, which shorter ones are still whole."""
    placed = placement(retention, allocation)
    slots = {}
    for length in range(1, LONGEST + 1):
        held = placed.held(length)
        slots = {place: p for place, p in slots.items() if place[0] in held}
        block, offset = placed.slots(np.array([length - 1]))
        slots[int(block[0]), int(offset[0])] = length - 1
        for shorter in range(1, length):
            places = [placed.slots(np.array([p])) for p in in_view(retention, shorter)]
            kept = [slots.get((int(b[0]), int(o[0]))) for b, o in places]
            whole = kept == in_view(retention, shorter)
            assert placed.lost(length, shorter) == (not whole), (length, shorter)


@pytest.mark.parametrize("ratio", [1, 3, 4, 50])
@pytest.mark.parametrize("allocation", [*PAGED, Contiguous(LONGEST)], ids=str)
def test_an_entry_has_a_place_when_the_last_token_of_its_run_is_there(ratio, allocation):
    """Entries of runs are placed as so many tokens of a layer that keeps all of them."""
    placed, whole = placement(Compressed(ratio), allocation), placement(Full(), allocation)
    for length in range(LONGEST + 1):
        entries = length // ratio
        shown = [slot for span in placed.spans(length) for slot in range(span.start, span.stop)]
        assert shown == list(range(entries))
        for start in range(length):
            positions = np.arange(start, length)
            ends = positions[placed.stored(positions, length)]
            assert [(end + 1) / ratio for end in ends] == [*range(start // ratio + 1, entries + 1)]
            blocks, offsets = placed.slots(ends)
            slots = blocks * placed.block_tokens + offsets
            assert slots.tolist() == [*range(start // ratio, entries)]
    if isinstance(allocation, Paged):
        assert placed.held(LONGEST) == whole.held(LONGEST // ratio)
        assert placed.block_at(LONGEST) == LONGEST // ratio // allocation.block_tokens
    else:
        assert placed.block_tokens * len(placed.held(0)) == LONGEST // ratio
    assert blocks_needed(placed, [LONGEST, 7]) == len(placed.held(LONGEST)) + len(placed.held(7))
    assert not placed.lost(LONGEST, 7)
