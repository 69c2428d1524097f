"""The sequences in a cache: an id and a slot for each, and what is known of its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvplan.engine.arrays import Tokens
from kvplan.errors import UsageError


@dataclass(slots=True)
class CachedSequence:
    """One sequence in a cache.

    Args:
        id: what the caller knows it by.
        slot: its own in arrays that have one for each sequence.
        tokens: the ids of its tokens.
        keys: content keys of its first complete blocks.
        in_step: a step that it is in has begun and not been finished.
    """

    id: int
    slot: int
    tokens: Tokens
    keys: list[bytes]
    in_step: bool = False


class CachedSequences:
    """Up to ``slots`` sequences by id; an id is never used again, a slot is."""

    def __init__(self, slots: int) -> None:
        self._by_id: dict[int, CachedSequence] = {}
        self._next_id = 0
        self._free_slots = list(range(slots))[::-1]

    def add(self, tokens: Tokens, keys: Sequence[bytes] = ()) -> CachedSequence:
        """Return a new sequence of these tokens, in a slot of its own.

        Raises:
            UsageError: every slot is taken.
        """
        if not self._free_slots:
            raise UsageError(f"the cache holds {len(self._by_id)} sequences, as many as it is for")
        added = CachedSequence(self._next_id, self._free_slots.pop(), tokens, list(keys))
        self._by_id[added.id] = added
        self._next_id += 1
        return added

    def __iter__(self) -> Iterator[CachedSequence]:
        return iter(self._by_id.values())

    def find(self, sequence: int) -> CachedSequence:
        """Return a sequence; raises UsageError where there is none of this id."""
        if sequence not in self._by_id:
            raise UsageError(f"there is no sequence {sequence} in the cache")
        return self._by_id[sequence]

    def at_rest(self, sequence: int) -> CachedSequence:
        """Return a sequence; raises UsageError too where it is in a step that was not finished."""
        found = self.find(sequence)
        if found.in_step:
            raise UsageError(
                f"sequence {sequence} is in a step that was not finished", hint="if the step failed, free it"
            )
        return found

    def remove(self, sequence: int) -> None:
        """Forget a sequence; its slot is the next one taken."""
        self._free_slots.append(self._by_id.pop(sequence).slot)
