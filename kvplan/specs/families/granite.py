"""Granite, HyperCLOVA X and MiniCPM: Llama with multipliers of embeddings, residuals, scores and logits."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.llama import attention, gated_mlp
from kvplan.specs.families.sizes import Sizes

_SIZES = Sizes(
    vocab_size=32_000,
    hidden_size=4096,
    intermediate_size=11_008,
    num_hidden_layers=32,
    num_attention_heads=32,
    max_position_embeddings=2048,
)


def granite(config: Config, identity: Identity) -> Model:
    """Granite 3: each multiplier is 1 where the file does not say, that of the scores too."""
    scores = config.number("attention_multiplier", default=1.0)
    logits = 1 / config.number("logits_scaling", default=1.0)
    return _scaled(config, identity, Block.PRE_NORM, scores, logits)


def hyperclovax(config: Config, identity: Identity) -> Model:
    """HyperCLOVA X: Granite whose logits are multiplied, with a norm behind each part unless switched off."""
    block = Block.SANDWICH if config.flag("use_post_norm", True) else Block.PRE_NORM
    scores, logits = (
        config.optional_number("attention_multiplier"),
        config.number("logits_scaling", default=1.0),
    )
    return _scaled(config, identity, block, scores, logits)


def _scaled(config: Config, identity: Identity, block: Block, scores: float | None, logits: float) -> Model:
    sizes, bias = _SIZES.read(config), config.flag("attention_bias", False)
    mixer = replace(
        sizes.attention(config, qkv_bias=bias, out_bias=bias),
        attention_multiplier=scores,
    )
    mlp = sizes.gated_mlp(config, bias=config.flag("mlp_bias", False))
    return finished_model(
        config,
        identity,
        [Layer(mixer, mlp, block)] * sizes.num_hidden_layers,
        tied=False,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
        embedding_multiplier=config.number("embedding_multiplier", default=1.0),
        residual_multiplier=config.number("residual_multiplier", default=1.0),
        logits_multiplier=logits,
    )


def minicpm(config: Config, identity: Identity) -> Model:
    """MiniCPM 1, 2 and 4 (remote code): scaled as a model ``dim_model_base`` wide; tied by default."""
    depth, hidden = config.depth("num_hidden_layers", default=32), config.integer("hidden_size")
    if config.count("num_experts", 0):
        config.refuse("num_experts", "experts are not understood in this family")
    config.only("sparse_config", None, "attention over chosen blocks is not known here")
    # MiniCPM 4 says what its residuals were scaled by in training; scale_depth is what it computes.
    config.harmless("mup_denominator")
    bias = config.flag("attention_bias", False)
    layer = Layer(attention(config, qkv_bias=bias, out_bias=bias), gated_mlp(config))
    return finished_model(
        config,
        identity,
        [layer] * depth,
        tied=True,
        embedding_multiplier=config.number("scale_emb", default=1.0),
        residual_multiplier=config.number("scale_depth", default=1.0) / depth**0.5,
        logits_multiplier=config.number("dim_model_base", default=1.0) / hidden,
    )


FAMILIES: Families = {
    "granite": granite,
    "hyperclovax": hyperclovax,
    "minicpm": minicpm,
}
