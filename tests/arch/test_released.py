"""Tensors that released files store in another format than the model's."""

from dataclasses import replace

import pytest

from kvplan.arch.mlp import MLP
from kvplan.arch.released import StoredAs, as_released, strange_tensors
from kvplan.checks import FieldError
from kvplan.storage import AsReleased, weight_format

WEIGHTS = MLP(64).weights(32)
DOWN, UP = "mlp.down_proj.weight", "mlp.up_proj.weight"


def test_a_tensor_knows_the_format_of_its_own():
    found = as_released(WEIGHTS, (StoredAs("bf16", (DOWN,)), StoredAs("nvfp4", (UP,))))
    assert {w.name: w.released_in for w in found if w.released_in} == {DOWN: "bf16", UP: "nvfp4"}
    assert [replace(w, released_in="") for w in found] == list(WEIGHTS)


def test_a_format_of_its_own_counts_only_as_released():
    down = next(w for w in as_released(WEIGHTS, (StoredAs("nvfp4", (DOWN,)),)) if w.name == DOWN)
    up = next(w for w in WEIGHTS if w.name == UP)
    released = AsReleased(weight_format("fp8-row"), ("nvfp4",))
    assert down.format_under(released).name == "nvfp4"
    assert up.format_under(released).name == "fp8-row"
    assert down.format_under(weight_format("int4")).name == "int4"


def test_a_matrix_can_stay_in_a_dtype_of_its_own():
    down = next(w for w in as_released(WEIGHTS, (StoredAs("fp16", (DOWN,)),)) if w.name == DOWN)
    released = AsReleased(weight_format("fp8-row"), ("fp16",))
    assert down.format_under(released) is None
    assert down.plain_dtype(released, "bf16") == "fp16"


def test_a_role_has_no_say_in_a_format_of_its_own():
    """mxfp4 is for experts; where a file names another matrix, that is what it stores."""
    down = next(w for w in as_released(WEIGHTS, (StoredAs("mxfp4", (DOWN,)),)) if w.name == DOWN)
    assert down.format_under(AsReleased(weight_format("bf16"), ("mxfp4",))).name == "mxfp4"
    assert down.format_under(weight_format("mxfp4")) is None


def test_names_of_no_tensor_and_names_that_stand_twice_are_found():
    stored = (StoredAs("bf16", (DOWN, "mlp.zzz.weight")), StoredAs("nvfp4", (UP, DOWN)))
    assert strange_tensors(WEIGHTS, stored) == ["mlp.zzz.weight", DOWN]
    assert strange_tensors(WEIGHTS, stored[:0]) == []


@pytest.mark.parametrize(
    ("storage", "tensors", "said"),
    [("int3", (DOWN,), "'int3' is no weight format"), ("fp8", (), "names no tensor")],
)
def test_what_cannot_be_is_refused(storage, tensors, said):
    with pytest.raises(FieldError, match=said):
        StoredAs(storage, tensors)
