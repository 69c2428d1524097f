"""What a decoder shows of its mixers is what they add, and showing it changes nothing."""

import numpy as np

from kvplan.allocation import Paged
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder
from kvplan.engine.random_weights import random_weights
from kvplan.storage import kv_format


def run(model, watch):
    decoder = Decoder(model, random_weights(model, seed=3), 512, watch)
    cache = Cache(model, kv_format("fp32"), Paged(16), 512, 1)
    sequence = cache.add()
    first = decoder.forward(cache, [(sequence, np.arange(9))], Counter())
    second = decoder.forward(cache, [(sequence, np.array([4]))], Counter(), decode=True)
    return decoder.weights_nbytes, first, second


def test_watching_changes_nothing_and_shows_every_layer_once_a_step(runner):
    seen = []
    watched = run(runner.model, lambda layer, outputs, step: seen.append((layer, outputs.shape, step.decode)))
    plain = run(runner.model, None)
    assert watched[0] == plain[0]
    assert all(np.array_equal(a, b) for a, b in zip(watched[1:], plain[1:], strict=True))
    width = runner.model.hidden_size
    assert seen == [
        (layer, (tokens, width), decode)
        for tokens, decode in ((9, False), (1, True))
        for layer in range(len(runner.model.layers))
    ]
