"""Attention over every kind of storage and view, against softmax in float64 with explicit masks."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.engine import attention
from kvplan.engine.attention import Settings, Visibility, attend, decode
from kvplan.engine.counter import Counter
from kvplan.engine.kv_tiles import KVTiles, View
from kvplan.storage import KV_FORMATS, kv_format

FORMATS = [kv.name for kv in KV_FORMATS]
PLAIN = [kv.name for kv in KV_FORMATS if not kv.key_group_tokens]
# Nibbles are cast with their neighbours and put right after the product, at 16 times the rounding error.
TOLERANCE = dict.fromkeys(FORMATS, 1e-5) | dict.fromkeys(("int4", "int4-kivi", "int2", "int2-kivi"), 2e-4)
# (query heads, kv heads, key channels, value channels): MHA, GQA and MQA of every usual width.
HEADS = [(4, 4, 64, 64), (8, 2, 128, 128), (8, 1, 80, 80), (6, 2, 96, 64), (2, 1, 256, 256), (5, 5, 32, 128)]
EVERYTHING = Visibility()
VISIBILITIES = {
    "causal": EVERYTHING,
    "window": Visibility(window=50),
    "one": Visibility(window=1),
    "sink tokens": Visibility(window=40, sink_tokens=3),
    "chunk": Visibility(chunk=32),
    "chunk and window": Visibility(window=20, chunk=48),
}


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape, dtype=np.float32)


def visible(queries, keys, rule):
    """Which keys each query sees, pair by pair."""
    return np.array(
        [
            [
                k <= q
                and (rule.window is None or k > q - rule.window or k < rule.sink_tokens)
                and (rule.chunk is None or k // rule.chunk == q // rule.chunk)
                for k in keys
            ]
            for q in queries
        ]
    )


def expected_attention(queries, keys, values, mask, scale, softcap=None, sinks=None):
    """Softmax attention of queries (n, heads, k_dim) in float64."""
    group = queries.shape[1] // keys.shape[1]
    out = np.empty((*queries.shape[:2], values.shape[2]))
    for head in range(queries.shape[1]):
        scores = queries[:, head].astype(np.float64) @ keys[:, head // group].astype(np.float64).T * scale
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        scores[~mask] = -np.inf
        if sinks is not None:
            scores = np.column_stack([scores, np.full(len(scores), float(sinks[head]))])
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        out[:, head] = weights[:, : len(keys)] @ values[:, head // group].astype(np.float64)
    return out


class Stored:
    """Tokens at positions 0 to n - 1, put into shuffled blocks from slot ``offset`` on, and read back."""

    def __init__(self, name, shape, tokens, block=64, offset=0, seed=0):
        _, kv_heads, k_dim, v_dim = shape
        blocks = -(-(tokens + offset) // block)
        self.tiles = KVTiles(kv_heads, k_dim, v_dim, blocks + 3, block, kv_format(name), sequences=2)
        self.blocks = np.random.default_rng((seed, 9)).permutation(blocks + 3)[:blocks]
        self.offset = offset
        grouped = self.tiles.hot is not None
        # Every other slot holds what must not be seen.
        junk = np.arange((blocks + 3) * block)
        noise = normal(len(junk), kv_heads, k_dim + v_dim, seed=seed + 7) * 9
        hot = np.zeros(len(junk), np.int64) if grouped else None
        self.tiles.write(junk // block, junk % block, noise[..., :k_dim], noise[..., k_dim:], hot)
        slots = np.arange(tokens + offset)
        where = self.blocks[slots // block], slots % block
        keys, values = (
            normal(len(slots), kv_heads, k_dim, seed=seed),
            normal(len(slots), kv_heads, v_dim, seed=seed + 1),
        )
        self.tiles.write(*where, keys, values, np.ones(len(slots), np.int64) if grouped else None)
        last = len(slots) // 64 * 64
        waiting = np.where(slots >= last, 1, -1) if grouped else None
        read = self.tiles.read(*where, waiting)
        self.keys, self.values = (array[offset:] for array in read)

    def view(self, start, stop, **options):
        """A view of the tokens at positions start to stop - 1."""
        hot = 1 if self.tiles.hot is not None else None
        start, stop = start + self.offset, stop + self.offset
        return View(self.tiles, self.blocks, start, stop, -self.offset, hot=hot, **options)


def assert_close(found, expected, name):
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE[name] * max(1, np.abs(expected).max())


@pytest.mark.parametrize("block", [7, 16, 64, 100, 128])
@pytest.mark.parametrize("shape", HEADS, ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_prefill_and_decode_are_softmax_attention(name, shape, block):
    if kv_format(name).key_group_tokens and block % 64:
        block = 192
    heads, _, k_dim, v_dim = shape
    offset = 0 if kv_format(name).key_group_tokens else 5
    stored = Stored(name, shape, 150, block, offset)
    queries = normal(70, heads, k_dim, seed=4)
    counter = Counter()
    found = attend(queries, 80, [stored.view(0, 150)], EVERYTHING, Settings(k_dim**-0.5), counter)
    mask = visible(range(80, 150), range(150), EVERYTHING)
    expected = expected_attention(queries, stored.keys, stored.values, mask, k_dim**-0.5)
    assert_close(found, expected, name)
    assert counter.attention_flops == 2 * mask.sum() * heads * (k_dim + v_dim)
    single = decode(queries[-1:], [[stored.view(0, 150)]], Settings(k_dim**-0.5), Counter())
    assert_close(single, expected[-1:], name)


@pytest.mark.parametrize("rule", VISIBILITIES)
@pytest.mark.parametrize(("softcap", "sinks"), [(None, False), (2.0, False), (None, True), (1.5, True)])
@pytest.mark.parametrize("name", ["fp32", "fp16", "int4"])
def test_masks_softcap_and_sinks(name, softcap, sinks, rule):
    stored = Stored(name, (4, 2, 32, 64), 130, 16, 3)
    queries = normal(130, 4, 32, seed=4) * 3
    logits = normal(4, seed=5) * 2 if sinks else None
    counter = Counter()
    view = stored.view(0, 130)
    found = attend(queries, 0, [view], VISIBILITIES[rule], Settings(0.3, softcap, logits), counter)
    mask = visible(range(130), range(130), VISIBILITIES[rule])
    assert_close(
        found, expected_attention(queries, stored.keys, stored.values, mask, 0.3, softcap, logits), name
    )
    assert counter.attention_flops == 2 * mask.sum() * 4 * (32 + 64)
    assert counter.cache_read_bytes == view.nbytes == 130 * stored.tiles.slot_nbytes


@settings(max_examples=60)
@given(
    name=st.sampled_from(PLAIN),
    tokens=st.integers(1, 200),
    count=st.integers(1, 60),
    block=st.sampled_from([1, 7, 16, 64, 128]),
    window=st.none() | st.integers(1, 120),
    sink_tokens=st.integers(0, 9),
    chunk=st.none() | st.integers(1, 90),
    piece=st.sampled_from([16, 64, 4096]),
    rows=st.sampled_from([1, 5, 96]),
)
def test_any_sizes_of_blocks_pieces_and_rows(
    name, tokens, count, block, window, sink_tokens, chunk, piece, rows
):
    rule = Visibility(window, sink_tokens, chunk)
    count = min(count, tokens)
    stored = Stored(name, (4, 2, 16, 8), tokens, block, 2)
    queries = normal(count, 4, 16, seed=4)
    counter = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "PIECE_TOKENS", piece)
        patch.setattr(attention, "MOST_ROWS", rows)
        found = attend(queries, tokens - count, [stored.view(0, tokens)], rule, Settings(0.25), counter)
    mask = visible(range(tokens - count, tokens), range(tokens), rule)
    assert_close(found, expected_attention(queries, stored.keys, stored.values, mask, 0.25), name)
    assert counter.attention_flops == 2 * mask.sum() * 4 * 24


@pytest.mark.parametrize(
    "rule", [Visibility(window=5), Visibility(chunk=20), Visibility(window=9, sink_tokens=2)]
)
@pytest.mark.parametrize("name", ["fp32", "fp8"])
def test_a_query_may_see_nothing_of_a_piece_others_see(name, rule, monkeypatch):
    monkeypatch.setattr(attention, "PIECE_TOKENS", 16)
    stored = Stored(name, (2, 1, 32, 32), 150, 16)
    queries = normal(150, 2, 32, seed=4)
    found = attend(queries, 0, [stored.view(0, 150)], rule, Settings(0.2), Counter())
    mask = visible(range(150), range(150), rule)
    assert_close(found, expected_attention(queries, stored.keys, stored.values, mask, 0.2), name)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("cut", [1, 64, 99])
def test_two_views_are_one_softmax(name, cut):
    stored = Stored(name, (4, 2, 64, 64), cut)
    fresh = KVTiles(2, 64, 64, 4, 64, kv_format("fp32"))
    later = np.arange(150 - cut)
    keys, values = normal(150 - cut, 2, 64, seed=2), normal(150 - cut, 2, 64, seed=3)
    fresh.write(later // 64, later % 64, keys, values)
    views = [stored.view(0, cut), View(fresh, np.arange(4), 0, 150 - cut, cut)]
    keys, values = np.concatenate([stored.keys, keys]), np.concatenate([stored.values, values])
    queries = normal(150 - cut, 4, 64, seed=4)
    mask = visible(range(cut, 150), range(150), EVERYTHING)
    expected = expected_attention(queries, keys, values, mask, 0.125)
    counter = Counter()
    assert_close(attend(queries, cut, views, EVERYTHING, Settings(0.125), counter), expected, name)
    assert counter.cache_read_bytes == sum(view.nbytes for view in views)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("cut", [1, 64, 99])
def test_a_decoding_query_reads_two_views_of_one_arena(name, cut):
    stored = Stored(name, (4, 2, 64, 64), 150, 32)
    queries, later = normal(1, 4, 64, seed=4), max(cut, 70)
    seen = np.r_[:cut, later:150]
    expected = expected_attention(
        queries, stored.keys[seen], stored.values[seen], np.ones((1, len(seen)), bool), 0.125
    )
    counter, views = Counter(), [stored.view(0, cut), stored.view(later, 150)]
    assert_close(decode(queries, [views], Settings(0.125), counter), expected, name)
    assert counter.cache_read_bytes == sum(view.nbytes for view in views)


@pytest.mark.parametrize("sink", [None, -300, 0, 300])
def test_every_sequence_is_weighed_by_its_own_largest_score(sink):
    """Scores so far apart that a weight is infinite, or a total zero, by any other sequence's or tile's."""
    lengths, levels = [200, 70, 500, 64], [400, -400, 0, -150]
    tiles, blocks = KVTiles(2, 8, 32, 16, 64, kv_format("fp32")), np.random.default_rng(1).permutation(16)
    views, expected = [], []
    query = np.zeros((1, 4, 8), np.float32)
    query[..., 0] = 1
    sinks = None if sink is None else np.full(4, sink, np.float32)
    for n, level in zip(lengths, levels, strict=True):
        held, blocks = blocks[: -(-n // 64)], blocks[-(-n // 64) :]
        keys, values = normal(n, 2, 8, seed=n), normal(n, 2, 32, seed=n + 1)
        # Every tile has a level of its own, the highest one in the middle.
        keys[..., 0] += level + 100 * (np.arange(n) // 64 % 3)[:, None]
        tiles.write(held[np.arange(n) // 64], np.arange(n) % 64, keys, values)
        views.append([View(tiles, held, 0, n)])
        expected.append(expected_attention(query, keys, values, np.ones((1, n), bool), 1, None, sinks))
    with np.errstate(over="raise", invalid="raise"):
        found = decode(query.repeat(4, axis=0), views, Settings(1, sinks=sinks), Counter())
    assert_close(found, np.concatenate(expected), "fp32")


def test_decoding_refuses_what_cannot_be_read_together():
    stored, other = Stored("fp32", (4, 2, 64, 64), 70), Stored("fp32", (4, 2, 64, 64), 70)
    queries = normal(2, 4, 64)
    for views in ([[stored.view(0, 70)], [stored.view(3, 3)]], [[stored.view(0, 70)], [other.view(0, 70)]]):
        with pytest.raises(ValueError, match=r"at least one key|one arena"):
            decode(queries, views, Settings(0.125), Counter())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("written", [10, 96, 128, 130, 191, 300])
def test_a_ring_is_read_by_position(name, written):
    slots, heads = 128, 4
    rule = Visibility(window=100)
    tiles = KVTiles(2, 64, 64, 3, 64, kv_format(name), sequences=1)
    blocks = np.array([2, 0])
    grouped = tiles.hot is not None
    positions = np.full(slots, -1)
    for position in range(written):
        slot = position % slots
        block = int(blocks[slot // 64])
        if grouped and slot % 64 == 0 and position >= slots:
            tiles.reopen(block, 0, 0)
        where = np.array([block]), np.array([slot % 64])
        key, value = normal(1, 2, 64, seed=position), normal(1, 2, 64, seed=position + 1000)
        tiles.write(*where, key, value, np.zeros(1, np.int64) if grouped else None)
        positions[slot] = position
    held = min(written, slots)
    view = View(tiles, blocks, 0, held, positions=positions, hot=0 if grouped else None)
    newest = (written - 1) % slots
    group = np.arange(held) // 64 == newest // 64
    waiting = np.where(group & (newest % 64 != 63), 0, -1) if grouped else None
    slot = np.arange(held)
    keys, values = tiles.read(blocks[slot // 64], slot % 64, waiting)
    queries = normal(1, heads, 64, seed=4)
    mask = visible([written - 1], positions[:held], rule)
    found = attend(queries, written - 1, [view], rule, Settings(0.125), Counter())
    assert_close(found, expected_attention(queries, keys, values, mask, 0.125), name)
    everything = np.ones_like(mask)
    found = decode(queries, [[view]], Settings(0.125), Counter())
    assert_close(found, expected_attention(queries, keys, values, everything, 0.125), name)


@pytest.mark.parametrize("lengths", [[1, 64, 65, 190, 7], [30] * 20, [9_000, 5, 70]], ids=str)
@pytest.mark.parametrize("shape", [(3, 3, 32, 32), (8, 2, 128, 64)], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_sequences_of_a_batch_are_apart(name, shape, lengths):
    heads, kv_heads, k_dim, v_dim = shape
    sizes = [-(-n // 64) for n in lengths]
    tiles = KVTiles(kv_heads, k_dim, v_dim, sum(sizes), 64, kv_format(name), sequences=len(lengths))
    blocks = np.split(np.random.default_rng(3).permutation(sum(sizes)), np.cumsum(sizes)[:-1])
    grouped = tiles.hot is not None
    queries, sinks = normal(len(lengths), heads, k_dim, seed=4), normal(heads, seed=5)
    views, expected = [], []
    for index, n in enumerate(lengths):
        slot = np.arange(n)
        where, hot = (blocks[index][slot // 64], slot % 64), np.full(n, index)
        keys, values = normal(n, kv_heads, k_dim, seed=index), normal(n, kv_heads, v_dim, seed=index + 50)
        tiles.write(*where, keys, values, hot if grouped else None)
        waiting = np.where(slot >= n // 64 * 64, hot, -1) if grouped else None
        keys, values = tiles.read(*where, waiting)
        views.append([View(tiles, blocks[index], 0, n, hot=index if grouped else None)])
        query = queries[index : index + 1]
        expected.append(expected_attention(query, keys, values, np.ones((1, n), bool), 0.1, 4.0, sinks))
    counter = Counter()
    found = decode(queries, views, Settings(0.1, 4.0, sinks), counter)
    for one, other in zip(found, expected, strict=True):
        assert_close(one[None], other, name)
    assert counter.attention_flops == 2 * sum(lengths) * heads * (k_dim + v_dim)
    assert counter.cache_read_bytes == sum(view.nbytes for (view,) in views)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(4, 4, 64, 64), (8, 2, 64, 32)], ids=str)
def test_decode_is_prefill_of_one(name, shape):
    stored = Stored(name, shape, 100)
    query = normal(1, shape[0], 64, seed=4)
    view = stored.view(0, 100)
    counters = Counter(), Counter()
    one = attend(query, 99, [view], EVERYTHING, Settings(0.125), counters[0])
    other = decode(query, [[view]], Settings(0.125), counters[1])
    assert_close(one, other, name)
    assert counters[0] == counters[1]


@pytest.mark.parametrize("name", FORMATS)
def test_large_scores_and_queries_stay_finite(name):
    stored = Stored(name, (4, 2, 64, 64), 100)
    queries = normal(100, 4, 64, seed=4) * 3000
    mask = visible(range(100), range(100), EVERYTHING)
    expected = expected_attention(queries, stored.keys, stored.values, mask, 1.0)
    found = attend(queries, 0, [stored.view(0, 100)], EVERYTHING, Settings(1.0), Counter())
    assert np.isfinite(found).all()
    # Scores near 10^5 are float32 numbers 2^-7 apart: compare where one key has nearly all the weight.
    assert np.median(np.abs(found - expected)) < 1e-3


def test_work_areas_do_not_grow_with_the_context():
    tokens, heads = 8192, 8
    tiles = KVTiles(2, 64, 64, tokens // 64, 64, kv_format("fp32"))
    slots = np.arange(tokens)
    vectors = normal(tokens, 2, 64)
    tiles.write(slots // 64, slots % 64, vectors, vectors)
    queries = normal(tokens, heads, 64, seed=1)
    tracemalloc.start()
    try:
        out = attend(
            queries,
            0,
            [View(tiles, slots[: tokens // 64], 0, tokens)],
            EVERYTHING,
            Settings(0.1),
            Counter(),
        )
        peak = tracemalloc.get_traced_memory()[1] - out.nbytes
    finally:
        tracemalloc.stop()
    assert peak <= 32 * 2**20


def test_a_second_call_allocates_little():
    stored = Stored("bf16", (8, 2, 128, 128), 1000)
    queries = normal(1, 8, 128, seed=4)
    views = [[stored.view(0, 1000)]]
    decode(queries, views, Settings(0.1), Counter())
    tracemalloc.start()
    try:
        decode(queries, views, Settings(0.1), Counter())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2**18


# ------------------------------------------------------------------ error of the formats themselves


def output_error(name, outliers):
    """Relative L2 error of decode against the vectors before they were stored."""
    tiles = KVTiles(2, 128, 128, 32, 64, kv_format(name), sequences=1)
    keys, values = normal(2048, 2, 128, seed=1), normal(2048, 2, 128, seed=2)
    queries = normal(1, 8, 128, seed=3)
    if outliers:
        keys[:, :, [5, 40, 77, 120]] *= 20
        queries[:, :, [5, 40, 77, 120]] /= 14
    slots = np.arange(2048)
    tiles.write(slots // 64, slots % 64, keys, values, np.zeros(2048, np.int64) if tiles.hot else None)
    found = decode(queries, [[View(tiles, np.arange(32), 0, 2048)]], Settings(128**-0.5), Counter())
    expected = expected_attention(queries, keys, values, np.ones((1, 2048), bool), 128**-0.5)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


# Measured once with an independent prototype, 4,096 tokens, logits of standard deviation 1: 4e-7, 3.1e-4,
# 2.4e-3, 9.3e-3, 3.7e-2 and 1.4e-1; the order and the size must be like that.
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("fp32", 0, 2e-6),
        ("fp16", 1e-4, 8e-4),
        ("bf16", 1e-3, 6e-3),
        ("int8", 4e-3, 2e-2),
        ("fp8", 1.5e-2, 8e-2),
        ("int4", 6e-2, 3e-1),
        ("int8-kivi", 4e-3, 2e-2),
        ("int4-kivi", 6e-2, 3e-1),
        ("int2", 3e-1, 1.5),
        ("int2-kivi", 3e-1, 1.5),
    ],
)
def test_error_on_gaussian_keys(name, low, high):
    assert low <= output_error(name, outliers=False) <= high


@pytest.mark.parametrize("bits", [8, 4])
def test_scales_by_channel_save_keys_with_outlier_channels(bits):
    plain = output_error(f"int{bits}", outliers=True)
    grouped = output_error(f"int{bits}-kivi", outliers=True)
    assert grouped < plain / 5
    assert grouped < 2 * output_error(f"int{bits}-kivi", outliers=False)


@pytest.mark.parametrize("kind", ["gaussian", "outliers"])
@pytest.mark.parametrize("name", FORMATS)
def test_stored_vectors_are_within_the_bound_of_their_format(name, kind):
    tiles = KVTiles(2, 64, 64, 4, 64, kv_format(name), sequences=1)
    vectors = normal(256, 2, 64, seed=1)
    if kind == "outliers":
        vectors[:, :, [3, 9, 30, 60]] *= 20
    slots = np.arange(256)
    tiles.write(slots // 64, slots % 64, vectors, vectors, np.zeros(256, np.int64) if tiles.hot else None)
    keys, values = tiles.read(slots // 64, slots % 64)
    exact = vectors.astype(np.float64)
    for found, by_channel in ((keys, "kivi" in name), (values, False)):
        bound = largest_error(name.removesuffix("-kivi"), exact, by_channel)
        assert (np.abs(found - exact) <= bound).all()


def largest_error(name, exact, by_channel):
    """Half a unit in the last place, or half a step of the scale, of vectors (256, heads, channels)."""
    significand = {"fp32": 24, "bf16": 8, "fp16": 11, "fp8": 4}
    if name in significand:
        smallest = {"fp8": 2.0**-10, "fp16": 2.0**-25}.get(name, 0)
        return np.maximum(np.abs(exact) * 2.0 ** -significand[name], smallest)
    groups = exact.reshape(4, 64, *exact.shape[1:]) if by_channel else exact
    axis = 1 if by_channel else 2
    low, high = groups.min(axis=axis, keepdims=True), groups.max(axis=axis, keepdims=True)
    steps = {"int8": 254, "int4": 15, "int2": 3}[name]
    spread = np.maximum(-low, high) * 2 if name == "int8" else high - low + np.abs(low) * 2.0**-10
    half = spread / (2 * steps)
    # A float16 scale is rounded up, and keys by group are rounded to float16 first.
    half = np.broadcast_to(half * (1 + 2.0**-10), groups.shape).reshape(exact.shape)
    return half + np.abs(exact) * 2.0**-11 + 2.0**-23 * np.abs(exact).max()
