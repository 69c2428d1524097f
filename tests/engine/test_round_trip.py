"""A float32 cache compressed after the fact, against formulas written out here."""

from dataclasses import replace

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.attention import Attention
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder, Logits
from kvplan.engine.random_weights import random_weights
from kvplan.engine.round_trip import round_trip
from kvplan.errors import UsageError
from kvplan.storage import kv_format

FULL = Attention(4, 2, 16)
TOKENS = np.arange(150) * 7 % 97
LARGEST_CODE = {"int8": 255, "int4": 15, "int2": 3}


def coded(vectors, largest, axis):
    """Return min-max codes along an axis, read back: the textbook formula in float64."""
    low, high = vectors.min(axis=axis, keepdims=True), vectors.max(axis=axis, keepdims=True)
    step = (high - low) / largest
    return np.rint((vectors - low) / step) * step + low, step


def vectors(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", ["int4", "int2"])
def test_vectors_of_a_token_come_back_as_the_nearest_codes(name):
    keys, values = vectors(0, 150, 2, 16), vectors(1, 150, 2, 16)
    for given, found in zip((keys, values), round_trip(keys, values, kv_format(name)), strict=True):
        expected, step = coded(given.astype(np.float64), LARGEST_CODE[name], -1)
        # Scales and minima are float16, rounded outwards: a code next to a tie may be the other one.
        apart = np.abs(found - expected)
        assert (apart <= 1.02 * step).all()
        assert (apart > 0.02 * step).mean() < 0.02
        assert len(np.unique(found[0, 0])) <= LARGEST_CODE[name] + 1


@pytest.mark.parametrize("name", ["int4-kivi", "int2-kivi"])
def test_keys_are_coded_by_channel_of_64_tokens_and_wait_in_float16(name):
    keys, values = vectors(0, 150, 2, 16), vectors(1, 150, 2, 16)
    found, _ = round_trip(keys, values, kv_format(name))
    largest = LARGEST_CODE[name.removesuffix("-kivi")]
    for first in (0, 64):
        group = keys[first : first + 64].astype(np.float64)
        expected, step = coded(group, largest, 0)
        apart = np.abs(found[first : first + 64] - expected)
        assert (apart > 0.02 * step).mean() < 0.02
    assert np.array_equal(found[128:], keys[128:].astype(np.float16).astype(np.float32))


def ran(kv, mixer, allocation=None):
    """Return a decoder, a float32 cache that has read 150 tokens and passed through a format, and its id."""
    layers = (Layer(mixer, MLP(32)),) * 2
    model = Model("fake", "a test", "fp32", 32, 97, 512, layers)
    decoder = Decoder(model, random_weights(model, 3), 256)
    cache = Cache(model, kv_format("fp32"), allocation or Paged(64), 256, 1)
    sequence = cache.add()
    decoder.forward(cache, [(sequence, TOKENS)], Counter(), logits=Logits.NONE)
    if kv:
        cache.pass_through(sequence, kv_format(kv))
    return decoder, cache, sequence


def next_logits(kv, mixer, allocation=None):
    decoder, cache, sequence = ran(kv, mixer, allocation)
    return decoder.forward(cache, [(sequence, np.array([5]))], Counter(), decode=True)


MIXERS = {
    "full": FULL,
    "window": replace(FULL, sliding_window=100, sink_tokens=3),
    "latent": LatentAttention(2, 16, 16, 16, 16),
}


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("allocation", [Paged(64), Contiguous(256)], ids=["paged", "contiguous"])
def test_passing_through_float32_changes_nothing(mixer, allocation):
    expected = next_logits("", MIXERS[mixer], allocation)
    assert np.array_equal(next_logits("fp32", MIXERS[mixer], allocation), expected)


@pytest.mark.parametrize("mixer", MIXERS)
def test_fewer_bits_move_logits_further(mixer):
    expected = next_logits("", MIXERS[mixer])
    errors = [
        np.abs(next_logits(kv, MIXERS[mixer]) - expected).max() for kv in ("bf16", "int8", "int4", "int2")
    ]
    assert 0 < errors[0] < errors[1] < errors[2] < errors[3]


@pytest.mark.parametrize("mixer", ["full", "window"])
def test_both_allocations_compress_the_same_tokens(mixer):
    paged, contiguous = (next_logits("int4", MIXERS[mixer], a) for a in (Paged(64), Contiguous(256)))
    assert np.allclose(paged, contiguous, atol=1e-5)


def test_a_cache_that_is_compressed_already_is_refused():
    decoder, _, _ = ran("", FULL)
    cache = Cache(decoder._model, kv_format("int8"), Paged(64), 256, 1)
    with pytest.raises(UsageError, match="must be kept in fp32, not in int8"):
        cache.pass_through(cache.add(), kv_format("int4"))
