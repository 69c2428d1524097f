"""Families with latent attention: class defaults, which layers have an indexer, and what is refused."""

import math
from collections import Counter

import pytest

from kvplan.arch.experts import Scoring, TopkMethod
from kvplan.plan.weights import parameter_count
from kvplan.specs.layer_pattern import kind_names

# Parameters of transformers 5.23's own classes with nothing set, counted on the meta device
# (tests/golden/meta_counts.py). DeepSeek-V2's class leaves open how many experts a token uses.
CLASS_DEFAULTS = {
    "deepseek_v2": (38_612_307_968, {"num_experts_per_tok": 6}),
    "deepseek_v3": (671_026_404_352, {}),
    "deepseek_v32": (671_877_929_216, {}),
    "glm4_moe_lite": (29_943_390_976, {}),
    "glm_moe_dsa": (743_911_199_232, {}),
    "kimi_k2": (671_026_404_352, {}),
    "minicpm3": (4_073_875_968, {}),
}
TINY = {"num_hidden_layers": 8, "first_k_dense_replace": 8}


def has_own_indexer(model):
    return [not layer.mixer.indexer.shared for layer in model.layers]


@pytest.mark.parametrize("family", CLASS_DEFAULTS)
def test_a_file_that_says_nothing_is_its_class(family, from_config):
    wanted, keys = CLASS_DEFAULTS[family]
    assert parameter_count(from_config(family, **keys)).number == wanted


def test_deepseek_v2_must_say_how_many_experts_a_token_uses(config_refusal):
    assert "'num_experts_per_tok' is required" in config_refusal("deepseek_v2")
    assert "'num_experts_per_tok' is required" in config_refusal("deepseek_v2", num_experts_per_tok=None)


def test_deepseek_v3_chooses_from_4_of_8_groups_and_from_all_where_there_are_none(from_config):
    experts = from_config("deepseek_v3").layers[3].mlp
    assert (experts.n_group, experts.topk_group, experts.routed_scaling_factor) == (8, 4, 2.5)
    assert (experts.scoring_func, experts.topk_method) == (Scoring.SIGMOID, TopkMethod.NOAUX_TC)
    experts = from_config("deepseek_v3", n_group=None, topk_group=None).layers[3].mlp
    assert (experts.n_group, experts.topk_group) == (1, 1)


def test_a_query_is_compressed_unless_null_says_otherwise(from_config):
    ranks = [
        from_config("deepseek_v3", **keys).layers[0].mixer.q_lora_rank for keys in ({}, {"q_lora_rank": None})
    ]
    assert ranks == [1536, None]


@pytest.mark.parametrize("family", ["deepseek_v32", "glm_moe_dsa"])
def test_layers_with_experts_are_those_of_the_list_or_all_behind_the_first(family, from_config):
    kinds = ["sparse", "dense", "sparse", "dense"]
    model = from_config(family, num_hidden_layers=4, mlp_layer_types=kinds)
    assert [hasattr(layer.mlp, "num_experts") for layer in model.layers] == [True, False, True, False]
    model = from_config(family, num_hidden_layers=5)
    assert [hasattr(layer.mlp, "num_experts") for layer in model.layers] == [False] * 3 + [True] * 2


def test_deepseek_v32_has_an_indexer_in_every_layer(from_config):
    model = from_config("deepseek_v32", **TINY)
    assert has_own_indexer(model) == [True] * 8
    indexer = model.layers[0].mixer.indexer
    assert (indexer.index_n_heads, indexer.index_head_dim, indexer.index_topk) == (64, 128, 2048)
    assert not indexer.indexer_rope_interleave
    assert model.layers[0].mixer.rope_parameters.interleaved


# Worked out from configuration_glm_moe_dsa.py: a list, else a pattern, else max(i - offset + 1, 0) % every.
SCHEDULES = [
    ({}, "FFFFFFFF"),
    ({"indexer_types": [{"F": "full", "S": "shared"}[c] for c in "FSSFSFFS"]}, "FSSFSFFS"),
    ({"index_topk_pattern": "FSSSFSSS"}, "FSSSFSSS"),
    ({"index_topk_freq": 4}, "FFSSSFSS"),
    ({"index_topk_freq": 4, "index_skip_topk_offset": 3}, "FFFSSSFS"),
    ({"index_topk_freq": 2, "index_skip_topk_offset": 0}, "SFSFSFSF"),
    ({"index_topk_freq": 3, "index_topk_pattern": "FFSSSSSS"}, "FFSSSSSS"),
    ({"index_topk_freq": 0}, "FFFFFFFF"),
]


@pytest.mark.parametrize(("keys", "letters"), SCHEDULES, ids=str)
def test_glm_says_in_four_ways_which_layers_have_an_indexer(keys, letters, from_config, config_refusal):
    if letters[0] == "S":
        refused = config_refusal("glm_moe_dsa", **TINY, **keys)
        assert "layer 0 shares a selection of tokens that no layer before it makes" in refused
        return
    model = from_config("glm_moe_dsa", **TINY, **keys)
    assert has_own_indexer(model) == [letter == "F" for letter in letters]
    assert model.layers[0].mixer.indexer.indexer_rope_interleave


def test_layers_are_named_by_whose_indexer_chooses(imported):
    """GLM-5.2: 3 dense layers and 18 with experts have an indexer, 57 share one."""
    layers = imported("hf_configs/glm-5.2.json").layers
    names = kind_names(layers)
    counts = Counter(names[layer] for layer in layers)
    assert counts == {"indexer_dense": 3, "indexer_moe": 18, "shared_indexer_moe": 57}


REFUSED = [
    ("glm_moe_dsa", {"index_topk_pattern": "FSSX"}, "expected 8 letters F and S, not 'FSSX'"),
    ("glm_moe_dsa", {"indexer_types": ["full"] * 7}, "has 7 entries for 8 layers"),
    ("glm_moe_dsa", {"indexer_types": ["none"] * 8}, "'none' is not one of full, shared"),
    ("glm_moe_dsa", {"indexer_rope_interleave": False}, "rotated together in this family's index heads"),
    ("glm_moe_dsa", {"rope_interleave": False}, "neighbours are rotated together in this family"),
    ("deepseek_v32", {"indexer_rope_interleave": True}, "index heads are rotated in halves in this family"),
    ("deepseek_v32", {"q_lora_rank": None}, "an indexer takes the compressed queries"),
    ("deepseek_v32", {"index_head_dim": 32}, "must be at least qk_rope_head_dim (64), not 32"),
    ("deepseek_v32", {"num_experts": 64}, "contradicts 'n_routed_experts'"),
]


@pytest.mark.parametrize(("family", "keys", "message"), REFUSED, ids=str)
def test_what_is_not_understood_is_refused_by_name(family, keys, message, config_refusal):
    assert message in config_refusal(family, **TINY | {"n_routed_experts": 256} | keys)


def test_minicpm3_scales_embeddings_residuals_and_logits(from_config):
    """12, 1.4 over the root of 62 layers, and 256 over 2,560; null stands for no scaling of that kind."""
    model = from_config("minicpm3")
    assert model.embedding_multiplier == 12
    assert model.residual_multiplier == pytest.approx(1.4 / math.sqrt(62))
    assert model.logits_multiplier == 0.1
    model = from_config("minicpm3", scale_depth=None, dim_model_base=None, mlp_bias=True)
    assert (model.residual_multiplier, model.logits_multiplier) == (1, 1)
    assert model.layers[0].mlp.mlp_bias


def test_prediction_layers_are_those_that_the_file_names(from_config):
    """By either of the key's names; the class's own default of one is no statement of a release."""
    counts = [
        from_config("deepseek_v3", **keys).num_nextn_predict_layers
        for keys in ({}, {"num_nextn_predict_layers": 1}, {"num_mtp_layers": 2})
    ]
    assert counts == [0, 1, 2]
