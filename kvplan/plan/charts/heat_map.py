"""Tokens a second of each GPU over contexts and batches, with lines of equal time per token."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.charts import Axis, Chart, HeatMap, Spacing
from kvplan.plan.capacity import Capacity
from kvplan.plan.charts.places import contexts, doublings
from kvplan.plan.charts.words import requests, subject
from kvplan.plan.roofline import Roofline
from kvplan.units import Unit, short_count

# Times per token that lines are drawn for, in seconds: those that people ask for.
LEVELS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)


def heat_map_chart(capacity: Capacity, roofline: Roofline) -> Chart:
    """Return tokens a second by context and batch; what does not fit is masked."""
    longest = capacity.deployment.max_tokens
    columns = contexts(longest, per_doubling=2)
    rows = doublings(max(2, capacity.max_batch(columns[0])))
    gpus = capacity.deployment.parallelism.gpus
    seconds = tuple(tuple(_step_s(roofline, batch, context) for context in columns) for batch in rows)
    cells = tuple(
        tuple(
            batch / took / gpus if capacity.fits(batch, context) else None
            for context, took in zip(columns, line, strict=True)
        )
        for batch, line in zip(rows, seconds, strict=True)
    )
    return Chart(
        kind="heat-map",
        title=_title(cells, seconds, rows, columns),
        subject=subject([(capacity.model, capacity.deployment)], "decode alone, expected"),
        panels=(
            HeatMap(
                Axis("context of each", Unit.TOKENS),
                tuple(map(float, columns)),
                Axis("requests at once", Unit.REQUESTS),
                tuple(map(float, rows)),
                Axis("tokens/s of each GPU", Unit.TOKENS_PER_SECOND, Spacing.TENFOLD),
                cells,
                "does not fit",
                Axis("time per token", Unit.SECONDS),
                _levels(cells, seconds),
                seconds,
            ),
        ),
        notes=("lines: time per token",) if _levels(cells, seconds) else (),
    )


def _step_s(roofline: Roofline, batch: int, context: int) -> float:
    return float(roofline.times(roofline.decode(batch, context)).estimate_s)


def _levels(cells: Sequence[Sequence[float | None]], seconds: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the times that some cells with a value are above, and some below."""
    pairs = zip(cells, seconds, strict=True)
    reached = [took for row, line in pairs for cell, took in zip(row, line, strict=True) if cell is not None]
    return tuple(level for level in LEVELS_S if min(reached) < level < max(reached)) if reached else ()


def _title(
    cells: Sequence[Sequence[float | None]],
    seconds: Sequence[Sequence[float]],
    rows: Sequence[int],
    columns: Sequence[int],
) -> str:
    """Name the best cell: the most tokens a second, and what a token takes there."""
    found = [(value, up, across) for up, row in enumerate(cells) for across, value in enumerate(row) if value]
    if not found:
        return f"Not one request of {short_count(columns[0])} fits"
    value, up, across = max(found)
    load = f"{requests(rows[up])} of {short_count(columns[across])}"
    return f"Up to {value:,.0f} tokens/s from each GPU: {load}, {seconds[up][across] * 1e3:.3g} ms a token"
