"""Tile stores: what goes in comes out, wherever it is put; bytes; refusals; groups that wait to be full."""

import numpy as np
import pytest

from kvplan.engine.kv_tiles import KVTiles, View
from kvplan.errors import UsageError
from kvplan.storage import KV_FORMATS, kv_format

FORMATS = [kv.name for kv in KV_FORMATS if not kv.key_group_tokens]
GROUPED = [kv.name for kv in KV_FORMATS if kv.key_group_tokens]
# (kv heads, key channels, value channels, tokens of a block)
SHAPES = [
    (1, 64, 64, 64),
    (2, 128, 128, 16),
    (3, 80, 96, 7),
    (2, 256, 64, 128),
    (2, 32, 96, 96),
    (1, 8, 12, 100),
]
# Error of a stored Gaussian number, at most: half a unit in the last place below 8, half a step of a scale.
LARGEST_ERROR = {
    "fp32": 0,
    "bf16": 2**-6,
    "fp16": 2**-9,
    "fp8": 2**-2,
    "int8": 6 / 254,
    "int4": 11 / 30,
    "int2": 11 / 6,
}


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape, dtype=np.float32)


def integers(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_anywhere_is_read_there(filled_tiles, name, shape):
    heads, k_dim, v_dim, tokens = shape
    tiles, _, _ = filled_tiles(name, shape, seed=10)
    slots = np.random.default_rng(1).permutation(4 * tokens)[: 3 * tokens]
    blocks, offsets = slots // tokens, slots % tokens
    keys, values = normal(len(slots), heads, k_dim, seed=2), normal(len(slots), heads, v_dim, seed=3)
    untouched = np.setdiff1d(np.arange(4 * tokens), slots)
    before = tiles.read(untouched // tokens, untouched % tokens)
    tiles.write(blocks, offsets, keys, values)
    found_keys, found_values = tiles.read(blocks, offsets)
    assert np.abs(found_keys - keys).max() <= LARGEST_ERROR[name]
    assert np.abs(found_values - values).max() <= LARGEST_ERROR[name]
    for found, expected in zip(tiles.read(untouched // tokens, untouched % tokens), before, strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", FORMATS)
def test_tokens_are_stored_alike_one_by_one_and_together(filled_tiles, name):
    together, keys, values = filled_tiles(name, (2, 32, 64, 16), blocks=3)
    alone = KVTiles(2, 32, 64, 3, 16, kv_format(name))
    for slot in range(48):
        here = integers(slot // 16), integers(slot % 16)
        alone.write(*here, keys[slot : slot + 1], values[slot : slot + 1])
    every = np.arange(3)
    found, expected = alone.dump(every), together.dump(every)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in found)


def test_the_last_of_two_tokens_in_one_slot_stays():
    tiles = KVTiles(1, 8, 8, 1, 16, kv_format("fp32"))
    keys, values = normal(3, 1, 8, seed=1), normal(3, 1, 8, seed=2)
    tiles.write(integers(0, 0, 0), integers(4, 5, 4), keys, values)
    found = tiles.read(integers(0, 0), integers(4, 5))
    assert np.array_equal(found[0], keys[[2, 1]])
    assert np.array_equal(found[1], values[[2, 1]])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FORMATS)
def test_a_token_takes_the_bytes_its_format_names(name, shape):
    heads, k_dim, v_dim, tokens = shape
    kv = kv_format(name)
    tiles = KVTiles(heads, k_dim, v_dim, 5, tokens, kv)
    token = heads * (k_dim * kv.bits // 8 + v_dim * kv.bits // 8 + 2 * kv.scale_bytes)
    assert (tiles.slot_nbytes, tiles.block_nbytes, tiles.nbytes) == (
        token,
        token * tokens,
        token * tokens * 5,
    )
    assert sum(array.nbytes for array in tiles.dump(np.arange(5)).values()) == tiles.nbytes
    assert (tiles.group_nbytes, tiles.hot_slot_nbytes) == (0, 0)


@pytest.mark.parametrize(("name", "group"), [("int8-kivi", 2), ("int4-kivi", 4), ("int2-kivi", 4)])
def test_grouped_keys_take_scales_for_each_channel_of_64_tokens(name, group):
    tiles = KVTiles(3, 80, 96, 5, 128, kv_format(name), sequences=2)
    bits = kv_format(name).bits
    token = 3 * (80 * bits // 8 + 96 * bits // 8 + group)
    assert tiles.slot_nbytes == token
    assert tiles.group_nbytes == 3 * 80 * group
    assert tiles.block_nbytes == 128 * token + 2 * tiles.group_nbytes
    assert tiles.hot_slot_nbytes == 64 * 3 * 80 * 2
    assert tiles.nbytes == 5 * tiles.block_nbytes


@pytest.mark.parametrize("name", FORMATS + GROUPED)
def test_dumped_blocks_can_be_loaded_elsewhere(filled_tiles, name):
    tiles, _, _ = filled_tiles(name, (2, 64, 32, 64), sequences=1)
    other = KVTiles(2, 64, 32, 6, 64, kv_format(name))
    other.load(integers(5, 0), tiles.dump(integers(1, 3)))
    offsets = np.arange(64)
    for source, target in ((1, 5), (3, 0)):
        expected = tiles.read(np.full(64, source), offsets)
        found = other.read(np.full(64, target), offsets)
        assert np.array_equal(found[0], expected[0])
        assert np.array_equal(found[1], expected[1])
    assert not other.read(np.full(64, 2), offsets)[0].any()


def test_a_dump_is_a_copy(filled_tiles):
    tiles, keys, values = filled_tiles("fp32")
    dumped = tiles.dump(integers(0))
    tiles.write(integers(0), integers(0), keys[5:6], values[5:6])
    tiles.load(integers(0), dumped)
    assert np.array_equal(tiles.read(integers(0), integers(0))[0], keys[:1])


@pytest.mark.parametrize("name", FORMATS)
def test_a_copied_block_is_equal_and_apart(filled_tiles, name):
    tiles, keys, values = filled_tiles(name, (2, 64, 64, 128))
    offsets = np.arange(128)
    expected = tiles.read(np.full(128, 3), offsets)
    tiles.copy_block(3, 1)
    tiles.write(integers(3), integers(0), keys[:1] + 1, values[:1] + 1)
    found = tiles.read(np.full(128, 1), offsets)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


def test_arrays_of_another_store_are_not_loaded(filled_tiles):
    tiles, _, _ = filled_tiles("int8")
    before = tiles.dump(np.arange(4))
    dumped = tiles.dump(integers(0))
    mistakes = [
        filled_tiles("int4")[0].dump(integers(0)),
        filled_tiles("int8", (2, 64, 32, 64))[0].dump(integers(0)),
        tiles.dump(integers(0, 1)),
        {key: array for key, array in dumped.items() if "scales" not in key},
        {key: array.astype(np.int32) for key, array in dumped.items()},
    ]
    for arrays in mistakes:
        with pytest.raises(ValueError, match="not dumped from such blocks"):
            tiles.load(integers(0), arrays)
    after = tiles.dump(np.arange(4))
    assert all(np.array_equal(after[key], before[key]) for key in before)


@pytest.mark.filterwarnings("error")
def test_numbers_whose_squares_overflow_are_stored():
    tiles = KVTiles(2, 64, 64, 4, 64, kv_format("fp32"))
    keys, values = np.full((2, 2, 64), 3e38, np.float32), np.full((2, 2, 64), -3e38, np.float32)
    tiles.write(integers(0, 1), integers(0, 5), keys, values)
    found = tiles.read(integers(0, 1), integers(0, 5))
    assert np.array_equal(found[0], keys)
    assert np.array_equal(found[1], values)


BAD_WRITES = {
    "NaN key": (integers(0, 1), integers(0, 0), (1, 0, 5, np.nan), "keys hold NaN or infinity"),
    "infinite key": (integers(0, 1), integers(0, 0), (1, 0, 5, np.inf), "keys hold NaN or infinity"),
    "infinite value": (integers(0, 1), integers(0, 0), (None, 0, 5, -np.inf), "values hold NaN or infinity"),
    "block past the end": (integers(0, 4), integers(0, 0), None, "every block must be 0 to 3"),
    "block before the start": (integers(-1, 0), integers(0, 0), None, "every block must be 0 to 3"),
    "offset past the end": (integers(0, 1), integers(0, 64), None, "every offset must be 0 to 63"),
    "offset before the start": (integers(0, 1), integers(-1, 0), None, "every offset must be 0 to 63"),
    "unequal lists": (integers(0, 1), integers(0), None, "not two equal lists"),
    "more slots than tokens": (integers(0, 1, 2), integers(0, 0, 0), None, r"not float32 \(3, 2, 64\)"),
}


@pytest.mark.parametrize("mistake", BAD_WRITES)
@pytest.mark.parametrize("name", FORMATS)
def test_a_bad_write_is_refused_and_writes_nothing(filled_tiles, name, mistake):
    tiles, _, _ = filled_tiles(name)
    before = tiles.dump(np.arange(4))
    blocks, offsets, poison, message = BAD_WRITES[mistake]
    keys, values = normal(2, 2, 64, seed=1), normal(2, 2, 64, seed=2)
    if poison is not None:
        (values if poison[0] is None else keys)[1, poison[1], poison[2]] = poison[3]
    with pytest.raises(ValueError, match=message):
        tiles.write(blocks, offsets, keys, values)
    after = tiles.dump(np.arange(4))
    assert all(np.array_equal(after[key], before[key]) for key in before)


def test_keys_of_another_number_format_are_refused(filled_tiles):
    tiles, keys, values = filled_tiles("fp32")
    with pytest.raises(ValueError, match="keys are float64"):
        tiles.write(integers(0), integers(0), keys[:1].astype(np.float64), values[:1])


@pytest.mark.parametrize(
    ("name", "count", "dim"), [("bf16", 2, 7), ("int4", 2, 7), ("int4-kivi", 2, 7), ("int2", 4, 6)]
)
def test_formats_that_pack_several_numbers_refuse_heads_they_cannot_pack(name, count, dim):
    for k_dim, v_dim in ((dim, 8), (8, dim)):
        with pytest.raises(UsageError, match=f"packs {count} numbers; a head of {dim} is no multiple"):
            KVTiles(1, k_dim, v_dim, 1, 64, kv_format(name))


@pytest.mark.parametrize("name", GROUPED)
def test_grouped_keys_refuse_blocks_that_are_not_whole_groups(name):
    with pytest.raises(UsageError, match="groups of 64 tokens; a block of 96 is no multiple"):
        KVTiles(1, 8, 8, 1, 96, kv_format(name))


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (5, 4), (0, 129)])
def test_a_view_past_its_blocks_is_refused(start, stop):
    tiles = KVTiles(1, 8, 8, 4, 64, kv_format("fp32"))
    with pytest.raises(ValueError, match="are not among 128"):
        View(tiles, integers(2, 1), start, stop)


def test_a_view_needs_the_position_of_every_slot():
    tiles = KVTiles(1, 8, 8, 4, 64, kv_format("fp32"))
    with pytest.raises(ValueError, match="3 positions for 4 slots"):
        View(tiles, integers(2), 0, 4, positions=np.arange(3))
