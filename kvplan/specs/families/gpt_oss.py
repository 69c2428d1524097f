"""gpt-oss: windows in every other layer, attention sinks, experts with biases."""

from __future__ import annotations

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Identity, finished_model, windowed_layers


def gpt_oss(config: Config, identity: Identity) -> Model:
    """gpt-oss: layers 0, 2, 4... slide over 128 tokens where the file does not say otherwise."""
    depth = config.depth("num_hidden_layers")
    slides = windowed_layers(config, depth) or [index % 2 == 0 for index in range(depth)]
    window = config.optional_integer("sliding_window", default=128)
    experts = Experts(
        num_experts=config.integer("num_local_experts"),
        num_experts_per_tok=config.integer("num_experts_per_tok", "experts_per_token"),
        moe_intermediate_size=config.integer("intermediate_size"),
        router_bias=True,
        expert_bias=True,
    )
    layers = [Layer(_attention(config, window if slide else None), experts) for slide in slides]
    return finished_model(config, identity, layers, tied=False)


def _attention(config: Config, window: int | None) -> Attention:
    bias = config.flag("attention_bias", True)
    return Attention(
        num_attention_heads=config.integer("num_attention_heads"),
        num_key_value_heads=config.integer("num_key_value_heads"),
        head_dim=config.integer("head_dim", default=64),
        sliding_window=window,
        qkv_bias=bias,
        out_bias=bias,
        sinks=True,
    )
