"""Gain against price: figures of the comparison, every option drawn or told, a title from the advice."""

from dataclasses import replace

import pytest

from kvplan.charts import Bars, Dots, Spacing
from kvplan.check.charts.compare import compare_chart
from kvplan.check.comparison import Comparison, compare
from kvplan.check.comparison_report import quoted_from
from kvplan.check.measured_price import MeasuredPrice, MeasuredPrices
from kvplan.check.price import EngineError
from kvplan.plan.change import parse_changes
from kvplan.plan.setup import Load, Setup

CHANGES = {"bf16": 0.0007, "fp8": -0.003, "fp32": 0.0, "int4": 0.06}
PRICES = MeasuredPrices(
    "Tiny-1B",
    "a book",
    5110,
    512,
    "append",
    "2026-01-02",
    "kvplan quality tiny --text book.txt",
    tuple(
        MeasuredPrice(name, "Tiny-1B", change, change - 1e-4, change + 1e-4, 0.001, 0.99)
        for name, change in CHANGES.items()
    ),
)
NOTHING = replace(PRICES, formats=())


@pytest.fixture
def comparison(plan):
    """A function that compares options of llama-3.1-8b with the prices above; nothing is run."""

    def make(*options, prices=PRICES, gpu="h100-sxm", model="llama-3.1-8b"):
        capacity = plan(model, gpu)
        setup = Setup(capacity.model, capacity.deployment, Load(4, 8192))
        changes = [parse_changes(text) for text in options]
        return compare(setup, changes, lambda _: None, prices=prices, what_if=False, measured=False)

    return make


def rate(row, gpus=1):
    """Tokens a second of each GPU when full, by the figures of the comparison."""
    return row.tried.outcome.full_tokens_per_s / gpus


def test_dots_stand_at_gain_and_price(comparison):
    found = comparison("kv=fp8", "tp=2", "kv=int4")
    (panel,) = compare_chart(found).panels
    assert isinstance(panel, Dots)
    now = rate(found.baseline)
    gains = (1.0, rate(found.options[0]) / now, rate(found.options[1], 2) / now, rate(found.options[2]) / now)
    names, changes = ("baseline", "KV fp8", "TP 2", "KV int4"), (0.0007, 0.0001, 0.0007, 0.06)
    assert [(dot.name, dot.x, dot.y) for dot in panel.dots] == [
        (name, pytest.approx(times), change)
        for name, times, change in zip(names, gains, changes, strict=True)
    ]
    assert gains[1] > 1.5
    assert panel.y.label == "more perplexity on Tiny-1B"
    assert panel.y.spacing is Spacing.TENFOLD


def test_it_is_said_where_prices_come_from(comparison):
    assert compare_chart(comparison("kv=int4")).notes == (quoted_from(PRICES),)


def test_what_costs_nothing_has_a_place_and_a_note(comparison):
    chart = compare_chart(comparison("kv=fp32"))
    assert [dot.y for dot in chart.panels[0].dots] == [0.0007, 0.0001]
    assert chart.notes[1:] == ("at 0.01%: what costs that much, less or nothing",)


def test_the_title_is_what_is_most_worth_trying(comparison):
    found = comparison("kv=fp8", "tp=2")
    times = rate(found.options[0]) / rate(found.baseline)
    price = "perplexity -0.30% on Tiny-1B"
    title = f"Most worth trying: KV fp8 (x{times:.2f} tokens/s of each GPU, {price})"
    assert compare_chart(found).title == title


def test_the_title_says_so_where_nothing_helps(comparison):
    title = compare_chart(comparison("kv=fp32")).title
    assert title == "No option here makes 5% more tokens/s of each GPU"


def test_without_prices_gains_are_bars(comparison):
    found = comparison("kv=fp8", "kv=int8", prices=NOTHING)
    chart = compare_chart(found)
    (panel,) = chart.panels
    assert isinstance(panel, Bars)
    assert [bar.name for bar in panel.bars] == ["baseline", "KV fp8", "KV int8"]
    assert panel.bars[0].parts[0][2] == 1
    assert panel.bars[1].parts[0][2] == pytest.approx(rate(found.options[0]) / rate(found.baseline))
    assert "perplexity" not in chart.title
    assert chart.notes == ()


def test_a_baseline_alone_is_no_chart_of_prices(comparison):
    (panel,) = compare_chart(comparison("weights=fp8")).panels
    assert [bar.name for bar in panel.bars] == ["baseline", "weights fp8"]


def test_every_option_is_drawn_or_told_with_the_reason(comparison):
    found = comparison("kv=fp8", "weights=fp8", "window=4k", "kv=int8")
    fp8, weights, *rest = found.options
    error = replace(weights, error=EngineError(0.5, 0.1, 0.9, 128, ""), unmeasured="")
    chart = compare_chart(Comparison(found.setup, PRICES, found.baseline, (fp8, error, *rest)))
    assert [dot.name for dot in chart.panels[0].dots] == ["baseline", "KV fp8"]
    random = "no real model was measured with its weights or windows"
    assert chart.notes[2] == f"not drawn: weights fp8 ({random})"
    assert chart.notes[3].startswith("not drawn: sliding window 4k (another model")
    assert chart.notes[4].startswith(
        "not drawn: KV int8 (int8 KV was not measured on Tiny-1B: kvplan quality"
    )
    assert len(chart.notes) == 5
    # One that was not run has no whole price either.
    assert f"not drawn: weights fp8 ({random})" in compare_chart(found).notes


def test_where_the_baseline_holds_nothing_rates_stand_for_gains(comparison):
    found = comparison("tp=2", gpu="t4")
    chart = compare_chart(found)
    (panel,) = chart.panels
    assert [(dot.name, dot.x, dot.y) for dot in panel.dots] == [("TP 2", rate(found.options[0], 2), 0.0007)]
    assert panel.x.label == "tokens/s of each GPU when full"
    assert chart.notes[1] == "not drawn: baseline (not one request fits)"
    most = found.options[0].tried.outcome.max_batch
    expected = f"With TP 2: room for {most} request{'s' * (most != 1)} of 8k, where none fits now"
    assert chart.title == expected


def test_where_nothing_fits_at_all_it_says_so(comparison):
    chart = compare_chart(comparison("kv=fp8", gpu="t4", model="llama-3.1-70b"))
    assert chart.title == "Not one request of 8k fits, with any option"
    assert [bar.parts[0][2] for bar in chart.panels[0].bars] == [0]
    assert chart.notes == ("not drawn: KV fp8 (not one request fits)",)
