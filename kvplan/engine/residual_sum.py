"""The sum of a residual stream and what is added to it, each multiplied as the model says."""

from __future__ import annotations

import numpy as np

from kvplan.engine.arrays import Float


class ResidualSum:
    """``of_residual * residual + of_added * added``; a factor of one costs nothing."""

    def __init__(self, of_residual: float, of_added: float) -> None:
        self._of_residual = None if of_residual == 1 else np.float32(of_residual)
        self._of_added = None if of_added == 1 else np.float32(of_added)

    def __call__(self, residual: Float, added: Float) -> Float:
        """Return the sum, a new array."""
        if self._of_residual is not None:
            residual = residual * self._of_residual
        if self._of_added is not None:
            added = added * self._of_added
        return residual + added
