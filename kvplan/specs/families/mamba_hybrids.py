"""Jamba, Bamba, Granite 4 and Falcon-H1: state spaces and attention, an MLP or experts behind each."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention
from kvplan.arch.attention_beside_mamba import AttentionBesideMamba
from kvplan.arch.experts import Experts
from kvplan.arch.layer import FeedForward, Layer, Mixer
from kvplan.arch.mamba import Mamba, StateNorm
from kvplan.arch.mamba2 import GateNorm, Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.rope import PLAIN, RopeDefaults, rope
from kvplan.specs.families.state_spaces import (
    ROTATION_KEYS,
    kinds_of_layers,
    mamba2_of_hybrid,
    read_harmless_keys,
    require_silu,
    step_rank,
    unrotated_attention,
)

# ------------------------------------------------------------------ Jamba


def jamba(config: Config, identity: Identity) -> Model:
    """Jamba: one layer in ``attn_layer_period`` attends, one in ``expert_layer_period`` has experts."""
    read_harmless_keys(config)
    require_silu(config)
    config.only("mamba_inner_layernorms", True, "this family normalises what its states take and give")
    config.harmless("calc_logits_for_entire_prompt", *ROTATION_KEYS)
    depth = config.depth("num_hidden_layers", default=32)
    hidden = config.integer("hidden_size", default=4096)
    attends = unrotated_attention(config, hidden, default_kv_heads=8)
    recurs = _mamba_of_jamba(config, hidden)
    mixers: list[Mixer] = [
        attends if chosen else recurs for chosen in _every(config, "attn_layer", depth, period=8, offset=4)
    ]
    dense: FeedForward = MLP(config.integer("intermediate_size", default=14336))
    experts = _experts_of_jamba(config) or dense
    mlps = [
        experts if chosen else dense for chosen in _every(config, "expert_layer", depth, period=2, offset=1)
    ]
    layers = [Layer(mixer, mlp) for mixer, mlp in zip(mixers, mlps, strict=True)]
    longest = config.integer("max_position_embeddings", default=262144)
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=65_536),
        max_position_embeddings=longest,
    )


def _every(config: Config, name: str, depth: int, *, period: int, offset: int) -> list[bool]:
    """Return which layers are those that come ``NAME_offset`` into every ``NAME_period`` layers."""
    period = config.integer(f"{name}_period", default=period)
    offset = config.count(f"{name}_offset", offset)
    if offset >= period:
        config.refuse(f"{name}_offset", f"must be below {name}_period ({period}), not {offset}")
    return [index % period == offset for index in range(depth)]


def _experts_of_jamba(config: Config) -> Experts | None:
    """Return the experts; one expert is an MLP."""
    count = config.integer("num_experts", "num_local_experts", default=16)
    chosen = config.integer("num_experts_per_tok", default=2)
    if count == 1:
        return None
    return Experts(
        num_experts=count,
        num_experts_per_tok=chosen,
        moe_intermediate_size=config.integer("intermediate_size", default=14336),
        norm_topk_prob=False,
    )


def _mamba_of_jamba(config: Config, hidden_size: int) -> Mamba:
    return Mamba(
        intermediate_size=config.integer("mamba_expand", default=2) * hidden_size,
        state_size=config.integer("mamba_d_state", default=16),
        conv_kernel=config.integer("mamba_d_conv", default=4),
        time_step_rank=step_rank(config, "mamba_dt_rank", hidden_size),
        use_bias=config.flag("mamba_proj_bias", False),
        use_conv_bias=config.flag("mamba_conv_bias", True),
        state_norm=StateNorm.RMS,
    )


# ------------------------------------------------------------------ Bamba


def bamba(config: Config, identity: Identity) -> Model:
    """Bamba: Mamba-2, and attention that rotates half of each head in ``attn_layer_indices``."""
    read_harmless_keys(config)
    require_silu(config)
    depth = config.depth("num_hidden_layers", default=32)
    hidden = config.integer("hidden_size", default=4096)
    attends = _rotated_attention(config, hidden, RopeDefaults(partial_rotary_factor=0.5), 262144)
    assert attends.rope_parameters is not None
    if attends.rope_parameters.partial_rotary_factor != 0.5:
        config.refuse("partial_rotary_factor", "this family rotates half of each head")
    config.only("attn_rotary_emb", attends.head_dim // 2, "this family rotates half of each head")
    chosen = _attention_indices(config, depth)
    recurs = _mamba2_as_wide_as_expanded(config, hidden)
    mixers: list[Mixer] = [attends if index in chosen else recurs for index in range(depth)]
    mlp = _mlp(config)
    layers = [Layer(mixer, mlp) for mixer in mixers]
    longest = config.integer("max_position_embeddings", default=262144)
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=128_000),
        max_position_embeddings=longest,
    )


def _attention_indices(config: Config, depth: int) -> frozenset[int]:
    chosen = frozenset(config.integers("attn_layer_indices"))
    if wrong := sorted(chosen - frozenset(range(depth))):
        config.refuse("attn_layer_indices", f"expected layers 0 to {depth - 1}, not {wrong[0]}")
    kinds = kinds_of_layers(config, depth, "layers_block_type", "layer_types")
    if kinds not in (None, ["attention" if index in chosen else "mamba" for index in range(depth)]):
        config.refuse("layers_block_type", "contradicts 'attn_layer_indices'")
    return chosen


def _mamba2_as_wide_as_expanded(config: Config, hidden_size: int) -> Mamba2:
    width = config.integer("mamba_expand", default=2) * hidden_size
    return mamba2_of_hybrid(config, width, out_bias=config.flag("mamba_proj_bias", False))


def _rotated_attention(
    config: Config,
    hidden_size: int,
    rotation: RopeDefaults,
    longest: int,
    *,
    default_kv_heads: int | None = 8,
    multiplier: float | None = None,
) -> Attention:
    heads = config.integer("num_attention_heads", default=32)
    bias = config.flag("attention_bias", False)
    size = config.optional_integer("head_dim") or hidden_size // heads
    return Attention(
        num_attention_heads=heads,
        num_key_value_heads=config.optional_integer("num_key_value_heads", default=default_kv_heads) or heads,
        head_dim=size,
        qkv_bias=bias,
        out_bias=bias,
        attention_multiplier=multiplier,
        rope_parameters=rope(config, config.integer("max_position_embeddings", default=longest), rotation),
    )


def _mlp(config: Config, multipliers: tuple[float, float] | None = None) -> MLP:
    return MLP(
        config.integer("intermediate_size", default=14336),
        mlp_bias=config.flag("mlp_bias", False),
        hidden_act=activation(config),
        mlp_multipliers=multipliers,
    )


# ------------------------------------------------------------------ Granite 4


def granitemoehybrid(config: Config, identity: Identity) -> Model:
    """Granite 4: ``layer_types`` of Mamba-2 and attention, experts beside a shared MLP in every layer.

    Files of models that only attend carry ``mamba_`` keys all the same; ``num_local_experts`` of 0 leaves
    the shared MLP alone.
    """
    read_harmless_keys(config)
    require_silu(config)
    config.only("normalization_function", "rmsnorm", "this family has RMS norms")
    config.harmless("init_method")
    depth = config.depth("num_hidden_layers", default=32)
    kinds = kinds_of_layers(config, depth, "layer_types", "layers_block_type") or ["mamba"] * depth
    hidden, mixers = config.integer("hidden_size", default=4096), dict[str, Mixer]()
    if "attention" in kinds:
        mixers["attention"] = _attention_of_granite(config, hidden)
    if "mamba" in kinds:
        mixers["mamba"] = _mamba2_as_wide_as_expanded(config, hidden)
    config.harmless(*_KEYS_OF_ABSENT_LAYERS)
    mlp = _feed_forward_of_granite(config)
    return finished_model(
        config,
        identity,
        [Layer(mixers[kind], mlp) for kind in kinds],
        tied=False,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=32_000),
        max_position_embeddings=config.integer("max_position_embeddings", default=2048),
        embedding_multiplier=config.number("embedding_multiplier", default=1.0),
        residual_multiplier=config.number("residual_multiplier", default=1.0),
        logits_multiplier=1 / config.number("logits_scaling", default=1.0),
    )


_KEYS_OF_ABSENT_LAYERS = (
    *("mamba_n_heads", "mamba_d_head", "mamba_d_state", "mamba_n_groups", "mamba_d_conv", "mamba_expand"),
    *("mamba_conv_bias", "mamba_proj_bias"),
    *("num_attention_heads", "num_key_value_heads", "attention_bias", "attention_multiplier", "head_dim"),
    *("position_embedding_type", "num_experts_per_tok", "intermediate_size", *ROTATION_KEYS),
)


def _attention_of_granite(config: Config, hidden_size: int) -> Attention:
    multiplier = config.number("attention_multiplier", default=1.0)
    kind = config.text("position_embedding_type", default="nope")
    if kind not in ("nope", "rope"):
        config.refuse("position_embedding_type", f"{kind[:40]!r} is not understood (nope and rope are)")
    if kind == "nope":
        bias = config.flag("attention_bias", False)
        return unrotated_attention(
            config, hidden_size, default_kv_heads=None, bias=bias, multiplier=multiplier
        )
    return _rotated_attention(config, hidden_size, PLAIN, 2048, default_kv_heads=None, multiplier=multiplier)


def _feed_forward_of_granite(config: Config) -> FeedForward:
    shared = config.integer("shared_intermediate_size", default=1024)
    count = config.count("num_local_experts", 8)
    if not count:
        return MLP(shared, hidden_act=activation(config))
    return Experts(
        num_experts=count,
        num_experts_per_tok=config.integer("num_experts_per_tok", default=2),
        moe_intermediate_size=config.integer("intermediate_size", default=11008),
        shared_expert_intermediate_size=shared,
        hidden_act=activation(config),
    )


# ------------------------------------------------------------------ Falcon-H1


def falcon_h1(config: Config, identity: Identity) -> Model:
    """Falcon-H1: attention beside Mamba-2 in every layer, and multipliers at every turn.

    Keys are scaled by ``key_multiplier``, which scales the scores: so it is described.
    """
    read_harmless_keys(config)
    require_silu(config)
    config.only("mamba_use_mlp", True, "every layer of this family has an MLP")
    config.harmless("mlp_expansion_factor", "attn_layer_indices")
    hidden = config.integer("hidden_size", default=4096)
    mixer = AttentionBesideMamba(
        attention=_attention_of_falcon_h1(config, hidden),
        mamba2=_mamba2_of_falcon_h1(config, hidden),
        attention_in_multiplier=config.number("attention_in_multiplier", default=1.0),
        attention_out_multiplier=config.number("attention_out_multiplier", default=1.0),
        ssm_in_multiplier=config.number("ssm_in_multiplier", default=1.0),
        ssm_out_multiplier=config.number("ssm_out_multiplier", default=1.0),
    )
    of_gate, of_output = _multipliers(config, "mlp_multipliers", 2) or (1.0, 1.0)
    plain = of_gate == of_output == 1
    layer = Layer(mixer, _mlp(config, None if plain else (of_gate, of_output)))
    return finished_model(
        config,
        identity,
        [layer] * config.depth("num_hidden_layers", default=32),
        tied=False,
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=128_000),
        max_position_embeddings=config.integer("max_position_embeddings", default=8192),
        embedding_multiplier=config.number("embedding_multiplier", default=1.0),
        logits_multiplier=config.number("lm_head_multiplier", default=1.0),
    )


def _attention_of_falcon_h1(config: Config, hidden_size: int) -> Attention:
    multiplier = config.number("key_multiplier", default=1.0)
    heads = config.integer("num_attention_heads", default=32)
    size = config.optional_integer("head_dim") or hidden_size // heads
    scale = None if multiplier == 1 else multiplier * size**-0.5
    return _rotated_attention(config, hidden_size, PLAIN, 8192, multiplier=scale)


def _mamba2_of_falcon_h1(config: Config, hidden_size: int) -> Mamba2:
    expanded = config.integer("mamba_expand", default=2) * hidden_size
    width = config.optional_integer("mamba_d_ssm", default=1024) or expanded
    before = config.flag("mamba_norm_before_gate", True)
    norm: GateNorm | None = GateNorm.BEFORE_GATE if before else GateNorm.AFTER_GATE
    if not config.flag("mamba_rms_norm", False):
        norm = None
    found = mamba2_of_hybrid(config, width, out_bias=config.flag("projectors_bias", False), gate_norm=norm)
    factors = _multipliers(config, "ssm_multipliers", 5)
    if factors is None or set(factors) == {1}:
        return found
    gate, passing, written, read, steps = factors
    return replace(found, ssm_multipliers=(gate, passing, written, read, steps))


def _multipliers(config: Config, key: str, count: int) -> tuple[float, ...] | None:
    """Return the numbers under a key; ``None`` where it is missing or null."""
    if not config.has(key):
        config.harmless(key)
        return None
    found = config.numbers(key)
    if len(found) != count:
        config.refuse(key, f"expected {count} numbers, not {len(found)}")
    return found


FAMILIES: Families = {
    "jamba": jamba,
    "bamba": bamba,
    "granitemoehybrid": granitemoehybrid,
    "falcon_h1": falcon_h1,
}
