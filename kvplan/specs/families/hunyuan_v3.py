"""Hunyuan 3: normalised queries and keys, experts chosen by sigmoid scores and a correction bias."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import QkNorm
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model, prediction_layers
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.routed import sparse_layers
from kvplan.specs.families.sizes import Sizes


def hy_v3(config: Config, identity: Identity) -> Model:
    """Hunyuan 3: experts in all layers but the first, unless ``mlp_layer_types`` says otherwise."""
    sizes = Sizes(
        vocab_size=120_832,
        hidden_size=4096,
        intermediate_size=13_312,
        num_hidden_layers=80,
        num_attention_heads=64,
        max_position_embeddings=131_072,
        num_key_value_heads=8,
        head_dim=128,
    ).read(config)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    rotation = RopeDefaults(rope_theta=11_158_840.0)
    mixer = replace(sizes.attention(config, rotation, qkv_bias=bias, out_bias=bias), qk_norm=QkNorm.HEAD)
    dense = sizes.gated_mlp(config, bias=mlp_bias)
    width = config.integer("moe_intermediate_size", default=1536)
    # Whether shared and routed experts are added up in single precision.
    config.harmless("enable_moe_fp32_combine")
    experts = Experts(
        num_experts=config.integer("num_experts", "num_local_experts", default=192),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=8),
        moe_intermediate_size=width,
        shared_expert_intermediate_size=config.count("num_shared_experts", 1) * width,
        router_bias_buffer=True,
        mlp_bias=mlp_bias,
        hidden_act=dense.hidden_act,
        scoring_func=Scoring.SIGMOID,
        topk_method=TopkMethod.NOAUX_TC,
        routed_scaling_factor=config.number("router_scaling_factor", default=2.826),
    )
    depth = sizes.num_hidden_layers
    routed = sparse_layers(config, depth, [index > 0 for index in range(depth)])
    return finished_model(
        config,
        identity,
        [Layer(mixer, experts if sparse else dense) for sparse in routed],
        tied=False,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        num_nextn_predict_layers=prediction_layers(config),
    )


FAMILIES: Families = {"hy_v3": hy_v3}
