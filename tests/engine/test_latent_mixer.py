"""Latent attention against its rules written out in float64, and what it counts against hand counts."""

from dataclasses import replace

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.indexer import Indexer
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.expanded_latent_mixer import ExpandedLatentMixer
from kvplan.engine.latent_mixer import LatentMixer
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.token_indexer import best_in_view
from kvplan.storage import kv_format

HIDDEN, THETA, EPS = 40, 100.0, 1e-6
HEADS, RANK, NOPE, ROPE, V, Q_RANK = 4, 12, 6, 4, 5, 10
NEIGHBOURS, HALVES = RopeParameters(THETA, interleaved=True), RopeParameters(THETA)
INDEXER = Indexer(index_n_heads=3, index_head_dim=8, index_topk=6)
SMALL_PAGES = Paged(4)
PLAIN = LatentAttention(HEADS, RANK, NOPE, ROPE, V, Q_RANK, NEIGHBOURS)
LAYERS = {
    "plain": PLAIN,
    "halves, with biases": replace(PLAIN, rope_parameters=HALVES, attention_bias=True),
    "queries as they are, without positions": replace(PLAIN, q_lora_rank=None, rope_parameters=None),
    "indexer in halves": replace(PLAIN, indexer=INDEXER, attention_bias=True),
    "indexer of neighbours": replace(PLAIN, indexer=replace(INDEXER, indexer_rope_interleave=True)),
    "indexer of one token": replace(PLAIN, indexer=Indexer(2, 4, index_topk=1)),
    "indexer of more than there are": replace(PLAIN, indexer=Indexer(2, 4, index_topk=80)),
}
EXPANDED = {
    f"{kind}, cached by head": replace(arch, expanded_cache=True)
    for kind, arch in LAYERS.items()
    if arch.indexer is None
}


def drawn(arch, seed=3):
    """Weights, with norms and biases far from what they would be left out."""
    rng = np.random.default_rng(seed)
    return {w.name: (rng.standard_normal(w.shape) * 0.4).astype(np.float32) for w in arch.weights(HIDDEN)}


def turned(vectors, rope, *, neighbours):
    """The first four elements of vectors (tokens, ..., dim), rotated by their token's position."""
    if rope is None:
        return vectors
    found, pairs = vectors.copy(), ((0, 1), (2, 3)) if neighbours else ((0, 2), (1, 3))
    for token in range(len(vectors)):
        for number, (a, b) in enumerate(pairs):
            angle = token * THETA ** (-2 * number / ROPE)
            first, second = vectors[token, ..., a], vectors[token, ..., b]
            found[token, ..., a] = first * np.cos(angle) - second * np.sin(angle)
            found[token, ..., b] = second * np.cos(angle) + first * np.sin(angle)
    return found


def rms(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * weight


def in_float64(weights):
    named = {name.removeprefix("self_attn."): w.astype(np.float64) for name, w in weights.items()}

    def project(name, x):
        return x @ named[f"{name}.weight"].T + named.get(f"{name}.bias", 0)

    return named, project


def compressed_queries(arch, weights, x):
    named, project = in_float64(weights)
    return x if arch.q_lora_rank is None else rms(project("q_a_proj", x), named["q_a_layernorm.weight"])


def chosen_tokens(arch, weights, x):
    """For each token the set of those it attends to."""
    tokens = len(x)
    if arch.indexer is None:
        return [set(range(token + 1)) for token in range(tokens)]
    named, project = in_float64(weights)
    heads, dim = arch.indexer.index_n_heads, arch.indexer.index_head_dim
    neighbours, rope = arch.indexer.indexer_rope_interleave, arch.rope_parameters
    queries = project("indexer.wq_b", compressed_queries(arch, weights, x)).reshape(tokens, heads, dim)
    queries = turned(queries, rope, neighbours=neighbours)
    keys = project("indexer.wk", x)
    keys = (keys - keys.mean(-1, keepdims=True)) / np.sqrt(keys.var(-1, keepdims=True) + EPS)
    keys = keys * named["indexer.k_norm.weight"] + named["indexer.k_norm.bias"]
    keys = turned(keys, rope, neighbours=neighbours)
    by_head = project("indexer.weights_proj", x)
    found = []
    for token in range(tokens):
        scores = [
            sum(by_head[token, h] * max(queries[token, h] @ keys[other], 0) for h in range(heads))
            for other in range(token + 1)
        ]
        found.append(set(sorted(range(token + 1), key=lambda t: -scores[t])[: arch.indexer.index_topk]))
    return found


def expected_output(arch, weights, x, seen):
    """What the layer adds for the tokens x (tokens, hidden) of one sequence, each of which sees some."""
    named, project = in_float64(weights)
    tokens, rope = len(x), arch.rope_parameters
    neighbours = rope is not None and rope.interleaved
    name = "q_proj" if arch.q_lora_rank is None else "q_b_proj"
    queries = project(name, compressed_queries(arch, weights, x)).reshape(tokens, HEADS, NOPE + ROPE)
    joined = project("kv_a_proj_with_mqa", x)
    latents = rms(joined[:, :RANK], named["kv_a_layernorm.weight"])
    rope_keys = turned(joined[:, RANK:], rope, neighbours=neighbours)
    rope_queries = turned(queries[..., NOPE:], rope, neighbours=neighbours)
    made = project("kv_b_proj", latents).reshape(tokens, HEADS, NOPE + V)
    mixed = np.empty((tokens, HEADS, V))
    for token in range(tokens):
        some = sorted(seen[token])
        for head in range(HEADS):
            scores = made[some, head, :NOPE] @ queries[token, head, :NOPE]
            scores = (scores + rope_keys[some] @ rope_queries[token, head]) * (NOPE + ROPE) ** -0.5
            shares = np.exp(scores - scores.max())
            mixed[token, head] = shares / shares.sum() @ made[some, head, NOPE:]
    return project("o_proj", mixed.reshape(tokens, -1))


class Run:
    """Two sequences of up to 60 tokens through layers side by side, all of which read the same input."""

    def __init__(self, *archs, allocation=SMALL_PAGES):
        layers = tuple(Layer(arch, MLP(8)) for arch in archs)
        self.model = Model("tiny", "a test", "fp32", HIDDEN, 90, 128, layers)
        self.weights = [drawn(arch, seed) for seed, arch in enumerate(archs)]
        rotaries, places = Rotaries(self.model, 128), self.model.places()
        self.mixers = [
            ExpandedLatentMixer(arch, weights, mine[0], rotaries)
            if arch.expanded_cache
            else LatentMixer(arch, weights, mine, rotaries)
            for arch, weights, mine in zip(archs, self.weights, places, strict=True)
        ]
        self.cache = Cache(self.model, kv_format("fp32"), allocation, max_tokens=128, sequences=2)
        self.x = np.random.default_rng(6).standard_normal((2, 60, HIDDEN), dtype=np.float32)
        self.ids = [self.cache.add(), self.cache.add()]
        self.found = [[[], []] for _ in archs]
        self.counters = [Counter() for _ in archs]

    def __call__(self, *pieces, decode=False):
        """Run tokens ``start`` to ``stop`` of sequences ``i`` in one step."""
        batch = [(self.ids[i], np.zeros(stop - start, np.int64)) for i, start, stop in pieces]
        step = self.cache.begin(batch, decode=decode)
        rows = np.concatenate([self.x[i, start:stop] for i, start, stop in pieces])
        self.counters = [Counter() for _ in self.mixers]
        for mixer, counter, found in zip(self.mixers, self.counters, self.found, strict=True):
            out = mixer(rows, step, counter)
            for (i, _, _), some in zip(pieces, np.split(out, np.cumsum(step.counts)[:-1]), strict=True):
                found[i].append(some)
        step.write_held(Counter())
        self.cache.finish(batch)

    def whole(self):
        """Prompts of 21 and 30 tokens, the first in pieces, and 25 tokens more of each, one at a time."""
        self((0, 0, 7), (1, 0, 30))
        self((0, 7, 21))
        for token in range(25):
            self((0, 21 + token, 22 + token), (1, 30 + token, 31 + token), decode=True)
        return self

    def require(self, layer, arch, chooser=0):
        """Compare a layer's output of both sequences, whose tokens another layer may have chosen."""
        for i, length in enumerate((46, 55)):
            x = self.x[i, :length].astype(np.float64)
            seen = chosen_tokens(arch, self.weights[chooser], x)
            expected = expected_output(arch, self.weights[layer], x, seen)
            found = np.concatenate(self.found[layer][i])
            assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("allocation", [Contiguous(128), SMALL_PAGES], ids=str)
@pytest.mark.parametrize("kind", [*LAYERS, *EXPANDED])
def test_prefill_in_pieces_and_decode_of_a_batch(kind, allocation):
    arch = {**LAYERS, **EXPANDED}[kind]
    Run(arch, allocation=allocation).whole().require(0, arch)


def test_a_layer_that_shares_a_choice_sees_what_the_layer_before_it_chose():
    own = LAYERS["indexer in halves"]
    sharing = replace(own, indexer=replace(INDEXER, shared=True))
    run = Run(own, sharing).whole()
    run.require(1, own, chooser=0)
    assert len(run.model.stored_slots()) == 3


def test_counts_of_latents_and_an_indexer_by_hand():
    """6 tokens seen; float32; 4 heads over latents of 12 and 4; 3 index heads of 8."""
    arch = replace(PLAIN, indexer=INDEXER)
    run = Run(arch)
    run((0, 0, 20))
    run((1, 0, 4))
    expanding = HEADS * (NOPE + V) * RANK
    others = HIDDEN * (Q_RANK + RANK + ROPE + HEADS * V) + Q_RANK * HEADS * (NOPE + ROPE)
    others += Q_RANK * 3 * 8 + HIDDEN * (8 + 3)
    # Two tokens: the 21st sees 6 of 21, the 5th all 5; index scores are made of all, heads' weights included.
    run((0, 20, 21), (1, 4, 5), decode=True)
    (counter,) = run.counters
    assert counter.matmul_flops == 2 * 2 * (others + expanding)
    assert counter.attention_flops == 2 * (6 + 5) * HEADS * (2 * RANK + ROPE) + 2 * (21 + 5) * 3 * (8 + 1)
    assert counter.cache_read_bytes == (6 + 5) * (RANK + ROPE) * 4 + (21 + 5) * 8 * 4
    assert counter.cache_written_bytes == 2 * (RANK + ROPE + 8) * 4
    # Three more, expanded: each sees 6, but all 24 latents in view are read once and made keys and values of.
    run((0, 21, 24))
    (counter,) = run.counters
    assert counter.matmul_flops == 2 * (3 * others + 24 * expanding)
    scores = 2 * (22 + 23 + 24) * 3 * (8 + 1)
    assert counter.attention_flops == 2 * 3 * 6 * HEADS * (NOPE + ROPE + V) + scores
    assert counter.cache_read_bytes == 24 * (RANK + ROPE + 8) * 4


def test_counts_of_an_expanded_cache_by_hand():
    """A key of 10 and a value of 5 elements for each of 4 heads; nothing is expanded twice."""
    run = Run(replace(PLAIN, expanded_cache=True))
    run((0, 0, 20))
    each = HIDDEN * (Q_RANK + RANK + ROPE + HEADS * V) + Q_RANK * HEADS * (NOPE + ROPE)
    each += HEADS * (NOPE + V) * RANK
    for pieces, decode, pairs, read in ((((0, 20, 21),), True, 21, 21), (((0, 21, 24),), False, 69, 24)):
        run(*pieces, decode=decode)
        (counter,), new = run.counters, pieces[0][2] - pieces[0][1]
        assert counter.matmul_flops == 2 * new * each
        assert counter.attention_flops == 2 * pairs * HEADS * (NOPE + ROPE + V)
        assert counter.cache_read_bytes == read * HEADS * (NOPE + ROPE + V) * 4
        assert counter.cache_written_bytes == new * HEADS * (NOPE + ROPE + V) * 4


def test_the_first_of_equal_scores_are_chosen_and_none_that_is_yet_to_come():
    scores = np.array([[1.0, 3.0, 3.0, 9.0, 9.0], [1.0, 3.0, 3.0, 3.0, 9.0], [5.0, 0.0, 0.0, 0.0, -1.0]])
    assert best_in_view(scores, 2, 2).tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
    assert best_in_view(scores, 2, 5).tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
