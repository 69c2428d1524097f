"""Drawn weights: every tensor of the description, each by itself, and none that lets activations grow."""

from dataclasses import replace

import numpy as np
import pytest

from kvplan.arch.experts import HASH_TABLE, Experts
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.scale_down import scaled_down
from kvplan.engine.random_weights import random_weights
from kvplan.storage import TensorRole


def shapes_of(model):
    outer = [w for w in (*model.input_weights(), *model.output_weights()) if w.role is not TensorRole.TOWER]
    layers = [
        (f"layers.{index}.{weight.name}", weight)
        for index, layer in enumerate(model.layers)
        for weight in model.layer_weights(layer)
    ]
    named = [*((weight.name, weight) for weight in outer), *layers]
    return {name: ((w.copies,) if w.copies > 1 else ()) + w.shape for name, w in named}


@pytest.mark.parametrize("name", ["gemma-3-4b", "deepseek-v3", "qwen3-next-80b-a3b", "gpt2", "gpt-oss-20b"])
def test_every_tensor_is_drawn_in_its_shape_and_no_two_alike(name, bundled):
    model = replace(scaled_down(bundled(name), hidden_size=64), towers=bundled(name).towers)
    weights = random_weights(model, 4)
    assert {key: array.shape for key, array in weights.items()} == shapes_of(model)
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    beginnings = [array.ravel()[:2] - round(float(array.mean())) for array in weights.values()]
    assert len({pair.tobytes() for pair in beginnings}) == len(weights)


def test_the_seed_and_the_name_alone_decide(bundled):
    model = scaled_down(bundled("llama-3.1-8b"), hidden_size=64)
    weights, deeper = random_weights(model, 4), random_weights(replace(model, layers=model.layers * 2), 4)
    other = random_weights(model, 5)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, deeper[name])
        assert not np.array_equal(array, other[name])


def spread(array):
    return float(array.mean()), float(array.std())


def test_matrices_keep_the_size_of_what_they_multiply(bundled):
    """A row of n inputs has elements of 1 / sqrt(n); norms are near one, biases near zero."""
    weights = random_weights(scaled_down(bundled("qwen2.5-7b")), 0)
    mean, deviation = spread(weights["layers.0.mlp.down_proj.weight"])
    inputs = weights["layers.0.mlp.down_proj.weight"].shape[1]
    assert (abs(mean), deviation) == pytest.approx((0, inputs**-0.5), abs=2e-3)
    assert spread(weights["norm.weight"]) == pytest.approx((1, 0.1), abs=0.03)
    assert spread(weights["layers.0.self_attn.q_proj.bias"]) == pytest.approx((0, 0.1), abs=0.03)
    assert spread(weights["embed_tokens.weight"]) == pytest.approx((0, 1), abs=0.02)


def test_norms_stored_as_a_distance_from_one_are_near_zero(bundled):
    weights = random_weights(scaled_down(bundled("qwen3-next-80b-a3b")), 0)
    assert bundled("qwen3-next-80b-a3b").norm is Norm.RMS_UNIT_OFFSET
    assert spread(weights["norm.weight"])[0] == pytest.approx(0, abs=0.03)
    assert spread(weights["layers.0.linear_attn.norm.weight"])[0] == pytest.approx(1, abs=0.03)
    layer_norm = random_weights(scaled_down(bundled("gpt2")), 0)
    assert spread(layer_norm["norm.bias"])[0] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("name", ["gemma-2-2b", "smollm2-135m", "gpt2"])
def test_a_tied_head_does_not_only_find_the_last_token(name, bundled):
    """Embeddings, multiplied as the model does, are 1 / sqrt(width): small beside what layers add."""
    model = scaled_down(bundled(name))
    mean, deviation = spread(random_weights(model, 0)["embed_tokens.weight"])
    assert model.tie_word_embeddings
    assert deviation * model.embedding_multiplier == pytest.approx(model.hidden_size**-0.5, rel=0.02)
    assert mean == pytest.approx(0, abs=1e-3)


def test_a_table_of_experts_names_different_ones_for_every_token():
    experts = Experts(7, 3, 8, hash_vocab_size=90)
    model = Model("tables", "a test", "fp32", 8, 90, 64, (Layer(None, experts), Layer(None, experts)))
    weights = random_weights(model, 4)
    tables = [weights[f"layers.{index}.{HASH_TABLE}"] for index in (0, 1)]
    assert not np.array_equal(*tables)
    for table in tables:
        assert [len(set(row)) for row in table.tolist()] == [3] * 90
        assert set(np.unique(table)) == set(range(7))
