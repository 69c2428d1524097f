"""GLM-4 in two formats: class defaults, ChatGLM's own keys, and what they mean."""

import pytest

from kvplan.arch.norm import Block, Norm

CHATGLM3 = {
    "architectures": ["ChatGLMModel"],
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "seq_length": 8192,
    "layernorm_epsilon": 1e-5,
}


@pytest.mark.parametrize(("family", "block"), [("glm", Block.PRE_NORM), ("glm4", Block.SANDWICH)])
def test_a_file_without_sizes_is_glm_4_9b(from_config, family, block):
    model = from_config(family)
    mixer = model.layers[0].mixer
    assert (len(model.layers), model.hidden_size, model.vocab_size) == (40, 4096, 151_552)
    assert (mixer.num_attention_heads, mixer.num_key_value_heads, mixer.head_dim) == (32, 2, 128)
    assert (mixer.qkv_bias, mixer.out_bias) == (True, False)
    assert mixer.rope_parameters.rotated(128) == 64
    assert (mixer.rope_parameters.interleaved, model.norm_eps) == (True, 1.5625e-7)
    assert (model.layers[0].block, model.tie_word_embeddings) == (block, False)


def test_chatglm_keys_are_its_own(from_config):
    """ChatGLM3-6B: 28 layers of 32 heads in 2 groups, 6,243,584,000 parameters as published."""
    model = from_config("chatglm", **CHATGLM3)
    mixer = model.layers[0].mixer
    assert (mixer.num_key_value_heads, mixer.head_dim, mixer.qkv_bias) == (2, 128, True)
    assert (model.max_position_embeddings, model.vocab_size) == (8192, 65_024)
    assert sum(w.elements * n for w, n in model.weights()) == 6_243_584_000


def test_a_group_number_counts_with_multi_query_attention_only(from_config):
    model = from_config("chatglm", **CHATGLM3 | {"multi_query_attention": False})
    assert model.layers[0].mixer.num_key_value_heads == 32


def test_rope_ratio_multiplies_the_base(from_config):
    rope = from_config("chatglm", rope_ratio=500, **CHATGLM3).layers[0].mixer.rope_parameters
    assert (rope.rope_theta, rope.partial_rotary_factor, rope.interleaved) == (5_000_000.0, 0.5, True)


def test_add_bias_linear_is_a_bias_of_every_matrix_of_a_layer(from_config):
    model = from_config("chatglm", **CHATGLM3 | {"add_bias_linear": True, "add_qkv_bias": False})
    names = {w.name for w in model.layer_weights(model.layers[0]) if w.name.endswith("bias")}
    assert names == {
        *(f"self_attn.{name}_proj.bias" for name in "qkvo"),
        *(f"mlp.{name}_proj.bias" for name in ("gate", "up", "down")),
    }


def test_norms_of_chatglm(from_config):
    model = from_config("chatglm", **CHATGLM3, rmsnorm=False, post_layer_norm=False)
    assert (model.norm, model.final_norm) == (Norm.LAYER, False)
    assert from_config("chatglm", **CHATGLM3).norm is Norm.RMS


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"pre_seq_len": 128}, "trained prefixes are not described"),
        ({"quantization_bit": 4}, "quantization_bit: 4 is not understood"),
        ({"apply_residual_connection_post_layernorm": True}, "the residual is the layer's input"),
        ({"kv_channels": 64}, "all heads together must be as wide as hidden_size"),
        ({"original_rope": False}, "neighbouring elements are rotated together"),
    ],
)
def test_what_chatglm_does_not_do_is_refused(config_refusal, keys, said):
    assert said in config_refusal("chatglm", **CHATGLM3 | keys)


def test_glm_4v_is_glm_4_0414_that_rotates_whole_heads(from_config, config_refusal):
    """Its class always has biases, and a head is what divides the width."""
    model = from_config("glm4v_text")
    mixer = model.layers[0].mixer
    assert (len(model.layers), model.max_position_embeddings, model.norm_eps) == (40, 32_768, 1e-5)
    assert (mixer.num_key_value_heads, mixer.head_dim, mixer.qkv_bias) == (2, 128, True)
    assert (mixer.rope_parameters.rotated(128), mixer.rope_parameters.interleaved) == (128, True)
    assert model.layers[0].block is Block.SANDWICH
    assert from_config("glm4v_text", hidden_size=2048).layers[0].mixer.head_dim == 64
    assert "attention_bias: false" in config_refusal("glm4v_text", attention_bias=False)
    assert "head_dim: 64" in config_refusal("glm4v_text", head_dim=64)
