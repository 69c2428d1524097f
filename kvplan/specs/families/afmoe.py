"""AFMoE (Arcee Trinity): gated attention, windows that rotate beside full layers that do not, experts."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import OutputGate, QkNorm
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model, windowed_layers
from kvplan.specs.families.sizes import Sizes


def afmoe(config: Config, identity: Identity) -> Model:
    """AFMoE: dense first layers, then experts and shared ones; a norm before and behind each part."""
    sizes = Sizes(
        vocab_size=200_192,
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=32,
        num_attention_heads=16,
        max_position_embeddings=16_384,
        head_dim=128,
    ).read(config)
    depth, bias = sizes.num_hidden_layers, config.flag("attention_bias", False)
    sliding = replace(
        sizes.attention(config, qkv_bias=bias, out_bias=bias),
        qk_norm=QkNorm.HEAD,
        output_gate=OutputGate.ELEMENT,
        sliding_window=config.integer("sliding_window", default=1024),
    )
    full = replace(sliding, sliding_window=None, rope_parameters=None)
    dense = sizes.gated_mlp(config)
    experts, first = _experts(config, dense), config.count("num_dense_layers", 1)
    pattern = config.integer("global_attn_every_n_layers", default=4)
    slides = windowed_layers(config, depth) or [(index + 1) % pattern != 0 for index in range(depth)]
    layers = [
        Layer(sliding if slide else full, dense if index < first else experts, Block.SANDWICH)
        for index, slide in enumerate(slides)
    ]
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        embedding_multiplier=sizes.hidden_size**0.5 if config.flag("mup_enabled", False) else 1.0,
    )


def _experts(config: Config, dense: MLP) -> Experts:
    config.only("score_func", "sigmoid", "this family's router is a sigmoid")
    config.only("route_norm", True, "shares sum to one in this family")
    for key in ("n_group", "topk_group", "num_expert_groups", "num_limited_groups"):
        config.only(key, 1, "experts are chosen among all in this family")
    config.harmless("load_balance_coeff", "use_grouped_mm")
    width = config.integer("moe_intermediate_size", default=1408)
    return Experts(
        num_experts=config.integer("num_experts", default=64),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=6),
        moe_intermediate_size=width,
        shared_expert_intermediate_size=config.count("num_shared_experts", 2) * width,
        router_bias_parameter=True,
        hidden_act=dense.hidden_act,
        scoring_func=Scoring.SIGMOID,
        topk_method=TopkMethod.NOAUX_TC,
        routed_scaling_factor=config.number("route_scale", default=1.0),
    )


FAMILIES: Families = {"afmoe": afmoe}
