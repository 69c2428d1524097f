"""LFM2 and 3: short convolutions with some layers of attention; mixtures of experts."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import Attention, OutputGate, QkNorm
from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.arch.layer import Layer, Mixer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.arch.short_convolution import ShortConvolution
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import Families, Identity, finished_model, head_dim
from kvplan.specs.families.rope import RopeDefaults, rope, rope_from

_LONGEST, _VOCABULARY = 128_000, 65_536


def lfm2(config: Config, identity: Identity) -> Model:
    """LFM2: attention in ``layer_types`` or ``full_attn_idxs``, in every layer where there is neither."""
    depth = config.depth("num_hidden_layers", default=32)
    mlp = MLP(_adjusted_width(config, config.integer("block_ff_dim", "intermediate_size", default=12_288)))
    layers = [Layer(mixer, mlp) for mixer in _mixers(config, _attends(config, depth), width=2560)]
    return _finished(config, identity, layers, width=2560)


def lfm2_moe(config: Config, identity: Identity) -> Model:
    """LFM2's mixtures: experts after the dense first layers, chosen with a bias that is a buffer."""
    depth = config.depth("num_hidden_layers", default=32)
    types = config.texts("layer_types", depth, ("full_attention", "conv"))
    if types is None:
        config.refuse(None, "'layer_types' is required")
    dense, experts = MLP(config.integer("intermediate_size", default=7168)), _experts(config)
    first = config.count("num_dense_layers", 2)
    mixers = _mixers(config, [kind == "full_attention" for kind in types], width=2048)
    layers = [Layer(mixer, dense if index < first else experts) for index, mixer in enumerate(mixers)]
    return _finished(config, identity, layers, width=2048)


def _attends(config: Config, depth: int) -> list[bool]:
    types = config.texts("layer_types", depth, ("full_attention", "conv"))
    listed = config.integers("full_attn_idxs")
    if wrong := [index for index in listed if not 0 <= index < depth]:
        config.refuse("full_attn_idxs", f"expected layers 0 to {depth - 1}, not {shown(wrong[0])}")
    if types is not None:
        return [kind == "full_attention" for kind in types]
    return [index in listed or not config.has("full_attn_idxs") for index in range(depth)]


def _adjusted_width(config: Config, width: int) -> int:
    """Return the width of the MLP: two thirds of the file's, by a factor, up to a multiple; or as it is."""
    multiple = config.integer("block_multiple_of", default=256)
    factor = config.optional_number("block_ffn_dim_multiplier", default=1.0)
    if not config.flag("block_auto_adjust_ff_dim", True):
        return width
    adjusted = int(2 * width / 3)
    if factor is None:
        return adjusted
    return -(-int(factor * adjusted) // multiple) * multiple


def _experts(config: Config) -> Experts:
    biased = config.flag("use_expert_bias", True)
    return Experts(
        num_experts=config.integer("num_experts", default=32),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=4),
        moe_intermediate_size=config.integer("moe_intermediate_size", default=1792),
        router_bias_buffer=biased,
        scoring_func=Scoring.SIGMOID,
        topk_method=TopkMethod.NOAUX_TC if biased else TopkMethod.GREEDY,
        norm_topk_prob=config.flag("norm_topk_prob", True),
        routed_scaling_factor=config.number("routed_scaling_factor", default=1.0),
    )


def _mixers(config: Config, attends: list[bool], *, width: int) -> list[Mixer]:
    hidden = config.integer("hidden_size", default=width)
    for key in ("conv_dim", "conv_dim_out", "block_dim"):
        config.only(key, hidden, "every layer is as wide as the model")
    heads = config.integer("num_attention_heads", default=32)
    config.only("num_heads", heads, "num_attention_heads is the key this family reads")
    longest = config.integer("max_position_embeddings", default=_LONGEST)
    full = Attention(
        num_attention_heads=heads,
        num_key_value_heads=config.integer("num_key_value_heads", default=8),
        head_dim=head_dim(config, hidden, heads),
        qk_norm=QkNorm.HEAD,
        rope_parameters=rope(config, longest, RopeDefaults(rope_theta=1_000_000.0)),
    )
    conv = ShortConvolution(
        conv_dim=hidden,
        conv_L_cache=config.integer("conv_L_cache", default=3),
        conv_bias=config.flag("conv_bias", False),
    )
    return [full if attend else conv for attend in attends]


def _finished(config: Config, identity: Identity, layers: list[Layer], *, width: int) -> Model:
    for key in ("hidden_act", "block_use_swiglu", "use_pos_enc"):
        config.only(key, "silu" if key == "hidden_act" else True, "the blocks of this family are as they are")
    config.harmless("block_mlp_init_scale", "block_out_init_scale", "block_use_xavier_init")
    config.harmless("conv_use_xavier_init", "theta")
    eps = config.number("norm_eps", default=1e-5)
    config.only("block_norm_eps", eps, "norm_eps is the key this family reads")
    tied = config.flag("tie_embedding", True) if config.has("tie_embedding") else None
    model = finished_model(
        config,
        identity,
        layers,
        tied=True,
        eps_key="norm_eps",
        eps=1e-5,
        hidden_size=config.integer("hidden_size", default=width),
        vocab_size=config.integer("vocab_size", default=_VOCABULARY),
        max_position_embeddings=config.integer("max_position_embeddings", default=_LONGEST),
    )
    # The older key decides where a file has both.
    return model if tied is None else replace(model, tie_word_embeddings=tied)


# ------------------------------------------------------------------ LFM3


def lfm3(config: Config, identity: Identity) -> Model:
    """LFM3: of four layers one slides and one attends in full, each head gated; norms before and behind."""
    hidden = config.integer("hidden_size", default=2048)
    depth = config.depth("num_hidden_layers", default=24)
    mlp = MLP(config.integer("intermediate_size", default=7680))
    block = Block.SANDWICH if config.flag("use_sandwich_norm", True) else Block.PRE_NORM
    longest = config.integer("max_position_embeddings", default=_LONGEST)
    full = _full_attention_of_lfm3(config)
    everywhere, nearby = _ropes_of_lfm3(config, longest)
    window = config.optional_integer("sliding_window", default=256)
    mixers: dict[str, Mixer] = {
        "full_attention": replace(full, rope_parameters=everywhere),
        "sliding_attention": replace(full, sliding_window=window, rope_parameters=nearby),
        "conv": ShortConvolution(
            conv_dim=hidden,
            conv_L_cache=config.integer("conv_L_cache", default=7),
            conv_bias=config.flag("conv_bias", False),
        ),
    }
    kinds = config.texts("layer_types", depth, tuple(mixers)) or [_kind_of_lfm3(i) for i in range(depth)]
    return finished_model(
        config,
        identity,
        [Layer(mixers[kind], mlp, block) for kind in kinds],
        tied=True,
        eps_key="norm_eps",
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=128_000),
        max_position_embeddings=longest,
    )


def _kind_of_lfm3(index: int) -> str:
    if index % 4 == 2:
        return "full_attention"
    return "sliding_attention" if index % 4 == 0 and index else "conv"


def _full_attention_of_lfm3(config: Config) -> Attention:
    bias, gated = config.flag("attention_bias", False), config.flag("use_attention_gate", True)
    return Attention(
        num_attention_heads=config.integer("num_attention_heads", default=16),
        num_key_value_heads=config.integer("num_key_value_heads", default=4),
        head_dim=config.integer("head_dim", default=128),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=QkNorm.HEAD,
        output_gate=OutputGate.HEAD if gated else None,
    )


def _ropes_of_lfm3(config: Config, longest: int) -> tuple[RopeParameters, RopeParameters]:
    """Return the rotations of full and of sliding layers, which ``rope_parameters`` gives by kind."""
    by_kind = config.optional_inner("rope_parameters")
    if by_kind is None:
        turned = RopeParameters(1_000_000.0, RopeType.PROPORTIONAL, partial_rotary_factor=0.5)
        return turned, RopeParameters(10_000.0)
    full, sliding = by_kind.inner("full_attention"), by_kind.inner("sliding_attention")
    by_kind.finish()
    whole = RopeDefaults(partial_rotary_factor=1.0)
    return rope_from(config, full, longest, whole), rope_from(config, sliding, longest, whole)


FAMILIES: Families = {
    "lfm2": lfm2,
    "lfm2_moe": lfm2_moe,
    "lfm3": lfm3,
}
