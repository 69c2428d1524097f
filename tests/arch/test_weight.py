"""How one tensor is cut over ranks, and which storage a format gives it."""

import pytest

from kvplan.arch.weight import Split, Weight, bias, features, heads, kv_heads, matrix
from kvplan.errors import UsageError
from kvplan.storage import TensorRole, weight_format

ROLE = TensorRole.MLP


def test_columns_and_rows():
    up = matrix("up", 12, 10, ROLE, features(0, 12))
    down = matrix("down", 10, 12, ROLE, features(1, 12))
    assert up.on_rank(4).shape == (3, 10)
    assert down.on_rank(4).shape == (10, 3)
    assert up.on_rank(1) is up


def test_heads_are_cut_whole():
    q = matrix("q", 6 * 5, 7, ROLE, heads(0, 6))
    assert q.on_rank(3).shape == (2 * 5, 7)
    with pytest.raises(UsageError) as error:
        q.on_rank(4)
    assert error.value.message == "tensor parallel 4 does not divide the model's 6 query heads"


def test_more_ranks_than_kv_heads_keep_one_head_each():
    k = matrix("k", 2 * 5, 7, ROLE, kv_heads(2))
    assert [k.on_rank(n).shape[0] for n in (1, 2, 4, 8, 6)] == [10, 5, 5, 5, 5]
    for ranks in (3, 5):
        with pytest.raises(
            UsageError, match=f"tensor parallel {ranks} does not divide the model's 2 KV heads"
        ):
            k.on_rank(ranks)


def test_vocabulary_rows_are_padded_before_they_are_cut():
    rows = Split(0, 50_257, "padded vocabulary rows", pad_to=64)
    # 50,257 / 64 = 785.3: padded to 786 x 64 = 50,304 rows.
    assert [rows.units_per_rank(n) for n in (1, 2, 4)] == [50_257, 25_152, 12_576]
    with pytest.raises(UsageError, match="50,304 padded vocabulary rows"):
        rows.units_per_rank(5)


def test_uncut_tensors_are_on_every_rank():
    norm = Weight("norm", (7,), TensorRole.NORM)
    assert norm.on_rank(8) is norm


def test_stacks():
    experts = Weight("experts", (3, 5), TensorRole.EXPERT, features(0, 3), copies=8, active_copies=2)
    assert (experts.elements, experts.active_elements) == (120, 30)
    assert experts.on_rank(3).elements == 40
    assert Weight("few", (3,), TensorRole.EXPERT, copies=1, active_copies=4).active_elements == 3


@pytest.mark.parametrize(
    ("weight", "packed"),
    [
        (matrix("w", 4, 256, TensorRole.ATTENTION), True),
        (matrix("w", 4, 256, TensorRole.MLP), True),
        (matrix("w", 4, 256, TensorRole.EXPERT), True),
        (matrix("w", 4, 256, TensorRole.ROUTER), False),
        (matrix("w", 4, 256, TensorRole.HEAD), False),
        (matrix("w", 4, 256, TensorRole.EMBEDDING), False),
        (bias("w", 256), False),
        (Weight("w", (256,), TensorRole.ATTENTION), False),
        (Weight("w", (4, 1, 256), TensorRole.ATTENTION), False),
        (Weight("w", (4, 256), TensorRole.ATTENTION, trained=False), False),
    ],
)
def test_only_matrices_of_the_right_role_are_packed(weight, packed):
    assert (weight.format_under(weight_format("int4")) is not None) is packed


def test_a_plain_array_keeps_the_formats_other_dtype_or_the_models():
    norm = Weight("n", (4,), TensorRole.NORM)
    buffer = Weight("b", (4,), TensorRole.ROUTER, trained=False)
    assert norm.plain_dtype(weight_format("int4"), "bf16") == "bf16"
    assert norm.plain_dtype(weight_format("int4"), "fp16") == "fp16"
    assert norm.plain_dtype(weight_format("q4_k"), "bf16") == "fp32"
    assert norm.plain_dtype(weight_format("fp32"), "bf16") == "fp32"
    assert buffer.plain_dtype(weight_format("bf16"), "bf16") == "fp32"
    # What a tower stores is in the model's dtype, buffers too.
    for trained in (True, False):
        stored = Weight("t", (4,), TensorRole.TOWER, trained=trained)
        assert stored.plain_dtype(weight_format("q4_k"), "bf16") == "bf16"
