"""What files with Mamba layers have in common: the keys of time steps, ranks, and kinds of layers."""

from __future__ import annotations

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.entry import StateDtype
from kvplan.arch.mamba2 import GateNorm, Mamba2
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import activation, head_dim
from kvplan.storage import TORCH_DTYPES

# Of these, transformers 5.23 draws the weights a training begins with, or chooses among equal kernels.
_OF_TRAINING = (
    *("time_step_min", "time_step_max", "time_step_floor", "time_step_scale", "time_step_init_scheme"),
    *("rescale_prenorm_residual", "z_loss_coefficient"),
)
_OF_KERNELS = (
    *("chunk_size", "mamba_chunk_size", "use_mamba_kernels", "use_mambapy", "use_falcon_mambapy"),
    *("use_associative_scan", "residual_in_fp32", "num_logits_to_keep", "use_mem_eff_path"),
)
_KINDS = {
    "mamba": "mamba",
    "linear_attention": "mamba",
    "attention": "attention",
    "full_attention": "attention",
}
# Keys of a rotation that a model without positions may carry.
ROTATION_KEYS = ("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor")


def read_harmless_keys(config: Config) -> None:
    """Note the keys of training and kernels, and refuse limits of a time step that could be reached."""
    config.harmless(*_OF_TRAINING, *_OF_KERNELS)
    for key in ("time_step_limit", "mamba_dt_limit"):
        if not config.never_limits(key):
            config.refuse(key, "limited time steps are not understood: expected 0 and no upper limit")


def require_silu(config: Config, key: str = "hidden_act") -> None:
    """Refuse a function behind the convolution that is not silu: gates are silu whatever the file says."""
    if activation(config, key) is not Activation.SILU:
        config.refuse(key, "the state spaces of this family are understood with silu only")


def state_dtype(config: Config, key: str, default: StateDtype | None = None) -> StateDtype | None:
    """Return what a file asks running states to be served in; transformers keeps them in float32."""
    if not config.has(key):
        return default
    name = TORCH_DTYPES.get(config.text(key))
    if name is None:
        config.refuse(key, f"{shown(config.text(key))} is not one of {', '.join(TORCH_DTYPES)}")
    return StateDtype(name)


def step_rank(config: Config, key: str, hidden_size: int) -> int:
    """Return the rank of a Mamba's time steps: a sixteenth of the width, rounded up, where it is ``auto``."""
    if config.is_text(key):
        if (word := config.text(key)) != "auto":
            config.refuse(key, f"expected a whole number or 'auto', not {shown(word)}")
        return -(-hidden_size // 16)
    return config.integer(key, default=-(-hidden_size // 16))


def kinds_of_layers(config: Config, depth: int, *keys: str) -> list[str] | None:
    """Return each layer's kind, ``mamba`` or ``attention``, by the first of the keys that is there."""
    for key in keys:
        kinds = config.texts(key, depth, tuple(_KINDS))
        if kinds is not None:
            return [_KINDS[kind] for kind in kinds]
    return None


def unrotated_attention(
    config: Config,
    hidden_size: int,
    *,
    default_kv_heads: int | None,
    bias: bool = False,
    multiplier: float | None = None,
) -> Attention:
    """Return attention that knows no positions: the state spaces before it tell tokens apart by place."""
    heads = config.integer("num_attention_heads", default=32)
    return Attention(
        num_attention_heads=heads,
        num_key_value_heads=config.optional_integer("num_key_value_heads", default=default_kv_heads) or heads,
        head_dim=head_dim(config, hidden_size, heads),
        qkv_bias=bias,
        out_bias=bias,
        attention_multiplier=multiplier,
    )


def mamba2_of_hybrid(
    config: Config, width: int, *, out_bias: bool, gate_norm: GateNorm | None = GateNorm.AFTER_GATE
) -> Mamba2:
    """Return the Mamba-2 of a file with ``mamba_`` keys, as Bamba, Granite 4 and Falcon-H1 have them.

    ``width`` is that of all heads, which the heads and their size must make.
    """
    heads = config.integer("mamba_n_heads", default=128)
    if config.is_text("mamba_d_head") and config.text("mamba_d_head") == "auto":
        size = width // heads
    else:
        size = config.integer("mamba_d_head", default=width // heads)
    if heads * size != width:
        config.refuse(
            "mamba_n_heads", f"{heads:,} heads of {size:,} are not the {width:,} channels there are"
        )
    return Mamba2(
        num_heads=heads,
        head_dim=size,
        state_size=config.integer("mamba_d_state", default=256),
        n_groups=config.integer("mamba_n_groups", default=1),
        conv_kernel=config.integer("mamba_d_conv", default=4),
        use_bias=config.flag("mamba_proj_bias", False),
        use_conv_bias=config.flag("mamba_conv_bias", True),
        out_bias=out_bias,
        gate_norm=gate_norm,
    )
