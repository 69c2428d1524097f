"""Mamba, FalconMamba and Mamba-2: state spaces in every layer, no attention, and no MLP."""

from __future__ import annotations

from kvplan.arch.layer import Layer
from kvplan.arch.mamba import Mamba, StateNorm
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.state_spaces import read_harmless_keys, require_silu, step_rank

# These files need not say a length: no position is embedded, and a state takes any number of tokens. This
# is the longest context a Mamba was shown to solve a task at (arXiv 2312.00752, table 2).
LONGEST_SHOWN = 1 << 20


def mamba(config: Config, identity: Identity) -> Model:
    """Mamba: channels are the file's ``intermediate_size``, else ``expand`` times the width; tied."""
    return _all_mamba(config, identity)


def falcon_mamba(config: Config, identity: Identity) -> Model:
    """FalconMamba: Mamba whose steps, inputs and readings are normalised without weights."""
    eps = config.number("mixer_rms_eps", default=1e-6)
    return _all_mamba(config, identity, norm=StateNorm.UNIT, norm_eps=eps)


def _all_mamba(
    config: Config, identity: Identity, norm: StateNorm | None = None, norm_eps: float | None = None
) -> Model:
    read_harmless_keys(config)
    require_silu(config)
    hidden = config.integer("hidden_size", default=768)
    expanded = config.integer("expand", default=2) * hidden
    mixer = Mamba(
        intermediate_size=config.integer("intermediate_size", default=expanded),
        state_size=config.integer("state_size", default=16),
        conv_kernel=config.integer("conv_kernel", default=4),
        time_step_rank=step_rank(config, "time_step_rank", hidden),
        use_bias=config.flag("use_bias", False),
        use_conv_bias=config.flag("use_conv_bias", True),
        state_norm=norm,
        state_norm_eps=norm_eps,
    )
    layers = [Layer(mixer, None)] * config.depth("num_hidden_layers", default=32)
    return _finished(config, identity, layers, hidden, vocabulary=50_280, tied=True)


def mamba2(config: Config, identity: Identity) -> Model:
    """Mamba-2 (Codestral Mamba): ``num_heads`` of ``head_dim``, which make ``expand`` times the width."""
    read_harmless_keys(config)
    require_silu(config)
    # The class reads it, and makes nothing of it.
    config.harmless("time_step_rank", "intermediate_size")
    heads, size = config.integer("num_heads", default=128), config.integer("head_dim", default=64)
    hidden = config.integer("hidden_size", default=4096)
    width = config.integer("expand", default=2) * hidden
    if heads * size != width:
        config.refuse("num_heads", f"{heads:,} heads of {size:,} are not the {width:,} channels there are")
    bias = config.flag("use_bias", False)
    mixer = Mamba2(
        num_heads=heads,
        head_dim=size,
        state_size=config.integer("state_size", default=128),
        n_groups=config.integer("n_groups", default=8),
        conv_kernel=config.integer("conv_kernel", default=4),
        use_bias=bias,
        use_conv_bias=config.flag("use_conv_bias", True),
        out_bias=bias,
    )
    layers = [Layer(mixer, None)] * config.depth("num_hidden_layers", default=64)
    return _finished(config, identity, layers, hidden, vocabulary=32_768, tied=False)


def _finished(
    config: Config, identity: Identity, layers: list[Layer], hidden: int, *, vocabulary: int, tied: bool
) -> Model:
    longest = config.integer("max_position_embeddings", default=LONGEST_SHOWN)
    return finished_model(
        config,
        identity,
        layers,
        tied=tied,
        eps_key="layer_norm_epsilon",
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=vocabulary),
        max_position_embeddings=longest,
    )


FAMILIES: Families = {"mamba": mamba, "falcon_mamba": falcon_mamba, "mamba2": mamba2}
