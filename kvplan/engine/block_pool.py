"""The block pool: who owns which block of a cache, and which content finished blocks hold.

Pure accounting of block ids; it knows nothing of arrays, layers or attention. A block is always one of

- live: it has owners, more than one after a fork or a prefix hit;
- cached: nobody owns it, but its content is known under a key and can be shared again;
- unknown: nobody owns it, and its content is of no use.

An allocation takes unknown blocks before cached ones. Attention reads a run of consecutive blocks as one
view, so of the unknown it takes the lowest run that is long enough; where there is none, it takes runs
half as long, then half of that, lowest first. Of the cached it evicts the least recently freed first; of
those freed in one call the last, because a start of a sequence is worth more than an end. Whatever it
takes, it hands out in ascending order.

The upkeep of a block costs the same however large the pool. Only the look for a run depends on that: it
is a search for a string in one byte a block, without a step in Python.
"""

# ruff: noqa: N818 - an exception here is named for what happened

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from operator import index
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from kvplan.errors import UsageError

KEY_BYTES = 16


class OutOfBlocks(UsageError):
    """An allocation of more blocks than are free; nothing was taken."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(
            f"out of cache blocks: {needed} needed, {free} free",
            hint="give the cache more blocks, or run fewer or shorter sequences",
        )
        self.needed = needed
        self.free = free


class NotAllocated(ValueError):
    """A block that nobody owns, where an owner or known content is called for."""

    def __init__(self, block: int) -> None:
        super().__init__(f"block {block} has no owner and no known content")
        self.block = block


class DoubleFree(ValueError):
    """A block given back more often than it has owners; nothing was freed."""

    def __init__(self, block: int) -> None:
        super().__init__(f"block {block} is freed more often than it has owners")
        self.block = block


class AlreadyPublished(ValueError):
    """A block published under a second key before its first was forgotten."""

    def __init__(self, block: int) -> None:
        super().__init__(f"block {block} is known under another key; forget that one first")
        self.block = block


class BlockPool:
    """Blocks ``0`` to ``num_blocks - 1``, all unknown at first.

    ``num_free`` and ``num_used`` always add up to ``num_blocks``; cached blocks count as free, because an
    allocation may evict them.
    """

    def __init__(self, num_blocks: int) -> None:
        if num_blocks < 0:
            raise ValueError(f"a pool cannot have {num_blocks} blocks")
        self.num_blocks = num_blocks
        self._owners: dict[int, int] = {}  # of live blocks
        self._key_of: dict[int, bytes] = {}  # of live and cached blocks whose content is known
        self._block_of: dict[bytes, int] = {}
        self._cached: OrderedDict[int, None] = OrderedDict()  # in the order they are evicted
        self._unknown = bytearray(b"\1" * num_blocks)  # 1 for each unknown block, so that find() sees runs
        self._lowest = 0  # no unknown block is below it

    @property
    def num_used(self) -> int:
        """Blocks somebody owns."""
        return len(self._owners)

    @property
    def num_free(self) -> int:
        """Blocks an allocation can take, cached ones included."""
        return self.num_blocks - len(self._owners)

    @property
    def num_cached(self) -> int:
        """Free blocks whose content is still known."""
        return len(self._cached)

    def ref_count(self, block: int) -> int:
        """Return how many own a block; raises NotAllocated for one outside the pool."""
        if not 0 <= block < self.num_blocks:
            raise NotAllocated(block)
        return self._owners.get(block, 0)

    def allocate(self, count: int) -> list[int]:
        """Take blocks, each with one owner; raises OutOfBlocks, and changes nothing, if too few are free.

        They come in ascending order; the top of this file says which they are.
        """
        if count < 0:
            raise ValueError(f"cannot allocate {count} blocks")
        free = self.num_blocks - len(self._owners)
        if count > free:
            raise OutOfBlocks(count, free)
        unknown = free - len(self._cached)
        if count <= unknown:
            taken = self._take_unknown(count)
        else:
            taken = sorted(self._take_unknown(unknown) + self._evict(count - unknown))
        for block in taken:
            self._owners[block] = 1
        return taken

    def share(self, block: int) -> None:
        """Add an owner to a live block, or revive a cached one; raises NotAllocated for any other.

        What ``lookup`` found is safe from eviction only once it is shared: share first, then allocate.
        """
        owners = self._owners.get(block)
        if owners is not None:
            self._owners[block] = owners + 1
        elif block in self._cached:
            del self._cached[block]
            self._owners[block] = 1
        else:
            raise NotAllocated(block)

    def free(self, blocks: Iterable[SupportsIndex]) -> None:
        """Take one owner from each block of a sequence, given in its order.

        A block without owners left becomes cached if its content is known, unknown if not. Raises
        DoubleFree, and changes nothing, if a block is named more often than it has owners.
        """
        ownerless = self._disown(list(map(index, blocks)))
        for block in reversed(ownerless):
            if block in self._key_of:
                self._cached[block] = None
            else:
                self._make_unknown(block)

    def publish(self, block: int, key: bytes) -> None:
        """Make a live block's finished content known; a key that already has a block keeps that one.

        Raises NotAllocated for a block that is not live, AlreadyPublished for one with another key.
        """
        if block not in self._owners:
            raise NotAllocated(block)
        if self._key_of.get(block, key) != key:
            raise AlreadyPublished(block)
        if key not in self._block_of:
            self._block_of[key] = index(block)
            self._key_of[block] = key

    def lookup(self, key: bytes) -> int | None:
        """Return the live or cached block that holds this content, if there is one."""
        return self._block_of.get(key)

    def forget(self, block: int) -> None:
        """Drop a block's key before its content changes; raises NotAllocated unless it is live or cached."""
        if block in self._cached:
            del self._cached[block]
            self._make_unknown(block)
        elif block not in self._owners:
            raise NotAllocated(block)
        self._drop_key(block)

    def _take_unknown(self, count: int) -> list[int]:
        """Take this many unknown blocks, of which there must be so many; ascending."""
        if count == 1:  # what decoding asks for nearly always: the general way takes half as long again
            lowest = self._unknown.find(1, self._lowest)
            self._unknown[lowest] = 0
            self._lowest = lowest + 1
            return [lowest]
        start = self._unknown.find(b"\1" * count, self._lowest)
        return sorted(self._take_pieces(count)) if start < 0 else self._take_run(start, count)

    def _take_pieces(self, count: int) -> list[int]:
        """Take unknown blocks where no run is long enough: shorter runs, each length half of the last."""
        taken: list[int] = []
        length = count
        while length > 1:
            length -= length // 2
            start = self._lowest
            while len(taken) + length <= count and (start := self._unknown.find(b"\1" * length, start)) >= 0:
                taken += self._take_run(start, length)
        return taken

    def _take_run(self, start: int, length: int) -> list[int]:
        end = start + length
        self._unknown[start:end] = bytes(length)
        if start == self._lowest:
            self._lowest = end
        return list(range(start, end))

    def _evict(self, count: int) -> list[int]:
        """Take this many cached blocks, of which there must be so many, and forget what they hold."""
        evicted = [self._cached.popitem(last=False)[0] for _ in range(count)]
        for block in evicted:
            self._drop_key(block)
        return evicted

    def _disown(self, blocks: list[int]) -> list[int]:
        """Take one owner from each block, or from none; return the blocks that have no owner left."""
        owners, ownerless = self._owners, []
        for place, block in enumerate(blocks):
            left = owners.get(block, 0) - 1
            if left > 0:
                owners[block] = left
            elif left == 0:
                del owners[block]
                ownerless.append(block)
            else:
                for disowned in blocks[:place]:
                    owners[disowned] = owners.get(disowned, 0) + 1
                raise DoubleFree(block)
        return ownerless

    def _make_unknown(self, block: int) -> None:
        self._unknown[block] = 1
        if block < self._lowest:
            self._lowest = block

    def _drop_key(self, block: int) -> None:
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._block_of[key]


def block_key(parent: bytes | None, tokens: Sequence[int] | NDArray[np.integer]) -> bytes:
    """Return the key of a block's content: a hash of its token ids (n,) and of all blocks before it.

    ``parent`` is the key of the block before, ``None`` for the first of a sequence. Equal tokens give
    equal keys in every process and on every machine. BLAKE2b (RFC 7693), keyed by the parent. Raises
    ValueError unless the tokens are whole numbers, at least one of them.
    """
    ids = np.asarray(tokens)
    if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
        raise ValueError(f"a block's tokens must be one row of whole numbers, not {ids.dtype} {ids.shape}")
    return blake2b(ids.astype("<i8").tobytes(), digest_size=KEY_BYTES, key=parent or b"").digest()
