"""EXAONE 3 and 4: their own keys, and three ways to say which layers slide."""

import pytest

from kvplan.arch.attention import QkNorm
from kvplan.arch.norm import Block

FULL, SLIDING = "full_attention", "sliding_attention"


def test_exaone_3_keys_are_its_own(from_config):
    model = from_config(
        "exaone", num_layers=3, hidden_size=512, num_key_value_heads=8, layer_norm_epsilon=1e-4
    )
    mixer = model.layers[0].mixer
    assert (len(model.layers), model.norm_eps, model.layers[0].mlp.intermediate_size) == (3, 1e-4, 2048)
    assert (mixer.num_attention_heads, mixer.num_key_value_heads, mixer.head_dim) == (32, 8, 16)
    assert (model.tie_word_embeddings, model.layers[0].block) == (True, Block.PRE_NORM)


def windows(model):
    return [layer.mixer.sliding_window for layer in model.layers]


def test_layer_types_decide_in_exaone_4(from_config):
    model = from_config(
        "exaone4", num_hidden_layers=2, layer_types=[FULL, SLIDING], sliding_window_pattern="LLLG"
    )
    assert windows(model) == [None, 4096]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (3, [8, 8, None, 8, 8, None, 8]),
        ("LLG", [8, 8, None, 8, 8, None, None]),  # the last layer sees everything
        ("LG", [8, None, 8, None, 8, None, None]),
    ],
)
def test_patterns_of_exaone_4(from_config, pattern, expected):
    model = from_config("exaone4", num_hidden_layers=7, sliding_window=8, sliding_window_pattern=pattern)
    assert windows(model) == expected


def test_full_layers_rotate_nothing_beside_sliding_ones(from_config):
    model = from_config("exaone4", num_hidden_layers=4)
    assert [layer.mixer.rope_parameters is None for layer in model.layers] == [False, False, False, True]
    assert {(layer.block, layer.mixer.qk_norm) for layer in model.layers} == {(Block.POST_NORM, QkNorm.HEAD)}


def test_without_a_window_every_layer_is_full_and_rotates(from_config):
    model = from_config("exaone4", num_hidden_layers=4, sliding_window=None, sliding_window_pattern=None)
    assert windows(model) == [None] * 4
    assert all(layer.mixer.rope_parameters is not None for layer in model.layers)


@pytest.mark.parametrize("pattern", ["", "LLX", "lllg"])
def test_other_words_are_refused(config_refusal, pattern):
    assert "is not a word of L and G" in config_refusal("exaone4", sliding_window_pattern=pattern)
