"""Hyper-connections against their rules in float64, token by token."""

import numpy as np
import pytest

from kvplan.arch.hyper_connections import HyperConnections
from kvplan.engine.counter import Counter
from kvplan.engine.hyper_connections import HyperStreams, HyperUpdate

HIDDEN, TOKENS, EPS = 10, 5, 0.03


def drawn(weights, seed=1):
    rng = np.random.default_rng(seed)
    return {weight.name: rng.standard_normal(weight.shape).astype(np.float32) for weight in weights}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def projected(streams, weights, name):
    """What one token's streams (streams, hidden) make, before scales and bases."""
    flat = streams.ravel() / np.sqrt((streams**2).mean() + EPS)
    return weights[f"{name}.fn.weight"].astype(np.float64) @ flat


def by_the_rules(streams, weights, arch, part):
    """One token's streams behind a part."""
    count, made = arch.hc_mult, projected(streams, weights, "ffn_hc")
    scales, base = weights["ffn_hc.scale"].astype(np.float64), weights["ffn_hc.base"].astype(np.float64)
    shares = sigmoid(made[:count] * scales[0] + base[:count]) + arch.hc_eps
    feeding = 2 * sigmoid(made[count : 2 * count] * scales[1] + base[count : 2 * count])
    raw = (made[2 * count :] * scales[2] + base[2 * count :]).reshape(count, count)
    matrix = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True) + arch.hc_eps
    matrix /= matrix.sum(axis=0, keepdims=True) + arch.hc_eps
    for _ in range(arch.hc_sinkhorn_iters - 1):
        matrix /= matrix.sum(axis=1, keepdims=True) + arch.hc_eps
        matrix /= matrix.sum(axis=0, keepdims=True) + arch.hc_eps
    added = part(shares @ streams)
    return np.array([matrix[:, k] @ streams + feeding[k] * added for k in range(count)])


@pytest.mark.parametrize(
    "arch", [HyperConnections(3, 4, 0.02), HyperConnections(2, 1, 1e-6), HyperConnections(4)], ids=str
)
def test_a_part_reads_feeds_and_mixes_the_streams(arch):
    weights = drawn(arch.layer_weights(HIDDEN))
    streams = np.random.default_rng(2).standard_normal((arch.hc_mult, TOKENS, HIDDEN)).astype(np.float32)
    matrix = np.random.default_rng(3).standard_normal((HIDDEN, HIDDEN)).astype(np.float32)
    counter = Counter()
    found = HyperUpdate("ffn_hc", arch, weights, EPS)(streams, lambda x: np.tanh(x @ matrix), counter)
    for token in range(TOKENS):
        expected = by_the_rules(
            streams[:, token].astype(np.float64), weights, arch, lambda x: np.tanh(x @ matrix)
        )
        np.testing.assert_allclose(found[:, token], expected, atol=2e-5)
    rows = (2 + arch.hc_mult) * arch.hc_mult
    assert counter.matmul_flops == 2 * TOKENS * rows * arch.hc_mult * HIDDEN


def test_streams_begin_alike_and_are_summed_in_the_end():
    arch = HyperConnections(3, hc_eps=0.05)
    weights = drawn(arch.output_weights(HIDDEN))
    streams, x = HyperStreams(arch, weights, EPS), np.arange(TOKENS * HIDDEN, dtype=np.float32)
    spread = streams.spread(x.reshape(TOKENS, HIDDEN), Counter())
    assert [(stream == x.reshape(TOKENS, HIDDEN)).all() for stream in spread] == [True] * 3
    many = np.random.default_rng(2).standard_normal((3, TOKENS, HIDDEN)).astype(np.float32)
    found = streams.joined(many, Counter())
    for token in range(TOKENS):
        one = many[:, token].astype(np.float64)
        made = projected(one, weights, "hc_head") * weights["hc_head.scale"][0] + weights["hc_head.base"]
        np.testing.assert_allclose(found[token], (sigmoid(made) + 0.05) @ one, atol=2e-5)
