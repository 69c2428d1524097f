"""Qwen 1, Baichuan, InternLM, Orion and MiMo, whose classes are remote code: what their keys say."""

import pytest

from kvplan.arch.norm import Norm

SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 128,
}


def first(model):
    return model.layers[0]


def biases(model):
    names = (w.name for w in model.layer_weights(first(model)) if w.name.endswith("proj.bias"))
    return {name.split(".")[1].removesuffix("_proj") for name in names}


def test_qwens_width_is_that_of_two_gates_together(from_config, config_refusal):
    given = {**SIZES, "kv_channels": 16}
    model = from_config("qwen", **given)
    assert first(model).mlp.intermediate_size == 48
    assert biases(model) == {"q", "k", "v"}
    assert biases(from_config("qwen", **given, no_bias=False)) == {"q", "k", "v", "o", "gate", "up", "down"}
    assert "odd" in config_refusal("qwen", **{**given, "intermediate_size": 95})
    assert "as wide as hidden_size (64)" in config_refusal("qwen", **{**given, "kv_channels": 17})


@pytest.mark.parametrize(
    ("given", "longest"),
    [({}, 2048), ({"use_dynamic_ntk": False, "use_logn_attn": False}, 128), ({"use_logn_attn": False}, 2048)],
)
def test_qwen_is_plain_within_its_training_only(from_config, given, longest):
    """Past it two switches, on by default, change rotations and scores."""
    found = from_config("qwen", **SIZES, kv_channels=16, seq_length=2048, **given)
    assert found.max_position_embeddings == longest


def test_baichuan_13b_falls_with_the_distance_where_7b_rotates(from_config, config_refusal):
    """Its files are told apart by whether they have a longest position."""
    rotates = first(from_config("baichuan", **SIZES)).mixer
    assert (rotates.alibi, rotates.rope_parameters is None) == (False, False)
    falls = {key: value for key, value in SIZES.items() if key != "max_position_embeddings"}
    model = from_config("baichuan", **falls, model_max_length=512)
    assert (first(model).mixer.alibi, first(model).mixer.rope_parameters) == (True, None)
    assert model.max_position_embeddings == 512
    assert "BaiChuanForCausalLM rotates" in config_refusal(
        "baichuan", **falls, architectures=["BaiChuanForCausalLM"]
    )


def test_biases_of_the_three_internlms(from_config):
    attention = {"q", "k", "v", "o"}
    for family in ("internlm", "internlm2"):
        assert biases(from_config(family, **SIZES)) == attention
        assert biases(from_config(family, **SIZES, bias=False)) == set()
    assert biases(from_config("internlm3", **SIZES)) == set()
    assert biases(from_config("internlm3", **SIZES, qkv_bias=True)) == {"q", "k", "v"}
    assert biases(from_config("internlm3", **SIZES, bias=True)) == {"o", "gate", "up", "down"}


def test_the_base_of_internlm_may_be_in_a_mapping(from_config, config_refusal):
    found = first(from_config("internlm", **SIZES, rotary={"base": 5e5, "type": "dynamic"})).mixer
    assert found.rope_parameters.rope_theta == 5e5
    assert "scaling_factor" in config_refusal("internlm", **SIZES, rotary={"scaling_factor": 2.0})
    assert "expected origin or dynamic" in config_refusal("internlm", **SIZES, rotary={"type": "linear"})


def test_orion_is_llama_with_layer_norm(from_config):
    model = from_config("orion", **SIZES)
    assert (model.norm, model.norm_eps, biases(model)) == (Norm.LAYER, 1e-5, set())


def test_mimo_is_qwen_2(from_config, config_refusal):
    given = {**SIZES, "num_key_value_heads": 2}
    assert biases(from_config("mimo", **given, num_nextn_predict_layers=1)) == {"q", "k", "v"}
    assert "attention_bias" in config_refusal("mimo", **given, attention_bias=False)
