"""What the layers of a decode step share, and what each has of its own."""

import numpy as np

from kvplan.allocation import Paged
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.engine.cache import Cache
from kvplan.storage import kv_format

# Layers 0 and 3 are alike; 1 keeps narrower entries of the same tokens, 2 keeps other tokens.
MIXERS = (Attention(4, 2, 16), Attention(2, 1, 8), Attention(4, 2, 16, sliding_window=5), Attention(4, 2, 16))


def decode_step():
    """A step behind sequences of 10 and 3 tokens."""
    layers = tuple(Layer(mixer, MLP(48)) for mixer in MIXERS)
    model = Model("mixed", "a test", "fp32", 32, 97, 64, layers)
    cache = Cache(model, kv_format("fp32"), Paged(4), 64, 2)
    batch = [(cache.add(), np.zeros(count, np.int64)) for count in (10, 3)]
    cache.begin(batch)
    cache.finish(batch)
    return cache.begin([(sequence, np.zeros(1, np.int64)) for sequence, _ in batch], decode=True)


def test_a_layer_reads_its_own_tokens_in_its_own_width():
    step = decode_step()
    readings = [step.reading(layer, 2) for layer in range(len(MIXERS))]
    # 11 + 4 tokens, or 5 + 4 in the window; keys and values of 2 heads of 16, or one of 8, in float32.
    assert [reading.tokens for reading in readings] == [15, 15, 9, 15]
    assert [reading.nbytes for reading in readings] == [15 * 256, 15 * 64, 9 * 256, 15 * 256]


def test_layers_that_are_alike_share_a_reading():
    step = decode_step()
    assert step.reading(0, 2) is step.reading(3, 2)
    assert step.reading(0, 2) is not step.reading(0, 4)
