"""Layers that run a block with the same weights: held once, read at every use, each with its own cache."""

from pathlib import Path

import numpy as np

from kvplan.allocation import Paged
from kvplan.check.quality_formats import parse_format
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder
from kvplan.engine.random_weights import named_weights, random_weights
from kvplan.specs.config_json import import_file
from kvplan.specs.families.common import Identity
from kvplan.storage import kv_format

CONFIG = Path(__file__).parents[1] / "golden" / "configs" / "zamba2.json"
MODEL = import_file(CONFIG, Identity("zamba2", "a test"))
PROMPT = np.arange(20) * 7 % MODEL.vocab_size


def step(weights, counter):
    decoder = Decoder(MODEL, dict(weights), 64)
    cache = Cache(MODEL, kv_format("fp32"), Paged(16), 64, 1)
    sequence = cache.add()
    decoder.forward(cache, [(sequence, PROMPT)], Counter())
    return decoder, decoder.forward(cache, [(sequence, PROMPT[:1])], counter, decode=True)


def test_a_block_is_named_and_held_once():
    weights = random_weights(MODEL, 0)
    named = [name for name, _ in named_weights(MODEL)]
    assert len(named) == len(set(named))
    assert {name.split(".self_attn")[0] for name in named if name.endswith("self_attn.q_proj.weight")} == {
        "blocks.0",
        "blocks.1",
    }
    decoder, _ = step(weights, Counter())
    assert decoder.weights_nbytes == sum(array.nbytes for array in weights.values())


def test_a_step_reads_a_block_at_every_use():
    weights, counter = random_weights(MODEL, 0), Counter()
    step(weights, counter)
    of_first = sum(array.nbytes for name, array in weights.items() if name.startswith("blocks.0."))
    # Layers 1 and 3 run the first block, layer 2 the second; the tied head is read whole.
    assert [layer.shared_block.number for layer in MODEL.layers[1:]] == [0, 1, 0]
    assert counter.weights_read_bytes == sum(array.nbytes for array in weights.values()) + of_first


def test_a_block_can_view_a_window_with_the_same_weights():
    weights = random_weights(MODEL, 0)
    narrow = parse_format("fp32/window-5").of(MODEL)
    viewing = Decoder(MODEL, dict(weights), 64).viewing(narrow)
    logits = []
    for decoder in (viewing, Decoder(narrow, dict(weights), 64)):
        cache = Cache(narrow, kv_format("fp32"), Paged(16), 64, 1)
        logits.append(decoder.forward(cache, [(cache.add(), PROMPT)], Counter()))
    assert np.array_equal(*logits)
    assert np.abs(logits[0] - step(weights, Counter())[1]).max() > 1e-3


def test_every_tensor_is_felt():
    weights = random_weights(MODEL, 0)
    _, logits = step(weights, Counter())
    for name, array in weights.items():
        if name.startswith("blocks.") or "_adapter_" in name or "shared_block_output" in name:
            _, others = step({**weights, name: array[::-1].copy()}, Counter())
            assert np.abs(others - logits).max() > 1e-3, name
