"""Low-rank adapters at run time: what they add to a product of the same input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kvplan.engine.arrays import Float
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear


class Adapters:
    """The adapters of products that read one input, their results one after another.

    Args:
        weights: the layer's tensors by their names in the description.
        names: the products they are added to, in order.
    """

    def __init__(self, weights: Mapping[str, Float], names: Sequence[str]) -> None:
        self._into = Linear.joined([weights[f"{name}_adapter_a.weight"] for name in names])
        self._out = [Linear(weights[f"{name}_adapter_b.weight"]) for name in names]

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._into.nbytes + sum(out.nbytes for out in self._out)

    def __call__(self, x: Float, counter: Counter) -> Float:
        """Return (rows, outputs of all products) for x of (rows, inputs)."""
        narrow = np.split(self._into(x, counter), len(self._out), axis=1)
        parts = zip(self._out, narrow, strict=True)
        return np.concatenate([out(np.ascontiguousarray(part), counter) for out, part in parts], axis=1)
