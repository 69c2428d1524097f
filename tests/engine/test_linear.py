"""Linear layers against products in float64, for every way of multiplying that the rows can take."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.engine import linear
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear, StackedLinear, has_uncopied_products

# Two or more panels, columns left over, only columns left over, inputs that no small number divides.
SHAPES = [(1, 7), (64, 64), (65, 512), (200, 96), (40, 33), (128, 2_503), (192, 8_192)]


@pytest.fixture(params=[True, False], ids=["uncopied", "copied"])
def products(request, monkeypatch):
    monkeypatch.setattr(linear, "has_uncopied_products", lambda: request.param)


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape, dtype=np.float32)


def assert_product(found, x, weight, bias=None):
    """Compare with float64; float32 is allowed a few roundings of the sum of absolute products."""
    wide, tall = x.astype(np.float64), weight.astype(np.float64).T
    expected = wide @ tall + (0 if bias is None else bias)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.all(np.abs(found - expected) <= 1e-6 * (np.abs(wide) @ np.abs(tall)) + 1e-6)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 32, 48, 49, 130])
def test_a_layer_is_the_product_with_its_weight(outputs, inputs, rows):
    x, weight, bias = normal(rows, inputs, seed=1), normal(outputs, inputs, seed=2), normal(outputs, seed=3)
    assert_product(Linear(weight)(x, Counter()), x, weight)
    assert_product(Linear(weight, bias)(x, Counter()), x, weight, bias)


@given(
    rows=st.integers(1, 70),
    outputs=st.integers(1, 150),
    inputs=st.integers(1, 150),
    panel=st.sampled_from([8, 32, 64]),
)
def test_a_layer_is_right_whatever_its_shape_and_panel(rows, outputs, inputs, panel):
    x, weight = normal(rows, inputs, seed=1), normal(outputs, inputs, seed=2)
    assert_product(Linear(weight, panel=panel)(x, Counter()), x, weight)


def test_the_input_and_the_weights_are_left_alone():
    x, weight, bias = normal(3, 40), normal(70, 40), normal(70)
    before = [array.copy() for array in (x, weight, bias)]
    Linear(weight, bias)(x, Counter())
    assert all(np.array_equal(*pair) for pair in zip(before, (x, weight, bias), strict=True))


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_bytes_are_those_of_the_elements(outputs, inputs):
    weight, bias = normal(outputs, inputs), normal(outputs)
    assert Linear(weight).nbytes == 4 * outputs * inputs
    assert Linear(weight, bias).nbytes == 4 * outputs * (inputs + 1)


def test_a_product_is_counted_with_its_own_rows():
    counter = Counter()
    Linear(normal(100, 30), normal(100))(normal(1, 30), counter)
    assert counter == Counter(matmul_flops=2 * 100 * 30, weights_read_bytes=4 * (100 * 30 + 100))
    Linear(normal(100, 30))(normal(5, 30), counter)
    assert counter == Counter(matmul_flops=6 * 2 * 100 * 30, weights_read_bytes=4 * (2 * 100 * 30 + 100))


def test_rows_are_those_of_the_weight():
    weight = normal(200, 17)
    ids = np.array([199, 0, 63, 64, 0, 191, 192, 130])
    assert np.array_equal(Linear(weight).rows(ids), weight[ids])
    assert Linear(weight).rows(np.array([], np.int64)).shape == (0, 17)


@pytest.mark.parametrize("wrong", [-1, 200, 1 << 40])
def test_a_row_that_is_not_there_is_refused(wrong):
    with pytest.raises(IndexError, match="0 to 199"):
        Linear(normal(200, 17)).rows(np.array([3, wrong]))


def test_joined_layers_give_their_outputs_one_after_another():
    weights = [normal(outputs, 50, seed=outputs) for outputs in (70, 3, 64)]
    biases = [normal(len(weight), seed=9) for weight in weights]
    x = normal(4, 50)
    found = Linear.joined(weights, biases)(x, Counter())
    for part, weight, bias in zip(np.split(found, [70, 73], axis=1), weights, biases, strict=True):
        assert_product(part, x, weight, bias)
    assert Linear.joined(weights, [None] * 3).nbytes == 4 * 137 * 50


@pytest.mark.parametrize("present", [0, 1])
def test_layers_with_and_without_a_bias_are_not_joined(present):
    biases = [None, None]
    biases[present] = normal(8)
    with pytest.raises(ValueError, match="all of them have a bias or none"):
        Linear.joined([normal(8, 5), normal(8, 5)], biases)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("outputs", [5, 64, 130])
def test_each_row_of_a_stack_meets_its_own_layer(outputs):
    counts = np.array([2, 0, 1, 60, 0])
    x, weight, bias = normal(63, 33), normal(5, outputs, 33), normal(5, outputs)
    found = StackedLinear(weight, bias)(x, counts, Counter())
    for rows, layer in ((slice(0, 2), 0), (slice(2, 3), 2), (slice(3, 63), 3)):
        assert_product(found[rows], x[rows], weight[layer], bias[layer])


def test_a_layer_of_a_stack_without_rows_is_not_touched():
    weight, counter = normal(3, 70, 20), Counter()
    weight[1] = np.nan
    stack = StackedLinear(weight)
    assert np.isfinite(stack(normal(4, 20), np.array([1, 0, 3]), counter)).all()
    assert counter == Counter(matmul_flops=2 * 4 * 20 * 70, weights_read_bytes=2 * 4 * 20 * 70)
    assert stack.nbytes == 4 * 3 * 70 * 20


def test_inputs_are_cut_into_parts_that_blas_does_not_copy():
    # 2 x 64 x 7,812 is the largest product of two rows below a million.
    assert linear._parts(2, 7_812, 64) == 1
    assert linear._parts(2, 7_814, 64) == 2
    assert linear._parts(16, 2_048, 64) == 4
    # A prime: nothing near two parts divides it.
    assert linear._parts(2, 9_973, 64) == 1


@pytest.mark.parametrize(
    ("blas", "found", "core", "expected"),
    [
        ("scipy-openblas", ["X86_V3", "X86_V4"], "", True),
        ("openblas", ["AVX2", "AVX512_SKX"], "", True),
        ("scipy-openblas", ["X86_V3"], "", False),
        ("accelerate", ["X86_V4"], "", False),
        ("scipy-openblas", ["X86_V4"], "Haswell", False),
        ("scipy-openblas", ["X86_V4"], "SkylakeX", True),
    ],
)
def test_uncopied_products_follow_the_kernels_blas_runs(monkeypatch, blas, found, core, expected):
    build = {"Build Dependencies": {"blas": {"name": blas}}, "SIMD Extensions": {"found": found}}
    monkeypatch.setattr(np, "show_config", lambda mode: build)
    monkeypatch.setenv("OPENBLAS_CORETYPE", core)
    assert has_uncopied_products.__wrapped__() is expected
