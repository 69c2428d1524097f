"""Activation buffers: what a block keeps alive while it runs, per token."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.weight import Split


@dataclass(frozen=True, slots=True)
class Buffer:
    """An intermediate array of ``elements`` per token, cut over tensor-parallel ranks like a weight."""

    name: str
    elements: int
    split: Split | None = None

    def on_rank(self, tensor_parallel: int) -> int:
        """Return the elements per token that one rank keeps.

        Whole experts are not cut by the ranks; shared evenly, they leave a rank the same number, rounded up
        where the ranks do not divide an expert. What must divide is refused with the weights.
        """
        if self.split is None or tensor_parallel == 1:
            return self.elements
        if not self.split.divides(tensor_parallel):
            return -(-self.elements // tensor_parallel)
        return self.elements // self.split.units * self.split.units_per_rank(tensor_parallel)
