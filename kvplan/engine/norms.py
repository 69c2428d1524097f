"""Norms: RMSNorm, its unit-offset form, LayerNorm, and the gated norm of the delta net."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.activation import Activation
from kvplan.arch.norm import Norm
from kvplan.engine.activations import activate
from kvplan.engine.counter import Counter

# What queries and keys are kept from dividing by (transformers, modeling_qwen3_next.py, l2norm).
_UNIT_EPS = np.float32(1e-6)


class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (arXiv 1910.07467).

    Args:
        weight: (width,), the scale, or its distance from one with ``unit_offset``.
        eps: added to the mean square.
        unit_offset: the scale is 1 + weight (Gemma, Qwen3-Next).

    Attributes:
        nbytes: of the scale.
    """

    def __init__(self, weight: NDArray[np.float32], eps: float, *, unit_offset: bool = False) -> None:
        scale = weight + np.float32(1) if unit_offset else weight
        # A mean is a sum divided by the width: the division is done once, in the numbers that go with it.
        width = weight.shape[-1]
        self._scale, self._eps = scale * np.float32(sqrt(width)), np.float32(width * eps)
        self.nbytes = self._scale.nbytes

    def __call__(self, x: NDArray[np.float32], counter: Counter) -> NDArray[np.float32]:
        """Return x of (..., width) normalised."""
        out = to_unit_length(x, self._eps)
        out *= self._scale
        counter.read_weights(self.nbytes)
        return out


class GatedRMSNorm:
    """RMSNorm whose result is multiplied by silu(gate): the norm before the delta net's output.

    Args:
        weight: (width,), the scale.
        eps: added to the mean square.
    """

    def __init__(self, weight: NDArray[np.float32], eps: float) -> None:
        self._norm = RMSNorm(weight, eps)

    @property
    def nbytes(self) -> int:
        """Bytes of the scale."""
        return self._norm.nbytes

    def __call__(
        self, x: NDArray[np.float32], gate: NDArray[np.float32], counter: Counter
    ) -> NDArray[np.float32]:
        """Return x of (..., width) normalised and gated; ``gate`` has its shape and is overwritten."""
        out = self._norm(x, counter)
        out *= activate(Activation.SILU, gate)
        return out


class LayerNorm:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis (arXiv 1607.06450).

    Args:
        weight: (width,), the scale, or its distance from one with ``unit_offset``; ``None`` for none.
        bias: (width,), added last; ``None`` for none.
        eps: added to the variance.
        unit_offset: the scale is 1 + weight (Nemotron).
    """

    def __init__(
        self,
        weight: NDArray[np.float32] | None,
        bias: NDArray[np.float32] | None,
        eps: float,
        *,
        unit_offset: bool = False,
    ) -> None:
        self._scale = weight + np.float32(1) if unit_offset and weight is not None else weight
        self._bias = bias
        self._eps = np.float32(eps)

    @property
    def nbytes(self) -> int:
        """Bytes of the scale and the bias."""
        return sum(part.nbytes for part in (self._scale, self._bias) if part is not None)

    def __call__(self, x: NDArray[np.float32], counter: Counter) -> NDArray[np.float32]:
        """Return x of (..., width) normalised."""
        mean = np.add.reduce(x, axis=-1, keepdims=True)
        mean *= np.float32(1 / x.shape[-1])
        out = scale_to_unit(x - mean, self._eps)
        if self._scale is not None:
            out *= self._scale
        if self._bias is not None:
            out += self._bias
        counter.read_weights(self.nbytes)
        return out


AnyNorm: TypeAlias = RMSNorm | LayerNorm


def make_norm(kind: Norm, weights: Mapping[str, NDArray[np.float32]], name: str, eps: float) -> AnyNorm:
    """Build the norm called ``name`` from a layer's weights."""
    scale, bias = weights.get(f"{name}.weight"), weights.get(f"{name}.bias")
    offset = kind.has_unit_offset
    match kind:
        case Norm.RMS | Norm.RMS_UNIT_OFFSET:
            return RMSNorm(weights[f"{name}.weight"], eps, unit_offset=offset)
        case Norm.LAYER | Norm.LAYER_NO_BIAS | Norm.LAYER_UNIT | Norm.LAYER_UNIT_OFFSET:
            return LayerNorm(scale, bias, eps, unit_offset=offset)
        case _:
            assert_never(kind)


def scale_to_unit(x: NDArray[np.float32], eps: np.float32) -> NDArray[np.float32]:
    """Return x / sqrt(mean(x^2) + eps) over the last axis."""
    root = sum_of_squares(x)
    root *= np.float32(1 / x.shape[-1])
    root += eps
    np.sqrt(root, out=root)
    return np.divide(x, root)


def to_unit_length(x: NDArray[np.float32], eps: np.float32 = _UNIT_EPS) -> NDArray[np.float32]:
    """Return x / sqrt(sum(x^2) + eps) over the last axis."""
    length = sum_of_squares(x)
    length += eps
    np.sqrt(length, out=length)
    return np.divide(x, length)


def sum_of_squares(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum of squares over the last axis, (..., 1)."""
    # As products of vectors: BLAS does them twice as fast as einsum, and sums more accurately.
    squares: NDArray[np.float32] = np.matmul(x[..., np.newaxis, :], x[..., np.newaxis])
    return squares[..., 0]
