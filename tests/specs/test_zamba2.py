"""Zamba2: which layers run a block, which block, class defaults, and refusals."""

import pytest

from kvplan.arch.activation import Activation
from kvplan.plan.weights import parameter_count
from kvplan.specs.catalog import Found, load_model
from kvplan.specs.model_yaml import model_yaml

# Shapes like those of the released models; counted by transformers 5.23's class on the meta device.
OF_ALL = {"num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": None}
SHAPES = {
    "2.7b": (
        {"hidden_size": 2560, "n_mamba_heads": 80, "num_mem_blocks": 2},
        54,
        (6, 12, 18, 24, 30, 36, 42, 47, 51),
        2_662_214_560,
    ),
    "7b": (
        {
            "hidden_size": 3584,
            "n_mamba_heads": 112,
            "mamba_ngroups": 2,
            "num_mem_blocks": 2,
            "use_mem_rope": True,
        },
        81,
        (6, 11, 17, 23, 29, 35, 41, 47, 53, 59, 65, 71, 77),
        7_356_749_648,
    ),
    "1.2b": (
        {
            "hidden_size": 2048,
            "n_mamba_heads": 64,
            "use_shared_attention_adapter": True,
            "use_mem_rope": True,
        },
        38,
        (5, 11, 17, 23, 29, 35),
        1_205_078_912,
    ),
}
SMALL = {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 50, "adapter_rank": 4}
FIVE = {
    "num_hidden_layers": 5,
    "layers_block_type": ["hybrid", "mamba", "hybrid", "linear_attention", "hybrid"],
}


def uses(model):
    return {i: layer.shared_block.number for i, layer in enumerate(model.layers) if layer.shared_block}


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_of_the_shapes_that_are_released(shape, from_config):
    keys, depth, ids, parameters = SHAPES[shape]
    kinds = ["hybrid" if index in ids else "mamba" for index in range(depth)]
    model = from_config("zamba2", **OF_ALL, **keys, num_hidden_layers=depth, layers_block_type=kinds)
    assert parameter_count(model).number == parameters
    assert tuple(uses(model)) == ids


def test_a_file_that_says_nothing_is_its_class(from_config):
    model = from_config("zamba2")
    assert uses(model) == dict.fromkeys((6, 12, 18, 24, 30, 36, 42, 47, 51), 0)
    block = model.layers[6].shared_block
    assert (block.attention.head_dim, block.attention.query_pre_attn_scalar) == (160, 80)
    assert (block.attention.adapter_rank, block.attention.rope_parameters) == (None, None)
    assert (block.mlp.hidden_act, block.mlp.intermediate_size, block.mlp.adapter_rank) == (
        Activation.GELU,
        10_240,
        128,
    )
    assert (model.tie_word_embeddings, model.max_position_embeddings) == (True, 4096)


def test_blocks_take_turns(from_config):
    assert uses(from_config("zamba2", **SMALL, **FIVE, num_mem_blocks=2)) == {0: 0, 2: 1, 4: 0}
    assert uses(from_config("zamba2", **SMALL, **FIVE, num_mem_blocks=7)) == {0: 0, 2: 1, 4: 2}


def test_one_adapter_rank_for_both(from_config):
    model = from_config("zamba2", **SMALL, **FIVE, use_shared_attention_adapter=True)
    block = model.layers[0].shared_block
    assert (block.attention.adapter_rank, block.mlp.adapter_rank) == (4, 4)


def test_long_context_and_rotation(from_config):
    model = from_config("zamba2", **SMALL, **FIVE, use_long_context=True, use_mem_rope=True, rope_theta=500)
    assert model.max_position_embeddings == 16_384
    assert model.layers[0].shared_block.attention.rope_parameters.rope_theta == 500


def test_convolutions_have_a_bias_whatever_a_file_says(from_config):
    model = from_config("zamba2", **SMALL, **FIVE, use_conv_bias=False)
    assert model.layers[1].mixer.use_conv_bias


def test_without_hybrid_layers_there_is_no_block(from_config):
    model = from_config("zamba2", **SMALL, num_hidden_layers=2, layers_block_type=["mamba"] * 2)
    assert uses(model) == {}


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"rms_norm_eps": 1e-6}, "'rms_norm_eps' the gated norms of this family have 1e-05"),
        ({"hybrid_layer_ids": [0, 2]}, "'hybrid_layer_ids' contradicts 'layers_block_type'"),
        ({"n_mamba_heads": 7}, "7 heads cannot share 128 channels evenly"),
        ({"attention_head_dim": 16}, "'attention_head_dim'"),
        ({"sliding_window": 64}, "'sliding_window'"),
        ({"tie_word_embeddings": False}, "blocks would not be shared either"),
        ({"use_shared_attention_adapter": True, "num_key_value_heads": 2}, "as many KV heads"),
        ({"num_hidden_layers": 6}, "layers_block_type"),
        ({"of_another_day": 1}, "of_another_day"),
    ],
)
def test_refusals(keys, complaint, config_refusal):
    said = config_refusal("zamba2", **{**SMALL, **FIVE, **keys})
    assert complaint.replace("'", "") in said.replace("'", "").replace(":", "")


def test_a_depth_without_a_list_is_refused(config_refusal):
    assert "6 layers need a 'layers_block_type'" in config_refusal("zamba2", **SMALL, num_hidden_layers=6)


def test_a_model_file_gives_the_model_back(from_config, tmp_path):
    model = from_config("zamba2", **SMALL, **FIVE, num_mem_blocks=2, use_shared_attention_adapter=True)
    path = tmp_path / "imported.yaml"
    path.write_text(model_yaml(model), encoding="utf-8")
    assert load_model(Found(path.name, path)) == model
