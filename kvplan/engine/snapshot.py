"""A sequence apart from its cache: to be swapped out and in again, copied, or saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvplan.allocation import Allocation, Paged
from kvplan.arch.model import Model
from kvplan.errors import UsageError
from kvplan.storage import KvFormat

Arrays: TypeAlias = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Layout:
    """What two caches have in common when a sequence of one can go on in the other.

    Args:
        model: its name.
        layers: a hash of what every layer stores of a token, and for how long.
        kv: the storage format.
        allocation: blocks of so many tokens, or room for so many.
    """

    model: str
    layers: str
    kv: str
    allocation: str

    @classmethod
    def of(cls, model: Model, kv: KvFormat, allocation: Allocation) -> Layout:
        """Return the layout of such a cache."""
        stored = repr([layer.slot() for layer in model.layers]).encode()
        if isinstance(allocation, Paged):
            cut = f"blocks of {allocation.block_tokens} tokens"
        else:
            cut = f"room for {allocation.max_tokens} tokens"
        return cls(model.name, blake2b(stored, digest_size=8).hexdigest(), kv.name, cut)

    def require(self, other: Layout) -> None:
        """Raise UsageError where the layout of a sequence differs from this one, a cache's."""
        mine, theirs = asdict(self), asdict(other)
        for name in mine:
            if mine[name] != theirs[name]:
                raise UsageError(
                    f"this sequence was kept with {name} = {theirs[name]}, the cache has {mine[name]}"
                )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a cache keeps of one sequence.

    Args:
        layout: of the cache it is from.
        tokens: the ids of its tokens.
        blocks: the logical blocks each table holds.
        layers: each layer's arrays, the blocks of its table or its state.
    """

    layout: Layout
    tokens: NDArray[np.int64]
    blocks: tuple[tuple[int, ...], ...]
    layers: tuple[Arrays, ...]


def require_equal_arrays(found: Arrays, expected: Arrays) -> None:
    """Raise UsageError unless a layer has arrays of the expected names, shapes and types."""
    if _shapes(found) != _shapes(expected):
        raise UsageError("this sequence is damaged: its arrays are not those of such a cache")


def _shapes(arrays: Arrays) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}
