"""Gemma 4: wide heads in full layers, shared caches, per-layer embeddings, experts beside a dense block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.experts import Experts
from kvplan.arch.layer import FeedForward, Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.arch.per_layer_input import PerLayerInput
from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model, windowed_layers
from kvplan.specs.families.rope import RopeDefaults, rope_from


def gemma4_text(config: Config, identity: Identity) -> Model:
    """Gemma 4's language model; keys equal to the class default are left out of released files."""
    depth = config.depth("num_hidden_layers", default=30)
    slides = _slides(config, depth)
    shared = config.count("num_kv_shared_layers", 0)
    if shared and not set(slides[depth - shared :]) <= set(slides[: depth - shared]):
        config.refuse("num_kv_shared_layers", f"{shared} layers share what no layer before them stores")
    act = activation(config, "hidden_activation", Activation.GELU_TANH)
    full, sliding = _attentions(config, slides)
    dense, wide, given = _feed_forwards(config, act), _shared_mlp(config, act), _per_layer_input(config, act)
    layers = [
        Layer(
            replace(sliding if slide else full, shares_kv=index >= depth - shared),
            wide if wide is not None and index >= depth - shared else dense,
            Block.SANDWICH,
            per_layer_input=given,
            output_scale=True,
        )
        for index, slide in enumerate(slides)
    ]
    return finished_model(
        config,
        identity,
        layers,
        tied=True,
        hidden_size=_hidden_size(config),
        vocab_size=config.integer("vocab_size", default=262_144),
        max_position_embeddings=_longest(config),
        embedding_multiplier=sqrt(_hidden_size(config)),
        final_logit_softcapping=config.optional_number("final_logit_softcapping"),
        per_layer_input=given,
    )


def _hidden_size(config: Config) -> int:
    return config.integer("hidden_size", default=2304)


def _longest(config: Config) -> int:
    return config.integer("max_position_embeddings", default=131_072)


def _slides(config: Config, depth: int) -> list[bool]:
    """Return which layers slide; the last one never does, whatever the file says."""
    slides = windowed_layers(config, depth) or [(index + 1) % 6 != 0 for index in range(depth)]
    return [*slides[:-1], False]


def _attentions(config: Config, slides: Sequence[bool]) -> tuple[Attention, Attention]:
    """Return the attention of full and of sliding layers: full ones have heads of their own width."""
    if config.text("use_bidirectional_attention", default="vision") != "vision":
        config.refuse("use_bidirectional_attention", "tokens that see later ones are not understood")
    bias, equal = config.flag("attention_bias", False), config.flag("attention_k_eq_v", False)
    everywhere, nearby = _ropes(config)
    kv_heads = config.integer("num_key_value_heads", default=4)
    wide, wide_heads = _heads_of_full_layers(config, slides, equal=equal)
    sliding = Attention(
        num_attention_heads=config.integer("num_attention_heads", default=8),
        num_key_value_heads=kv_heads,
        head_dim=config.integer("head_dim", default=256),
        sliding_window=config.integer("sliding_window", default=512),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=QkNorm.HEAD,
        v_norm=True,
        rope_parameters=nearby,
        attention_multiplier=1.0,
    )
    full = replace(
        sliding,
        head_dim=wide,
        num_key_value_heads=wide_heads or kv_heads,
        sliding_window=None,
        k_eq_v=equal,
        rope_parameters=everywhere,
    )
    return full, sliding


def _heads_of_full_layers(config: Config, slides: Sequence[bool], *, equal: bool) -> tuple[int, int | None]:
    """Return their width, and how many hold keys where that differs from sliding layers.

    transformers 5 saves both layer by layer, under numbers such as ``05``.
    """
    if not config.has("per_layer_config"):
        heads = config.optional_integer("num_global_key_value_heads")
        return config.integer("global_head_dim", default=512), heads if equal else None
    listed = config.inner("per_layer_config")
    full = [index for index, slide in enumerate(slides) if not slide]
    names = [f"{index:0{len(str(len(slides) - 1))}d}" for index in full]
    found = set()
    for name in names:
        layer = listed.inner(name)
        found.add((layer.integer("head_dim"), layer.optional_integer("num_key_value_heads")))
        layer.finish()
    listed.finish()
    if len(found) != 1:
        config.refuse("per_layer_config", "full layers that differ from each other are not understood")
    return found.pop()


def _ropes(config: Config) -> tuple[RopeParameters, RopeParameters]:
    """Return the rotations of full and of sliding layers."""
    longest, by_kind = _longest(config), config.optional_inner("rope_parameters")
    if by_kind is None:
        turned = RopeParameters(1_000_000.0, RopeType.PROPORTIONAL, partial_rotary_factor=0.25)
        return turned, RopeParameters(10_000.0)
    full, sliding = by_kind.inner("full_attention"), by_kind.inner("sliding_attention")
    by_kind.finish()
    return (
        rope_from(config, full, longest, RopeDefaults(partial_rotary_factor=1.0)),
        rope_from(config, sliding, longest, RopeDefaults(partial_rotary_factor=1.0)),
    )


def _feed_forwards(config: Config, act: Activation) -> FeedForward:
    """Return the block of layers with a cache of their own: dense, or experts beside a dense block."""
    width = _width(config)
    if not config.flag("enable_moe_block", False):
        config.harmless("num_experts", "top_k_experts", "moe_intermediate_size", "expert_intermediate_size")
        return MLP(width, hidden_act=act)
    config.harmless("expert_intermediate_size")
    return Experts(
        num_experts=config.integer("num_experts"),
        num_experts_per_tok=config.integer("top_k_experts"),
        moe_intermediate_size=config.integer("moe_intermediate_size"),
        shared_expert_intermediate_size=width,
        hidden_act=act,
        own_norms=True,
    )


def _shared_mlp(config: Config, act: Activation) -> MLP | None:
    """Return the block of layers that share a cache, where it is another: twice as wide."""
    if not config.flag("use_double_wide_mlp", False):
        return None
    if config.flag("enable_moe_block", False) and config.count("num_kv_shared_layers", 0):
        config.refuse("use_double_wide_mlp", "is not understood beside experts")
    return MLP(2 * _width(config), hidden_act=act)


def _width(config: Config) -> int:
    return config.integer("intermediate_size", default=9216)


def _per_layer_input(config: Config, act: Activation) -> PerLayerInput | None:
    size = config.count("hidden_size_per_layer_input", 256)
    rows = config.integer("vocab_size_per_layer_input", default=262_144)
    return PerLayerInput(size, rows, act) if size else None


FAMILIES: Families = {"gemma4_text": gemma4_text}
