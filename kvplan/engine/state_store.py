"""The states of recurrent layers: one slot for each sequence, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.entry import State


class StateStore:
    """One layer's convolution inputs ``(slots, channels, columns)`` and states ``(slots, elements)``."""

    def __init__(self, entry: State, slots: int) -> None:
        self.conv = np.zeros((slots, entry.conv_channels, entry.conv_columns), np.float32)
        self.recurrent = np.zeros((slots, entry.recurrent_elements), np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of all slots."""
        return self.conv.nbytes + self.recurrent.nbytes

    @property
    def slot_nbytes(self) -> int:
        """Bytes of one sequence's state."""
        return int(self.conv[0].nbytes + self.recurrent[0].nbytes)

    def clear(self, slot: int) -> None:
        """Set a slot to the state before the first token."""
        self.conv[slot] = 0
        self.recurrent[slot] = 0

    def copy(self, source: int, target: int) -> None:
        """Copy one sequence's state to another slot."""
        self.conv[target] = self.conv[source]
        self.recurrent[target] = self.recurrent[source]

    def dump(self, slot: int) -> dict[str, NDArray[np.float32]]:
        """Return copies of one sequence's arrays."""
        return {"conv": self.conv[slot].copy(), "recurrent": self.recurrent[slot].copy()}

    def load(self, slot: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set one sequence's arrays to saved ones."""
        self.conv[slot] = arrays["conv"]
        self.recurrent[slot] = arrays["recurrent"]
