"""What a run really multiplied and touched, counted where it happened.

Nothing here knows a formula of the planner: counts come from the shapes and bytes of the arrays at hand.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counter:
    """Running counts of one phase of a run.

    Args:
        matmul_flops: 2 x rows x inputs x outputs of every product with a weight.
        attention_flops: products of queries with visible keys, of weights with their values, and of
            recurrent states; masked pairs and padding are not in it.
        weights_read_bytes: bytes of weights, once for each product they take part in.
        cache_read_bytes: bytes of cached vectors and states, once per step and layer that reads them.
        cache_written_bytes: bytes of cached vectors and states stored.
    """

    matmul_flops: int = 0
    attention_flops: int = 0
    weights_read_bytes: int = 0
    cache_read_bytes: int = 0
    cache_written_bytes: int = 0

    def add(self, other: Counter) -> None:
        """Add everything another counter counted."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def matmul(self, rows: int, inputs: int, outputs: int, nbytes: int) -> None:
        """Count a product of ``rows`` vectors with an ``inputs x outputs`` matrix, read for it."""
        self.matmul_flops += 2 * rows * inputs * outputs
        self.weights_read_bytes += nbytes

    def attention(self, flops: int) -> None:
        """Count floating-point operations of attention or of a recurrence."""
        self.attention_flops += flops

    def read_weights(self, nbytes: int) -> None:
        """Count bytes of weights read."""
        self.weights_read_bytes += nbytes

    def read_cache(self, nbytes: int) -> None:
        """Count bytes of cache read."""
        self.cache_read_bytes += nbytes

    def write_cache(self, nbytes: int) -> None:
        """Count bytes of cache written."""
        self.cache_written_bytes += nbytes
