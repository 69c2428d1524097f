"""Families with latent attention beside DeepSeek's own: GLM-5, GLM-4.7-Flash and MiniCPM3."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.latent_parts import (
    INTERLEAVED,
    ExpertDefaults,
    LatentSizes,
    indexer,
    model_with_experts,
)
from kvplan.specs.families.rope import RopeDefaults

_INDEXERS = {"full": False, "shared": True}

_GLM_5 = LatentSizes(
    vocab_size=154_880,
    hidden_size=6144,
    intermediate_size=12_288,
    num_hidden_layers=78,
    num_attention_heads=64,
    max_position_embeddings=202_752,
    kv_lora_rank=512,
    q_lora_rank=2048,
    qk_nope_head_dim=192,
    qk_rope_head_dim=64,
    v_head_dim=256,
)
_GLM_5_EXPERTS = ExpertDefaults(
    n_routed_experts=256,
    num_experts_per_tok=8,
    moe_intermediate_size=2048,
    routed_scaling_factor=2.5,
    n_group=1,
    topk_group=1,
)
_GLM_4_7_FLASH = LatentSizes(
    vocab_size=154_880,
    hidden_size=2048,
    intermediate_size=10_240,
    num_hidden_layers=47,
    num_attention_heads=20,
    max_position_embeddings=202_752,
    kv_lora_rank=512,
    q_lora_rank=768,
    qk_nope_head_dim=192,
    qk_rope_head_dim=64,
    v_head_dim=256,
)
_GLM_4_7_FLASH_EXPERTS = ExpertDefaults(
    n_routed_experts=64,
    num_experts_per_tok=4,
    moe_intermediate_size=1536,
    routed_scaling_factor=1.8,
    n_group=1,
    topk_group=1,
)
_MINICPM3 = LatentSizes(
    vocab_size=73_448,
    hidden_size=2560,
    intermediate_size=6400,
    num_hidden_layers=62,
    num_attention_heads=40,
    max_position_embeddings=32_768,
    kv_lora_rank=256,
    q_lora_rank=768,
    qk_nope_head_dim=64,
    qk_rope_head_dim=32,
    v_head_dim=None,
)


def glm_moe_dsa(config: Config, identity: Identity) -> Model:
    """GLM-5: an indexer in every layer, or in some of them whose choice the next layers share."""
    meant = "neighbours are rotated together in this family's index heads"
    config.only("indexer_rope_interleave", True, meant)
    config.only("rope_interleave", True, "neighbours are rotated together in this family")
    config.harmless("index_share_for_mtp_iteration", "moe_router_dtype")
    sizes, experts = _GLM_5.read(config), _GLM_5_EXPERTS.read(config)
    own = indexer(config, default_heads=32, interleaved=True)
    mixer = sizes.attention(config, INTERLEAVED)
    mixers = [
        replace(mixer, indexer=replace(own, shared=shared))
        for shared in _shared(config, sizes.num_hidden_layers)
    ]
    return model_with_experts(config, identity, sizes, mixers, experts, default_dense=3, eps=1e-5)


def _shared(config: Config, depth: int) -> list[bool]:
    """Return which layers take the choice of one before them.

    ``indexer_types`` says it, or a pattern of F and S, or how often there is an indexer and from where on
    (transformers 5.23, configuration_glm_moe_dsa.py).
    """
    types = config.texts("indexer_types", depth, tuple(_INDEXERS))
    if types is not None:
        config.harmless("index_topk_pattern", "index_topk_freq", "index_skip_topk_offset")
        return [_INDEXERS[kind] for kind in types]
    pattern = config.text("index_topk_pattern")
    every = config.count("index_topk_freq", 1) or 1
    offset = config.count("index_skip_topk_offset", 2)
    if not pattern:
        return [max(index - offset + 1, 0) % every != 0 for index in range(depth)]
    if len(pattern) != depth or not set(pattern) <= {"F", "S"}:
        config.refuse("index_topk_pattern", f"expected {depth} letters F and S, not {shown(pattern)}")
    return [letter == "S" for letter in pattern]


def glm4_moe_lite(config: Config, identity: Identity) -> Model:
    """GLM-4.7-Flash: DeepSeek-V3's attention and experts, without groups of experts by default."""
    sizes, experts = _GLM_4_7_FLASH.read(config), _GLM_4_7_FLASH_EXPERTS.read(config)
    rotation = RopeDefaults(interleaved=config.flag("rope_interleave", True))
    mixers = [sizes.attention(config, rotation)] * sizes.num_hidden_layers
    return model_with_experts(config, identity, sizes, mixers, experts, default_dense=1, eps=1e-5)


def minicpm3(config: Config, identity: Identity) -> Model:
    """MiniCPM3: embeddings, residual sums and logits scaled so that widths and depths train alike."""
    sizes = _MINICPM3.read(config)
    mlp = MLP(sizes.intermediate_size, mlp_bias=config.flag("mlp_bias", False), hidden_act=activation(config))
    layer = Layer(sizes.attention(config, RopeDefaults()), mlp)
    depth, hidden = sizes.num_hidden_layers, sizes.hidden_size
    scale_depth = config.optional_number("scale_depth", default=1.4)
    base = config.optional_integer("dim_model_base", default=256)
    return finished_model(
        config,
        identity,
        [layer] * depth,
        tied=True,
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        embedding_multiplier=config.number("scale_emb", default=12.0),
        residual_multiplier=1.0 if scale_depth is None else scale_depth / sqrt(depth),
        logits_multiplier=1.0 if base is None else base / hidden,
    )


FAMILIES: Families = {
    "glm4_moe_lite": glm4_moe_lite,
    "glm_moe_dsa": glm_moe_dsa,
    "minicpm3": minicpm3,
}
