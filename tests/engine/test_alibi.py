"""Slopes of ALiBi against values worked out by hand and the rule of MPT, and attention that falls by them."""

import math

import numpy as np
import pytest

from kvplan.engine.alibi import alibi_slopes
from kvplan.engine.attention import Settings, Visibility, attend, decode, decode_reading
from kvplan.engine.counter import Counter
from kvplan.engine.kv_tiles import KVTiles, View
from kvplan.engine.tile_batch import Reading
from kvplan.storage import kv_format

TOLERANCE = {"fp32": 1e-5, "fp8": 1e-5, "int8": 1e-5, "int4-kivi": 2e-4}
SHAPES = [(4, 4, 32, 32), (6, 2, 64, 48), (12, 1, 80, 80)]


@pytest.mark.parametrize(
    ("heads", "powers"),
    [
        (1, [8]),
        (2, [4, 8]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        # No power of two: those of the one below, then every second of twice as many.
        (3, [4, 8, 2]),
        (6, [2, 4, 6, 8, 1, 3]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
    ],
)
def test_slopes_by_hand(heads, powers):
    assert alibi_slopes(heads).tolist() == np.float32([2.0**-power for power in powers]).tolist()


@pytest.mark.parametrize("heads", [5, 16, 40, 64, 71, 112])
def test_slopes_are_those_of_mpt(heads):
    """Its code takes them from the next power of two above: the second ones first, then those between."""
    above = 2 ** math.ceil(math.log2(heads))
    every = [2.0 ** -(8 * (index + 1) / above) for index in range(above)]
    expected = every if above == heads else [*every[1::2], *every[::2]][:heads]
    assert np.allclose(alibi_slopes(heads), expected, rtol=1e-6)


def stored(name, shape, tokens, seed):
    """Tiles of 64 tokens that hold a sequence in shuffled blocks, and what is read back of it."""
    _, kv_heads, k_dim, v_dim = shape
    random = np.random.default_rng((seed, tokens))
    blocks = -(-tokens // 64)
    tiles = KVTiles(kv_heads, k_dim, v_dim, blocks + 2, 64, kv_format(name), sequences=1)
    placed = random.permutation(blocks + 2)[:blocks]
    slots = np.arange(tokens)
    where = placed[slots // 64], slots % 64
    keys = random.standard_normal((tokens, kv_heads, k_dim), dtype=np.float32)
    values = random.standard_normal((tokens, kv_heads, v_dim), dtype=np.float32)
    hot = np.zeros(tokens, np.int64) if tiles.hot is not None else None
    tiles.write(*where, keys, values, hot)
    waiting = np.where(slots >= tokens // 64 * 64, 0, -1) if tiles.hot is not None else None
    return tiles, placed, *tiles.read(*where, waiting)


def expected_attention(queries, positions, keys, values, scale, window=None):
    """Softmax attention in float64 whose scores fall by the slope of the head for every token of distance."""
    heads = queries.shape[1]
    group, slopes = heads // keys.shape[1], alibi_slopes(heads).astype(np.float64)
    out = np.zeros((*queries.shape[:2], values.shape[2]))
    for row, position in enumerate(positions):
        first = 0 if window is None else max(0, position - window + 1)
        seen = np.arange(first, position + 1)
        for head in range(heads):
            scores = keys[seen, head // group].astype(np.float64) @ queries[row, head] * scale
            scores -= slopes[head] * (position - seen)
            weights = np.exp(scores - scores.max())
            out[row, head] = weights / weights.sum() @ values[seen, head // group]
    return out


def assert_close(found, expected, name):
    assert np.abs(found - expected).max() <= TOLERANCE[name] * max(1, np.abs(expected).max())


@pytest.mark.parametrize("window", [None, 70])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", TOLERANCE)
def test_prefill_falls_with_the_distance(name, shape, window):
    """Over several blocks of queries and pieces of keys, the last queries of a longer sequence."""
    tiles, blocks, keys, values = stored(name, shape, 330, 1)
    queries = np.random.default_rng(2).standard_normal((210, shape[0], shape[2]), dtype=np.float32)
    hot = 0 if tiles.hot is not None else None
    view, rule = View(tiles, blocks, 0, 330, hot=hot), Visibility(window=window)
    slopes = alibi_slopes(shape[0])
    found = attend(queries, 120, [view], rule, Settings(shape[2] ** -0.5, slopes=slopes), Counter())
    expected = expected_attention(queries, range(120, 330), keys, values, shape[2] ** -0.5, window)
    assert_close(found, expected, name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", TOLERANCE)
def test_decode_falls_with_the_distance(name, shape):
    tiles, blocks, keys, values = stored(name, shape, 150, 3)
    queries = np.random.default_rng(4).standard_normal((1, shape[0], shape[2]), dtype=np.float32)
    hot = 0 if tiles.hot is not None else None
    view, slopes = View(tiles, blocks, 0, 150, hot=hot), alibi_slopes(shape[0])
    found = decode(queries, [[view]], Settings(0.2, slopes=slopes), Counter())
    assert_close(found, expected_attention(queries, [149], keys, values, 0.2), name)


def test_every_sequence_of_a_step_counts_from_its_own_newest_token():
    """Views of one arena that end at different positions, one in two parts, one a window far along."""
    shape = (6, 2, 64, 48)
    tiles, blocks, keys, values = stored("fp32", shape, 300, 5)
    queries = np.random.default_rng(6).standard_normal((3, 6, 64), dtype=np.float32)
    views = [
        [View(tiles, blocks, 0, 90)],
        [View(tiles, blocks, 0, 64), View(tiles, blocks, 64, 299)],
        [View(tiles, blocks, 130, 200, first_position=1_000_000)],
    ]
    found = decode(queries, views, Settings(0.2, slopes=alibi_slopes(6)), Counter())
    for row, (first, last) in enumerate([(0, 89), (0, 298), (130, 199)]):
        expected = expected_attention(
            queries[row : row + 1], [last], keys, values, 0.2, window=last + 1 - first
        )
        assert_close(found[row : row + 1], expected, "fp32")


def test_slopes_go_with_ages():
    tiles, blocks, _, _ = stored("fp32", (4, 4, 32, 32), 10, 7)
    reading = Reading.of([[View(tiles, blocks, 0, 10)]], 1)
    queries = np.ones((1, 4, 32), np.float32)
    with pytest.raises(ValueError, match="slopes go with the ages of keys"):
        decode_reading(queries, tiles, reading, Settings(1.0, slopes=alibi_slopes(4)), Counter())
