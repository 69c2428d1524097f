"""MiniMax-01 and M1: lightning attention with some layers of softmax attention, and experts everywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.layer import Layer, Mixer
from kvplan.arch.lightning_attention import LightningAttention
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.arch.residual import ResidualFactors
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, activation, finished_model
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.sizes import Sizes

_THETA = 1_000_000.0
_SIZES = Sizes(
    vocab_size=32_000,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    max_position_embeddings=131_072,
    num_key_value_heads=8,
)


@dataclass(frozen=True, slots=True)
class _Factors:
    """The names of a file's residual factors, alpha and beta of each kind of sum."""

    linear: tuple[str, str]
    full: tuple[str, str]
    mlp: tuple[str, str]


_NATIVE = _Factors(
    linear=("linear_attn_alpha_factor", "linear_attn_beta_factor"),
    full=("full_attn_alpha_factor", "full_attn_beta_factor"),
    mlp=("mlp_alpha_factor", "mlp_beta_factor"),
)
_REMOTE = _Factors(
    linear=("layernorm_linear_attention_alpha", "layernorm_linear_attention_beta"),
    full=("layernorm_full_attention_alpha", "layernorm_full_attention_beta"),
    mlp=("layernorm_mlp_alpha", "layernorm_mlp_beta"),
)


def minimax(config: Config, identity: Identity) -> Model:
    """MiniMax-Text-01 as transformers has it: the residual is what the norm before each part leaves."""
    depth = config.depth("num_hidden_layers", default=32)
    types = config.texts("layer_types", depth, ("full_attention", "linear_attention"))
    if types is None:
        types = ["linear_attention" if index % 2 else "full_attention" for index in range(depth)]
    # The class rotates whole heads whatever this says, and computes the same in blocks of any size.
    config.harmless("rotary_dim", "block_size")
    sizes = _SIZES.read(config)
    full = _softmax(config, sizes)
    attends = [kind == "full_attention" for kind in types]
    return _model(config, identity, sizes, full, attends, Block.NORMED_RESIDUAL, _NATIVE)


def minimax_m1(config: Config, identity: Identity) -> Model:
    """MiniMax-Text-01 and M1 in their own format: 1 in ``attn_type_list`` is softmax, 0 is lightning.

    Rules from the released modeling_minimax_m1.py.
    """
    depth = config.depth("num_hidden_layers", default=32)
    kinds = config.integers("attn_type_list")
    if len(kinds) != depth or not set(kinds) <= {0, 1}:
        config.refuse("attn_type_list", f"expected a 0 or a 1 for each of {depth} layers")
    config.only("shared_intermediate_size", 0, "a shared expert is not understood here")
    config.harmless("shared_moe_mode")  # how a shared expert is gated
    block = Block.NORMED_RESIDUAL if config.flag("postnorm", False) else Block.PRE_NORM
    sizes = _SIZES.read(config)
    full = _partly_rotated(config, _softmax(config, sizes))
    return _model(config, identity, sizes, full, [kind == 1 for kind in kinds], block, _REMOTE)


def _softmax(config: Config, sizes: Sizes) -> Attention:
    full = sizes.attention(config, RopeDefaults(rope_theta=_THETA))
    return replace(full, sliding_window=config.optional_integer("sliding_window"))


def _partly_rotated(config: Config, full: Attention) -> Attention:
    """Return the attention with the first ``rotary_dim`` elements of a head rotated, if the file says so."""
    rotated, rotation = config.integer("rotary_dim", default=full.head_dim), full.rope_parameters
    if rotation is None or rotated > full.head_dim:
        config.refuse("rotary_dim", f"must be at most head_dim ({full.head_dim}), not {rotated}")
    share = rotated / full.head_dim
    return replace(full, rope_parameters=replace(rotation, partial_rotary_factor=share))


def _model(
    config: Config,
    identity: Identity,
    sizes: Sizes,
    full: Attention,
    attends: list[bool],
    block: Block,
    names: _Factors,
) -> Model:
    hidden_act = activation(config)
    lightning = LightningAttention(full.num_attention_heads, full.head_dim, hidden_act)
    experts = Experts(
        num_experts=config.integer("num_local_experts", "num_experts", default=8),
        num_experts_per_tok=config.integer("num_experts_per_tok", default=2),
        moe_intermediate_size=sizes.intermediate_size,
        hidden_act=hidden_act,
    )

    def layer(mixer: Mixer, factors: tuple[str, str]) -> Layer:
        alpha, beta, mlp_alpha, mlp_beta = (config.number(k, default=1.0) for k in (*factors, *names.mlp))
        scaled = ResidualFactors(alpha, beta, mlp_alpha, mlp_beta)
        return Layer(mixer, experts, block, residual_factors=scaled)

    softmax, linear = layer(full, names.full), layer(lightning, names.linear)
    layers = [softmax if attend else linear for attend in attends]
    return finished_model(
        config,
        identity,
        layers,
        tied=False,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


FAMILIES: Families = {
    "minimax": minimax,
    "minimax_m1": minimax_m1,
    "minimax_text_01": minimax_m1,
}
