"""Norms of queries and keys, which look at a head, or at all heads at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, assert_never

import numpy as np

from kvplan.arch.attention import QkNorm
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.engine.arrays import Float
from kvplan.engine.counter import Counter
from kvplan.engine.norms import RMSNorm, scale_to_unit


class UnitNorm:
    """x / sqrt(mean(x^2) + eps) over each head, without weights."""

    nbytes = 0

    def __init__(self, eps: float) -> None:
        self._eps = np.float32(eps)

    def __call__(self, x: Float, counter: Counter) -> Float:
        """Return x of (tokens, heads, head_dim) normalised."""
        return scale_to_unit(x, self._eps)


class CentredNorm:
    """LayerNorm of each head by weights of its own (heads, head_dim), without a bias."""

    def __init__(self, weight: Float, eps: float) -> None:
        self._norm = RMSNorm(weight, eps)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._norm.nbytes

    def __call__(self, x: Float, counter: Counter) -> Float:
        """Return x of (tokens, heads, head_dim) normalised."""
        return self._norm(x - x.mean(axis=-1, keepdims=True), counter)


class ProjectionNorm:
    """RMSNorm over all heads at once, by weights (heads x head_dim,)."""

    def __init__(self, weight: Float, eps: float, *, unit_offset: bool) -> None:
        self._norm = RMSNorm(weight, eps, unit_offset=unit_offset)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._norm.nbytes

    def __call__(self, x: Float, counter: Counter) -> Float:
        """Return x of (tokens, heads, head_dim) normalised."""
        return self._norm(x.reshape(len(x), -1), counter).reshape(x.shape)


AnyQkNorm: TypeAlias = RMSNorm | UnitNorm | CentredNorm | ProjectionNorm


def make_qk_norm(
    kind: QkNorm | None, model: Model, weights: Mapping[str, Float], name: str
) -> AnyQkNorm | None:
    """Build the norm of queries or keys called ``name`` from a layer's weights; ``None`` for none."""
    offset = model.norm is Norm.RMS_UNIT_OFFSET
    match kind:
        case None:
            return None
        case QkNorm.UNIT:
            return UnitNorm(model.norm_eps)
        case QkNorm.HEAD:
            return RMSNorm(weights[f"{name}.weight"], model.norm_eps, unit_offset=offset)
        case QkNorm.EACH_HEAD:
            return CentredNorm(weights[f"{name}.weight"], model.norm_eps)
        case QkNorm.PROJECTION:
            return ProjectionNorm(weights[f"{name}.weight"], model.norm_eps, unit_offset=offset)
        case _:
            assert_never(kind)
