"""How the cache of one request grows with its context, up to what accelerators have room for."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.charts import Axis, Chart, Curves, Limit, Line, Spacing
from kvplan.plan.capacity import Capacity
from kvplan.plan.charts.places import contexts
from kvplan.plan.charts.words import Named, size, subject, upper_first
from kvplan.units import Unit, short_count


def growth_chart(named: Sequence[Named[Capacity]], limits: Sequence[Named[Capacity]] = ()) -> Chart:
    """Return a curve for each of several plans, and pools as limits; the title is about the first.

    Bytes are those of one request on the GPU that is loaded most, in whole blocks, as the pool is.

    Args:
        named: models, storages or deployments whose caches are compared.
        limits: plans whose pools are drawn: other accelerators. Absent, the pools of ``named``.
    """
    plans = tuple(named) + tuple(limits)
    lengths = {one.of.deployment.max_tokens for one in named}
    ends = ("curves end at the longest context allowed",) if len(lengths) > 1 else ()
    return Chart(
        kind="growth",
        title=_title(named),
        subject=subject([(one.of.model, one.of.deployment) for one in plans], "one request"),
        panels=(
            Curves(
                Axis("context", Unit.TOKENS, Spacing.DOUBLING),
                Axis("cache of one request on a GPU", Unit.BYTES, Spacing.DOUBLING),
                tuple(map(_line, named)),
                _pools(limits or named),
            ),
        ),
        notes=(*ends, *_without_pool(limits or named)),
    )


def _line(one: Named[Capacity]) -> Line:
    places = contexts(one.of.deployment.max_tokens)
    heights = tuple(float(one.of.most_loaded.needed_bytes(1, place)) for place in places)
    return Line(one.name, tuple(map(float, places)), heights)


def _pools(named: Sequence[Named[Capacity]]) -> tuple[Limit, ...]:
    """Return the pools of every kind of accelerator: one, or the smallest and the largest of several."""
    found: dict[str, set[int]] = {}
    for one in named:
        found.setdefault(_gpu(one.of), set()).add(one.of.most_loaded.pool.number)
    limits = []
    for gpu, pools in found.items():
        words = (
            {min(pools): "smallest pool", max(pools): "largest pool"}
            if len(pools) > 1
            else dict.fromkeys(pools, "pool")
        )
        limits += [Limit(f"{word} of {gpu}", float(size)) for size, word in words.items() if size]
    return tuple(limits)


def _gpu(capacity: Capacity) -> str:
    """Return what the pool is one of: ``h100-sxm``, ``each of 8 h100-sxm``."""
    gpus, device = capacity.deployment.parallelism.gpus, capacity.deployment.device.name
    return device if gpus == 1 else f"each of {gpus} {device}"


def _without_pool(named: Sequence[Named[Capacity]]) -> tuple[str, ...]:
    short = [one.name for one in named if not one.of.most_loaded.pool.number]
    return (f"no room for any cache: {', '.join(short)}",) if short else ()


def _title(named: Sequence[Named[Capacity]]) -> str:
    """Say what one request takes, where another plan takes least, and for how many there is room."""
    longest = min(one.of.deployment.max_tokens for one in named)
    memory = named[0].of.most_loaded
    needed = memory.needed_bytes(1, longest)
    constant = needed == memory.needed_bytes(1, 1) and longest > 1
    request = "a request of any length" if constant else f"a request of {short_count(longest)}"
    of_many = f"{named[0].name}: " if len({one.of.model.name for one in named}) > 1 else ""
    taken = f"{request} takes {size(needed)} of cache{_least(named, longest, needed)}"
    return f"{of_many}{taken if of_many else upper_first(taken)}; {_room(named[0].of, longest)}"


def _room(capacity: Capacity, longest: int) -> str:
    """Return for how many requests there is room, or how long one can get."""
    gpus, device = capacity.deployment.parallelism.gpus, capacity.deployment.device.name
    on = f"{device} has" if gpus == 1 else f"{gpus} x {device} have"
    reach = capacity.max_context(1)
    if not reach:
        return f"{on} no room for it"
    if reach < longest:
        return f"{on} room for {reach:,} tokens"
    return f"{on} room for {capacity.max_batch(longest):,}"


def _least(named: Sequence[Named[Capacity]], longest: int, needed: int) -> str:
    """Return which other plan takes least, where one takes less."""
    least = min(named, key=lambda one: one.of.most_loaded.needed_bytes(1, longest))
    taken = least.of.most_loaded.needed_bytes(1, longest)
    return f" ({least.name}: {size(taken)})" if taken < needed else ""
