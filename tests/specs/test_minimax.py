"""MiniMax-M2 and M3: class defaults, the keys of older and newer files, and what is refused by name."""

import pytest

from kvplan.arch.attention import QkNorm
from kvplan.arch.block_indexer import BlockIndexer
from kvplan.arch.experts import Experts, Scoring
from kvplan.arch.mlp import MLP
from kvplan.arch.norm import Norm
from kvplan.arch.swiglu import Swiglu

# The released file's keys, in four layers of sixty.
SPARSE = {
    "use_sparse_attention": True,
    "sparse_attention_freq": [0, 0, 0, 1],
    "sparse_disable_index_value": [0, 0, 0, 1],
    "sparse_num_index_heads": 4,
    "sparse_index_dim": 128,
    "sparse_block_size": 128,
    "sparse_topk_blocks": 16,
    "sparse_local_block": 1,
    "sparse_init_block": 0,
    "sparse_score_type": "max",
}
M3 = {
    "num_hidden_layers": 4,
    "first_k_dense_replace": 3,
    "moe_layer_freq": [0, 0, 0, 1],
    "sparse_attention_config": SPARSE,
    "hidden_act": "swigluoai",
    "moe_intermediate_size": 3072,
    "n_shared_experts": 1,
    "partial_rotary_factor": 0.5,
    "rotary_dim": 64,
    "scoring_func": "sigmoid",
    "use_routing_bias": True,
    "use_gemma_norm": True,
    "use_qk_norm": True,
    "qk_norm_type": "per_head",
    "attention_output_gate": False,
    "num_mtp_modules": 7,
    "num_nextn_predict_layers": 1,
}


# ------------------------------------------------------------------ M2


def test_a_list_of_ones_says_that_every_layer_of_m2_is_full_attention(from_config):
    plain, listed = from_config("minimax_m2"), from_config("minimax_m2", attn_type_list=[1] * 62)
    assert plain == listed
    assert {layer.mixer.qk_norm for layer in plain.layers} == {QkNorm.PROJECTION}


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ([1] * 61 + [0], "attn_type_list: 0 is not understood"),
        ([1] * 61 + [2], "attn_type_list: expected a list of 0 and 1"),
        ([1] * 61, "attn_type_list: has 61 entries for 62 layers"),
        (1, "attn_type_list: expected a list, not 1"),
    ],
)
def test_other_layers_of_m2_are_refused(config_refusal, types, said):
    assert said in config_refusal("minimax_m2", attn_type_list=types)


# ------------------------------------------------------------------ M3


@pytest.mark.parametrize("family", ["minimax_m3", "minimax_m3_vl_text"])
def test_layers_of_m3(from_config, family):
    model = from_config(family, **M3)
    first, last = model.layers[0], model.layers[3]
    assert model.layers[1:3] == (first, first)
    assert (first.mixer.indexer, last.mixer.indexer) == (None, BlockIndexer(4, 128, 128, 16))
    swiglu = Swiglu(7.0, alpha=1.702, up_offset=1.0)
    assert first.mlp == MLP(12_288, swiglu=swiglu)
    assert isinstance(last.mlp, Experts)
    assert (last.mlp.num_experts, last.mlp.num_experts_per_tok) == (128, 4)
    assert (last.mlp.moe_intermediate_size, last.mlp.shared_expert_intermediate_size) == (3_072, 3_072)
    assert (last.mlp.swiglu, last.mlp.shared_swiglu) == (swiglu, swiglu)
    assert (last.mlp.scoring_func, last.mlp.routed_scaling_factor) == (Scoring.SIGMOID, 2.0)
    for mixer in (first.mixer, last.mixer):
        assert (mixer.num_attention_heads, mixer.num_key_value_heads, mixer.head_dim) == (64, 4, 128)
        assert (mixer.qk_norm, mixer.rope_parameters.rotated(128)) == (QkNorm.HEAD, 64)
        assert mixer.rope_parameters.rope_theta == 5_000_000.0
    assert (model.norm, model.tie_word_embeddings) == (Norm.RMS_UNIT_OFFSET, False)


def test_layers_of_m3_as_published(from_config):
    """Exact parameters: 333,459,712 in a dense layer, 7,416,066,560 in a sparse one."""
    model = from_config("minimax_m3", **M3)
    trained = [sum(w.elements for w in model.layer_weights(layer) if w.trained) for layer in model.layers]
    assert trained == [333_459_712] * 3 + [7_416_066_560]


def test_a_file_without_lists_is_full_attention_and_experts_everywhere(from_config):
    """As the class has it; whole heads are rotated where no share is said."""
    model = from_config("minimax_m3_vl_text")
    assert (len(model.layers), len(set(model.layers))) == (60, 1)
    layer = model.layers[0]
    assert (layer.mixer.indexer, isinstance(layer.mlp, Experts)) == (None, True)
    assert (layer.mixer.rope_parameters.rotated(128), model.max_position_embeddings) == (128, 524_288)


def test_newer_keys_say_the_same(from_config):
    """transformers saves the lists as names of layers, the indexer's sizes beside them, and plain silu."""
    lists = ("sparse_attention_config", "moe_layer_freq")
    old = {key: value for key, value in M3.items() if key not in lists}
    new = {
        **old,
        "layer_types": ["full_attention"] * 3 + ["minimax_m3_sparse"],
        "mlp_layer_types": ["dense"] * 3 + ["sparse"],
        "index_n_heads": 4,
        "index_head_dim": 128,
        "index_block_size": 128,
        "index_topk_blocks": 16,
        "index_local_blocks": 1,
        "hidden_act": "silu",
    }
    assert from_config("minimax_m3_vl_text", **new) == from_config("minimax_m3_vl_text", **M3)


def test_older_sizes_of_the_indexer_go_first(from_config):
    sparse = {**SPARSE, "sparse_topk_blocks": 8, "sparse_local_block": 2}
    keys = {**M3, "sparse_attention_config": sparse, "index_topk_blocks": 4, "index_block_size": 32}
    indexer = from_config("minimax_m3", **keys).layers[3].mixer.indexer
    assert indexer == BlockIndexer(4, 128, 128, 8, index_local_blocks=2)
    del sparse["sparse_block_size"]
    assert from_config("minimax_m3", **keys).layers[3].mixer.indexer.index_block_size == 32


def test_names_of_layers_go_before_the_older_lists(from_config):
    keys = {**M3, "layer_types": ["full_attention"] * 2 + ["minimax_m3_sparse"] * 2}
    mixers = [layer.mixer for layer in from_config("minimax_m3", **keys | _values(2)).layers]
    assert [mixer.indexer is not None for mixer in mixers] == [False, False, True, True]


def _values(first):
    """The older mapping, in which layers from the first on have no index values."""
    without = [0] * first + [1] * (4 - first)
    return {"sparse_attention_config": {**SPARSE, "sparse_disable_index_value": without}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_sparse_attention": False}, "use_sparse_attention: false is not understood"),
        ({"sparse_score_type": "mean"}, "sparse_score_type: 'mean' is not understood"),
        ({"sparse_init_block": 1}, "sparse_init_block: 1 is not understood"),
        ({"sparse_local_block": 0}, "sparse_local_block: expected 1 to"),
        ({"sparse_local_block": 17}, "must be at most index_topk_blocks (16), not 17"),
        ({"sparse_num_index_heads": 3}, "must divide num_key_value_heads (4), not 3"),
        ({"sparse_index_dim": 32}, "must be at least the 64 elements of a head that are rotated, not 32"),
        ({"sparse_disable_index_value": [0, 0, 0, 0]}, "sparse_disable_index_value: 0 is not understood"),
        ({"sparse_attention_freq": [0, 0, 1]}, "sparse_attention_freq: has 3 entries for 4 layers"),
        ({"sparse_index_rope": True}, "sparse_index_rope: this key is not understood"),
    ],
)
def test_other_indexers_are_refused(config_refusal, changes, said):
    assert said in config_refusal("minimax_m3", **M3 | {"sparse_attention_config": SPARSE | changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention_output_gate": True}, "attention_output_gate: true is not understood"),
        ({"use_gemma_norm": False}, "use_gemma_norm: false is not understood"),
        ({"use_qk_norm": False}, "use_qk_norm: false is not understood"),
        ({"qk_norm_type": "per_layer"}, "qk_norm_type: 'per_layer' is not understood"),
        ({"scoring_func": "softmax"}, "scoring_func: 'softmax' is not understood"),
        ({"use_routing_bias": False}, "use_routing_bias: false is not understood"),
        ({"n_shared_experts": 2}, "n_shared_experts: 2 is not understood"),
        ({"moe_intermediate_size": 1024}, "moe_intermediate_size: 1024 is not understood"),
        ({"first_k_dense_replace": 2}, "first_k_dense_replace: 2 is not understood"),
        ({"rotary_dim": 32}, "rotary_dim: 32 contradicts the rotated share"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu' is not understood"),
        ({"layer_types": ["full_attention"] * 3 + ["sliding_attention"]}, "'sliding_attention' is not one"),
        ({"mlp_layer_types": ["dense"] * 3}, "mlp_layer_types: has 3 entries for 4 layers"),
        ({"moe_layer_freq": 1}, "moe_layer_freq: expected a list, not 1"),
    ],
)
def test_other_models_are_refused(config_refusal, changes, said):
    assert said in config_refusal("minimax_m3", **M3 | changes)


def test_a_file_with_images_has_the_same_text_model_and_a_tower(from_config):
    text, vision = {"model_type": "minimax_m3_vl_text", **M3}, {"spatial_merge_size": 3}
    model = from_config("minimax_m3_vl", text_config=text, vision_config=vision, merged_hidden_size=9 * 6_144)
    assert model.layers == from_config("minimax_m3", **M3).layers
    assert [tower.name for tower in model.towers] == ["vision_tower"]


def test_patches_are_merged_in_the_language_models_width(config_refusal):
    said = config_refusal("minimax_m3_vl", text_config=M3, merged_hidden_size=6_144)
    assert "merged_hidden_size: 6144 is not understood" in said
