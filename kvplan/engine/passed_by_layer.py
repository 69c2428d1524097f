"""A layer that text passes by: its weights take memory, and nothing is computed with them."""

from __future__ import annotations

from collections.abc import Mapping

from kvplan.engine.arrays import Float
from kvplan.engine.counter import Counter
from kvplan.engine.step import Step


class PassedByLayer:
    """A layer for images only, in a run over text (transformers, modeling_mllama.py, MllamaTextModel)."""

    def __init__(self, weights: Mapping[str, Float]) -> None:
        self._weights = weights

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        return sum(weight.nbytes for weight in self._weights.values())

    def __call__(self, x: Float, _step: Step, _counter: Counter, _given: Float | None = None) -> Float:
        """Return the residual stream ``(tokens, hidden)`` as it came."""
        return x
