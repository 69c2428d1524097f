"""A tower's tensors: all of them take memory, buffers are no parameters, and text uses none."""

import pytest

from kvplan.arch.tower import Tower, TowerTensor, in_words
from kvplan.checks import FieldError
from kvplan.storage import TensorRole

TOWER = Tower(
    "vision_tower",
    (TowerTensor("proj.weight", (6, 4), count=3), TowerTensor("std", (5,), trained=False)),
)


def test_tensors_are_counted_each_and_used_by_no_text():
    matrices, buffer = TOWER.weights()
    assert (matrices.name, matrices.elements, matrices.trained) == ("vision_tower.proj.weight", 72, True)
    assert (buffer.name, buffer.elements, buffer.trained) == ("vision_tower.std", 5, False)
    assert {weight.role for weight in TOWER.weights()} == {TensorRole.TOWER}
    assert [weight.active_elements for weight in TOWER.weights()] == [0, 0]


def test_each_rank_holds_it_whole():
    assert [weight.on_rank(4) for weight in TOWER.weights()] == list(TOWER.weights())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["vision_tower"], "the vision tower is"),
        (["vision_tower", "audio_tower"], "the vision tower and the audio tower are"),
    ],
)
def test_towers_in_words(names, words):
    assert in_words(names) == words


@pytest.mark.parametrize("make", [lambda: Tower("t", ()), lambda: Tower("", TOWER.tensors)])
def test_a_tower_of_nothing_is_refused(make):
    with pytest.raises(FieldError):
        make()
