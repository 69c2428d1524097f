"""DeepSeek V2, V3 and V3.2, and Kimi K2 in V3's format: latent attention, experts after dense layers."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.experts import Experts, TopkMethod
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import Families, Identity, activation
from kvplan.specs.families.latent_parts import (
    INTERLEAVED,
    ExpertDefaults,
    LatentSizes,
    indexer,
    model_with_experts,
)
from kvplan.specs.families.rope import RopeDefaults

_V2 = LatentSizes(
    vocab_size=102_400,
    hidden_size=4096,
    intermediate_size=11_008,
    num_hidden_layers=32,
    num_attention_heads=32,
    max_position_embeddings=2048,
    kv_lora_rank=512,
    # Missing is not null: DeepSeek-V2-Lite says null for "none".
    q_lora_rank=1536,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
)
_V3 = LatentSizes(
    vocab_size=129_280,
    hidden_size=7168,
    intermediate_size=18_432,
    num_hidden_layers=61,
    num_attention_heads=128,
    max_position_embeddings=4096,
    kv_lora_rank=512,
    q_lora_rank=1536,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
)
_V32 = replace(_V3, max_position_embeddings=163_840)
_V3_EXPERTS = ExpertDefaults(
    n_routed_experts=256,
    num_experts_per_tok=8,
    moe_intermediate_size=2048,
    routed_scaling_factor=2.5,
    n_group=8,
    topk_group=4,
)


def deepseek_v2(config: Config, identity: Identity) -> Model:
    """DeepSeek V2: softmax routing without a correction bias, its scores as they are."""
    config.only("scoring_func", "softmax", "this family's router is a softmax")
    config.only("norm_topk_prob", False, "the chosen scores are not scaled to one in this family")
    config.only("rope_interleave", True, "neighbours are rotated together in this family")
    sizes, experts = _V2.read(config), _v2_groups(config, _v2_experts(config))
    mixers = [sizes.attention(config, INTERLEAVED)] * sizes.num_hidden_layers
    return model_with_experts(config, identity, sizes, mixers, experts, default_dense=0, eps=1e-6)


def _v2_experts(config: Config) -> Experts:
    """Return the experts; how many a token uses must be said, as the class's null runs nothing."""
    width = config.integer("moe_intermediate_size", default=1407)
    return Experts(
        num_experts=config.integer("n_routed_experts", "num_experts", default=64),
        num_experts_per_tok=config.integer("num_experts_per_tok"),
        moe_intermediate_size=width,
        shared_expert_intermediate_size=config.count("n_shared_experts", 2) * width,
        hidden_act=activation(config),
        norm_topk_prob=False,
        routed_scaling_factor=config.number("routed_scaling_factor", default=1.0),
    )


def _v2_groups(config: Config, experts: Experts) -> Experts:
    method = config.text("topk_method", default="greedy")
    if method == "greedy":
        config.harmless("n_group", "topk_group")
        return experts
    if method != "group_limited_greedy":
        meant = "greedy and group_limited_greedy are, in this family"
        config.refuse("topk_method", f"{shown(method)} is not understood ({meant})")
    return replace(
        experts,
        topk_method=TopkMethod.GROUP_LIMITED_GREEDY,
        n_group=config.integer("n_group", default=1),
        topk_group=config.integer("topk_group", default=1),
    )


def deepseek_v3(config: Config, identity: Identity) -> Model:
    """DeepSeek V3 and R1: sigmoid routing with a correction bias that is a buffer."""
    sizes, experts = _V3.read(config), _V3_EXPERTS.read(config)
    rotation = RopeDefaults(interleaved=config.flag("rope_interleave", True))
    mixers = [sizes.attention(config, rotation)] * sizes.num_hidden_layers
    return model_with_experts(config, identity, sizes, mixers, experts, default_dense=3, eps=1e-6)


def deepseek_v32(config: Config, identity: Identity) -> Model:
    """DeepSeek V3.2: V3 with an indexer in every layer, whose index heads are rotated in halves."""
    config.only("indexer_rope_interleave", False, "index heads are rotated in halves in this family")
    config.only("rope_interleave", True, "neighbours are rotated together in this family")
    sizes, experts = _V32.read(config), _V3_EXPERTS.read(config)
    mixer = replace(
        sizes.attention(config, INTERLEAVED), indexer=indexer(config, default_heads=64, interleaved=False)
    )
    mixers = [mixer] * sizes.num_hidden_layers
    return model_with_experts(config, identity, sizes, mixers, experts, default_dense=3, eps=1e-6)


FAMILIES: Families = {
    "deepseek_v2": deepseek_v2,
    "deepseek_v3": deepseek_v3,
    "deepseek_v32": deepseek_v32,
    "kimi_k2": deepseek_v3,
}
