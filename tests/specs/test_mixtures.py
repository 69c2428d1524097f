"""Families with experts: which layers have them, how they are chosen, and what is refused by name."""

import pytest

from kvplan.arch.attention import OutputGate, QkNorm
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.norm import Block


def routed(model):
    """Which layers have experts, as a word of x and -."""
    return "".join("x" if isinstance(layer.mlp, Experts) else "-" for layer in model.layers)


def windows(model):
    return [layer.mixer.sliding_window for layer in model.layers]


def experts_of(model):
    return next(layer.mlp for layer in model.layers if isinstance(layer.mlp, Experts))


SIX = {"num_hidden_layers": 6}
LAYERS = [
    ("qwen2_moe", {}, "xxxxxx"),
    ("qwen2_moe", {"decoder_sparse_step": 2}, "-x-x-x"),
    ("qwen2_moe", {"mlp_only_layers": [0, 5]}, "-xxxx-"),
    ("deepseek", {"n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 2}, "--xxxx"),
    ("deepseek", {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_layer_freq": 2}, "x-x-x-"),
    ("deepseek", {}, "------"),
    ("ernie4_5_moe", {}, "-xxxxx"),
    ("ernie4_5_moe", {"moe_layer_end_index": 3, "moe_layer_interval": 2}, "-x-x--"),
    ("glm4_moe", {"head_dim": 128, "first_k_dense_replace": 3}, "---xxx"),
    ("dots1", {"n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 1}, "-xxxxx"),
    ("mimo_v2_flash", {}, "-xxxxx"),
    ("mimo_v2_flash", {"moe_layer_freq": [0, 0, 1, 1, 0, 1]}, "--xx-x"),
    ("llama4_text", {}, "xxxxxx"),
    ("llama4_text", {"interleave_moe_layer_step": 2}, "-x-x-x"),
    ("llama4_text", {"moe_layers": []}, "------"),
    ("hunyuan", {"num_experts": 4, "moe_topk": 2, "moe_layer_num_skipped": 2}, "--xxxx"),
    ("afmoe", {"num_dense_layers": 2}, "--xxxx"),
    ("exaone_moe", {"first_k_dense_replace": 3}, "---xxx"),
    ("exaone_moe", {"mlp_layer_types": ["sparse"] * 5 + ["dense"]}, "xxxxx-"),
    ("hy_v3", {}, "-xxxxx"),
    ("mellum", {}, "xxxxxx"),
    ("mellum", {"mlp_layer_types": ["dense"] * 2 + ["sparse"] * 4}, "--xxxx"),
    ("solar_open", {}, "xxxxxx"),
    ("flex_olmo", {}, "xxxxxx"),
    ("granitemoe_swa", {}, "xxxxxx"),
]


@pytest.mark.parametrize(("family", "given", "expected"), LAYERS)
def test_layers_with_experts(from_config, family, given, expected):
    assert routed(from_config(family, **SIX, **given)) == expected


# Scores, choice, whether shares sum to one, what they are multiplied by, and what shared experts are wide.
ROUTERS = {
    "olmoe": (Scoring.SOFTMAX, TopkMethod.GREEDY, False, 1.0, 0),
    "flex_olmo": (Scoring.SOFTMAX, TopkMethod.GREEDY, False, 1.0, 0),
    "phimoe": (Scoring.SOFTMAX, TopkMethod.SPARSEMIXER, False, 1.0, 0),
    "qwen2_moe": (Scoring.SOFTMAX, TopkMethod.GREEDY, False, 1.0, 5632),
    "ernie4_5_moe": (Scoring.SOFTMAX, TopkMethod.NOAUX_TC, True, 1.0, 2 * 1536),
    "granitemoe": (Scoring.SOFTMAX, TopkMethod.GREEDY, True, 1.0, 0),
    "minimax_m2": (Scoring.SIGMOID, TopkMethod.NOAUX_TC, True, 1.0, 0),
    "mimo_v2_flash": (Scoring.SIGMOID, TopkMethod.NOAUX_TC, True, 1.0, 0),
    "llama4_text": (Scoring.SIGMOID, TopkMethod.GREEDY, False, 1.0, 8192),
    "afmoe": (Scoring.SIGMOID, TopkMethod.NOAUX_TC, True, 1.0, 2 * 1408),
    "exaone_moe": (Scoring.SIGMOID, TopkMethod.NOAUX_TC, True, 2.5, 1024),
    "hy_v3": (Scoring.SIGMOID, TopkMethod.NOAUX_TC, True, 2.826, 1536),
    "solar_open": (Scoring.SIGMOID, TopkMethod.NOAUX_TC, True, 1.0, 1280),
    "mellum": (Scoring.SOFTMAX, TopkMethod.GREEDY, True, 1.0, 0),
}


@pytest.mark.parametrize("family", ROUTERS)
def test_routers_of_the_class_defaults(from_config, family):
    found = experts_of(from_config(family))
    chosen = (found.scoring_func, found.topk_method, found.norm_topk_prob, found.routed_scaling_factor)
    assert (*chosen, found.shared_expert_intermediate_size) == ROUTERS[family]


def test_a_correction_is_a_parameter_where_the_class_has_it_as_one(from_config):
    """Ernie and AFMoE save it with their parameters, the others as a buffer."""
    for family, parameter in (
        ("ernie4_5_moe", True),
        ("afmoe", True),
        ("hy_v3", False),
        ("exaone_moe", False),
    ):
        found = experts_of(from_config(family))
        assert (found.router_bias_parameter, found.router_bias_buffer) == (parameter, not parameter)


REFUSED = [
    ("deepseek", {"scoring_func": "sigmoid"}, "scoring_func: "),
    ("ernie4_5_moe", {"moe_use_aux_free": False}, "moe_use_aux_free: "),
    ("minimax_m2", {"use_qk_norm": False}, "use_qk_norm: "),
    ("glm4_moe", {"head_dim": 128, "scoring_func": "softmax"}, "scoring_func: "),
    ("mimo_v2_flash", {"n_shared_experts": 2}, "n_shared_experts: "),
    ("mimo_v2_flash", {"num_hidden_layers": 3, "moe_layer_freq": [0, 1]}, "has 2 entries for 3 layers"),
    ("hunyuan", {"use_mla": True}, "use_mla: "),
    ("hunyuan", {"group_limited_greedy": True}, "group_limited_greedy: "),
    ("hunyuan_v1_moe", {"num_experts": [1, 2]}, "has 2 entries for 32 layers"),
    ("dbrx", {"ffn_config": {"moe_normalize_expert_weights": 2}}, "moe_normalize_expert_weights: "),
    ("dbrx", {"tie_word_embeddings": True}, "tie_word_embeddings: "),
    ("afmoe", {"score_func": "softmax"}, "score_func: "),
    ("afmoe", {"n_group": 4}, "n_group: "),
    ("exaone_moe", {"num_hidden_layers": 2, "is_moe_layer": [True, True]}, "is_moe_layer: "),
    ("solar_open", {"use_qk_norm": True}, "use_qk_norm: "),
    ("granite_swa", {"num_hidden_layers": 2, "layer_rope_theta": [1.0, 0]}, "0 and numbers above 1"),
    ("granite_swa", {"num_hidden_layers": 2, "layer_rope_theta": [0]}, "has 1 entries for 2 layers"),
    ("granite_swa", {"sliding_window": None}, "some layers slide: their length is needed"),
    ("llama4_text", {"attention_chunk_size": None}, "some layers are in chunks: their length is needed"),
    (
        "qwen2_moe",
        {"num_hidden_layers": 1, "layer_types": ["sliding_attention"]},
        "use_sliding_window is true",
    ),
]


@pytest.mark.parametrize(("family", "given", "said"), REFUSED)
def test_what_would_route_otherwise_is_refused_by_its_key(config_refusal, family, given, said):
    assert said in config_refusal(family, **given)


# ------------------------------------------------------------------ attention beside experts


def test_windows_of_qwen2_moe_are_every_other_one_of_the_first_layers(from_config):
    """Not Qwen 2's rule; where they are off, the class writes a window of 0."""
    given = {"num_hidden_layers": 5, "max_window_layers": 4, "sliding_window": 64}
    assert windows(from_config("qwen2_moe", **given)) == [None] * 5
    assert windows(from_config("qwen2_moe", **given, use_sliding_window=True)) == [64, None, 64, None, None]
    assert windows(from_config("qwen2_moe", **{**given, "sliding_window": 0})) == [None] * 5


def test_mimo_v2_has_more_kv_heads_and_sinks_where_it_slides(from_config):
    """Published: 4 and 8 KV heads, keys of 192 and values of 128, and 128 tokens beside the query."""
    model = from_config("mimo_v2_flash", num_hidden_layers=6, sliding_window_size=128)
    assert windows(model) == [None, *[129] * 4, None]
    full, sliding = model.layers[0].mixer, model.layers[1].mixer
    assert (full.num_key_value_heads, full.sinks, full.rope_parameters.rope_theta) == (4, False, 5e6)
    assert (sliding.num_key_value_heads, sliding.sinks, sliding.rope_parameters.rope_theta) == (8, True, 1e4)
    assert (full.head_dim, full.value_dim, full.rope_parameters.rotated(192)) == (192, 128, 64)


def test_llama_4_rotates_in_chunks_and_grows_where_it_does_not(from_config):
    layers = from_config("llama4_text", num_hidden_layers=4, attn_scale=0.2).layers
    assert [layer.mixer.attention_chunk_size for layer in layers] == [8192, 8192, 8192, None]
    assert (layers[0].mixer.qk_norm, layers[0].mixer.qk_norm_after_rope) == (QkNorm.UNIT, True)
    plain = layers[3].mixer
    assert (plain.rope_parameters, plain.qk_norm, plain.temperature.attn_scale) == (None, None, 0.2)
    still = from_config("llama4_text", num_hidden_layers=4, attn_temperature_tuning=False)
    assert still.layers[3].mixer.temperature is None
    listed = from_config("llama4_text", num_hidden_layers=2, no_rope_layers=[0, 1])
    assert [layer.mixer.attention_chunk_size for layer in listed.layers] == [None, 8192]


def test_hunyuan_stores_keys_and_values_for_layers_behind(from_config):
    """cla_share_factor 2: every other layer reads what the one before it stored."""
    model = from_config("hunyuan", num_hidden_layers=4, use_cla=True, cla_share_factor=2)
    assert [layer.mixer.shares_kv for layer in model.layers] == [False, True, False, True]
    apart = from_config("hunyuan", num_hidden_layers=4, cla_share_factor=2)
    assert not any(layer.mixer.shares_kv for layer in apart.layers)


def test_sizes_of_hunyuans_experts_may_be_lists(from_config):
    layers = from_config(
        "hunyuan",
        num_hidden_layers=2,
        num_experts=[4, 8],
        moe_topk=[1, 2],
        moe_intermediate_size=[64, 32],
        use_mixed_mlp_moe=True,
        num_shared_expert=[1, 2],
    ).layers
    assert layers[0].mlp == Experts(4, 1, 64, 64)
    assert layers[1].mlp == Experts(8, 2, 32, 64)


def test_afmoe_gates_its_attention_and_rotates_where_it_slides(from_config):
    model = from_config("afmoe", num_hidden_layers=4, mup_enabled=True)
    assert windows(model) == [1024, 1024, 1024, None]
    assert [layer.mixer.rope_parameters is None for layer in model.layers] == [False, False, False, True]
    assert {layer.mixer.output_gate for layer in model.layers} == {OutputGate.ELEMENT}
    assert (model.layers[0].block, model.embedding_multiplier) == (Block.SANDWICH, 2048**0.5)


def test_granite_with_windows_has_a_base_for_each_layer(from_config):
    model = from_config("granite_swa", num_hidden_layers=4, layer_rope_theta=[0, 100, 200.0, 100])
    assert windows(model) == [None, 128, 128, 128]
    ropes = [layer.mixer.rope_parameters for layer in model.layers]
    assert [rope and rope.rope_theta for rope in ropes] == [None, 100, 200, 100]
    assert all(layer.mixer.sinks for layer in model.layers)


def test_mellum_rotates_each_kind_of_layer_by_its_own_base(from_config):
    types = ["full_attention", "sliding_attention"]
    layers = from_config("mellum", num_hidden_layers=2, layer_types=types).layers
    assert [layer.mixer.rope_parameters.rope_theta for layer in layers] == [5e5, 1e4]
    stretched = {"rope_type": "linear", "factor": 4.0, "rope_theta": 7.0}
    given = {"full_attention": stretched, "sliding_attention": {"rope_theta": 9.0}}
    layers = from_config("mellum", num_hidden_layers=2, layer_types=types, rope_parameters=given).layers
    assert [layer.mixer.rope_parameters.rope_theta for layer in layers] == [7, 9]
    assert layers[0].mixer.rope_parameters.factor == 4


def test_dbrx_reads_the_mappings_of_its_parts(from_config):
    model = from_config(
        "dbrx", attn_config={"kv_n_heads": 4, "clip_qkv": 8, "rope_theta": 5e5}, ffn_config={"moe_top_k": 2}
    )
    mixer = model.layers[0].mixer
    assert (mixer.num_key_value_heads, mixer.clip_qkv, mixer.rope_parameters.rope_theta) == (4, 8, 5e5)
    assert model.layers[0].mlp.num_experts_per_tok == 2


def test_phimoe_has_a_temperature_given_outright(from_config, config_refusal):
    scaling = {"type": "longrope", "short_factor": [1.0] * 64, "long_factor": [2.0] * 64}
    sizes = {"original_max_position_embeddings": 4096, "rope_scaling": scaling}
    both = {**scaling, "short_mscale": 1.24, "long_mscale": 1.24}
    found = from_config("phimoe", **{**sizes, "rope_scaling": both})
    assert found.layers[0].mixer.rope_parameters.attention_factor == 1.24
    assert "short_mscale" in config_refusal("phimoe", **sizes)
    other = {**both, "long_mscale": 1.3}
    assert "long_mscale: " in config_refusal("phimoe", **{**sizes, "rope_scaling": other})
