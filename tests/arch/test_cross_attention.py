"""Layers that attend to an image: weights that text passes by, and nothing cached."""

from dataclasses import replace

import pytest

from kvplan.arch.cross_attention import CrossAttention
from kvplan.arch.layer import Layer
from kvplan.arch.limits import Limits
from kvplan.arch.mlp import MLP
from kvplan.checks import FieldError

MIXER = CrossAttention(num_attention_heads=6, num_key_value_heads=2, head_dim=4)


def test_text_leaves_nothing_in_the_cache_and_needs_no_buffer():
    assert MIXER.slots() == ()
    assert MIXER.buffers(20) == ()
    assert Layer(MIXER, MLP(8)).images_only


def test_weights_by_hand():
    """Queries and output 24 x 20, keys and values 8 x 20, two norms of a head and two gates of one number."""
    assert sum(weight.elements for weight in MIXER.weights(20)) == 2 * 480 + 2 * 160 + 2 * 4 + 2


def test_heads_are_cut_and_kv_heads_repeated_over_ranks():
    held = {weight.name: weight.on_rank(6).elements for weight in MIXER.weights(20)}
    assert held["cross_attn.q_proj.weight"] == held["cross_attn.o_proj.weight"] == 80
    assert held["cross_attn.k_proj.weight"] == 80


def test_scaled_down_it_keeps_its_group():
    small = MIXER.scaled_down(Limits(hidden_size=10, of_hidden_size=20, query_heads=3))
    assert (small.num_attention_heads, small.num_key_value_heads, small.head_dim) == (3, 1, 4)


def test_query_heads_must_be_a_multiple_of_kv_heads():
    with pytest.raises(FieldError):
        replace(MIXER, num_key_value_heads=4)
