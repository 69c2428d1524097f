"""Gemma 3n: alternating streams, per-layer embeddings, and a cache the last layers share."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from kvplan.arch.activation import Activation
from kvplan.arch.altup import AltUp
from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.arch.per_layer_input import PerLayerInput
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model, windowed_layers
from kvplan.specs.families.gemma import full_and_local_ropes

# Layers that are sparse where the file does not say, in a model of more than so many.
_SPARSE_LAYERS, _SPARSITY = 10, 0.95


def gemma3n_text(config: Config, identity: Identity) -> Model:
    """Gemma 3n's language model; keys equal to the class default are left out of released files."""
    depth, hidden = config.depth("num_hidden_layers", default=35), config.integer("hidden_size", default=2048)
    slides = windowed_layers(config, depth) or [(index + 1) % 5 != 0 for index in range(depth)]
    first_shared = depth - config.count("num_kv_shared_layers", 15)
    if not set(slides[first_shared:]) <= set(slides[:first_shared]):
        config.refuse("num_kv_shared_layers", "the last layers share what no layer before them stores")
    full, sliding = _attentions(config)
    act = activation(config, "hidden_activation", Activation.GELU_TANH)
    given, streams = _per_layer_input(config, act), _altup(config)
    layers = [
        Layer(
            replace(sliding if slide else full, shares_kv=index >= first_shared),
            mlp,
            Block.SANDWICH,
            per_layer_input=given,
            altup=streams,
        )
        for index, (slide, mlp) in enumerate(zip(slides, _mlps(config, depth, act), strict=True))
    ]
    return finished_model(
        config,
        identity,
        layers,
        tied=True,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=262_400),
        max_position_embeddings=_longest(config),
        embedding_multiplier=sqrt(hidden),
        final_logit_softcapping=config.optional_number("final_logit_softcapping", default=30.0),
        per_layer_input=given,
        altup=streams,
    )


def _longest(config: Config) -> int:
    return config.integer("max_position_embeddings", default=32_768)


def _attentions(config: Config) -> tuple[Attention, Attention]:
    """Return the attention of full and of sliding layers."""
    bias = config.flag("attention_bias", False)
    everywhere, nearby = full_and_local_ropes(config, _longest(config))
    full = Attention(
        num_attention_heads=config.integer("num_attention_heads", default=8),
        num_key_value_heads=config.integer("num_key_value_heads", default=2),
        head_dim=config.integer("head_dim", default=256),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=QkNorm.HEAD,
        v_norm=True,
        rope_parameters=everywhere,
        attention_multiplier=1.0,
    )
    window = config.integer("sliding_window", default=512)
    return full, replace(full, sliding_window=window, rope_parameters=nearby)


def _mlps(config: Config, depth: int, act: Activation) -> list[MLP]:
    """Return each layer's MLP: widths and sparsities are one for all, or a list with one for each."""
    pairs = zip(_widths(config, depth), _sparsities(config, depth), strict=True)
    return [MLP(width, hidden_act=act, activation_sparsity=sparsity) for width, sparsity in pairs]


def _widths(config: Config, depth: int) -> list[int]:
    key = "intermediate_size"
    if not config.is_list(key):
        return [config.integer(key, default=16_384)] * depth
    found = config.integers(key)
    if len(found) != depth:
        config.refuse(key, f"has {len(found):,} entries for {depth:,} layers")
    return found


def _sparsities(config: Config, depth: int) -> list[float]:
    key = "activation_sparsity_pattern"
    given = config.list_as_given(key)
    if given is None:
        sparse = _SPARSE_LAYERS if depth > _SPARSE_LAYERS else 0
        return [_SPARSITY] * sparse + [0.0] * (depth - sparse)
    if len(given) != depth:
        config.refuse(key, f"has {len(given):,} entries for {depth:,} layers")
    found = [float(share) for share in given if isinstance(share, int | float) and 0 <= share < 1]
    if len(found) != depth:
        config.refuse(key, "expected shares from 0 to below 1")
    return found


def _per_layer_input(config: Config, act: Activation) -> PerLayerInput:
    return PerLayerInput(
        config.integer("hidden_size_per_layer_input", default=256),
        config.integer("vocab_size_per_layer_input", default=262_144),
        act,
    )


def _altup(config: Config) -> AltUp:
    config.harmless("altup_coef_clip")  # clips in training only
    return AltUp(
        altup_num_inputs=config.integer("altup_num_inputs", default=4),
        altup_active_idx=config.count("altup_active_idx", 0),
        altup_correct_scale=config.flag("altup_correct_scale", True),
        laurel_rank=config.integer("laurel_rank", default=64),
    )


FAMILIES: Families = {"gemma3n_text": gemma3n_text}
