"""Gain against price: the figures of the comparison, every option drawn or told, a title from the advice."""

from dataclasses import replace

import pytest

from kvplan.charts import Bars, Dots, Spacing
from kvplan.check.charts.compare import compare_chart
from kvplan.check.comparison import Comparison, compare
from kvplan.check.price import EngineError
from kvplan.plan.change import parse_changes
from kvplan.plan.setup import Load, Setup

ERRORS = (0.0007, 0.012, 0.06)


@pytest.fixture
def comparison(plan):
    """A function that compares options of llama-3.1-8b, priced with the errors given, baseline first."""

    def make(*options, errors=(), gpu="h100-sxm", model="llama-3.1-8b"):
        capacity = plan(model, gpu)
        setup = Setup(capacity.model, capacity.deployment, Load(4, 8192))
        changes = [parse_changes(text) for text in options]
        found = compare(setup, changes, lambda _: None, what_if=False, measured=False)
        if not errors:
            return found
        rows = [
            replace(row, error=EngineError(0.5, error, 0.9, 128, ""), unpriced="")
            for row, error in zip((found.baseline, *found.options), errors, strict=True)
        ]
        return Comparison(setup, rows[0], tuple(rows[1:]))

    return make


def rate(row, gpus=1):
    """Tokens a second of each GPU when full, by the figures of the comparison."""
    return row.tried.outcome.full_tokens_per_s / gpus


def test_dots_stand_at_gain_and_error(comparison):
    found = comparison("kv=fp8", "tp=2", errors=ERRORS)
    (panel,) = compare_chart(found).panels
    assert isinstance(panel, Dots)
    now = rate(found.baseline)
    gains = (1.0, rate(found.options[0]) / now, rate(found.options[1], 2) / now)
    assert [(dot.name, dot.x, dot.y) for dot in panel.dots] == [
        (name, pytest.approx(times), error)
        for name, times, error in zip(("baseline", "KV fp8", "TP 2"), gains, ERRORS, strict=True)
    ]
    assert gains[1] > 1.5
    assert panel.y.spacing is Spacing.TENFOLD


def test_an_error_of_nothing_has_a_place(comparison):
    (panel,) = compare_chart(comparison("kv=fp8", errors=(0.0, 0.01))).panels
    assert panel.y.spacing is Spacing.EVEN
    assert panel.dots[0].y == 0


def test_the_title_is_what_is_most_worth_trying(comparison):
    found = comparison("kv=fp8", "tp=2", errors=ERRORS)
    times = rate(found.options[0]) / rate(found.baseline)
    title = compare_chart(found).title
    assert title == f"Most worth trying: KV fp8 (x{times:.2f} tokens/s of each GPU, logits 1.2% off)"


def test_the_title_says_so_where_nothing_helps(comparison):
    title = compare_chart(comparison("kv=fp32", errors=ERRORS[:2])).title
    assert title == "No option here makes 5% more tokens/s of each GPU"


def test_without_prices_gains_are_bars(comparison):
    found = comparison("kv=fp8", "kv=int8")
    chart = compare_chart(found)
    (panel,) = chart.panels
    assert isinstance(panel, Bars)
    assert [bar.name for bar in panel.bars] == ["baseline", "KV fp8", "KV int8"]
    assert panel.bars[0].parts[0][2] == 1
    assert panel.bars[1].parts[0][2] == pytest.approx(rate(found.options[0]) / rate(found.baseline))
    assert "logits" not in chart.title


def test_every_option_is_drawn_or_told_with_the_reason(comparison):
    found = comparison("kv=fp8", "weights=int4", "window=4k", errors=(*ERRORS, 0.1))
    unpriced = replace(found.options[1], error=None, unpriced="not measured: no int4 here")
    found = Comparison(found.setup, found.baseline, (found.options[0], unpriced, found.options[2]))
    chart = compare_chart(found)
    assert [dot.name for dot in chart.panels[0].dots] == ["baseline", "KV fp8"]
    assert chart.notes[1] == "not drawn: weights int4 (not measured: no int4 here)"
    assert chart.notes[2].startswith("not drawn: sliding window 4k (another model")
    assert len(chart.notes) == 3


def test_where_the_baseline_holds_nothing_rates_stand_for_gains(comparison):
    found = comparison("weights=int4", errors=ERRORS[:2], gpu="t4")
    chart = compare_chart(found)
    (panel,) = chart.panels
    assert [(dot.name, dot.x) for dot in panel.dots] == [("weights int4", rate(found.options[0]))]
    assert panel.x.label == "tokens/s of each GPU when full"
    assert chart.notes[1] == "not drawn: baseline (not one request fits)"
    most = found.options[0].tried.outcome.max_batch
    expected = f"With weights int4: room for {most} request{'s' * (most != 1)} of 8k, where none fits now"
    assert chart.title == expected


def test_where_nothing_fits_at_all_it_says_so(comparison):
    chart = compare_chart(comparison("kv=fp8", gpu="t4", model="llama-3.1-70b"))
    assert chart.title == "Not one request of 8k fits, with any option"
    assert [bar.parts[0][2] for bar in chart.panels[0].bars] == [0]
    assert chart.notes == ("not drawn: KV fp8 (not one request fits)",)
