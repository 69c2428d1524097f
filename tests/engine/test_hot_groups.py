"""Keys that are scaled by groups: alike however they arrive, waiting in float16, reopened, refused."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.engine.kv_tiles import KVTiles, View
from kvplan.storage import KV_FORMATS, kv_format

GROUPED = [kv.name for kv in KV_FORMATS if kv.key_group_tokens]


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape, dtype=np.float32)


def integers(*values):
    return np.array(values, np.int64)


def grouped_keys(name, keys):
    """What 64 keys (64, heads, dim) come back as: float16, then scaled by channel, recomputed in float64."""
    rounded = keys.astype(np.float16).astype(np.float64)
    low = rounded.min(axis=0)
    if name == "int8-kivi":
        return np.abs(rounded).max(axis=0) / 127 / 2, rounded
    return (rounded.max(axis=0) - low) / {"int4-kivi": 15, "int2-kivi": 3}[name] / 2, rounded


@pytest.mark.parametrize("name", GROUPED)
def test_a_full_group_is_within_half_a_step_of_its_channels(filled_tiles, name):
    tiles, keys, _ = filled_tiles(name, (2, 64, 64, 128), blocks=2, sequences=1)
    slots = np.arange(256)
    found = tiles.read(slots // 128, slots % 128)[0].astype(np.float64)
    for group in range(4):
        here = slice(group * 64, group * 64 + 64)
        half_step, rounded = grouped_keys(name, keys[here])
        # A minimum may be one float16 lower, which widens the range by so much.
        assert (np.abs(found[here] - rounded) <= half_step * (1 + 2**-9) + 2**-12).all()
        assert np.abs(found[here] - rounded).max() > half_step.max() / 4


@pytest.mark.parametrize("name", GROUPED)
@given(cuts=st.lists(st.integers(1, 299), max_size=8))
def test_groups_are_stored_alike_however_tokens_arrive(name, cuts):
    keys, values = normal(300, 1, 8, seed=5), normal(300, 1, 8, seed=6)
    order = integers(2, 0, 4, 1, 3)
    slots = np.arange(300)
    once, pieces = (KVTiles(1, 8, 8, 5, 64, kv_format(name), sequences=2) for _ in range(2))
    once.write(order[slots // 64], slots % 64, keys, values, np.full(300, 1))
    bounds = [0, *sorted(set(cuts)), 300]
    for first, last in pairwise(bounds):
        here = slots[first:last]
        pieces.write(order[here // 64], here % 64, keys[here], values[here], np.zeros(len(here), np.int64))
    whole, expected = pieces.dump(order[:4]), once.dump(order[:4])
    assert all(np.array_equal(whole[key], expected[key]) for key in whole)
    last = slots[256:]
    found = pieces.read(order[last // 64], last % 64, np.zeros(44, np.int64))[0]
    assert np.array_equal(found, keys[256:].astype(np.float16).astype(np.float32))
    assert np.array_equal(found, once.read(order[last // 64], last % 64, np.ones(44, np.int64))[0])


def test_sequences_fill_their_groups_apart():
    keys, values = normal(128, 1, 8, seed=5), normal(128, 1, 8, seed=6)
    tiles = KVTiles(1, 8, 8, 2, 64, kv_format("int8-kivi"), sequences=2)
    for step in range(64):
        here = [step, 64 + step]
        tiles.write(integers(0, 1), integers(step, step), keys[here], values[here], integers(1, 0))
    together = KVTiles(1, 8, 8, 2, 64, kv_format("int8-kivi"), sequences=1)
    slots = np.arange(128)
    together.write(slots // 64, slots % 64, keys, values, np.zeros(128, np.int64))
    found, expected = tiles.dump(np.arange(2)), together.dump(np.arange(2))
    assert all(np.array_equal(found[key], expected[key]) for key in found)


def test_a_reopened_group_takes_new_tokens(filled_tiles):
    tiles, keys, values = filled_tiles("int8-kivi", (1, 8, 8, 128), blocks=2, sequences=1)
    offsets = np.arange(64, 128)
    before, _ = tiles.read(np.full(64, 1), offsets)
    tiles.reopen(1, 1, 0)
    waiting, _ = tiles.read(np.full(64, 1), offsets, np.zeros(64, np.int64))
    assert np.abs(waiting - before).max() <= 2**-10
    tiles.write(np.full(44, 1), offsets[20:], keys[:44], values[:44], np.zeros(44, np.int64))
    after, _ = tiles.read(np.full(64, 1), offsets)
    assert np.abs(after[20:] - keys[:44]).max() <= 4 / 127
    assert np.abs(after[:20] - before[:20]).max() <= 4 / 127


def test_a_copied_or_loaded_hot_slot_continues_alike():
    keys, values = normal(64, 1, 8, seed=5), normal(64, 1, 8, seed=6)
    tiles = KVTiles(1, 8, 8, 3, 64, kv_format("int4-kivi"), sequences=3)
    first, rest = np.arange(40), np.arange(40, 64)
    tiles.write(np.zeros(40, np.int64), first, keys[:40], values[:40], np.zeros(40, np.int64))
    tiles.copy_block(0, 1)
    tiles.hot.copy(0, 1)
    tiles.load(integers(2), tiles.dump(integers(0)))
    tiles.hot.load(2, tiles.hot.dump(0))
    for block in range(3):
        tiles.write(np.full(24, block), rest, keys[40:], values[40:], np.full(24, block))
    dumped = [tiles.dump(integers(block)) for block in range(3)]
    for other in dumped[1:]:
        assert all(np.array_equal(other[key], dumped[0][key]) for key in other)


def test_a_token_whose_group_is_not_open_is_refused(filled_tiles):
    tiles, keys, values = filled_tiles("int8-kivi", (1, 8, 8, 64), blocks=2, sequences=2)
    before = tiles.dump(np.arange(2))
    with pytest.raises(ValueError, match="hot slot 1 holds 0 tokens, not 5: reopen the group"):
        tiles.write(integers(0), integers(5), keys[:1], values[:1], integers(1))
    with pytest.raises(ValueError, match="each of 1 tokens must name one of 2 hot slots"):
        tiles.write(integers(0), integers(0), keys[:1], values[:1])
    with pytest.raises(ValueError, match="each of 1 tokens must name one of 2 hot slots"):
        tiles.write(integers(0), integers(0), keys[:1], values[:1], integers(2))
    group_and_a_gap = np.concatenate([np.arange(64), [69]])
    both = np.concatenate([keys, keys])[:65], np.concatenate([values, values])[:65]
    with pytest.raises(ValueError, match="hot slot 1 holds 0 tokens, not 5: reopen the group"):
        tiles.write(group_and_a_gap // 64, group_and_a_gap % 64, *both, np.ones(65, np.int64))
    with pytest.raises(ValueError, match="not dumped from such a hot slot"):
        tiles.hot.load(0, {})
    after = tiles.dump(np.arange(2))
    assert all(np.array_equal(after[key], before[key]) for key in before)


def test_only_grouped_keys_can_be_reopened(filled_tiles):
    tiles, _, _ = filled_tiles("int8")
    with pytest.raises(ValueError, match="not grouped"):
        tiles.reopen(0, 0, 0)


def test_a_view_of_a_group_that_is_not_full_needs_its_hot_slot():
    tiles = KVTiles(1, 8, 8, 2, 64, kv_format("int8-kivi"), sequences=1)
    assert View(tiles, integers(0, 1), 0, 128).hot_tile is None
    assert View(tiles, integers(0, 1), 0, 100, hot=0).hot_tile == 1
    assert View(tiles, integers(0, 1), 70, 100, hot=0).hot_tile == 0
    with pytest.raises(ValueError, match="needs its hot slot"):
        View(tiles, integers(0, 1), 0, 100)
    ring = np.concatenate([np.arange(128, 138), np.arange(10, 128)])
    assert View(tiles, integers(0, 1), 0, 128, positions=ring, hot=0).hot_tile == 0
    later = np.concatenate([np.zeros(61, np.int64), np.arange(128, 138), np.arange(20, 77)])
    assert View(tiles, integers(0, 1), 10, 128, positions=later, hot=0).hot_tile == 1


def test_bytes_in_view_are_those_that_are_stored():
    tiles = KVTiles(2, 64, 32, 3, 64, kv_format("int8-kivi"), sequences=1)
    blocks = integers(0, 2, 1)
    token, group = 2 * (64 + 32 + 2), 2 * 64 * 2
    assert View(tiles, blocks, 0, 128).nbytes == 128 * token + 2 * group
    assert View(tiles, blocks, 70, 128).nbytes == 58 * token + group
    assert View(tiles, blocks, 0, 138, hot=0).nbytes == 138 * token + 2 * group + 10 * 2 * 64
    plain = KVTiles(2, 64, 32, 3, 64, kv_format("int8"))
    assert View(plain, blocks, 5, 138).nbytes == 133 * 2 * (64 + 32 + 4)
