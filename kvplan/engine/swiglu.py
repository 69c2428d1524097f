"""A bounded gated unit, computed in place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.swiglu import Swiglu
from kvplan.engine.activations import sigmoid


def bounded_swiglu(swiglu: Swiglu, gate_and_up: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the unit's (rows, width) for both halves in one array (rows, 2 width), gate first.

    The array is overwritten.
    """
    width, limit = gate_and_up.shape[1] // 2, np.float32(swiglu.limit)
    gate, up = gate_and_up[:, :width], gate_and_up[:, width:]
    np.clip(up, -limit, limit, out=up)
    if swiglu.up_offset:
        up += np.float32(swiglu.up_offset)
    if not swiglu.limit_after:
        np.minimum(gate, limit, out=gate)
    slope = np.float32(swiglu.alpha)
    gate *= sigmoid(gate * slope if swiglu.alpha != 1 else gate)
    if swiglu.limit_after:
        np.minimum(gate, limit, out=gate)
    return np.multiply(gate, up)
