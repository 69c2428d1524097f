"""Which tensors a weight format changes, and how matrices are cut into its tiles."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from kvplan.arch.experts import Experts
from kvplan.arch.released import StoredAs
from kvplan.arch.scale_down import scaled_down
from kvplan.engine.random_weights import named_weights, random_weights
from kvplan.engine.stored_weights import stored_weights, through_tiles
from kvplan.engine.weight_quantisers import fp8, int8, nvfp4, quantiser, with_zero
from kvplan.errors import UsageError
from kvplan.storage import weight_format


def int4(tiles):
    return with_zero(tiles, 4)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def changed_by(model, name, dtype="fp32"):
    """The last words of the names of tensors that a format changes, and of those it leaves alone."""
    weights = random_weights(model, seed=1)
    before = {key: array.copy() for key, array in weights.items()}
    stored = stored_weights(model, weights, weight_format(name), dtype)
    assert list(stored) == list(weights)
    assert all(stored[key].shape == array.shape for key, array in weights.items())
    assert all(np.array_equal(weights[key], before[key]) for key in weights)
    words = {key: key.removesuffix(".weight").split(".")[-1] for key in weights}
    changed = {words[key] for key in weights if not np.array_equal(stored[key], weights[key])}
    return changed, set(words.values()) - changed


MATRICES = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_a_format_changes_the_matrices_of_its_roles(bundled):
    llama = scaled_down(bundled("llama-3.1-8b"))
    outer = {"embed_tokens", "lm_head"}
    norms = {"input_layernorm", "post_attention_layernorm", "norm"}
    assert changed_by(llama, "int8") == (MATRICES, outer | norms)
    assert changed_by(llama, "q8_0") == (MATRICES | outer, norms)
    assert changed_by(llama, "mxfp4") == (set(), MATRICES | outer | norms)
    assert changed_by(llama, "fp32") == (set(), MATRICES | outer | norms)
    assert changed_by(llama, "bf16") == (MATRICES | outer | norms, set())


def test_as_released_every_matrix_goes_through_its_own_format(runner_of):
    model = runner_of("windows").model
    gate, up, down = (f"mlp.experts.{part}_proj.weight" for part in ("gate", "up", "down"))
    stored = (StoredAs("fp32", (gate,)), StoredAs("nvfp4", (up,)))
    model = replace(
        model,
        weight_format="mxfp4",
        layers=tuple(
            replace(layer, stored_otherwise=stored) if isinstance(layer.mlp, Experts) else layer
            for layer in model.layers
        ),
    )
    weights = random_weights(model, seed=1)
    found = stored_weights(model, weights, model.as_released(), "fp32")
    whole = {name: stored_weights(model, weights, weight_format(name), "fp32") for name in ("mxfp4", "nvfp4")}
    (layer,) = (index for index, layer in enumerate(model.layers) if layer.stored_otherwise)
    start = f"layers.{layer}."
    assert np.array_equal(found[start + gate], weights[start + gate])
    assert np.array_equal(found[start + up], whole["nvfp4"][start + up])
    assert np.array_equal(found[start + down], whole["mxfp4"][start + down])
    assert not np.array_equal(found[start + up], whole["mxfp4"][start + up])
    rest = set(weights) - {start + gate, start + up, start + down}
    assert all(np.array_equal(found[name], weights[name]) for name in rest)


def test_mxfp4_changes_experts_only(runner_of):
    model = runner_of("windows").model
    weights = random_weights(model, seed=1)
    stored = stored_weights(model, weights, weight_format("mxfp4"), "fp32")
    changed = {name for name in weights if not np.array_equal(stored[name], weights[name])}
    assert changed == {f"layers.1.mlp.experts.{part}_proj.weight" for part in ("gate", "up", "down")}


@pytest.mark.parametrize(
    ("name", "dtype", "kept_in"),
    [("int8", "bf16", ml_dtypes.bfloat16), ("fp16", "bf16", np.float16), ("q8_0", "bf16", np.float32)],
)
def test_other_tensors_are_rounded_to_the_dtype_they_are_kept_in(name, dtype, kept_in, runner_of):
    """A format's own where it has one (GGUF: float32), and the model's where it has none."""
    model = runner_of("gqa").model
    weights = random_weights(model, seed=1)
    stored = stored_weights(model, weights, weight_format(name), dtype)
    norm = weights["layers.0.input_layernorm.weight"]
    expected = norm.astype(kept_in).astype(np.float32)
    assert np.array_equal(stored["layers.0.input_layernorm.weight"], expected)


def test_a_format_that_is_not_measured_is_refused_even_where_all_its_rows_fall_back(runner_of):
    """Rows of 40 are no whole blocks of q4_k, and llama.cpp stores them as q5_0."""
    model = runner_of("gqa").model
    assert {w.shape[1] % 256 > 0 for _, w in named_weights(model) if len(w.shape) == 2} == {True}
    with pytest.raises(UsageError, match="what q4_k does"):
        stored_weights(model, random_weights(model, 1), weight_format("q4_k"), "bf16")


def test_an_unknown_dtype_is_an_error(runner_of):
    model = runner_of("gqa").model
    with pytest.raises(ValueError, match="int7"):
        stored_weights(model, random_weights(model, 1), weight_format("int8"), "int7")


@pytest.mark.parametrize(("storage", "tile", "quantise"), [("fp8", (0, 0), fp8), ("nvfp4", (1, 16), nvfp4)])
def test_every_expert_has_scales_of_its_own(storage, tile, quantise, runner_of):
    model, name = runner_of("windows").model, "layers.1.mlp.experts.up_proj.weight"
    weights = random_weights(model, seed=1)
    weights[name][1] *= np.float32(100)
    stored = stored_weights(model, weights, weight_format(storage), "fp32")[name]
    alone = [through_tiles(matrix[None], *tile, quantise)[0] for matrix in weights[name]]
    assert np.array_equal(stored, np.stack(alone))


@pytest.mark.parametrize(
    ("tile", "quantise", "disturbed"),
    [
        ((128, 128), fp8, np.s_[0, :128, 128:256]),
        ((1, 0), int8, np.s_[0, 5, :]),
        ((1, 128), int4, np.s_[0, 5, 128:256]),
        ((0, 0), fp8, np.s_[0]),
        ((1, 16), nvfp4, np.s_[0]),
    ],
)
def test_an_outlier_disturbs_its_own_tile_and_nothing_else(tile, quantise, disturbed):
    matrices = drawn(2, 256, 320)
    loud = matrices.copy()
    loud[0, 5, 130] = 100
    calm, stored = (through_tiles(m, *tile, quantise) for m in (matrices, loud))
    differ, inside = stored != calm, np.zeros(matrices.shape, bool)
    inside[disturbed] = True
    assert not differ[~inside].any()
    assert differ[inside].mean() > 0.5


def test_short_tiles_have_scales_of_their_own():
    matrices = drawn(1, 3, 40)
    found = through_tiles(matrices, 1, 32, int4)
    assert np.array_equal(found[..., :32], int4(matrices[..., :32].reshape(1, 3, 32)).reshape(1, 3, 32))
    assert np.array_equal(found[..., 32:], int4(matrices[..., 32:].reshape(1, 3, 8)).reshape(1, 3, 8))
    short = through_tiles(matrices, 1, 128, int4)
    assert np.array_equal(short, int4(matrices))


def test_a_short_tile_is_not_filled_up_with_zeros():
    """The minimum of q4_1 is that of the weights there are."""
    high = 5 + np.abs(drawn(1, 3, 40))
    q4_1 = quantiser(weight_format("q4_1"))
    found = through_tiles(high, 1, 32, q4_1)
    assert np.array_equal(found[..., 32:], q4_1(high[..., 32:].reshape(1, 3, 8)))


def test_short_blocks_have_scales_of_their_own():
    matrices = drawn(1, 5, 7)
    found = through_tiles(matrices, 4, 4, fp8)
    for rows in (np.s_[:4], np.s_[4:]):
        for columns in (np.s_[:4], np.s_[4:]):
            piece = matrices[:, rows, columns]
            alone = fp8(piece.reshape(1, 1, -1)).reshape(piece.shape)
            assert np.array_equal(found[:, rows, columns], alone)
