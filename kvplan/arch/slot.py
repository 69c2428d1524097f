"""A layer's place in the cache: what is stored, which tokens of it stay, who sees them, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.entry import Entry
from kvplan.arch.retention import Retention, Sliding
from kvplan.arch.selected import Selected


@dataclass(frozen=True, slots=True)
class Sight:
    """What a query sees of a slot: what stays in it, and of that only what is ``selected``, if given."""

    retention: Retention
    selected: Selected | None = None


@dataclass(frozen=True, slots=True)
class CacheSlot:
    """An entry under a retention: the two independent axes that describe every cache.

    Args:
        entry: what one token, or one request, stores.
        retention: which tokens stay.
        owned: the layer stores it; otherwise it reads what the nearest layer before it with such a slot
            of its own has stored, and stores nothing (Gemma 3n).
        selected: a query sees only so much of what stays: an indexer chooses it.
        visible_window: a query sees only so many last tokens of those that stay (GPT-Neo).
    """

    entry: Entry
    retention: Retention
    owned: bool = True
    selected: Selected | None = None
    visible_window: int | None = None

    @property
    def sight(self) -> Sight:
        """What a query sees of it."""
        if self.visible_window is not None:
            return Sight(Sliding(self.visible_window))
        return Sight(self.retention, self.selected)
