"""Compressed attention against its rules in float64, token by token, and what a cache of it can do."""

from dataclasses import replace

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.entry_indexer import EntryIndexer
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters
from kvplan.engine.cache import Cache
from kvplan.engine.compressed_mixer import CompressedMixer
from kvplan.engine.counter import Counter
from kvplan.engine.rotaries import Rotaries
from kvplan.errors import UsageError
from kvplan.storage import kv_format

EPS, HIDDEN, THETA = 0.05, 30, 50.0
WINDOW = CompressedAttention(6, 14, 9, 6, 3, 5, 7, RopeParameters(THETA, interleaved=True))
LAYERS = {
    "a window alone": WINDOW,
    "entries of 5": replace(WINDOW, compress_ratio=5),
    "entries of 1": replace(WINDOW, compress_ratio=1),
    "entries of more than all": replace(WINDOW, compress_ratio=64),
    "chosen entries of 3": replace(WINDOW, compress_ratio=3, indexer=EntryIndexer(11, 8, 4)),
    "chosen entries of 4, one": replace(WINDOW, compress_ratio=4, indexer=EntryIndexer(16, 6, 1)),
    "chosen entries of 1": replace(WINDOW, compress_ratio=1, indexer=EntryIndexer(13, 6, 9)),
    "all entries of 3 fit": replace(WINDOW, compress_ratio=3, indexer=EntryIndexer(2, 8, 99)),
}
TOKENS = 41


def drawn(arch):
    """Weights, with norms far from what they would be left out."""
    rng = np.random.default_rng(3)
    spread = {"norm": 0.4, "sinks": 1.0, "bias": 0.8}
    return {
        weight.name: (
            rng.standard_normal(weight.shape)
            * next((size for word, size in spread.items() if word in weight.name), 0.4)
        ).astype(np.float32)
        for weight in arch.weights(HIDDEN)
    }


# ------------------------------------------------------------------ the rules, in float64


def normed(x, weight=1.0):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * weight


def turned(x, position, arch):
    """A vector with its last elements rotated: neighbours together."""
    count, x = arch.qk_rope_head_dim, x.copy()
    for pair in range(count // 2):
        angle = position * THETA ** (-2 * pair / count)
        first = len(x) - count + 2 * pair
        a, b = x[first], x[first + 1]
        x[first] = a * np.cos(angle) - b * np.sin(angle)
        x[first + 1] = a * np.sin(angle) + b * np.cos(angle)
    return x


def entries(x, weights, name, arch):
    """One vector for each whole run of tokens: of the run, or with an indexer of it and the one before."""
    ratio, dim = arch.compress_ratio, len(weights[f"{name}.kv_norm.weight"])
    products, gates = x @ weights[f"{name}.kv_proj.weight"].T, x @ weights[f"{name}.gate_proj.weight"].T
    found = []
    for run in range(len(x) // ratio):
        rows, logits = [], []
        for token in range(run * ratio, (run + 1) * ratio):
            bias = weights[f"{name}.position_bias"][token % ratio]
            if arch.indexer is not None and run > 0:
                rows.append(products[token - ratio][:dim])
                logits.append((gates[token - ratio] + bias)[:dim])
            rows.append(products[token][-dim:])
            logits.append((gates[token] + bias)[-dim:])
        shares = np.exp(logits) / np.exp(logits).sum(axis=0)
        vector = normed((shares * rows).sum(axis=0), weights[f"{name}.kv_norm.weight"])
        found.append(turned(vector, run * ratio, arch))
    return np.array(found).reshape(-1, dim)


def chosen(x, compressed, keys, weights, arch, query):
    """The entries a query reads of those whose runs have ended."""
    seen = range((query + 1) // arch.compress_ratio)
    if arch.indexer is None:
        return list(seen)
    name, heads, dim = "self_attn.compressor.indexer", arch.indexer.index_n_heads, arch.indexer.index_head_dim
    queries = (weights[f"{name}.q_b_proj.weight"] @ compressed[query]).reshape(heads, dim)
    shares = weights[f"{name}.scorer.weights_proj.weight"] @ x[query]
    turned_queries = [turned(head, query, arch) for head in queries]
    scores = {
        entry: sum(w * max(0.0, q @ keys[entry]) for w, q in zip(shares, turned_queries, strict=True))
        for entry in seen
    }
    return sorted(scores, key=scores.get, reverse=True)[: arch.indexer.index_topk]


def by_the_rules(x, weights, arch):
    x, weights = x.astype(np.float64), {name: array.astype(np.float64) for name, array in weights.items()}
    compressed = normed(x @ weights["self_attn.q_a_proj.weight"].T, weights["self_attn.q_a_norm.weight"])
    vectors = normed(x @ weights["self_attn.kv_proj.weight"].T, weights["self_attn.kv_norm.weight"])
    vectors = [turned(vector, position, arch) for position, vector in enumerate(vectors)]
    history, keys = np.empty((0, arch.head_dim)), None
    if arch.compress_ratio is not None:
        history = entries(x, weights, "self_attn.compressor", arch)
    if arch.indexer is not None:
        keys = entries(x, weights, "self_attn.compressor.indexer", arch)
    found = []
    for query in range(len(x)):
        read = vectors[max(0, query + 1 - arch.sliding_window) : query + 1]
        if arch.compress_ratio is not None:
            read = read + [history[e] for e in chosen(x, compressed, keys, weights, arch, query)]
        heads = (weights["self_attn.q_b_proj.weight"] @ compressed[query]).reshape(-1, arch.head_dim)
        results = []
        for head, sink in zip(heads, weights["self_attn.sinks"], strict=True):
            scores = np.array(read) @ turned(normed(head), query, arch) / arch.head_dim**0.5
            shares = np.exp(scores) / (np.exp(scores).sum() + np.exp(sink))
            results.append(turned(shares @ np.array(read), -query, arch))
        groups = np.concatenate(results).reshape(arch.o_groups, -1)
        per_group = weights["self_attn.o_a_proj.weight"].reshape(arch.o_groups, arch.o_lora_rank, -1)
        narrow = np.concatenate([matrix @ group for matrix, group in zip(per_group, groups, strict=True)])
        found.append(weights["self_attn.o_b_proj.weight"] @ narrow)
    return np.array(found)


# ------------------------------------------------------------------ the mixer


def tiny(arch):
    layers = (Layer(arch, MLP(8)),)
    return Model("tiny", "a test", "fp32", HIDDEN, 90, 128, layers, norm_eps=EPS)


def mixer_of(arch, weights):
    model = tiny(arch)
    return CompressedMixer(arch, model, weights, model.places()[0], Rotaries(model, 128))


def run(mixer, cache, sequence, x, pieces, *, decode=False):
    """Feed a sequence in pieces and return what the mixer adds."""
    found, first, counter = [], 0, Counter()
    for count in pieces:
        batch = [(sequence, np.arange(count))]
        step = cache.begin(batch, decode=decode)
        found.append(mixer(x[first : first + count], step, counter))
        cache.finish(batch)
        first += count
    return np.concatenate(found), counter


@pytest.fixture(params=LAYERS, scope="module")
def case(request):
    """A layer, its weights, what goes in, and what comes out by the rules."""
    arch = LAYERS[request.param]
    weights = drawn(arch)
    x = np.random.default_rng(8).standard_normal((TOKENS, HIDDEN)).astype(np.float32)
    return arch, weights, x, by_the_rules(x, weights, arch)


@pytest.mark.parametrize("pieces", [[41], [1] * 41, [7, 1, 20, 2, 11], [3, 3, 3, 32]], ids=str)
@pytest.mark.parametrize("allocation", [Paged(4), Contiguous(64)], ids=str)
def test_it_gives_what_the_rules_give(pieces, allocation, case):
    arch, weights, x, expected = case
    cache = Cache(tiny(arch), kv_format("fp32"), allocation, 64, 1)
    found, _ = run(mixer_of(arch, weights), cache, cache.add(), x, pieces)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_decode_steps_read_only_what_is_chosen_and_give_the_same(case):
    arch, weights, x, expected = case
    mixer, cache = mixer_of(arch, weights), Cache(tiny(arch), kv_format("fp32"), Paged(4), 64, 1)
    sequence = cache.add()
    run(mixer, cache, sequence, x, [9])
    found, counter = run(mixer, cache, sequence, x[9:], [1] * 32, decode=True)
    np.testing.assert_allclose(found, expected[9:], atol=2e-5)
    window = 32 * 7 * 2 * 14
    if arch.compress_ratio is None:
        assert counter.cache_read_bytes == 4 * window
        return
    ended = [(position + 1) // arch.compress_ratio for position in range(9, 41)]
    ratio, series = arch.compress_ratio, 1 if arch.indexer is None else 2
    dim = 14 + (arch.indexer.index_head_dim if arch.indexer else 0)
    waited = sum(ratio - 1 for position in range(9, 41) if (position + 1) % ratio == 0) * 2 * series * dim
    read, overlap, index = sum(ended) * 14, 0, 0
    if arch.indexer is not None:
        read = sum(min(count, arch.indexer.index_topk) for count in ended) * 14
        overlap, index = 32 * ratio * 2 * dim, sum(ended) * arch.indexer.index_head_dim
    assert counter.cache_read_bytes == 4 * (window + waited + read + overlap + index)


@pytest.mark.parametrize("name", ["entries of 5", "chosen entries of 3"])
def test_two_sequences_of_different_lengths_do_not_mix(name):
    arch = LAYERS[name]
    weights, rng = drawn(arch), np.random.default_rng(9)
    mixer, cache = mixer_of(arch, weights), Cache(tiny(arch), kv_format("fp32"), Paged(4), 64, 2)
    ids, fed = [cache.add(), cache.add()], ([13, 1, 6], [4, 9, 2])
    x = [rng.standard_normal((sum(counts), HIDDEN)).astype(np.float32) for counts in fed]
    found = ([], [])
    for piece in range(3):
        batch = [(i, np.arange(counts[piece])) for i, counts in zip(ids, fed, strict=True)]
        firsts = [sum(counts[:piece]) for counts in fed]
        rows = [a[f : f + c[piece]] for a, f, c in zip(x, firsts, fed, strict=True)]
        out = mixer(np.concatenate(rows), cache.begin(batch), Counter())
        cache.finish(batch)
        for mine, rows_of in zip(found, np.split(out, [len(rows[0])]), strict=True):
            mine.append(rows_of)
    for mine, theirs in zip(found, x, strict=True):
        np.testing.assert_allclose(np.concatenate(mine), by_the_rules(theirs, weights, arch), atol=2e-5)


@pytest.mark.parametrize("name", ["entries of 5", "chosen entries of 3"])
@pytest.mark.parametrize("allocation", [Paged(4), Contiguous(64)], ids=str)
def test_a_copy_goes_on_by_itself(name, allocation):
    """Of a sequence that was forked, or saved and restored, the one does not see what the other adds."""
    arch = LAYERS[name]
    weights, rng = drawn(arch), np.random.default_rng(9)
    x, other = rng.standard_normal((2, 30, HIDDEN)).astype(np.float32)
    other[:17] = x[:17]
    mixer, cache = mixer_of(arch, weights), Cache(tiny(arch), kv_format("fp32"), allocation, 64, 3)
    first = cache.add()
    run(mixer, cache, first, x, [17])
    copies = [cache.fork(first), cache.restore(cache.snapshot(first))]
    for copy in copies:
        found, _ = run(mixer, cache, copy, other[17:], [6, 7])
        np.testing.assert_allclose(found, by_the_rules(other, weights, arch)[17:], atol=2e-5)
    found, _ = run(mixer, cache, first, x[17:], [13])
    np.testing.assert_allclose(found, by_the_rules(x, weights, arch)[17:], atol=2e-5)


@pytest.mark.parametrize("name", ["entries of 5", "chosen entries of 3"])
def test_compressed_tokens_cannot_be_taken_back(name):
    cache = Cache(tiny(LAYERS[name]), kv_format("fp32"), Paged(4), 64, 1)
    sequence = cache.add()
    batch = [(sequence, np.arange(9))]
    cache.begin(batch)
    cache.finish(batch)
    with pytest.raises(UsageError, match="cannot be trimmed"):
        cache.trim(sequence, 1)


def test_a_contiguous_cache_shorter_than_a_run_keeps_no_entry():
    arch = LAYERS["entries of more than all"]
    cache = Cache(tiny(arch), kv_format("fp32"), Contiguous(20), 20, 1)
    x = np.random.default_rng(8).standard_normal((20, HIDDEN)).astype(np.float32)
    weights = drawn(arch)
    found, _ = run(mixer_of(arch, weights), cache, cache.add(), x, [11, 9])
    np.testing.assert_allclose(found, by_the_rules(x, weights, arch), atol=2e-5)
    assert [cache.live_nbytes(place, 0) for place in range(3)] == [7 * 2 * 14 * 4, 0, 20 * 2 * 14 * 4]
    assert cache.allocated_nbytes(2, 0) == 63 * 2 * 14 * 4
