"""Colours: every hue has one on both papers, words can be read, and the baseline's is its own."""

import itertools

import pytest

from kvplan.charts import Hue
from kvplan.errors import UsageError
from kvplan.report.plots.theme import DARK, LIGHT, contrast, ink_on, theme_named


def distance(one, other):
    """How far two colours are from each other, in 256ths."""
    parts = [(int(one[at : at + 2], 16) - int(other[at : at + 2], 16)) ** 2 for at in (1, 3, 5)]
    return sum(parts) ** 0.5


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_words_in_any_colour_can_be_read_on_the_paper(theme):
    for color in (*theme.series, *theme.hues.values(), theme.limit, theme.quiet, theme.ink):
        assert contrast(theme.readable(color), theme.paper) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_every_hue_has_a_colour_and_things_compared_are_told_apart(theme):
    assert set(theme.hues) == set(Hue)
    pairs = itertools.combinations(theme.series, 2)
    assert min(distance(one, other) for one, other in pairs) > 40


def test_figures_on_a_colour_are_black_or_white_whichever_is_read_better():
    assert ink_on("#0072b2") == "#ffffff"
    assert ink_on("#f0b33e") == "#000000"


def test_no_other_thing_has_the_colour_of_the_baseline():
    colors = [LIGHT.of(None, index) for index in range(20)]
    assert colors.count(colors[0]) == 1
    assert colors[1 + len(LIGHT.series) - 1] == colors[1]


def test_an_unknown_theme_is_refused_by_name():
    assert theme_named("dark") is DARK
    with pytest.raises(UsageError, match=r"no theme named 'drak'.*dark"):
        theme_named("drak")
