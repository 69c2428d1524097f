"""MiniMax-M3: attention over chosen blocks of tokens behind dense first layers, and bounded SwiGLUs.

Rules and class defaults from transformers 5.23, models/minimax_m3_vl.
"""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.block_indexer import BlockIndexer
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.swiglu import Swiglu
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.routed import ones_in, sparse_layers
from kvplan.specs.families.sizes import Sizes

_SPARSE = "minimax_m3_sparse"


def minimax_m3(config: Config, identity: Identity) -> Model:
    """MiniMax-M3's language model, as the flat files of ``minimax_m3`` have it or a wrapper's text_config.

    Next-token-prediction modules (``num_mtp_modules``) are not part of the main model.
    """
    config.harmless("num_mtp_modules", "num_nextn_predict_layers")
    config.only("use_gemma_norm", True, "norms store the distance from one in this family")
    config.only("use_qk_norm", True, "queries and keys are normalised in this family")
    config.only("qk_norm_type", "per_head", "each head is normalised by itself in this family")
    config.only("attention_output_gate", False, "what heads give has no gate in this family")
    sizes = Sizes(
        vocab_size=200_064,
        hidden_size=6144,
        intermediate_size=3072,
        num_hidden_layers=60,
        num_attention_heads=64,
        max_position_embeddings=524_288,
        num_key_value_heads=4,
        head_dim=128,
    ).read(config)
    swiglu = _swiglu(config)
    dense = MLP(config.integer("dense_intermediate_size", default=12_288), swiglu=swiglu)
    experts = _experts(config, sizes.intermediate_size, swiglu)
    with_experts = _with_experts(config, sizes.num_hidden_layers)
    layers = [
        Layer(mixer, experts if has_experts else dense)
        for mixer, has_experts in zip(_mixers(config, sizes), with_experts, strict=True)
    ]
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        norm=Norm.RMS_UNIT_OFFSET,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def _mixers(config: Config, sizes: Sizes) -> list[Attention]:
    """Return each layer's attention: over chosen blocks where ``layer_types`` or the older list says so."""
    depth, older = sizes.num_hidden_layers, config.inner_or("sparse_attention_config", {})
    by_frequency = ones_in(older, "sparse_attention_freq", depth) or [False] * depth
    types = config.texts("layer_types", depth, ("full_attention", _SPARSE))
    sparse = by_frequency if types is None else [kind == _SPARSE for kind in types]
    indexer = _indexer(config, older)
    _refuse_index_values(older, sparse)
    older.finish()
    rotation = RopeDefaults(rope_theta=5_000_000.0, partial_rotary_factor=1.0)
    mixer = replace(sizes.attention(config, rotation), qk_norm=QkNorm.HEAD)
    _require_rotated(config, mixer)
    return [replace(mixer, indexer=indexer) if chooses else mixer for chooses in sparse]


def _indexer(config: Config, older: Config) -> BlockIndexer:
    """Return the indexer; what the older mapping says goes before the newer keys, as in the class."""
    older.only("use_sparse_attention", True, "layers that choose blocks are listed in this family")
    older.only("sparse_score_type", "max", "a block's score is its best key's in this family")
    older.only("sparse_init_block", 0, "first blocks are chosen by their scores in this family")
    defaults = {
        ("sparse_num_index_heads", "index_n_heads"): 4,
        ("sparse_index_dim", "index_head_dim"): 128,
        ("sparse_block_size", "index_block_size"): 128,
        ("sparse_topk_blocks", "index_topk_blocks"): 16,
        ("sparse_local_block", "index_local_blocks"): 1,
    }
    found = [
        older.integer(name, default=config.integer(newer, default=value))
        for (name, newer), value in defaults.items()
    ]
    return BlockIndexer(*found)


def _refuse_index_values(older: Config, sparse: list[bool]) -> None:
    """Refuse layers whose indexer adds values of its own to what attention gives."""
    without = ones_in(older, "sparse_disable_index_value", len(sparse)) or [True] * len(sparse)
    if any(chooses and not disabled for chooses, disabled in zip(sparse, without, strict=True)):
        older.refuse("sparse_disable_index_value", "0 is not understood: an indexer here has no values")


def _require_rotated(config: Config, mixer: Attention) -> None:
    """Refuse a ``rotary_dim`` other than the rotated share, which is what the class goes by."""
    assert mixer.rope_parameters is not None
    rotated, said = mixer.rope_parameters.rotated(mixer.head_dim), config.optional_integer("rotary_dim")
    if said not in (None, rotated):
        meaning = f"partial_rotary_factor says {rotated}, or without one the whole head"
        config.refuse("rotary_dim", f"{said} contradicts the rotated share: {meaning}")


def _with_experts(config: Config, depth: int) -> list[bool]:
    """Return which layers have experts: those listed, or all."""
    found = sparse_layers(config, depth, ones_in(config, "moe_layer_freq", depth) or [True] * depth)
    first = found.index(True) if True in found else depth
    config.only("first_k_dense_replace", first, f"the lists of layers say {first}")
    return found


def _experts(config: Config, width: int, swiglu: Swiglu) -> Experts:
    config.only("scoring_func", "sigmoid", "this family's router is a sigmoid")
    config.only("use_routing_bias", True, "experts are chosen with the correction bias in this family")
    config.only("n_shared_experts", 1, "there is one shared expert in this family")
    config.only("moe_intermediate_size", width, "a routed expert is as wide as intermediate_size says")
    return Experts(
        num_experts=config.integer("num_local_experts", "num_experts", default=128),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=4),
        moe_intermediate_size=width,
        shared_expert_intermediate_size=config.integer("shared_intermediate_size", default=3072),
        router_bias_buffer=True,
        swiglu=swiglu,
        shared_swiglu=swiglu,
        scoring_func=Scoring.SIGMOID,
        topk_method=TopkMethod.NOAUX_TC,
        routed_scaling_factor=config.number("routed_scaling_factor", default=2.0),
    )


def _swiglu(config: Config) -> Swiglu:
    """Return the bounded SwiGLU, which the class computes whichever of its names a file gives it."""
    name = config.text("hidden_act", default="swigluoai")
    if name not in ("swigluoai", "silu"):
        config.refuse("hidden_act", f"{shown(name)} is not understood: swigluoai is, in this family")
    alpha = config.number("swiglu_alpha", default=1.702)
    return Swiglu(config.number("swiglu_limit", default=7.0), alpha, up_offset=1.0)


FAMILIES: Families = {"minimax_m3": minimax_m3, "minimax_m3_vl_text": minimax_m3}
