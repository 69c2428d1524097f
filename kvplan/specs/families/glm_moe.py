"""GLM-4.5 to 4.7, dots.llm1 and Solar Open: experts of DeepSeek-V3's kind beside grouped-query attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvplan.arch.attention import QkNorm
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import (
    Families,
    Identity,
    activation,
    finished_model,
    prediction_layers,
    windowed_layers,
)
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.routed import corrected_experts
from kvplan.specs.families.sizes import Sizes

# Of a width no layer has: all have experts.
_UNUSED = 1
_HALF_ROTATED = RopeDefaults(partial_rotary_factor=0.5)
_GLM = Sizes(
    vocab_size=151_552,
    hidden_size=4096,
    intermediate_size=10_944,
    num_hidden_layers=46,
    num_attention_heads=96,
    max_position_embeddings=131_072,
    num_key_value_heads=8,
)


def glm4_moe(config: Config, identity: Identity) -> Model:
    """GLM-4.5: norms of queries and keys, and biases on both and on values, where the file says so."""
    qk_norm = QkNorm.HEAD if config.flag("use_qk_norm", False) else None
    return _glm(config, identity, _GLM, _HALF_ROTATED, qk_norm, bias=config.flag("attention_bias", False))


def glm4v_moe_text(config: Config, identity: Identity) -> Model:
    """GLM-4.5V's language model: biases unless the file says otherwise, and no norms of queries and keys."""
    config.only("use_qk_norm", False, "queries and keys are not normalised in this family")
    sizes = replace(_GLM, vocab_size=151_424, max_position_embeddings=65_536)
    rotation = replace(_HALF_ROTATED, mrope=True)
    return _glm(config, identity, sizes, rotation, None, bias=config.flag("attention_bias", True))


def _glm(
    config: Config,
    identity: Identity,
    default: Sizes,
    rotation: RopeDefaults,
    qk_norm: QkNorm | None,
    *,
    bias: bool,
) -> Model:
    sizes = default.read(config)
    mixer = replace(sizes.attention(config, rotation, qkv_bias=bias), qk_norm=qk_norm)
    dense = sizes.gated_mlp(config)
    experts = corrected_experts(
        config,
        dense.hidden_act,
        n_routed_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=1408,
        n_shared_experts=1,
    )
    first = config.count("first_k_dense_replace", 1)
    layers = [Layer(mixer, dense if index < first else experts) for index in range(sizes.num_hidden_layers)]
    return _model(config, identity, sizes, layers, eps=1e-5)


def dots1(config: Config, identity: Identity) -> Model:
    """dots.llm1: normalised queries and keys; layers from ``max_window_layers`` on slide."""
    sizes = Sizes(
        vocab_size=152_064,
        hidden_size=4608,
        intermediate_size=10_944,
        num_hidden_layers=62,
        num_attention_heads=32,
        max_position_embeddings=2048,
        num_key_value_heads=32,
    ).read(config)
    bias, depth = config.flag("attention_bias", False), sizes.num_hidden_layers
    full = replace(sizes.attention(config, qkv_bias=bias, out_bias=bias), qk_norm=QkNorm.HEAD)
    dense = sizes.gated_mlp(config)
    experts = corrected_experts(config, dense.hidden_act, moe_intermediate_size=1408, norm_topk_prob=False)
    window = config.optional_integer("sliding_window", default=4096)
    from_layer, first = config.count("max_window_layers", 62), config.count("first_k_dense_replace", 0)
    slides = windowed_layers(config, depth) or [index >= from_layer for index in range(depth)]
    layers = [
        Layer(replace(full, sliding_window=window if slide else None), dense if index < first else experts)
        for index, slide in enumerate(slides)
    ]
    return _model(config, identity, sizes, layers, eps=1e-6)


def solar_open(config: Config, identity: Identity) -> Model:
    """Solar Open: GLM-4.5 with whole heads rotated, and experts in every layer."""
    sizes = Sizes(
        vocab_size=196_608,
        hidden_size=4096,
        intermediate_size=_UNUSED,
        num_hidden_layers=48,
        num_attention_heads=64,
        max_position_embeddings=131_072,
        num_key_value_heads=8,
        head_dim=128,
    ).read(config)
    rotation = RopeDefaults(rope_theta=1_000_000.0)
    mixer = sizes.attention(config, rotation, qkv_bias=config.flag("attention_bias", False))
    experts = corrected_experts(
        config,
        activation(config),
        n_routed_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=1280,
        n_shared_experts=1,
    )
    config.only("first_k_dense_replace", 0, "every layer has experts in this family")
    config.only("use_qk_norm", False, "queries and keys are not normalised in this family")
    layers = [Layer(mixer, experts)] * sizes.num_hidden_layers
    return _model(config, identity, sizes, layers, eps=1e-5)


def _model(config: Config, identity: Identity, sizes: Sizes, layers: Sequence[Layer], *, eps: float) -> Model:
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        eps=eps,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        num_nextn_predict_layers=prediction_layers(config),
    )


FAMILIES: Families = {
    "dots1": dots1,
    "glm4_moe": glm4_moe,
    "glm4v_moe_text": glm4v_moe_text,
    "solar_open": solar_open,
}
