"""Qwen 3.5's language models: gated delta nets and gated attention, dense or with experts."""

from __future__ import annotations

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.layer import FeedForward, Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model, prediction_layers
from kvplan.specs.families.qwen3_next import QUARTER, gated_attention, mixers_in_turn, silu
from kvplan.specs.families.rope import rope_from

_LONGEST, _VOCABULARY = 32_768, 248_320


def qwen3_5_text(config: Config, identity: Identity) -> Model:
    """Qwen 3.5 dense."""
    mlp = MLP(config.integer("intermediate_size", default=12_288), hidden_act=silu(config))
    return _model(config, identity, mlp, depth=32, kv_heads=4, hidden_size=4096)


def qwen3_5_moe_text(config: Config, identity: Identity) -> Model:
    """Qwen 3.5 with experts in every layer, and one that every token uses behind a gate."""
    config.harmless("intermediate_size")  # no layer is dense
    config.only("decoder_sparse_step", 1, "every layer has experts in this family")
    config.only("norm_topk_prob", True, "the chosen scores are scaled to one in this family")
    experts = Experts(
        num_experts=config.integer("num_experts", default=256),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=8),
        moe_intermediate_size=config.integer("moe_intermediate_size", default=512),
        shared_expert_intermediate_size=config.integer("shared_expert_intermediate_size", default=512),
        shared_expert_gate=True,
        hidden_act=silu(config),
    )
    return _model(config, identity, experts, depth=40, kv_heads=2, hidden_size=2048)


def _model(
    config: Config, identity: Identity, mlp: FeedForward, *, depth: int, kv_heads: int, hidden_size: int
) -> Model:
    """Return the model; ``depth``, ``kv_heads`` and ``hidden_size`` are the class's own."""
    config.only("mlp_only_layers", [], "every layer is alike in this family")
    config.only("attn_output_gate", True, "attention's output is gated in this family")
    config.only("mtp_use_dedicated_embeddings", False, "prediction layers share the model's embedding")
    longest = config.integer("max_position_embeddings", default=_LONGEST)
    attends = _attention(config, kv_heads, longest)
    mixers = mixers_in_turn(config, config.depth("num_hidden_layers", default=depth), attends)
    return finished_model(
        config,
        identity,
        [Layer(mixer, mlp) for mixer in mixers],
        tied=False,
        norm=Norm.RMS_UNIT_OFFSET,
        hidden_size=config.integer("hidden_size", default=hidden_size),
        vocab_size=config.integer("vocab_size", default=_VOCABULARY),
        max_position_embeddings=longest,
        num_nextn_predict_layers=prediction_layers(config),
    )


def _attention(config: Config, kv_heads: int, longest: int) -> Attention:
    given = config.optional_inner("rope_scaling", "rope_parameters")
    if given is not None:
        # Where images are: all positions of a text are alike.
        given.harmless("mrope_section", "mrope_interleaved")
    return gated_attention(config, kv_heads, rope_from(config, given, longest, QUARTER))


FAMILIES: Families = {
    "qwen3_5_text": qwen3_5_text,
    "qwen3_5_moe_text": qwen3_5_moe_text,
}
