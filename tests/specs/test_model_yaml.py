"""A model written as a file reads back as the same model, and the file says only what is particular."""

from dataclasses import replace

import pytest
import yaml

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.specs.catalog import Found, load_model
from kvplan.specs.model_yaml import SCHEMA_LINE, model_yaml


def reread(model, folder, **options):
    path = folder / f"{model.name}.yaml"
    path.write_text(model_yaml(model, **options), encoding="utf-8")
    return load_model(Found(path.name, path))


@pytest.mark.parametrize("schema", [False, True])
def test_bundled_models_read_back(model_name, schema, bundled, tmp_path):
    model = bundled(model_name)
    assert reread(model, tmp_path, schema=schema) == model


def test_measured_models_read_back(truth, imported, tmp_path):
    model = imported(truth["config"])
    assert reread(model, tmp_path) == model


def test_a_uniform_model_is_short(bundled):
    text = model_yaml(bundled("llama-3.1-8b"))
    data = yaml.safe_load(text)
    assert data["kinds"] == {
        "decoder": {
            "attention": {
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "rope_parameters": {"rope_theta": 500_000.0},
            },
            "mlp": {"intermediate_size": 14_336},
        }
    }
    assert data["layers"] == [{"repeat": 32, "pattern": ["decoder"]}]
    assert "tie_word_embeddings" not in data
    assert len(text.splitlines()) < 25


def test_a_pattern_is_on_one_line(bundled):
    text = model_yaml(bundled("gemma-2-9b"), schema=True)
    assert text.startswith(SCHEMA_LINE)
    assert "  - repeat: 21\n    pattern: [sliding_attention, full_attention]\n" in text
    assert not model_yaml(bundled("gemma-2-9b")).startswith("#")


ROPES = [
    RopeParameters(1_000_000_000_000.0),
    RopeParameters(10_000.0, partial_rotary_factor=0.5, interleaved=True),
    RopeParameters(10_000.0, RopeType.LINEAR, factor=1e-9),
    RopeParameters(10_000.0, RopeType.DYNAMIC, factor=2.0, original_max_position_embeddings=64),
    RopeParameters(
        500_000.0,
        RopeType.LLAMA3,
        factor=8.0,
        original_max_position_embeddings=64,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
    ),
    RopeParameters(
        10_000.0,
        RopeType.YARN,
        factor=40.0,
        original_max_position_embeddings=64,
        beta_fast=32.0,
        beta_slow=0.1,
        mscale=0.707,
        mscale_all_dim=1.0,
        attention_factor=1.5,
        truncate=False,
    ),
    RopeParameters(
        10_000.0,
        RopeType.LONGROPE,
        original_max_position_embeddings=64,
        attention_factor=1 / 3,
        short_factor=tuple(1 + 0.1 * index for index in range(64)),
        long_factor=tuple(1e-6 + index for index in range(64)),
    ),
]


@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: rope.rope_type.value)
def test_every_rotation_reads_back(rope, bundled, tmp_path):
    attention = replace(bundled("llama-3.1-8b").layers[0].mixer, rope_parameters=rope)
    model = replace(bundled("llama-3.1-8b"), layers=(Layer(attention, MLP(64)),))
    assert reread(model, tmp_path) == model


def test_what_the_engine_needs_reads_back(bundled, tmp_path):
    chunked = Attention(
        4, 2, 16, attention_chunk_size=64, attn_logit_softcapping=50.0, query_pre_attn_scalar=0.5
    )
    sinks = Attention(4, 2, 16, sliding_window=32, sink_tokens=4)
    mlp = MLP(64, hidden_act=Activation.RELU_SQUARED)
    model = replace(
        bundled("llama-3.1-8b"),
        layers=(Layer(chunked, mlp), Layer(sinks, mlp)),
        norm_eps=1e-12,
        embedding_multiplier=1 / 3,
        final_logit_softcapping=30.0,
    )
    assert reread(model, tmp_path) == model
    assert "chunked_attention:" in model_yaml(model)


def test_a_key_at_its_default_is_left_out_of_a_mapping_in_a_mapping(bundled):
    mixer = yaml.safe_load(model_yaml(bundled("gpt-oss-20b")))["kinds"]["full_attention"]["attention"]
    assert mixer["rope_parameters"] == {
        "rope_theta": 150_000.0,
        "rope_type": "yarn",
        "factor": 32.0,
        "original_max_position_embeddings": 4_096,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
    }


def test_long_lists_are_not_one_number_a_line(bundled):
    text = model_yaml(bundled("phi-3.5-mini"))
    assert "        short_factor: [1.0, 1.0199999809265137, " in text
    assert len(text.splitlines()) < 50
