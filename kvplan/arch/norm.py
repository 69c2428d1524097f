"""Normalisation layers, and where a block places them."""

from __future__ import annotations

from enum import Enum

from kvplan.arch.weight import Weight
from kvplan.storage import TensorRole


class Norm(Enum):
    """The kind of norm a model uses throughout; the value is its name in a model file."""

    RMS = "rms_norm"
    # The stored scale is the distance from one (Gemma, Qwen3-Next).
    RMS_UNIT_OFFSET = "rms_norm_unit_offset"
    LAYER = "layer_norm"

    def weights(self, name: str, width: int) -> tuple[Weight, ...]:
        """Return the scale and, for LayerNorm, the bias."""
        scale = Weight(f"{name}.weight", (width,), TensorRole.NORM)
        if self is Norm.LAYER:
            return (scale, Weight(f"{name}.bias", (width,), TensorRole.NORM))
        return (scale,)


class Block(Enum):
    """How a layer joins its mixer and its MLP to the residual stream."""

    PRE_NORM = "pre_norm"
    SANDWICH = "sandwich"
    PARALLEL = "parallel"
    PARALLEL_TWO_NORMS = "parallel_two_norms"

    def norm_names(self) -> tuple[str, ...]:
        """Return the names of the norms in one layer."""
        return _NORM_NAMES[self]


_NORM_NAMES = {
    Block.PRE_NORM: ("input_layernorm", "post_attention_layernorm"),
    Block.SANDWICH: (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    Block.PARALLEL: ("input_layernorm",),
    Block.PARALLEL_TWO_NORMS: ("ln_attn", "ln_mlp"),
}
