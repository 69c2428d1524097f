"""Granite, HyperCLOVA X, MiniCPM, Ministral 3, Apertus, Nemotron and what NVIDIA's search made of Llama."""

import pytest

from kvplan.arch.activation import Activation
from kvplan.arch.norm import Block, Norm
from kvplan.arch.rotary import RopeType

SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "vocab_size": 100,
    "max_position_embeddings": 128,
}
DENSE = {**SIZES, "intermediate_size": 96}


def multipliers(model):
    return (
        model.embedding_multiplier,
        model.residual_multiplier,
        model.layers[0].mixer.attention_multiplier,
        model.logits_multiplier,
    )


GIVEN = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.0078125,
    "logits_scaling": 8.0,
}


def test_logits_are_divided_in_granite_and_multiplied_in_hyperclova(from_config):
    assert multipliers(from_config("granite", **DENSE, **GIVEN)) == (12, 0.22, 0.0078125, 1 / 8)
    assert multipliers(from_config("hyperclovax", **DENSE, **GIVEN)) == (12, 0.22, 0.0078125, 8)


def test_scores_are_multiplied_by_one_in_granite_and_divided_in_hyperclova_by_default(from_config):
    assert multipliers(from_config("granite", **DENSE)) == (1, 1, 1, 1)
    assert multipliers(from_config("hyperclovax", **DENSE)) == (1, 1, None, 1)


def test_norms_behind_each_part_of_hyperclova_can_be_switched_off(from_config):
    assert from_config("hyperclovax", **DENSE).layers[0].block is Block.SANDWICH
    assert from_config("hyperclovax", **DENSE, use_post_norm=False).layers[0].block is Block.PRE_NORM


def test_minicpm_is_scaled_by_its_depth_and_width(from_config, config_refusal):
    """Residuals by 1.4 over the root of 4 layers, logits by 16 of 64."""
    model = from_config("minicpm", **DENSE, scale_emb=12, scale_depth=1.4, dim_model_base=16)
    assert multipliers(model) == (12, 0.7, None, 0.25)
    assert "sparse_config" in config_refusal("minicpm", **DENSE, sparse_config={"topk": 64})
    assert "num_experts" in config_refusal("minicpm", **DENSE, num_experts=8)


def test_queries_of_ministral_3_grow_past_the_trained_context(from_config, config_refusal):
    default = from_config("ministral3", **DENSE, num_key_value_heads=2).layers[0].mixer
    assert (default.temperature.attn_scale, default.temperature.floor_scale) == (0.1, 16_384)
    assert default.temperature.first_place == 0
    assert default.rope_parameters.rope_type is RopeType.YARN
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    still = from_config("ministral3", **DENSE, num_key_value_heads=2, rope_parameters=scaling).layers[0].mixer
    assert still.temperature is None
    given = {**scaling, "llama_4_scaling_beta": 0.3}
    grows = from_config("ministral3", **DENSE, num_key_value_heads=2, rope_parameters=given).layers[0].mixer
    assert (grows.temperature.attn_scale, grows.temperature.floor_scale) == (0.3, 32)
    plain = {"rope_type": "default", "llama_4_scaling_beta": 0.3}
    assert "llama_4_scaling_beta" in config_refusal(
        "ministral3", **DENSE, num_key_value_heads=2, rope_parameters=plain
    )


def test_apertus_has_learned_activations_and_llamas_rotation_by_default(from_config, config_refusal):
    model = from_config("apertus", **DENSE)
    assert (model.layers[0].mlp.hidden_act, model.layers[0].mlp.gated) == (Activation.XIELU, False)
    rope = model.layers[0].mixer.rope_parameters
    assert (rope.rope_type, rope.rope_theta, rope.factor) == (RopeType.LLAMA3, 12e6, 8)
    assert (
        from_config("apertus", **DENSE, hidden_act="relu2").layers[0].mlp.hidden_act
        is Activation.RELU_SQUARED
    )
    assert "rope_theta" in config_refusal("apertus", **DENSE, rope_theta=1e6)
    assert "post_norm" in config_refusal("apertus", **DENSE, post_norm=True)


def test_nemotron_stores_its_norms_as_distances_from_one(from_config):
    model = from_config("nemotron", **DENSE)
    assert (model.norm, model.layers[0].mlp.hidden_act) == (Norm.LAYER_UNIT_OFFSET, Activation.RELU_SQUARED)
    assert model.layers[0].mixer.rope_parameters.rotated(16) == 8


# ------------------------------------------------------------------ layers of their own


def block(attention, ffn):
    return {"attention": attention, "ffn": ffn}


BLOCKS = [
    block({"n_heads_in_group": 2}, {"ffn_mult": 5.25}),
    block({"no_op": True}, {"ffn_mult": 1.0}),
    block({"n_heads_in_group": 4, "window_length": 32}, {"no_op": True}),
    block({"no_op": True}, {"no_op": True}),
]


def test_searched_layers_have_widths_and_groups_of_their_own(from_config):
    """2 / 3 x 5.25 x 64 is 224, and 2 / 3 x 64 is 42: both become 256. A block of nothing is no layer."""
    model = from_config("nemotron-nas", **SIZES, block_configs=BLOCKS)
    first, fed, mixed = model.layers
    assert (first.mixer.num_key_value_heads, first.mlp.intermediate_size) == (2, 256)
    assert (fed.mixer, fed.mlp.intermediate_size) == (None, 256)
    assert (mixed.mixer.num_key_value_heads, mixed.mixer.sliding_window, mixed.mlp) == (1, 32, None)
    wide = block({"n_heads_in_group": 2}, {"ffn_mult": 6.1})
    assert (
        from_config("nemotron-nas", **SIZES, block_configs=[wide] * 4).layers[0].mlp.intermediate_size == 512
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (block({"n_heads_in_group": 3}, {"ffn_mult": 1.0}), "expected a divisor of the 4 query heads"),
        (block({}, {"ffn_mult": 1.0}), "expected a divisor of the 4 query heads"),
        (block({"n_heads_in_group": 2}, {}), "expected a number where no_op is false"),
        (
            block({"no_op": True}, {"ffn_mult": 1.0, "replace_with_linear": True}),
            "a matrix in place of an MLP",
        ),
        (block({"n_heads_in_group": 2, "num_sink_tokens": 4}, {"no_op": True}), "sinks are not described"),
        (block({"n_heads_in_group": 2, "heads": 4}, {"no_op": True}), "this key is not understood"),
    ],
)
def test_other_searched_layers_are_refused(config_refusal, wrong, said):
    assert said in config_refusal("nemotron-nas", **SIZES, block_configs=[*BLOCKS[:3], wrong])
    assert "has 1 entries for 4 layers" in config_refusal("nemotron-nas", **SIZES, block_configs=[wrong])


def test_kv_heads_of_deci_are_listed_by_layer(from_config, config_refusal):
    given = {**DENSE, "num_key_value_heads_per_layer": [4, 2, 1, 2]}
    layers = from_config("deci", **given).layers
    assert [layer.mixer.num_key_value_heads for layer in layers] == [4, 2, 1, 2]
    for wrong in ([4, 2, 1], [4, 2, 1, 3], [4, 2, 1, 0]):
        assert "expected a divisor of 4 for each layer" in config_refusal(
            "deci", **{**given, "num_key_value_heads_per_layer": wrong}
        )
