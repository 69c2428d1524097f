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
    # A scale and no bias (Cohere, MPT, DBRX).
    LAYER_NO_BIAS = "layer_norm_no_bias"
    # Neither (OLMo 1).
    LAYER_UNIT = "layer_norm_no_weight"
    # The stored scale is the distance from one, and there is a bias (Nemotron).
    LAYER_UNIT_OFFSET = "layer_norm_unit_offset"

    @property
    def has_unit_offset(self) -> bool:
        """Whether the stored scale is the distance from one."""
        return self in (Norm.RMS_UNIT_OFFSET, Norm.LAYER_UNIT_OFFSET)

    def weights(self, name: str, width: int) -> tuple[Weight, ...]:
        """Return the scale and the bias, where the norm has them."""
        scale = Weight(f"{name}.weight", (width,), TensorRole.NORM)
        match self:
            case Norm.LAYER_UNIT:
                return ()
            case Norm.LAYER | Norm.LAYER_UNIT_OFFSET:
                return (scale, Weight(f"{name}.bias", (width,), TensorRole.NORM))
            case _:
                return (scale,)


class Block(Enum):
    """How a layer joins its mixer and its MLP, each an ``f``, to the residual stream ``x``.

    ``pre_norm``: x + f(norm(x)). ``sandwich``: x + norm(f(norm(x))) (Gemma 2). ``post_norm``: x + norm(f(x))
    (OLMo 2). ``residual_norm``: norm(x + f(x)) (OPT-350m). ``normed_residual``: norm(x) + f(norm(x))
    (MiniMax-01). ``parallel``: x + f(norm(x)) + g(norm(x)).
    """

    PRE_NORM = "pre_norm"
    SANDWICH = "sandwich"
    POST_NORM = "post_norm"
    RESIDUAL_NORM = "residual_norm"
    NORMED_RESIDUAL = "normed_residual"
    PARALLEL = "parallel"
    PARALLEL_TWO_NORMS = "parallel_two_norms"

    @property
    def is_parallel(self) -> bool:
        """Whether the mixer and the MLP read the same residual stream."""
        return self in (Block.PARALLEL, Block.PARALLEL_TWO_NORMS)

    @property
    def scales_residual(self) -> bool:
        """Whether factors of the residual stream and of what is added to it are understood."""
        return self in (Block.PRE_NORM, Block.NORMED_RESIDUAL)

    def norm_names(self, *, mixer: bool = True, mlp: bool = True) -> tuple[str, ...]:
        """Return the names of the norms in a layer that has a mixer, an MLP, or both."""
        of_mixer, of_mlp = _NORM_NAMES[self]
        return (*(of_mixer if mixer else ()), *(of_mlp if mlp else ()))


# The norms around the mixer, and those around the MLP.
_NORM_NAMES: dict[Block, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Block.PRE_NORM: (("input_layernorm",), ("post_attention_layernorm",)),
    Block.SANDWICH: (
        ("input_layernorm", "post_attention_layernorm"),
        ("pre_feedforward_layernorm", "post_feedforward_layernorm"),
    ),
    Block.POST_NORM: (("post_attention_layernorm",), ("post_feedforward_layernorm",)),
    Block.RESIDUAL_NORM: (("attention_sum_norm",), ("mlp_sum_norm",)),
    Block.NORMED_RESIDUAL: (("input_layernorm",), ("post_attention_layernorm",)),
    Block.PARALLEL: (("input_layernorm",), ()),
    Block.PARALLEL_TWO_NORMS: (("ln_attn",), ("ln_mlp",)),
}
