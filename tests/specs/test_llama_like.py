"""Seed-OSS, SmolLM3, ERNIE 4.5, AFM, Helium, CWM, Jais 2, IQuest: the detail that makes each no Llama."""

import pytest

from kvplan.arch.activation import Activation
from kvplan.arch.norm import Norm


def biases(model):
    return {w.name for w in model.layer_weights(model.layers[0]) if w.name.endswith("bias")}


def test_seed_oss_has_a_key_for_the_bias_of_the_output(from_config):
    """Published: biases on queries, keys and values; 80 heads of 128 are wider than the model."""
    model = from_config("seed_oss", hidden_size=5120)
    assert biases(model) == {f"self_attn.{name}_proj.bias" for name in "qkv"}
    mixer = model.layers[0].mixer
    assert (mixer.num_attention_heads, mixer.num_key_value_heads, mixer.head_dim) == (80, 8, 128)
    both = from_config("seed_oss", attention_bias=False, attention_out_bias=True, mlp_bias=True)
    assert biases(both) == {"self_attn.o_proj.bias", *(f"mlp.{n}_proj.bias" for n in ("gate", "up", "down"))}


def rotates(model):
    return [layer.mixer.rope_parameters is not None for layer in model.layers]


def windows(model):
    return [layer.mixer.sliding_window for layer in model.layers]


def test_no_rope_layers_of_smollm3_are_no_windows(from_config):
    """A 1 in the list says that the layer rotates; Llama 4 has chunks there."""
    model = from_config("smollm3", num_hidden_layers=8)
    assert rotates(model) == 2 * [True, True, True, False]
    assert windows(model) == [None] * 8
    listed = from_config("smollm3", num_hidden_layers=3, no_rope_layers=[0, 1, 0], no_rope_layer_interval=4)
    assert rotates(listed) == [False, True, False]


def test_smollm3_slides_where_it_rotates_nothing_if_at_all(from_config):
    given = {"num_hidden_layers": 4, "no_rope_layer_interval": 2, "sliding_window": 64}
    assert windows(from_config("smollm3", **given)) == [None] * 4
    assert windows(from_config("smollm3", **given, use_sliding_window=True)) == [None, 64, None, 64]
    types = ["sliding_attention", "full_attention", "full_attention", "full_attention"]
    assert windows(from_config("smollm3", **given, layer_types=types)) == [64, None, None, None]


@pytest.mark.parametrize(
    ("given", "said"),
    [([1, 0], "has 2 entries for 3 layers"), ([1, 0, 2], "expected a list of 0 and 1")],
)
def test_other_lists_of_smollm3_are_refused(config_refusal, given, said):
    assert said in config_refusal("smollm3", num_hidden_layers=3, no_rope_layers=given)


def test_ernie_turns_neighbours_and_has_one_key_for_all_biases(from_config):
    model = from_config("ernie4_5")
    rope = model.layers[0].mixer.rope_parameters
    assert (rope.interleaved, rope.rope_theta, model.tie_word_embeddings) == (True, 500_000.0, True)
    assert model.layers[0].mixer.head_dim == 128
    assert len(biases(from_config("ernie4_5", use_bias=True))) == 7


def test_arcee_has_two_matrices_and_a_squared_relu(from_config):
    mlp = from_config("arcee").layers[0].mlp
    assert (mlp.gated, mlp.hidden_act, mlp.intermediate_size) == (False, Activation.RELU_SQUARED, 18_432)


def test_helium_has_no_bias_on_its_output(from_config, config_refusal):
    model = from_config("helium", attention_bias=True)
    assert biases(model) == {f"self_attn.{name}_proj.bias" for name in "qkv"}
    assert (model.norm_eps, model.layers[0].mixer.rope_parameters.rope_theta) == (1e-8, 100_000.0)
    assert "as wide as hidden_size" in config_refusal("helium", head_dim=64)


@pytest.mark.parametrize(
    ("family", "tied", "eps", "longest"),
    [
        ("seed_oss", False, 1e-6, 524_288),
        ("smollm3", True, 1e-6, 32_768),
        ("ernie4_5", True, 1e-5, 131_072),
        ("arcee", False, 1e-5, 4_096),
        ("helium", False, 1e-8, 4_096),
    ],
)
def test_class_defaults(from_config, family, tied, eps, longest):
    model = from_config(family)
    assert (model.tie_word_embeddings, model.norm_eps) == (tied, eps)
    assert model.max_position_embeddings == longest


def test_cwm_sees_everything_in_the_first_layer_of_every_four(from_config, config_refusal):
    model = from_config("cwm", num_hidden_layers=5)
    assert windows(model) == [None, 8192, 8192, 8192, None]
    rope = model.layers[0].mixer.rope_parameters
    assert (rope.rope_theta, rope.factor, rope.original_max_position_embeddings) == (1e6, 16, 8192)
    plain = from_config("cwm", num_hidden_layers=1, rope_parameters={"rope_type": "default"})
    assert (
        plain.layers[0].mixer.rope_parameters.rope_theta,
        plain.layers[0].mixer.rope_parameters.factor,
    ) == (
        1e6,
        None,
    )
    assert "rope_theta" in config_refusal("cwm", rope_theta=1e4)


def test_jais2_has_layer_norm_biases_and_two_matrices(from_config):
    model = from_config("jais2")
    assert (model.norm, model.norm_eps, model.layers[0].mlp.gated) == (Norm.LAYER, 1e-5, False)
    assert model.layers[0].mlp.hidden_act is Activation.RELU_SQUARED
    assert len({name for name in biases(model) if "proj" in name}) == 6
    without = from_config("jais2", attention_bias=False, mlp_bias=False)
    assert not {name for name in biases(without) if "proj" in name}


def test_what_iquest_coders_first_code_could_do_is_refused(from_config, config_refusal):
    assert from_config("iquestcoder").layers[0].mixer.head_dim == 128
    assert "clip_qkv" in config_refusal("iquestcoder", clip_qkv=8.0)
    assert "use_sliding_window" in config_refusal("iquestcoder", use_sliding_window=True)


def test_ministral_slides_where_its_layer_types_say(from_config):
    sizes = {"hidden_size": 64, "num_attention_heads": 8, "intermediate_size": 96, "vocab_size": 100}
    types = ["sliding_attention", "full_attention"]
    given = {**sizes, "max_position_embeddings": 128, "num_hidden_layers": 2, "sliding_window": 32}
    assert windows(from_config("ministral", **given, layer_types=types)) == [32, None]
    assert windows(from_config("ministral", **given)) == [32, 32]
