"""The description of softmax attention: its tensors counted by hand, and what cannot be together."""

from dataclasses import replace

import pytest

from kvplan.arch.attention import Attention, OutputGate, QkNorm
from kvplan.arch.entry import KV
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.temperature import TemperatureTuning
from kvplan.arch.what_if import with_kv_heads, with_latent_attention, with_window
from kvplan.checks import FieldError
from kvplan.errors import UsageError

PLAIN = Attention(8, 2, 16, rope_parameters=RopeParameters(1e4))


def shapes(mixer):
    """By the last words of the name, without ``weight``."""
    return {w.name.removeprefix("self_attn.").removesuffix(".weight"): w.shape for w in mixer.weights(40)}


def test_values_may_be_narrower_than_keys():
    mixer = replace(PLAIN, v_head_dim=10, qkv_bias=True)
    assert shapes(mixer) == {
        "q_proj": (128, 40),
        "k_proj": (32, 40),
        "v_proj": (20, 40),
        "o_proj": (40, 80),
        "q_proj.bias": (128,),
        "k_proj.bias": (32,),
        "v_proj.bias": (20,),
    }
    assert mixer.slots()[0].entry == KV(2, 16, 10)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (QkNorm.HEAD, {"q_norm": (16,), "k_norm": (16,)}),
        (QkNorm.EACH_HEAD, {"q_norm": (8, 16), "k_norm": (2, 16)}),
        (QkNorm.PROJECTION, {"q_norm": (128,), "k_norm": (32,)}),
        (QkNorm.UNIT, {}),
    ],
)
def test_norms_of_queries_and_keys(kind, expected):
    found = shapes(replace(PLAIN, qk_norm=kind))
    assert {name: shape for name, shape in found.items() if "norm" in name} == expected


@pytest.mark.parametrize(
    ("gate", "queries", "own", "alive"),
    [
        (None, 128, None, 128 + 32 + 32 + 128 + 40),
        (OutputGate.QUERY, 256, None, 256 + 32 + 32 + 128 + 40),
        (OutputGate.ELEMENT, 128, (128, 40), 128 + 32 + 32 + 128 + 128 + 40),
        (OutputGate.HEAD, 128, (8, 40), 128 + 32 + 32 + 8 + 128 + 40),
    ],
)
def test_gates_are_made_by_the_query_projection_or_by_one_of_their_own(gate, queries, own, alive):
    """With the elements of one token that are alive at once."""
    mixer = replace(PLAIN, output_gate=gate)
    assert shapes(mixer)["q_proj"] == (queries, 40)
    assert shapes(mixer).get("g_proj") == own
    assert sum(buffer.elements for buffer in mixer.buffers(40)) == alive


def test_the_gate_of_a_rank_is_that_of_its_heads():
    (gate,) = [w for w in replace(PLAIN, output_gate=OutputGate.HEAD).weights(40) if "g_proj" in w.name]
    assert gate.on_rank(4).shape == (2, 40)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sliding_window": 8, "attention_chunk_size": 8}, "attention_chunk_size cannot be beside"),
        (
            {"attention_multiplier": 0.1, "query_pre_attn_scalar": 8.0},
            "attention_multiplier cannot be beside",
        ),
        ({"k_eq_v": True, "v_head_dim": 8}, "v_head_dim must be head_dim where k_eq_v"),
        ({"output_gate": OutputGate.QUERY, "v_head_dim": 8}, "v_head_dim must be head_dim where the query"),
        ({"sink_tokens": 4}, "sink_tokens needs a sliding_window"),
        ({"alibi_scaled": True}, "alibi_scaled needs alibi"),
        ({"alibi": True, "sinks": True}, "alibi cannot be beside sinks"),
        ({"alibi": True, "attn_logit_softcapping": 30.0}, "alibi cannot be beside a softcap"),
        ({"clip_qkv": 0.0}, "clip_qkv must be above 0"),
        ({"attention_value_scale": -1.0}, "attention_value_scale must be above 0"),
    ],
)
def test_what_cannot_be_together(fields, said):
    with pytest.raises(FieldError, match=said):
        replace(PLAIN, **fields)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.0, 8.0), "attn_scale must be above 0"),
        ((0.1, 0.0), "floor_scale must be above 0"),
        ((0.1, 8.0, 2), "first_place must be 0 or 1"),
    ],
)
def test_a_temperature_that_is_none(arguments, said):
    with pytest.raises(FieldError, match=said):
        TemperatureTuning(*arguments)


def of(*mixers):
    layers = tuple(Layer(mixer, MLP(32)) for mixer in mixers)
    return Model("tiny", "a test", "bf16", 40, 100, 8192, layers)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"alibi": True}, "latent attention cannot keep tiny's ALiBi"),
        (
            {"temperature": TemperatureTuning(0.1, 8)},
            "cannot keep tiny's queries that grow with their position",
        ),
        ({"output_gate": OutputGate.HEAD}, "cannot keep tiny's output gates"),
        ({"v_head_dim": 8}, "are 48 a token and layer"),
    ],
)
def test_latents_that_would_lose_something(fields, said):
    with pytest.raises(UsageError, match=said):
        with_latent_attention(of(replace(PLAIN, **fields)), 40, 8)


def test_latents_make_values_as_wide_as_they_were():
    (layer,) = with_latent_attention(of(replace(PLAIN, v_head_dim=8)), 31, 16).layers
    assert (layer.mixer.qk_nope_head_dim, layer.mixer.v_head_dim) == (16, 8)


def test_layers_that_rotate_nothing_have_no_rotary_key():
    mixed = of(PLAIN, replace(PLAIN, rope_parameters=None))
    with pytest.raises(UsageError, match="tiny rotates no positions in some layers: a rotary key"):
        with_latent_attention(mixed, 31, 16)


def test_fewer_heads_and_a_window_keep_everything_else():
    mixer = replace(
        PLAIN,
        rope_parameters=None,
        alibi=True,
        qk_norm=QkNorm.EACH_HEAD,
        v_head_dim=10,
        clip_qkv=4.0,
        output_gate=OutputGate.HEAD,
    )
    (fewer,) = with_kv_heads(of(mixer), 1).layers
    assert fewer.mixer == replace(mixer, num_key_value_heads=1)
    assert shapes(fewer.mixer)["k_norm"] == (1, 16)
    (windowed,) = with_window(of(mixer), 128).layers
    assert windowed.mixer == replace(mixer, sliding_window=128)
