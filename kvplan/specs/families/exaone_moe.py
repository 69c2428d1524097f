"""K-EXAONE: EXAONE 4's attention behind norms, and DeepSeek-V3's experts after dense first layers."""

from __future__ import annotations

from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model, prediction_layers
from kvplan.specs.families.exaone import exaone4_attention
from kvplan.specs.families.routed import sparse_layers
from kvplan.specs.families.sizes import Sizes


def exaone_moe(config: Config, identity: Identity) -> Model:
    """K-EXAONE: experts from ``first_k_dense_replace`` on, unless ``mlp_layer_types`` says otherwise."""
    sizes = Sizes(
        vocab_size=102_400,
        hidden_size=4096,
        intermediate_size=16_384,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
        num_key_value_heads=32,
    ).read(config)
    depth, dense = sizes.num_hidden_layers, sizes.gated_mlp(config)
    experts, first = _experts(config, dense), config.count("first_k_dense_replace", 1)
    routed = sparse_layers(config, depth, [index >= first for index in range(depth)])
    if config.list_as_given("is_moe_layer") not in (None, routed):
        config.refuse("is_moe_layer", "contradicts which layers have experts")
    mixers = exaone4_attention(config, sizes)
    return finished_model(
        config,
        identity,
        [Layer(mixer, experts if sparse else dense) for mixer, sparse in zip(mixers, routed, strict=True)],
        tied=False,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        num_nextn_predict_layers=prediction_layers(config),
    )


def _experts(config: Config, dense: MLP) -> Experts:
    config.only("scoring_func", "sigmoid", "this family's router is a sigmoid")
    config.only("topk_method", "noaux_tc", "experts are chosen with the correction bias in this family")
    width = config.integer("moe_intermediate_size", default=1024)
    return Experts(
        num_experts=config.integer("num_experts", default=64),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=8),
        moe_intermediate_size=width,
        shared_expert_intermediate_size=config.count("num_shared_experts", 1) * width,
        router_bias_buffer=True,
        hidden_act=dense.hidden_act,
        scoring_func=Scoring.SIGMOID,
        topk_method=TopkMethod.NOAUX_TC,
        n_group=config.integer("n_group", default=1),
        topk_group=config.integer("topk_group", default=1),
        norm_topk_prob=config.flag("norm_topk_prob", True),
        routed_scaling_factor=config.number("routed_scaling_factor", default=2.5),
    )


FAMILIES: Families = {"exaone_moe": exaone_moe}
