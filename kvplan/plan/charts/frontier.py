"""How many requests fit at once, against their context: the edge of what a deployment can hold."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.charts import Axis, Chart, Curves, Limit, Line, Spacing
from kvplan.plan.capacity import Capacity
from kvplan.plan.charts.places import contexts
from kvplan.plan.charts.words import Named, requests, subject
from kvplan.units import Unit, short_count

# Up to so many requests the curve turns exactly where one more no longer fits.
EXACT_REQUESTS = 24


def frontier_chart(named: Sequence[Named[Capacity]], context: int) -> Chart:
    """Return a curve for every option, what the first can hold shaded; the title is about ``context``."""
    lines = [_line(one) for one in named]
    drawn = tuple(line for line in lines if line.x)
    without = [line.name for line in lines if not line.x]
    longest = max(one.of.deployment.max_tokens for one in named)
    limit = Limit(f"longest allowed: {short_count(longest)}", float(longest), upright=True)
    return Chart(
        kind="frontier",
        title=_title(named, min(context, named[0].of.deployment.max_tokens)),
        subject=subject([(one.of.model, one.of.deployment) for one in named], "requests all alike"),
        panels=(
            Curves(
                Axis("context of each", Unit.TOKENS, Spacing.DOUBLING),
                Axis("requests at once", Unit.REQUESTS, Spacing.DOUBLING),
                drawn,
                (limit,) if drawn else (),
                shaded="fits" if lines[0].x else "",
                empty="not one request fits",
            ),
        ),
        notes=(f"not one request fits: {', '.join(without)}",) if without and drawn else (),
    )


def _line(one: Named[Capacity]) -> Line:
    """Return most requests by context, as far as one fits."""
    held = [(place, most) for place in _places(one.of) if (most := one.of.max_batch(place))]
    return Line(one.name, tuple(float(place) for place, _ in held), tuple(float(most) for _, most in held))


def _places(capacity: Capacity) -> list[int]:
    """Return contexts, evenly by doublings, and those where few requests become one fewer."""
    longest = capacity.deployment.max_tokens
    even = contexts(longest)
    reached = {capacity.max_context(count) for count in range(1, EXACT_REQUESTS + 1)}
    edges = {edge for reach in reached for edge in (reach, reach + 1) if even[0] < edge <= longest}
    return sorted(edges.union(even))


def _title(named: Sequence[Named[Capacity]], context: int) -> str:
    """Say how many requests the first plan holds, and which other holds most, if one holds more."""
    first = named[0].of.max_batch(context)
    fits = "fits" if first <= 1 else "fit"
    said = f"{requests(first) if first else 'Not one request'} of {short_count(context)} {fits}"
    most = max(named, key=lambda one: one.of.max_batch(context))
    held = most.of.max_batch(context)
    return f"{said}; {most.name}: {held:,}" if held > first else f"{said} at once" if first > 1 else said
