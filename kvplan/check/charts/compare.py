"""What each option gains against what it costs: its rate as planned, its error as measured on the engine."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.charts import Axis, Bar, Bars, Chart, Dot, Dots, Hue, Spacing
from kvplan.check.advice import LEAST_GAIN, Compared, advise, condition, gain, rate_of_gpu
from kvplan.check.comparison import Comparison
from kvplan.plan.charts.words import requests, subject
from kvplan.units import Unit, short_count


def compare_chart(comparison: Comparison) -> Chart:
    """Return options by gain and error; by gain alone, as bars, where no error was measured.

    The gain is the expected rate of each GPU when full, against the baseline's; the rate itself where the
    baseline holds nothing.
    """
    rows = (comparison.baseline, *comparison.options)
    held = [row for row in rows if rate_of_gpu(row)]
    priced = [row for row in held if row.error is not None]
    drawn = priced or held or [comparison.baseline]
    setup = comparison.setup
    load = f"full of requests of {short_count(setup.load.context)}"
    return Chart(
        kind="compare",
        title=_title(comparison),
        subject=subject([(setup.model, setup.deployment)], load),
        panels=(_dots(comparison, priced) if priced else _bars(comparison, drawn),),
        notes=(*_notes_of_prices(priced), *_left_out(rows, drawn)),
    )


def _dots(comparison: Comparison, priced: Sequence[Compared]) -> Dots:
    errors = [row.error.logit_error for row in priced if row.error]
    spacing = Spacing.TENFOLD if min(errors) > 0 else Spacing.EVEN
    return Dots(
        _gain_axis(comparison),
        Axis("error of logits", Unit.SHARE, spacing),
        tuple(
            Dot(_name(row), _gain(comparison, row), error) for row, error in zip(priced, errors, strict=True)
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
    error = "" if best.error is None else f", logits {100 * best.error.logit_error:.2g}% off"
    only = f", {condition(best)}" if condition(best) else ""
    return f"Most worth trying: {best.tried.label} (x{times:.2f} tokens/s of each GPU{error}){only}"


def _notes_of_prices(priced: Sequence[Compared]) -> tuple[str, ...]:
    if not priced:
        return ()
    return (
        "error: root mean square of the logits' difference over that of the logits, of this model scaled "
        "down with random weights, against float32 caches",
    )


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
    return row.unpriced if rate_of_gpu(row) else "not one request fits"
