"""OLMoE and FlexOlmo: experts in every layer, queries and keys normalised over all heads at once."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import QkNorm
from kvplan.arch.experts import Experts
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.sizes import Sizes


def olmoe(config: Config, identity: Identity) -> Model:
    """OLMoE: ``intermediate_size`` is the width of one expert; queries, keys and values may be clipped."""
    sizes = Sizes(
        vocab_size=50_304,
        hidden_size=2048,
        intermediate_size=2048,
        num_hidden_layers=16,
        num_attention_heads=16,
        max_position_embeddings=4096,
    ).read(config)
    bias = config.flag("attention_bias", False)
    mixer = replace(
        sizes.attention(config, qkv_bias=bias, out_bias=bias),
        qk_norm=QkNorm.PROJECTION,
        clip_qkv=config.optional_number("clip_qkv"),
    )
    layer = Layer(mixer, _experts(config, sizes, num_experts=64, num_experts_per_tok=8))
    return _model(config, identity, sizes, layer, eps=1e-5)


def flex_olmo(config: Config, identity: Identity) -> Model:
    """FlexOlmo: OLMo 2's norms behind attention and experts, which are OLMoE's."""
    sizes = Sizes(
        vocab_size=100_352,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=4096,
    ).read(config)
    bias, rotation = config.flag("attention_bias", False), RopeDefaults(rope_theta=500_000.0)
    mixer = replace(
        sizes.attention(config, rotation, qkv_bias=bias, out_bias=bias), qk_norm=QkNorm.PROJECTION
    )
    experts = _experts(config, sizes, num_experts=7, num_experts_per_tok=5)
    return _model(config, identity, sizes, Layer(mixer, experts, Block.POST_NORM), eps=1e-6)


def _experts(config: Config, sizes: Sizes, *, num_experts: int, num_experts_per_tok: int) -> Experts:
    return Experts(
        num_experts=config.integer("num_experts", "num_local_experts", default=num_experts),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=num_experts_per_tok),
        moe_intermediate_size=sizes.intermediate_size,
        hidden_act=activation(config),
        norm_topk_prob=config.flag("norm_topk_prob", False),
    )


def _model(config: Config, identity: Identity, sizes: Sizes, layer: Layer, *, eps: float) -> Model:
    return finished_model(
        config,
        identity,
        [layer] * sizes.num_hidden_layers,
        tied=False,
        eps=eps,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


FAMILIES: Families = {
    "flex_olmo": flex_olmo,
    "olmoe": olmoe,
}
