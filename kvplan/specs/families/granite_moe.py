"""Granite mixtures: Granite's multipliers, experts in every layer, a shared one in some models."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.experts import Experts
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.sizes import Sizes


def granitemoe(config: Config, identity: Identity) -> Model:
    """Granite 3 mixtures: ``intermediate_size`` is the width of one expert, and shares sum to one."""
    return _granite(config, identity, shared_size=0)


def granitemoeshared(config: Config, identity: Identity) -> Model:
    """Granite mixtures with an expert that every token uses, where it has a width."""
    return _granite(config, identity, shared_size=config.count("shared_intermediate_size", 0))


def _granite(config: Config, identity: Identity, *, shared_size: int) -> Model:
    sizes = Sizes(
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
    ).read(config)
    bias = config.flag("attention_bias", False)
    mixer = replace(
        sizes.attention(config, qkv_bias=bias, out_bias=bias),
        attention_multiplier=config.number("attention_multiplier", default=1.0),
    )
    experts = Experts(
        num_experts=config.integer("num_local_experts", default=8),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=2),
        moe_intermediate_size=sizes.intermediate_size,
        shared_expert_intermediate_size=shared_size,
        hidden_act=activation(config),
    )
    return finished_model(
        config,
        identity,
        [Layer(mixer, experts)] * sizes.num_hidden_layers,
        tied=False,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        embedding_multiplier=config.number("embedding_multiplier", default=1.0),
        residual_multiplier=config.number("residual_multiplier", default=1.0),
        logits_multiplier=1 / config.number("logits_scaling", default=1.0),
    )


FAMILIES: Families = {
    "granitemoe": granitemoe,
    "granitemoeshared": granitemoeshared,
}
