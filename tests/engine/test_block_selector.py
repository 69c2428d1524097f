"""Attention over chosen blocks against its rules in float64, and what it counts against hand counts."""

from dataclasses import replace

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.block_indexer import BlockIndexer
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.rotary import RopeParameters
from kvplan.engine.attention_mixer import AttentionMixer
from kvplan.engine.block_selector import best_blocks, best_of_blocks
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.rotaries import Rotaries
from kvplan.storage import kv_format

EPS, HIDDEN, HEADS, DIM, THETA = 0.05, 40, 8, 12, 100.0
PLAIN = Attention(
    HEADS,
    4,
    DIM,
    qk_norm=QkNorm.HEAD,
    rope_parameters=RopeParameters(THETA, partial_rotary_factor=0.5),
    indexer=BlockIndexer(4, 10, index_block_size=5, index_topk_blocks=3),
)
LAYERS = {
    "a choice for each KV head": PLAIN,
    "one choice for two KV heads": replace(PLAIN, indexer=BlockIndexer(2, 16, 4, 3)),
    "two local blocks": replace(PLAIN, indexer=BlockIndexer(1, 6, 3, 4, index_local_blocks=2)),
    "its own block alone": replace(PLAIN, indexer=BlockIndexer(4, 8, 7, 1)),
    "blocks of a token": replace(PLAIN, indexer=BlockIndexer(2, 8, 1, 6)),
    "blocks past the end": replace(PLAIN, indexer=BlockIndexer(4, 8, 16, 8)),
    "without positions": replace(PLAIN, rope_parameters=None),
}


def drawn(arch):
    """Weights, with norms far from what they would be left out."""
    rng = np.random.default_rng(3)
    return {
        weight.name: (rng.standard_normal(weight.shape) * (0.4 if "norm" in weight.name else 0.3)).astype(
            np.float32
        )
        for weight in arch.weights(HIDDEN)
    }


def tiny(arch):
    return Model(
        *("tiny", "a test", "fp32", HIDDEN, 90, 128),
        layers=(Layer(arch, MLP(8)),),
        norm=Norm.RMS_UNIT_OFFSET,
        norm_eps=EPS,
    )


def normed_and_turned(arch, weight, heads):
    """Heads (tokens, heads, dim): an RMSNorm that stores the distance from one, then six elements turned."""
    found = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + EPS) * (1 + weight)
    if arch.rope_parameters is None:
        return found
    first, second, rest = found[..., :3], found[..., 3:6], found[..., 6:]
    angles = np.arange(len(heads))[:, None, None] * THETA ** (-np.arange(3) / 3)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


def blocks_seen(indexer, scores, token):
    """The blocks a query sees by the scores of all tokens up to itself, one block after another."""
    size, own = indexer.index_block_size, token // indexer.index_block_size
    seen = {max(own - back, 0) for back in range(indexer.index_local_blocks)}
    others = sorted(set(range(own + 1)) - seen, key=lambda b: -max(scores[b * size : (b + 1) * size]))
    return seen | set(others[: indexer.index_topk_blocks - len(seen)])


def expected_output(arch, weights, x):
    """What the layer adds for the tokens x (tokens, hidden) of one sequence."""
    w = {name.split(".")[1]: array.astype(np.float64) for name, array in weights.items()}
    tokens, indexer = len(x), arch.indexer

    def made(name, count):
        return (x.astype(np.float64) @ w[name].T).reshape(tokens, count, -1)

    queries = normed_and_turned(arch, w["q_norm"], made("q_proj", HEADS))
    keys, values = normed_and_turned(arch, w["k_norm"], made("k_proj", 4)), made("v_proj", 4)
    index_queries = normed_and_turned(arch, w["index_q_norm"], made("index_q_proj", indexer.index_n_heads))
    index_keys = normed_and_turned(arch, w["index_k_norm"], made("index_k_proj", 1))[:, 0]
    mixed = np.empty((tokens, HEADS, DIM))
    for token in range(tokens):
        for head in range(HEADS):
            index_query = index_queries[token, head * indexer.index_n_heads // HEADS]
            blocks = blocks_seen(indexer, index_keys[: token + 1] @ index_query, token)
            seen = [key for key in range(token + 1) if key // indexer.index_block_size in blocks]
            scores = keys[seen, head // 2] @ queries[token, head] * DIM**-0.5
            shares = np.exp(scores - scores.max())
            mixed[token, head] = shares / shares.sum() @ values[seen, head // 2]
    return mixed.reshape(tokens, -1) @ w["o_proj"].T


class Run:
    """Two sequences of up to 60 tokens through one layer."""

    def __init__(self, arch, allocation, kv="fp32"):
        self.model, self.weights, self.counter = tiny(arch), drawn(arch), Counter()
        self.mixer = AttentionMixer(arch, self.model, self.weights, (0, 1), Rotaries(self.model, 128))
        self.cache = Cache(self.model, kv_format(kv), allocation, max_tokens=128, sequences=2)
        self.x = np.random.default_rng(6).standard_normal((2, 60, HIDDEN), dtype=np.float32)
        self.ids, self.found = [self.cache.add(), self.cache.add()], [[], []]

    def __call__(self, *pieces, decode=False):
        """Run tokens ``start`` to ``stop`` of sequences ``i`` in one step."""
        batch = [(self.ids[i], np.zeros(stop - start, np.int64)) for i, start, stop in pieces]
        step = self.cache.begin(batch, decode=decode)
        rows = np.concatenate([self.x[i, start:stop] for i, start, stop in pieces])
        out, self.counter = self.mixer(rows, step, counter := Counter()), counter
        self.cache.finish(batch)
        for (i, _, _), some in zip(pieces, np.split(out, np.cumsum(step.counts)[:-1]), strict=True):
            self.found[i].append(some)


@pytest.mark.parametrize("allocation", [Contiguous(128), Paged(4)], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_prefill_in_pieces_and_decode_of_a_batch(kind, allocation):
    """Two sequences of different lengths: their prompts in pieces, then one token each at a time."""
    run = Run(LAYERS[kind], allocation)
    run((0, 0, 7), (1, 0, 30))
    run((0, 7, 21))
    for token in range(25):
        run((0, 21 + token, 22 + token), (1, 30 + token, 31 + token), decode=True)
    for i, length in enumerate((46, 55)):
        expected = expected_output(LAYERS[kind], run.weights, run.x[i, :length])
        assert np.abs(np.concatenate(run.found[i]) - expected).max() < 1e-5 * np.abs(expected).max()


def test_counts_of_a_step_by_hand():
    """Blocks of 5 tokens, 3 of them seen; float32; 4 index heads of 10, 4 KV heads of 12, 8 query heads."""
    run = Run(PLAIN, Paged(4))
    run((0, 0, 20))
    run((1, 0, 7))
    matrices = HIDDEN * (2 * 96 + 2 * 48 + 40 + 10)
    # Two tokens: the 21st sees two whole blocks and itself, the 8th all 8; their index scores every token.
    run((0, 20, 21), (1, 7, 8), decode=True)
    assert run.counter.matmul_flops == 2 * 2 * matrices
    assert run.counter.attention_flops == 2 * (11 + 8) * 8 * (12 + 12) + 2 * (21 + 8) * 4 * 10
    assert run.counter.cache_read_bytes == (11 + 8) * 4 * 24 * 4 + (21 + 8) * 10 * 4
    assert run.counter.cache_written_bytes == 2 * (4 * 24 + 10) * 4
    # Three more: the 22nd to the 24th see 12, 13 and 14 tokens; a prompt reads all 24 in view.
    run((0, 21, 24))
    assert run.counter.attention_flops == 2 * (12 + 13 + 14) * 8 * 24 + 2 * (22 + 23 + 24) * 4 * 10
    assert run.counter.cache_read_bytes == 24 * (4 * 24 + 10) * 4


def test_quantised_keys_are_read_as_they_were_stored():
    """With int8 the outputs are near those of float32, and not the same, while every block is seen."""
    plain, stored = Run(PLAIN, Paged(4)), Run(PLAIN, Paged(4), "int8")
    for run in (plain, stored):
        run((0, 0, 14))
        run((0, 14, 15), decode=True)
    for exact, near in zip(plain.found[0], stored.found[0], strict=True):
        assert 0 < np.abs(near - exact).max() < 0.02 * np.abs(exact).max()


def test_best_of_blocks_leaves_the_last_block_short():
    scores = np.array([[[1.0, 5.0, 2.0, 0.0, -1.0, -np.inf, -2.0]]])
    assert best_of_blocks(scores, 3).tolist() == [[[5.0, 0.0, -2.0]]]
    assert best_of_blocks(scores, 7).tolist() == [[[5.0]]]


def test_a_query_keeps_its_own_block_and_the_first_of_equal_ones():
    scores, own = np.array([[[4.0, 4.0, 9.0, 1.0], [4.0, 4.0, -np.inf, -np.inf]]]), np.array([3, 1])
    assert best_blocks(scores, own, 2, 1).tolist() == [[[0, 0, 1, 1], [1, 1, 0, 0]]]
    assert best_blocks(scores, own, 3, 1).tolist() == [[[1, 0, 1, 1], [1, 1, 0, 0]]]
    assert best_blocks(scores, own, 2, 2).tolist() == [[[0, 0, 1, 1], [1, 1, 0, 0]]]
    assert best_blocks(scores[:, :1], np.array([1]), 1, 1).tolist() == [[[0, 1, 0, 0]]]
