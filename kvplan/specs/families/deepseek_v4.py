"""DeepSeek V4: a window and compressed entries, hyper-connections, and experts that a table names.

Rules from transformers 5.23, configuration_deepseek_v4.py, which takes older keys and newer ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.entry_indexer import EntryIndexer
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.hyper_connections import HyperConnections
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.arch.swiglu import Swiglu
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.rope import RopeDefaults, rope_from

_SLIDING, _SPARSE, _HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
_BY_RATIO = {0: _SLIDING, 4: _SPARSE, 128: _HEAVY}
_HASHED, _ROUTED = "hash_moe", "moe"
_SCORING = {scoring.value: scoring for scoring in Scoring}
_LONGEST = 1_048_576


@dataclass(frozen=True, slots=True)
class _Rotation:
    """A rotation, and how many elements at the end of a head it turns."""

    parameters: RopeParameters
    elements: int


def deepseek_v4(config: Config, identity: Identity) -> Model:
    """DeepSeek V4 Flash and Pro, and their quantised releases."""
    depth = config.depth("num_hidden_layers", default=43)
    vocabulary = config.integer("vocab_size", default=129_280)
    streams = HyperConnections(
        hc_mult=config.integer("hc_mult", default=4),
        hc_sinkhorn_iters=config.integer("hc_sinkhorn_iters", default=20),
        hc_eps=config.number("hc_eps", default=1e-6),
    )
    kinds, experts = _kinds(config, depth), _experts(config)
    mixers = _mixers(config, frozenset(kinds))
    hashed = replace(
        experts, topk_method=TopkMethod.GREEDY, router_bias_buffer=False, hash_vocab_size=vocabulary
    )
    routed = {_HASHED: hashed, _ROUTED: experts}
    layers = [
        Layer(mixers[kind], routed[block], hyper_connections=streams)
        for kind, block in zip(kinds, _blocks(config, depth), strict=True)
    ]
    # Read with the quantisation. The prediction layer is of no kind that the layers have: none is described.
    config.harmless("expert_dtype", "num_nextn_predict_layers")
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        hidden_size=config.integer("hidden_size", default=4096),
        vocab_size=vocabulary,
        max_position_embeddings=config.integer("max_position_embeddings", default=_LONGEST),
        hyper_connections=streams,
    )


# ------------------------------------------------------------------ attention


def _kinds(config: Config, depth: int) -> list[str]:
    """Return what each layer attends to: ``layer_types``, else by ``compress_ratios``, else as V4-Pro."""
    ratios = config.integers("compress_ratios")
    types = _first(config, "layer_types", depth, tuple(_BY_RATIO.values()))
    if types is not None:
        return types
    if not ratios:
        return [_SPARSE if index > 1 and index % 2 else _HEAVY for index in range(depth)]
    if len(ratios) < depth:
        config.refuse("compress_ratios", f"has {len(ratios):,} entries for {depth:,} layers")
    for index, ratio in enumerate(ratios):
        if ratio not in _BY_RATIO:
            understood = ", ".join(map(str, _BY_RATIO))
            config.refuse_entry("compress_ratios", index, f"{ratio} is not one of {understood}")
    return [_BY_RATIO[ratio] for ratio in ratios[:depth]]


def _first(config: Config, key: str, depth: int, allowed: tuple[str, ...]) -> list[str] | None:
    """Return the first words of a list with at least one for each layer; ``None`` where it is not there."""
    words = config.words(key)
    if not words:
        return None
    if len(words) < depth:
        config.refuse(key, f"has {len(words):,} entries for {depth:,} layers")
    for index, word in enumerate(words[:depth]):
        if word not in allowed:
            config.refuse_entry(key, index, f"{shown(word)} is not one of {', '.join(allowed)}")
    return words[:depth]


def _mixers(config: Config, kinds: frozenset[str]) -> dict[str, CompressedAttention]:
    """Return the attention of each kind of layer."""
    config.only("num_key_value_heads", 1, "all heads share one key")
    head_dim = config.integer("head_dim", default=512)
    main, compressed = _rotations(config, head_dim)
    windowed = CompressedAttention(
        num_attention_heads=config.integer("num_attention_heads", default=64),
        head_dim=head_dim,
        q_lora_rank=config.integer("q_lora_rank", default=1024),
        qk_rope_head_dim=main.elements,
        o_groups=config.integer("o_groups", default=8),
        o_lora_rank=config.integer("o_lora_rank", default=1024),
        sliding_window=config.integer("sliding_window", default=128),
        rope_parameters=main.parameters,
    )
    indexer = EntryIndexer(
        index_n_heads=config.integer("index_n_heads", default=64),
        index_head_dim=config.integer("index_head_dim", default=128),
        index_topk=config.integer("index_topk", default=512),
    )
    ratios = _ratios(config, kinds)
    found = {_SLIDING: windowed}
    for kind in kinds - {_SLIDING}:
        found[kind] = replace(
            windowed,
            qk_rope_head_dim=compressed.elements,
            rope_parameters=compressed.parameters,
            compress_ratio=ratios[kind],
            indexer=indexer if kind == _SPARSE else None,
        )
    return found


def _ratios(config: Config, kinds: frozenset[str]) -> dict[str, int]:
    """Return how many tokens each kind of layer compresses into one entry."""
    older = {
        _SPARSE: config.optional_integer("compress_rate_csa"),
        _HEAVY: config.optional_integer("compress_rate_hca"),
    }
    rates = config.optional_inner("compress_rates")
    found = {}
    for ratio, kind in _BY_RATIO.items():
        if kind not in kinds or kind == _SLIDING:
            continue
        newer = ratio if rates is None else rates.integer(kind)
        found[kind] = older[kind] or newer
    if rates is not None:
        rates.harmless(_SPARSE, _HEAVY)
        rates.finish()
    return found


def _rotations(config: Config, head_dim: int) -> tuple[_Rotation, _Rotation]:
    """Return the rotation of layers with a window alone, and that of layers that compress.

    A file names the two, or it stretches the second one alone.
    """
    longest = config.integer("max_position_embeddings", default=_LONGEST)
    given = config.optional_inner("rope_parameters", "rope_scaling")

    def read(mapping: Config | None, key: str, theta: float, share: float) -> _Rotation:
        defaults = RopeDefaults(theta, theta_key=key, partial_rotary_factor=share, interleaved=True)
        found = rope_from(config, mapping, longest, defaults)
        elements = int(head_dim * found.partial_rotary_factor)
        return _Rotation(replace(found, partial_rotary_factor=1.0), elements)

    rotated = config.optional_integer("qk_rope_head_dim")
    if given is not None and given.has("main") and given.has("compress"):
        # Older keys may be left beside the two; a rotation that says no share of a head turns all of it.
        given.harmless(*given.names())
        main = read(given.inner("main"), "rope_theta", 10_000.0, 1.0)
        return main, read(given.inner("compress"), "compress_rope_theta", 160_000.0, 1.0)
    share = 64 / 512 if rotated is None else rotated / head_dim
    main = read(None, "rope_theta", 10_000.0, share)
    return main, _stretched(read(given, "compress_rope_theta", 160_000.0, share))


def _stretched(rotation: _Rotation) -> _Rotation:
    """Return a rotation whose rotated parts keep their size where the file does not say otherwise."""
    rope = rotation.parameters
    if rope.rope_type is not RopeType.YARN or rope.attention_factor is not None:
        return rotation
    return replace(rotation, parameters=replace(rope, attention_factor=1.0))


# ------------------------------------------------------------------ experts


def _blocks(config: Config, depth: int) -> list[str]:
    """Return which layers look their experts up: ``mlp_layer_types``, else the first ``num_hash_layers``."""
    hashed = config.count("num_hash_layers", 3)
    types = _first(config, "mlp_layer_types", depth, (_HASHED, _ROUTED))
    return types or [_HASHED if index < hashed else _ROUTED for index in range(depth)]


def _experts(config: Config) -> Experts:
    config.only("hidden_act", "silu", "experts are gated by silu in this family")
    config.only("norm_topk_prob", True, "shares are scaled to one in this family")
    config.only("topk_method", "noaux_tc", "experts are chosen with the correction bias in this family")
    config.only("n_shared_experts", 1, "there is one shared expert in this family")
    scoring = config.text("scoring_func", default=Scoring.SQRT_SOFTPLUS.value)
    if scoring not in _SCORING:
        config.refuse("scoring_func", f"{shown(scoring)} is not one of {', '.join(_SCORING)}")
    # Both names are of one width in this class.
    width = config.integer("moe_intermediate_size", "intermediate_size", default=2048)
    bounds = Swiglu(config.number("swiglu_limit", default=10.0))
    return Experts(
        num_experts=config.integer("n_routed_experts", "num_local_experts", default=256),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=6),
        moe_intermediate_size=width,
        shared_expert_intermediate_size=width,
        router_bias_buffer=True,
        mlp_bias=config.flag("mlp_bias", False),
        swiglu=bounds,
        shared_swiglu=bounds,
        scoring_func=_SCORING[scoring],
        topk_method=TopkMethod.NOAUX_TC,
        routed_scaling_factor=config.number("routed_scaling_factor", default=1.5),
    )


FAMILIES: Families = {"deepseek_v4": deepseek_v4}
