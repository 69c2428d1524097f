"""Rows that wait to be compressed: of each sequence the few tokens behind its last whole run, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.arrays import Float


class WaitingRows:
    """One layer's rows ``(slots, room, elements)``: a run of ``ratio`` tokens needs no room for its last."""

    def __init__(self, elements: int, ratio: int, slots: int) -> None:
        self.ratio = ratio
        self._rows = np.zeros((slots, ratio - 1, elements), np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of all slots."""
        return self._rows.nbytes

    @property
    def slot_nbytes(self) -> int:
        """Bytes of one sequence's room."""
        return (self.ratio - 1) * self.row_nbytes

    @property
    def row_nbytes(self) -> int:
        """Bytes of one token's row."""
        return self._rows.shape[2] * self._rows.itemsize

    def read(self, slot: int, count: int) -> Float:
        """Return the first rows of a slot, ``(count, elements)``."""
        return self._rows[slot, :count]

    def write(self, slot: int, first: int, rows: Float) -> None:
        """Store rows ``(n, elements)`` in a slot, from place ``first`` on."""
        self._rows[slot, first : first + len(rows)] = rows

    def copy(self, source: int, target: int) -> None:
        """Copy one sequence's rows to another slot."""
        self._rows[target] = self._rows[source]

    def dump(self, slot: int) -> dict[str, NDArray[np.float32]]:
        """Return a copy of one sequence's rows."""
        return {"rows": self._rows[slot].copy()}

    def load(self, slot: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set one sequence's rows to saved ones."""
        self._rows[slot] = arrays["rows"]
