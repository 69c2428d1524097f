"""What the layers of a decode step share, and what each has of its own."""

import numpy as np
import pytest

from kvplan.allocation import Paged
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.engine.cache import Cache
from kvplan.engine.choices import Choices
from kvplan.storage import kv_format

# Layers 0 and 3 are alike; 1 keeps narrower entries of the same tokens, 2 keeps other tokens.
MIXERS = (Attention(4, 2, 16), Attention(2, 1, 8), Attention(4, 2, 16, sliding_window=5), Attention(4, 2, 16))


def decode_step(choices=None):
    """A step behind sequences of 10 and 3 tokens."""
    layers = tuple(Layer(mixer, MLP(48)) for mixer in MIXERS)
    model = Model("mixed", "a test", "fp32", 32, 97, 64, layers)
    cache = Cache(model, kv_format("fp32"), Paged(4), 64, 2, choices=choices)
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


def test_positions_stay_as_they_are_for_what_layers_look_up_by_them():
    step = decode_step()
    assert step.positions.tolist() == [10, 3]
    with pytest.raises(ValueError, match="read-only"):
        step.positions += 1


def test_layers_that_are_alike_share_a_reading():
    step = decode_step()
    assert step.reading(0, 2) is step.reading(3, 2)
    assert step.reading(0, 2) is not step.reading(0, 4)


def test_choices_of_all_rows_are_remembered_for_each_sequence_behind_its_tokens():
    choices = Choices()
    chosen, scores = np.array([[1, 0], [0, 1]], np.bool_), np.ones((2, 2), np.float32)
    assert decode_step(choices).settle_all("router", scores, chosen).tolist() == chosen.tolist()
    for slot, start in ((0, 10), (1, 3)):
        again = np.broadcast_to(~chosen[slot], (start + 1, 2))
        found = choices.of_sequence(slot).settle("router", 0, 0, np.ones((start + 1, 2)), again)
        assert found[:-1].tolist() == again[:-1].tolist()
        assert found[-1].tolist() == chosen[slot].tolist()


def test_each_sequence_is_settled_by_its_own_rows():
    class Swapped:
        """Chooses otherwise where the second score is the better one."""

        def settle(self, who, slot, start, scores, chosen):
            return ~chosen if scores[0, 1] > scores[0, 0] else chosen

    chosen, scores = np.array([[1, 0], [1, 0]], np.bool_), np.array([[2, 1], [1, 2]], np.float32)
    found = decode_step(Swapped()).settle_all("router", scores, chosen)
    assert found.tolist() == [[True, False], [False, True]]


def test_a_step_of_a_run_that_nothing_is_held_to_leaves_choices_alone():
    chosen = np.array([[1, 0], [0, 1]], np.bool_)
    assert decode_step().settle_all("router", np.ones((2, 2), np.float32), chosen) is chosen
