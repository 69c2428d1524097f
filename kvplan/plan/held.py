"""Tokens and blocks that requests hold at the end of a run, for each retention among the layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from kvplan.allocation import Allocation, Paged
from kvplan.arch.model import Model
from kvplan.arch.retention import Full, Retention, Unfinished
from kvplan.formula import formula
from kvplan.plan.cache import Cache, CacheRun, Stored
from kvplan.plan.phase import kept_word
from kvplan.plan.requests import Alike, over_requests
from kvplan.results import Quantity, computed, fact
from kvplan.units import Count, Unit


@formula(Unit.BLOCKS, "a block of a table is a block of every layer that keeps the same tokens")
def table_blocks(tokens: Count, block_tokens: int) -> Count:
    """Blocks that make so many allocated tokens."""
    return tokens // block_tokens


@dataclass(frozen=True, slots=True)
class Held:
    """What layers of one retention hold at the end of a run, all requests together.

    Args:
        live: what matters.
        allocated: what is handed out.
        blocks: blocks of their table; ``None`` in a contiguous cache, and of what has none.
    """

    live: Stored
    allocated: Stored
    blocks: Quantity | None

    def sums(self) -> tuple[Quantity, ...]:
        """Return every sum over requests."""
        return (*self.live.parts(), *self.allocated.parts())


def held_at_the_end(
    model: Model, cache: Cache, several: Sequence[Alike], allocation: Allocation
) -> dict[Retention, Held]:
    """Return what is held for each retention; ``cache`` is one request's over all layers."""
    found: dict[Retention, Held] = {}
    for run, cached in zip(model.slot_runs(), cache.runs, strict=True):
        retention = run.slot.retention
        if cached.live is not None and retention not in found:
            found[retention] = _held(cached, retention, several, allocation)
    return found


def _held(cached: CacheRun, retention: Retention, several: Sequence[Alike], allocation: Allocation) -> Held:
    word = kept_word(retention)
    live = _over(f"{word}_live", several, lambda alike: cached.live_tokens(alike.cached))
    if isinstance(retention, Full):
        # All of them: one line a request says it, not four.
        live = replace(live, tokens=over_requests(f"{word}_live_tokens", several, lambda a: a.cached))
    allocated = _over(f"{word}_allocated", several, lambda alike: cached.allocated_tokens(alike.cached))
    if not isinstance(allocation, Paged) or isinstance(retention, Unfinished):
        return Held(live, allocated, None)
    block = fact("block_tokens", allocation.block_tokens, "--block-size", Unit.TOKENS)
    blocks = computed(f"{word}_blocks", table_blocks, allocated.tokens, block)
    return Held(live, allocated, blocks)


def _over(name: str, several: Sequence[Alike], figure: Callable[[Alike], Stored]) -> Stored:
    """Return an amount of cache summed over requests."""
    each = {alike: figure(alike) for alike in several}

    def summed(word: str, found: Mapping[Alike, Quantity | None]) -> Quantity | None:
        named = {a: replace(quantity, name=a.name) for a, quantity in found.items() if quantity is not None}
        return over_requests(f"{name}_{word}", several, lambda alike: named[alike]) if named else None

    tokens = summed("tokens", {alike: stored.tokens for alike, stored in each.items()})
    assert tokens is not None
    return Stored(
        tokens,
        summed("groups", {alike: stored.groups for alike, stored in each.items()}),
        summed("waiting", {alike: stored.waiting for alike, stored in each.items()}),
    )
