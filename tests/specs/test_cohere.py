"""Cohere and Cohere 2: what their classes say where a file says nothing, and which layers rotate."""

import pytest

from kvplan.arch.attention import QkNorm
from kvplan.arch.norm import Block, Norm


def test_a_file_without_sizes_is_command_r(from_config):
    """transformers' CohereConfig() is Command-R's shape: 64 heads of 128, and as many KV heads."""
    model = from_config("cohere")
    mixer = model.layers[0].mixer
    assert (len(model.layers), model.hidden_size, model.vocab_size) == (40, 8192, 256_000)
    assert (mixer.num_attention_heads, mixer.num_key_value_heads, mixer.head_dim) == (64, 64, 128)
    assert (mixer.rope_parameters.rope_theta, mixer.rope_parameters.interleaved) == (500_000.0, True)
    assert (model.norm, model.norm_eps, model.layers[0].block) == (Norm.LAYER_NO_BIAS, 1e-5, Block.PARALLEL)
    assert (model.logits_multiplier, model.tie_word_embeddings, mixer.qk_norm) == (0.0625, True, None)


def test_command_r_plus_has_norm_weights_of_every_head(from_config):
    model = from_config("cohere", use_qk_norm=True, num_key_value_heads=8)
    shapes = {w.name: w.shape for w in model.layer_weights(model.layers[0])}
    assert model.layers[0].mixer.qk_norm is QkNorm.EACH_HEAD
    assert shapes["self_attn.q_norm.weight"] == (64, 128)
    assert shapes["self_attn.k_norm.weight"] == (8, 128)


def test_every_fourth_layer_of_cohere_2_sees_everything_and_rotates_nothing(from_config):
    mixers = [layer.mixer for layer in from_config("cohere2", num_hidden_layers=8).layers]
    assert [mixer.sliding_window for mixer in mixers] == 2 * [4096, 4096, 4096, None]
    assert [mixer.rope_parameters is None for mixer in mixers] == 2 * [False, False, False, True]
    assert mixers[0].rope_parameters.rope_theta == 10_000.0


@pytest.mark.parametrize("key", ["sliding_window_pattern", "layer_switch"])
def test_another_pattern_of_cohere_2(from_config, key):
    model = from_config("cohere2", num_hidden_layers=4, sliding_window=512, **{key: 2})
    assert [layer.mixer.sliding_window for layer in model.layers] == [512, None, 512, None]


def test_layer_types_decide_in_cohere_2(from_config):
    types = ["full_attention", "sliding_attention"]
    model = from_config("cohere2", num_hidden_layers=2, sliding_window_pattern=4, layer_types=types)
    assert [layer.mixer.sliding_window for layer in model.layers] == [None, 4096]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"sliding_window": None}, "sliding_window: null is not understood"),
        ({"head_dim": 64}, "head_dim: 64 is not understood"),
        ({"order_of_interleaved_layers": "global_attn_first"}, "sliding layers come first"),
        ({"rotary_pct": 0.5}, "rotary_pct: 0.5 is not understood"),
        ({"use_parallel_block": False}, "side by side"),
        ({"use_qk_norm": True}, "use_qk_norm: this key is not understood"),
    ],
)
def test_what_cohere_2_does_not_do_is_refused(config_refusal, keys, said):
    assert said in config_refusal("cohere2", **keys)
