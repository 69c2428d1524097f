"""Latents in blocks: what comes back of every format, what it weighs, and attention over it."""

import numpy as np
import pytest

from kvplan.engine.counter import Counter
from kvplan.engine.latent_attention import decode_latent
from kvplan.engine.row_tiles import RowArena, RowTiles
from kvplan.errors import UsageError
from kvplan.storage import kv_format

RANK, ROPE = 32, 8
FORMATS = ["fp32", "bf16", "fp16", "fp8", "int8", "int4"]
# Bytes of a token by hand: elements, and the scale (int8) or the scale and minimum (int4) of both vectors.
TOKEN_BYTES = {
    "fp32": 4 * (RANK + ROPE),
    "bf16": 2 * (RANK + ROPE),
    "fp16": 2 * (RANK + ROPE),
    "fp8": RANK + ROPE,
    "int8": RANK + 2 + ROPE + 2,
    "int4": RANK // 2 + 4 + ROPE // 2 + 4,
}


def vectors(count, seed=0):
    """Latents and rotated keys; the latents have a channel 20 times as large as the others."""
    generator = np.random.default_rng(seed)
    latents = generator.standard_normal((count, RANK)).astype(np.float32)
    latents[:, 3] *= 20
    return latents, generator.standard_normal((count, ROPE)).astype(np.float32)


def bound(name, exact):
    """The largest error of a stored vector (..., dim), in float64, from the definition of its format."""
    exact = exact.astype(np.float64)
    largest = np.abs(exact).max(axis=-1, keepdims=True)
    span = exact.max(axis=-1, keepdims=True) - exact.min(axis=-1, keepdims=True)
    # A stored scale is up to 2^-10 larger than the exact one; a stored minimum up to 2^-10 further out.
    return {
        "fp32": 0 * exact,
        "bf16": np.abs(exact) * 2.0**-8,
        "fp16": np.abs(exact) * 2.0**-11 + 2.0**-25,
        "fp8": np.abs(exact) * 2.0**-4 + 2.0**-10,
        "int8": largest / 127 / 2 * (1 + 2.0**-10),
        "int4": (span + largest * 2.0**-10) / 15 / 2 * (1 + 2.0**-9),
    }[name] * (1 + 1e-6)


def filled(name, blocks=7, block_tokens=5, count=17, order=(4, 1, 6, 0), seed=0):
    """Tiles with tokens in blocks out of order, and those blocks."""
    tiles = RowTiles((RANK, ROPE), blocks, block_tokens, kv_format(name))
    table, slots = np.array(order), np.arange(count)
    latents, rope_keys = vectors(count, seed)
    tiles.write(table[slots // block_tokens], slots % block_tokens, (latents, rope_keys))
    return tiles, table, latents, rope_keys


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_read_is_what_was_written_within_the_formats_bound(name):
    tiles, table, *written = filled(name)
    for exact, found in zip(written, tiles.rows(table, 17), strict=True):
        assert found.dtype == np.float32
        assert found.shape == exact.shape
        error = np.abs(found.astype(np.float64) - exact)
        assert (error <= bound(name, exact)).all()
    if name != "fp32":
        assert error.max() > 0


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_are_those_of_the_layout(name):
    tiles = RowTiles((RANK, ROPE), 7, 5, kv_format(name))
    assert tiles.slot_nbytes == TOKEN_BYTES[name]
    assert tiles.block_nbytes == 5 * TOKEN_BYTES[name]
    assert tiles.nbytes == 7 * 5 * TOKEN_BYTES[name]
    assert tiles.written_nbytes(np.arange(3, 6)) == 3 * TOKEN_BYTES[name]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("order", [(4, 1, 6, 0), (2, 3, 4, 5), (3, 4, 5, 2), (5, 4, 3, 2), (0, 2, 3, 3 + 1)])
def test_blocks_are_read_in_the_order_of_the_table(name, order):
    """Consecutive ones are read as a view, others gathered: both are the tokens in their order."""
    tiles, table, *_ = filled(name, order=order)
    plain, straight, *_ = filled(name, order=(0, 1, 2, 3))
    for stop in (1, 5, 6, 17):
        for found, expected in zip(tiles.rows(table, stop), plain.rows(straight, stop), strict=True):
            np.testing.assert_array_equal(found, expected)
            assert len(found) == stop


def test_consecutive_plain_rows_are_not_copied():
    tiles, table, *_ = filled("fp32", order=(2, 3, 4, 5))
    latents, _ = tiles.rows(table, 17)
    assert latents.base is not None
    scattered, order, *_ = filled("fp32", order=(2, 4, 3, 5))
    assert not np.shares_memory(scattered.rows(order, 17)[0], scattered.rows(order, 17)[0])
    assert np.shares_memory(latents, tiles.rows(table, 17)[0])


@pytest.mark.parametrize("name", FORMATS)
def test_a_token_is_stored_alike_alone_and_among_others(name):
    together, table, latents, rope_keys = filled(name)
    alone = RowTiles((RANK, ROPE), 7, 5, kv_format(name))
    for token in range(17):
        row = slice(token, token + 1)
        alone.write(table[[token // 5]], np.array([token % 5]), (latents[row], rope_keys[row]))
    for found, expected in zip(alone.rows(table, 17), together.rows(table, 17), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_can_be_copied_dumped_and_put_back(name):
    tiles, table, *_ = filled(name)
    before = [rows.copy() for rows in tiles.rows(table, 17)]
    dumped = tiles.dump(table)
    assert sum(array.nbytes for array in dumped.values()) == 4 * tiles.block_nbytes
    tiles.copy_block(6, 5)
    for found, expected in zip(tiles.rows(np.array([4, 1, 5, 0]), 17), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    tiles.write(table[:1], np.array([0]), vectors(1, seed=9))
    other = RowTiles((RANK, ROPE), 9, 5, kv_format(name))
    elsewhere = np.array([8, 0, 3, 5])
    other.load(elsewhere, dumped)
    for found, expected in zip(other.rows(elsewhere, 17), before, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_is_refused_before_anything_is_stored(bad, which):
    tiles, table, *_ = filled("fp32")
    before = [rows.copy() for rows in tiles.rows(table, 17)]
    given = vectors(2, seed=9)
    given[which][1, 2] = bad
    with pytest.raises(ValueError, match="must be finite"):
        tiles.write(table[:2], np.array([0, 0]), given)
    for found, expected in zip(tiles.rows(table, 17), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_formats_that_cannot_store_a_latent_are_refused():
    with pytest.raises(UsageError, match="int8-kivi has scales per key channel: these vectors have none"):
        RowArena(32, 1, 1, kv_format("int8-kivi"))
    for name in ("bf16", "int4"):
        with pytest.raises(UsageError, match=f"{name} packs 2 elements: 33 cannot be packed"):
            RowArena(33, 1, 1, kv_format(name))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("stop", [1, 5, 17])
def test_decode_is_softmax_over_what_is_stored(name, stop):
    """Against a loop over heads and tokens in float64, on the rows as they come back."""
    tiles, table, *_ = filled(name)
    stored, stored_keys = (rows.astype(np.float64) for rows in tiles.rows(table, stop))
    generator = np.random.default_rng(5)
    queries = generator.standard_normal((3, RANK)).astype(np.float32)
    rope_queries = generator.standard_normal((3, ROPE)).astype(np.float32)
    counter = Counter()
    found = decode_latent(queries, rope_queries, tiles, table[: -(-stop // 5)], stop, 0.11, counter)
    for head in range(3):
        scores = [
            0.11 * (float(queries[head] @ stored[t]) + float(rope_queries[head] @ stored_keys[t]))
            for t in range(stop)
        ]
        weights = np.exp(np.array(scores) - max(scores))
        expected = (weights / weights.sum()) @ stored
        np.testing.assert_allclose(found[head], expected, rtol=2e-5, atol=2e-5)
    assert counter == Counter(
        attention_flops=2 * 3 * stop * (RANK + ROPE + RANK), cache_read_bytes=stop * TOKEN_BYTES[name]
    )


def test_decode_keeps_large_scores_finite():
    tiles, table, latents, _ = filled("fp32")
    queries, rope_queries = 1e4 * latents[:2], np.zeros((2, ROPE), np.float32)
    found = decode_latent(queries, rope_queries, tiles, table, 17, 1.0, Counter())
    best = (queries.astype(np.float64) @ latents.T).argmax(axis=1)
    np.testing.assert_allclose(found, latents[best], rtol=1e-6)
