"""A sequence apart from its cache: to be swapped out and in again, copied, or saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from kvplan.allocation import Allocation, Paged
from kvplan.arch.model import Model
from kvplan.engine.arrays import Arrays, Tokens
from kvplan.engine.cached_sequences import CachedSequence
from kvplan.engine.layer_caches import LayerCache
from kvplan.engine.token_group import TokenGroup
from kvplan.errors import UsageError
from kvplan.storage import KvFormat


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
        stored = repr(list(model.stored_slots())).encode()
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
    tokens: Tokens
    blocks: tuple[tuple[int, ...], ...]
    layers: tuple[Arrays, ...]

    @classmethod
    def of(
        cls,
        sequence: CachedSequence,
        layout: Layout,
        groups: Sequence[TokenGroup],
        layers: Sequence[LayerCache],
    ) -> Snapshot:
        """Return copies of everything that these groups and layers keep of a sequence."""
        return cls(
            layout,
            sequence.tokens.copy(),
            tuple(tuple(group.tables[sequence.id].blocks) for group in groups),
            tuple(layer.dump(layer.blocks(sequence), sequence.slot) for layer in layers),
        )

    def require_fit(
        self, layout: Layout, max_tokens: int, groups: Sequence[TokenGroup], layers: Sequence[LayerCache]
    ) -> None:
        """Refuse what cannot be put into such a cache; nothing is changed.

        Raises:
            UsageError: it is damaged, longer than ``max_tokens``, or of a cache with another layout.
            OutOfBlocks: a group has no room.
        """
        layout.require(self.layout)
        if len(self.tokens) > max_tokens:
            count = f"{len(self.tokens):,} tokens"
            raise UsageError(f"{count} are more than the {max_tokens:,} this cache is for")
        if (len(self.blocks), len(self.layers)) != (len(groups), len(layers)) or not all(
            group.could_hold(logical, len(self.tokens)) for group, logical in self._tables(groups)
        ):
            raise UsageError("this sequence is damaged: its blocks are not those of its length")
        for group, logical in self._tables(groups):
            group.require_free(len(logical))
        self._require_arrays(groups, layers)

    def _require_arrays(self, groups: Sequence[TokenGroup], layers: Sequence[LayerCache]) -> None:
        """Raise UsageError unless every layer's arrays have the names, shapes and types they would have."""
        counts = {layer: len(logical) for group, logical in self._tables(groups) for layer in group.layers}
        for number, (layer, arrays) in enumerate(zip(layers, self.layers, strict=True)):
            expected = layer.dump(np.zeros(counts.get(number, 0), np.int64), 0)
            if _shapes(arrays) != _shapes(expected):
                raise UsageError("this sequence is damaged: its arrays are not those of such a cache")

    def put_back(
        self, sequence: CachedSequence, groups: Sequence[TokenGroup], layers: Sequence[LayerCache]
    ) -> None:
        """Make a new sequence's blocks and arrays those of this snapshot, which must fit."""
        for group, logical in self._tables(groups):
            group.restore(sequence.id, logical)
        for layer, arrays in zip(layers, self.layers, strict=True):
            layer.load(layer.blocks(sequence), sequence.slot, arrays)

    def _tables(self, groups: Sequence[TokenGroup]) -> Iterator[tuple[TokenGroup, tuple[int, ...]]]:
        return zip(groups, self.blocks, strict=True)


def _shapes(arrays: Arrays) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}
