"""What every recurrent mixer says of itself: products, a recurrence between them, and its operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from kvplan.arch.buffer import Buffer
from kvplan.arch.limits import Limits
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Split, Weight
from kvplan.formula import Formula
from kvplan.units import Count


@dataclass(frozen=True, slots=True)
class Product:
    """Matrices with the same input, multiplied as one.

    Args:
        name: the operator's name.
        label: what a person calls it.
        weights: the matrices' names, without ``.weight`` and what stands before the last dot.
    """

    name: str
    label: str
    weights: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Size:
    """A size that a recurrence's operations depend on.

    Args:
        name: the formula's name of it.
        value: the size.
        cut: tensor-parallel ranks divide it.
        split: how they do, where not evenly.
    """

    name: str
    value: int
    cut: bool = True
    split: Split | None = None

    def on_rank(self, tensor_parallel: int) -> int:
        """Return the size on one rank."""
        if self.split is not None:
            return self.value // self.split.units * self.split.units_per_rank(tensor_parallel)
        return self.value // tensor_parallel if self.cut else self.value


@dataclass(frozen=True, slots=True)
class Recurrence:
    """The operators of a recurrent mixer, in the order they run.

    Args:
        inputs: the products before the recurrence.
        flops: the recurrence's operations, a formula of layers, tokens and ``sizes`` in their order.
        sizes: what it depends on.
        features: numbers the recurrence reads and writes for a token; tensor-parallel ranks divide them.
        outputs: the products after it.
        summed: numbers a token that ranks sum inside the mixer, made from inputs they divide.
    """

    inputs: tuple[Product, ...]
    flops: Formula[Any, Count]
    sizes: tuple[Size, ...]
    features: int
    outputs: tuple[Product, ...]
    summed: int = 0


class Recurrent(ABC):
    """A mixer that keeps a state per request instead of tokens."""

    __slots__ = ()

    @abstractmethod
    def slots(self) -> tuple[CacheSlot, ...]:
        """Return one request's state."""

    @abstractmethod
    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the mixer's tensors."""

    @abstractmethod
    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""

    @abstractmethod
    def recurrence(self) -> Recurrence:
        """Return the operators it runs as."""

    @abstractmethod
    def scaled_down(self, limits: Limits) -> Recurrent:
        """Return the mixer with as few heads as a scaled model has."""
