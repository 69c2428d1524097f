"""The answer of a measurement: figures by hand, the sentence that decides, and what a reader must know."""

import json
from dataclasses import replace
from math import exp

import numpy as np
import pytest

from kvplan.check.charts.quality import quality_chart
from kvplan.check.quality import Protocol, Quality, When, WindowScores
from kvplan.check.quality_formats import CacheFormat, parse_formats
from kvplan.check.quality_report import cheapest, prices, quality_report
from kvplan.check.quality_savings import savings
from kvplan.report.export import render_json, to_dict

FORMATS = parse_formats("bf16,int8,int4,window-256+4")
SCORED = 320


def scores(more, greedy, divergence=0.01, same=1.0):
    """A window of 320 tokens whose losses are 2 and so much more, with a divergence of each token."""
    losses = np.full(SCORED, 2.0) + more
    return WindowScores(losses, np.full(SCORED, divergence), np.arange(SCORED) < same * SCORED, greedy)


@pytest.fixture
def measured(bundled):
    """Two windows of four formats, each with a price that is known."""
    by_format = (
        (scores(0.0, None, 0.0), scores(0.0, None, 0.0)),
        (scores(0.004, 40), scores(0.006, None)),
        (scores(0.02, 7, 0.1), scores(0.02, 3, 0.3, same=0.5)),
        (scores(0.5, 0), scores(0.5, 0)),
    )
    protocol = Protocol(512, SCORED + 1, When.APPEND, 64)
    plain = (np.full(SCORED, 2.0),) * 2
    return Quality(bundled("llama-3.1-8b"), protocol, FORMATS, plain, by_format, 2)


@pytest.fixture
def found(measured, gpu):
    """What it means."""
    saved = savings(measured.model, gpu("h100-sxm"), (CacheFormat(), *FORMATS), 833)
    return prices(measured, saved)


@pytest.fixture
def report(measured, found):
    """The whole answer."""
    return quality_report(
        measured, found, "NVIDIA H100 SXM5 80GB", "book.txt", ["int4-kivi"], (("tokens", 640),)
    )


def rows(report):
    return {row["name"]: row for row in to_dict(report)["formats"]}


def test_figures_by_hand(report):
    data = rows(report)
    assert list(data) == ["fp32", "bf16", "int8", "int4", "window-256+4"]
    assert data["fp32"]["perplexity"] == pytest.approx(exp(2))
    assert data["int8"]["perplexity"] == pytest.approx(exp(2.005))
    assert data["int8"]["perplexity_change"] == pytest.approx(exp(0.005) - 1)
    # Ten blocks of 64, five of 4 and five of 6 thousandths: 2.2622 standard errors of the mean.
    half = 2.2622 * np.std([0.004, 0.006] * 5, ddof=1) / np.sqrt(10)
    assert data["int8"]["perplexity_change_low"] == pytest.approx(exp(0.005 - half) - 1, rel=1e-3)
    assert data["int8"]["perplexity_change_high"] == pytest.approx(exp(0.005 + half) - 1, rel=1e-3)
    assert data["int4"]["kl_divergence"] == pytest.approx(0.2)
    assert data["int4"]["kl_divergence_p99"] == pytest.approx(0.3)
    assert data["int4"]["same_top1"] == pytest.approx(0.75)


def test_the_reference_costs_nothing(report):
    free = {key: value for key, value in rows(report)["fp32"].items() if not key.startswith("perp")}
    assert (free["kl_divergence"], free["same_top1"], free["greedy_tokens"]) == (0, 1, None)
    change = [rows(report)["fp32"][f"perplexity_change{end}"] for end in ("", "_low", "_high")]
    assert change == [0, 0, 0]


def test_greedy_texts_are_told_by_the_lower_median(report):
    told = {name: row["greedy_tokens"] for name, row in rows(report).items()}
    assert told == {"fp32": None, "bf16": None, "int8": 40, "int4": 3, "window-256+4": 0}


def test_nothing_in_the_json_is_no_number(report):
    json.loads(render_json(to_dict(report)), parse_constant=lambda name: pytest.fail(name))


def test_the_sentence_names_the_fewest_bytes_that_surely_cost_little(report, found):
    assert cheapest(found).format.name == "int8"
    assert report.verdict.yes
    assert report.verdict.text.startswith(
        "int8 takes 2.0x fewer bytes than bf16 for +0.50% perplexity (+0.43% to +0.58%): "
    )
    held = rows(report)["int8"]["max_batch"]
    assert report.verdict.text.endswith(f": {held} requests of 128k on one NVIDIA H100 SXM5 80GB")


def test_what_may_cost_more_is_not_called_cheap(measured, found, gpu):
    wide = replace(found[2], change=replace(found[2].change, high=0.011))
    assert cheapest([*found[:2], wide, *found[3:]]) is None
    told = quality_report(measured, [*found[:2], wide, *found[3:]], "H100", "book.txt", [], ())
    assert not told.verdict.yes
    assert "sure to keep perplexity within 1%" in told.verdict.text


def test_less_perplexity_is_no_gain(found):
    """A cache that spoils a poor model's predictions can make a text likelier by chance."""
    lucky = replace(found[3], change=replace(found[3].change, value=-0.03, low=-0.04, high=-0.02))
    assert cheapest([*found[:3], lucky]).format.name == "int8"


def test_of_as_many_bytes_the_one_that_diverges_least_is_named(found):
    int8 = found[2]
    other = replace(int8, format=FORMATS[2], divergence=int8.divergence / 2)
    assert cheapest([*found[:3], other]).format.name == "int4"
    assert cheapest([*found[:2], other, int8]).format.name == "int4"


def test_too_few_tokens_are_said_to_be(measured, found):
    short = [replace(price, change=replace(price.change, low=None, high=None)) for price in found]
    told = quality_report(measured, short, "H100", "book.txt", [], ())
    assert told.verdict.text == "640 tokens are too few to tell what a format costs"
    assert cheapest(short) is None


def test_what_a_reader_must_know(report, measured, found):
    said = "\n".join(report.notes)
    assert "left out" in said
    assert "int4-kivi" in said
    assert "not trained for it" in said
    assert "as a server does" in said
    assert "partial" not in said
    assert "of 2 windows" not in report.heading
    assert "2 windows of 512 + 321" in report.heading
    after = replace(measured, protocol=replace(measured.protocol, when=When.PREFILL))
    assert "behind the context" in "\n".join(quality_report(after, found, "", "", [], ()).notes)


def test_a_partial_answer_says_so_first(measured, found):
    part = replace(measured, asked=5)
    told = quality_report(part, found, "H100", "book.txt", [], ())
    assert told.notes[0] == "partial: interrupted after 2 of 5 windows"
    assert told.heading.endswith(", partial")
    assert "partial" in quality_chart(part, found, "book.txt").subject


def test_the_chart_has_every_format_at_its_bytes_and_price(measured, found):
    chart = quality_chart(measured, found, "book.txt")
    (panel,) = chart.panels
    dots = {dot.name: (dot.x, dot.y) for dot in panel.dots}
    assert dots["int8: +0.50%"] == (66_560, pytest.approx(exp(0.005) - 1))
    assert dots["bf16: +0.00%"] == (131_072, 1e-4)
    assert len(dots) == 4
    assert chart.title.startswith("int8 takes 2.0x fewer bytes")
    assert any("bf16" in note for note in chart.notes)
