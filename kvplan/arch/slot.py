"""A layer's place in the cache: what is stored, and which tokens of it stay."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.entry import Entry
from kvplan.arch.retention import Retention


@dataclass(frozen=True, slots=True)
class CacheSlot:
    """An entry under a retention: the two independent axes that describe every cache."""

    entry: Entry
    retention: Retention
