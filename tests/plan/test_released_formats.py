"""Plans of files that store some matrices otherwise than most, by hand."""

from dataclasses import replace

import pytest

from kvplan.arch.released import StoredAs
from kvplan.errors import UsageError

# Llama 3.1 8B: a layer's matrices are 218,103,808 elements, its norms 2 x 4,096 in bf16; outside are
# embedding and head of 525,336,576 and a norm, in bf16.
MATRICES, NORMS, OUTER = 218_103_808, 2 * 2 * 4_096, 2 * (2 * 525_336_576 + 4_096)
# Rows of q, k, v, o, gate, up, down: a float32 each.
ROWS = 4 * (4_096 + 1_024 + 1_024 + 4_096 + 14_336 + 14_336 + 4_096)
DOWN = 4_096 * 14_336


@pytest.fixture
def mixed(bundled):
    """Llama 3.1 8B in fp8 with a scale per row, but for the first layer's down_proj and the head."""
    model = bundled("llama-3.1-8b")
    first = replace(model.layers[0], stored_otherwise=(StoredAs("bf16", ("mlp.down_proj.weight",)),))
    return replace(
        model,
        weight_format="fp8-row",
        layers=(first, *model.layers[1:]),
        stored_otherwise=(StoredAs("nvfp4", ("lm_head.weight",)),),
    )


def test_bytes_as_released(mixed, plan):
    # The head in nvfp4: half a byte, a byte per 16, and 4 for the matrix, in place of 2 bytes.
    head = 525_336_576 // 2 + 525_336_576 // 16 + 4 - 2 * 525_336_576
    # The first layer's down_proj: a byte more for each element, and no scales of its 4,096 rows.
    first = DOWN - 4 * 4_096
    (stage,) = plan(mixed).stages
    assert stage.weights.number == 32 * (MATRICES + ROWS + NORMS) + first + OUTER + head


def test_bytes_of_one_of_two_ranks(mixed, plan):
    # q, k, v, gate and up are cut by rows, o and down by columns: their 4,096 rows have whole scales. Norms
    # are whole; embedding and head are halved, but for the head's 4 bytes.
    rows = ROWS // 2 + 4 * (4_096 + 4_096) // 2
    head = 525_336_576 // 4 + 525_336_576 // 32 + 4
    first = DOWN // 2 - 4 * 4_096
    (stage,) = plan(mixed, tensor=2).stages
    assert (
        stage.weights.number == 32 * (MATRICES // 2 + rows + NORMS) + first + 525_336_576 + 2 * 4_096 + head
    )


def test_asked_for_another_format_everything_is_in_that(mixed, plan, bundled):
    asked, plain = (plan(model, weights="int4").stages[0] for model in (mixed, bundled("llama-3.1-8b")))
    assert asked.weights.number == plain.weights.number


def test_all_formats_are_named(mixed, plan):
    storage = plan(mixed).deployment.weights
    assert storage.name == "fp8-row+nvfp4+bf16"
    assert "nvfp4, bf16 where the released files say so" in storage.source


def test_ranks_that_break_the_tiles_of_an_exception_are_refused(bundled, plan):
    """Rows of 14,336 in blocks of 128: 112 blocks, which 32 ranks cannot share. In bf16 they can."""
    model = bundled("llama-3.1-8b")
    odd = replace(model.layers[5], stored_otherwise=(StoredAs("fp8-block", ("mlp.down_proj.weight",)),))
    layers = (*model.layers[:5], odd, *model.layers[6:])
    assert plan(model, tensor=32)
    with pytest.raises(UsageError, match=r"mlp\.down_proj.*fp8-block"):
        plan(replace(model, layers=layers), tensor=32)
