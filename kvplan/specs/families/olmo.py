"""OLMo 1, 2 and 3: first norms without weights, then norms behind each block and of whole projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvplan.arch.attention import QkNorm
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.arch.rotary import RopeParameters
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model, windowed_layers
from kvplan.specs.families.rope import RopeDefaults, rope_from
from kvplan.specs.families.sizes import Sizes

_SIZES = Sizes(
    vocab_size=50_304,
    hidden_size=4096,
    intermediate_size=11_008,
    num_hidden_layers=32,
    num_attention_heads=32,
    max_position_embeddings=2048,
)
_UNWEIGHTED_EPS = 1e-5


def olmo(config: Config, identity: Identity) -> Model:
    """OLMo 1: LayerNorm without weights; queries, keys and values may be clipped."""
    sizes, bias = _SIZES.read(config), config.flag("attention_bias", False)
    attention = replace(
        sizes.attention(config, qkv_bias=bias, out_bias=bias),
        clip_qkv=config.optional_number("clip_qkv"),
    )
    config.only("rms_norm_eps", _UNWEIGHTED_EPS, "norms of this family add 1e-5")
    layer = Layer(attention, sizes.gated_mlp(config))
    layers = [layer] * sizes.num_hidden_layers
    return _model(config, identity, sizes, layers, Norm.LAYER_UNIT, eps=_UNWEIGHTED_EPS)


def olmo2(config: Config, identity: Identity) -> Model:
    """OLMo 2: norms behind attention and MLP, and of all heads of queries or keys at once."""
    sizes, bias = _SIZES.read(config), config.flag("attention_bias", False)
    attention = replace(
        sizes.attention(config, qkv_bias=bias, out_bias=bias),
        qk_norm=QkNorm.PROJECTION,
    )
    layer = Layer(attention, sizes.gated_mlp(config), Block.POST_NORM)
    return _model(config, identity, sizes, [layer] * sizes.num_hidden_layers, Norm.RMS, eps=1e-5)


def olmo3(config: Config, identity: Identity) -> Model:
    """OLMo 3: OLMo 2 with three sliding layers of four; only full layers' rotation is stretched."""
    sizes, bias = _SIZES.read(config), config.flag("attention_bias", False)
    everywhere, nearby = _olmo3_ropes(config, sizes.max_position_embeddings)
    full = replace(
        sizes.attention(config, None, qkv_bias=bias, out_bias=bias),
        qk_norm=QkNorm.PROJECTION,
        rope_parameters=everywhere,
    )
    window = config.optional_integer("sliding_window", default=4096)
    sliding = replace(full, sliding_window=window, rope_parameters=nearby)
    depth, mlp = sizes.num_hidden_layers, sizes.gated_mlp(config)
    slides = windowed_layers(config, depth) or [(index + 1) % 4 != 0 for index in range(depth)]
    layers = [Layer(sliding if slide else full, mlp, Block.POST_NORM) for slide in slides]
    return _model(config, identity, sizes, layers, Norm.RMS, eps=1e-5)


def _olmo3_ropes(config: Config, longest: int) -> tuple[RopeParameters, RopeParameters]:
    """Return the rotations of full and of sliding layers, which ``rope_parameters`` gives by kind."""
    defaults = RopeDefaults(rope_theta=500_000.0)
    by_kind, full = config.optional_inner("rope_parameters"), config.optional_inner("rope_scaling")
    sliding = None
    if by_kind is not None:
        if full is not None:
            config.refuse("rope_scaling", "cannot be beside rope_parameters")
        full, sliding = by_kind.optional_inner("full_attention"), by_kind.optional_inner("sliding_attention")
        by_kind.finish()
    return rope_from(config, full, longest, defaults), rope_from(config, sliding, longest, defaults)


def _model(
    config: Config, identity: Identity, sizes: Sizes, layers: Sequence[Layer], norm: Norm, *, eps: float
) -> Model:
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        norm=norm,
        eps=eps,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


FAMILIES: Families = {
    "olmo": olmo,
    "olmo2": olmo2,
    "olmo3": olmo3,
}
