"""MiniMax-M2: queries and keys normalised over all heads at once, experts in every layer."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import QkNorm
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.routed import ones_in
from kvplan.specs.families.sizes import Sizes


def minimax_m2(config: Config, identity: Identity) -> Model:
    """MiniMax-M2: ``rotary_dim`` elements of a head are rotated, all of them where the file does not say.

    Next-token-prediction modules (``num_mtp_modules``) are not part of the main model.
    """
    config.harmless("use_mtp", "mtp_transformer_layers", "num_mtp_modules")
    config.only("use_qk_norm", True, "queries and keys are normalised in this family")
    config.only("qk_norm_type", "per_layer", "all heads are normalised at once in this family")
    config.only("scoring_func", "sigmoid", "this family's router is a sigmoid")
    config.only("use_routing_bias", True, "experts are chosen with the correction bias in this family")
    config.only("shared_intermediate_size", 0, "this family has no shared expert")
    sizes = Sizes(
        vocab_size=200_064,
        hidden_size=3072,
        intermediate_size=1536,
        num_hidden_layers=62,
        num_attention_heads=48,
        max_position_embeddings=196_608,
        num_key_value_heads=8,
        head_dim=128,
    ).read(config)
    _refuse_other_attention(config, sizes.num_hidden_layers)
    experts = Experts(
        num_experts=config.integer("num_local_experts", "num_experts", default=256),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=8),
        moe_intermediate_size=sizes.intermediate_size,
        router_bias_buffer=True,
        hidden_act=activation(config),
        scoring_func=Scoring.SIGMOID,
        topk_method=TopkMethod.NOAUX_TC,
    )
    mixer = replace(sizes.attention(config, _rotation(config, sizes)), qk_norm=QkNorm.PROJECTION)
    return finished_model(
        config,
        identity,
        [Layer(mixer, experts)] * sizes.num_hidden_layers,
        tied=False,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def _refuse_other_attention(config: Config, depth: int) -> None:
    """Refuse layers that ``attn_type_list`` does not mark with a 1: softmax attention over every token."""
    full = ones_in(config, "attn_type_list", depth)
    if full is not None and not all(full):
        config.refuse("attn_type_list", "0 is not understood: every layer has full attention in this family")


def _rotation(config: Config, sizes: Sizes) -> RopeDefaults:
    assert sizes.head_dim is not None
    rotated = config.integer("rotary_dim", default=sizes.head_dim)
    return RopeDefaults(rope_theta=5_000_000.0, partial_rotary_factor=rotated / sizes.head_dim)


FAMILIES: Families = {"minimax_m2": minimax_m2}
