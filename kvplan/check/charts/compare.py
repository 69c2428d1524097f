"""What each option gains against what it costs: its rate as planned, its price as measured elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvplan.charts import Axis, Bar, Bars, Chart, Dot, Dots, Hue, Spacing
from kvplan.check.advice import LEAST_GAIN, Compared, advise, condition, gain, quoted_price, rate_of_gpu
from kvplan.check.comparison import Comparison
from kvplan.check.comparison_report import quoted_from
from kvplan.plan.charts.words import requests, subject
from kvplan.units import Unit, short_count

# Where what costs nothing, or less, stands on an axis that has no nothing.
FLOOR = 1e-4


def compare_chart(comparison: Comparison) -> Chart:
    """Return options by gain and price; by gain alone, as bars, where no option has a whole price.

    The gain is the expected rate of each GPU when full, against the baseline's; the rate itself where the
    baseline holds nothing.
    """
    rows = (comparison.baseline, *comparison.options)
    held = [row for row in rows if rate_of_gpu(row)]
    priced = [row for row in held if _wholly_priced(row)]
    if not any(row in priced for row in comparison.options):
        priced = []
    drawn = priced or held or [comparison.baseline]
    setup = comparison.setup
    load = f"full of requests of {short_count(setup.load.context)}"
    return Chart(
        kind="compare",
        title=_title(comparison),
        subject=subject([(setup.model, setup.deployment)], load),
        panels=(_dots(comparison, priced) if priced else _bars(comparison, drawn),),
        notes=(*_notes_of_prices(comparison, priced), *_left_out(rows, drawn)),
    )


def _wholly_priced(row: Compared) -> bool:
    """Whether all that it costs was measured on a real model: only its KV differs from what was released."""
    return row.kv is not None and row.error is None and not row.unmeasured


def _dots(comparison: Comparison, priced: Sequence[Compared]) -> Dots:
    changes = [max(row.kv.perplexity_change, FLOOR) for row in priced if row.kv]
    return Dots(
        _gain_axis(comparison),
        Axis(f"more perplexity on {comparison.prices.model}", Unit.SHARE, Spacing.TENFOLD),
        tuple(
            Dot(_name(row), _gain(comparison, row), change)
            for row, change in zip(priced, changes, strict=True)
        ),
        best="better: right and down",
    )


def _bars(comparison: Comparison, rows: Sequence[Compared]) -> Bars:
    """Return gains alone."""
    bars = tuple(Bar(_name(row), (("rate", Hue.DECODE, _gain(comparison, row)),)) for row in rows)
    return Bars(_gain_axis(comparison), bars)


def _gain_axis(comparison: Comparison) -> Axis:
    if rate_of_gpu(comparison.baseline):
        return Axis("tokens/s of each GPU when full, against the baseline", Unit.TIMES)
    return Axis("tokens/s of each GPU when full", Unit.TOKENS_PER_SECOND)


def _gain(comparison: Comparison, row: Compared) -> float:
    times = gain(comparison.baseline, row)
    return rate_of_gpu(row) if times is None else times


def _name(row: Compared) -> str:
    return row.tried.label


def _title(comparison: Comparison) -> str:
    """Say what is most worth trying: what it gains, and what it costs where that was measured."""
    baseline, context = comparison.baseline, short_count(comparison.setup.load.context)
    advice = advise(baseline, comparison.options)
    if not any(rate_of_gpu(row) for row in (baseline, *comparison.options)):
        return f"Not one request of {context} fits, with any option"
    if not advice:
        return f"No option here makes {LEAST_GAIN - 1:.0%} more tokens/s of each GPU"
    best = advice[0].option
    times = gain(baseline, best)
    if times is None:
        outcome = best.tried.outcome
        assert outcome is not None
        room = f"room for {requests(outcome.max_batch)} of {context}, where none fits now"
        return f"With {best.tried.label}: {room}"
    price = f", {quoted_price(best.kv)}" if best.kv and best.kv != baseline.kv else ""
    only = f", {condition(best)}" if condition(best) else ""
    return f"Most worth trying: {best.tried.label} (x{times:.2f} tokens/s of each GPU{price}){only}"


def _notes_of_prices(comparison: Comparison, priced: Sequence[Compared]) -> Iterator[str]:
    if priced:
        yield quoted_from(comparison.prices)
    if any(row.kv.perplexity_change < FLOOR for row in priced if row.kv):
        yield f"at {FLOOR:.2%}: what costs that much, less or nothing"


def _left_out(rows: Sequence[Compared], drawn: Sequence[Compared]) -> tuple[str, ...]:
    """Return what is not drawn, with the reasons."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row not in drawn:
            reasons.setdefault(_reason(row), []).append(row.tried.label)
    return tuple(f"not drawn: {', '.join(labels)} ({reason})" for reason, labels in reasons.items())


def _reason(row: Compared) -> str:
    if row.tried.outcome is None:
        return row.tried.reason
    if not rate_of_gpu(row):
        return "not one request fits"
    return row.unquoted or "no real model was measured with its weights or windows"
