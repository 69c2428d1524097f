"""A compressor of runs of tokens: a product and a gate of each token, and their softmax-weighted sum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvplan.engine.arrays import Float
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.norms import RMSNorm
from kvplan.engine.rotary import Rotary


class Compressor:
    """What makes one vector of each whole run of tokens (transformers 5.23, modeling_deepseek_v4.py).

    With two series, one of its projections is for the token's own run and the first one for the run behind:
    an entry is then made of two runs.

    Args:
        name: what its tensors' names begin with.
        weights: the layer's tensors by name.
        eps: what its norm adds under the root.
        rotary: the rotation of the last elements of what it makes.
        rotated: how many those are.
    """

    def __init__(
        self, name: str, weights: Mapping[str, Float], eps: float, rotary: Rotary, rotated: int
    ) -> None:
        parts = [weights[f"{name}.kv_proj.weight"], weights[f"{name}.gate_proj.weight"]]
        self._projections = Linear.joined(parts)
        self._bias = weights[f"{name}.position_bias"]
        self._norm = RMSNorm(weights[f"{name}.kv_norm.weight"], eps)
        self.dim = len(weights[f"{name}.kv_norm.weight"])
        self._rotary, self._rotated = rotary, rotated

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return sum(part.nbytes for part in (self._projections, self._bias, self._norm))

    @property
    def elements(self) -> int:
        """Numbers it makes of a token: products, then gates."""
        return int(self._projections.outputs)

    def project(self, x: Float, counter: Counter) -> Float:
        """Return what is compressed of each token, ``(tokens, elements)``, of x ``(tokens, hidden)``."""
        # Read once a step, whichever runs end in it.
        counter.read_weights(self._bias.nbytes + self._norm.nbytes)
        return self._projections(x, counter)

    def compress(self, rows: Float, first: int, last: Float) -> tuple[Float, Float]:
        """Return the vectors of whole runs, and what the next run's one needs of the last of them.

        Args:
            rows: ``(runs x ratio, elements)``.
            first: the number of the first run.
            last: what was returned with the run before, ``(ratio, 2 dim)``; not read for run 0.

        Returns:
            Vectors ``(runs, dim)``, normalised and rotated; and ``(ratio, 2 dim)``, nothing with one series.
        """
        ratio, width = self._bias.shape
        runs = rows.reshape(-1, ratio, 2 * width)
        products, gates = runs[..., :width], runs[..., width:] + self._bias
        if width > self.dim:
            products, before_products = self._overlapping(products, first, last[:, : self.dim], 0.0)
            gates, before_gates = self._overlapping(gates, first, last[:, self.dim :], -np.inf)
            last = np.concatenate([before_products, before_gates], axis=1)
        shares = np.exp(gates - gates.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        summed = np.einsum("rtd,rtd->rd", shares, products)
        vectors = self._norm(summed, Counter())
        positions = (first + np.arange(len(runs))) * ratio
        tail = np.ascontiguousarray(vectors[:, None, -self._rotated :])
        vectors[:, -self._rotated :] = self._rotary.rotate(tail, positions)[:, 0]
        return vectors, last

    def _overlapping(self, runs: Float, first: int, last: Float, nothing: float) -> tuple[Float, Float]:
        """Return runs ``(runs, 2 ratio, dim)`` with the one before each in front, and the last one's part."""
        for_next, own = runs[..., : self.dim], runs[..., self.dim :]
        before = np.concatenate([last[None], for_next[:-1]])
        if first == 0:
            before[0] = nothing
        return np.concatenate([before, own], axis=1), for_next[-1]
