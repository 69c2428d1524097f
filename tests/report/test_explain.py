"""Derivations of figures made to be told: sums, sources, figures that were told before."""

from dataclasses import replace

import pytest

from kvplan.errors import UsageError
from kvplan.formula import formula
from kvplan.report.explain import chosen, explained_data, render_explained
from kvplan.results import Column, Facts, Report, Shown, Table, computed, fact, total
from kvplan.units import Unit

LONG = "a paper whose title does not fit beside a number"


@formula(Unit.BYTES, LONG)
def product(left: int, right: int) -> int:
    return left * right


def number(name, value, source="asked for"):
    return fact(name, value, source, Unit.BYTES)


def report(*sections):
    return Report("test", "heading", sections)


def lines(found, name="all"):
    return render_explained(found, name).splitlines()


def test_short_sources_stand_behind_their_number_and_long_ones_below():
    figure = computed("size", product, number("left", 2), number("right", 3, "(2 of 3)"))
    assert lines(report(Facts("f", "F", (figure,)))) == [
        "f.size = left * right",
        "  = 2 * 3",
        "  = 6 B   [1]",
        "  left = 2 B   (asked for)",
        "  right = 3 B   (2 of 3)",
        "",
        f"[1] {LONG}",
    ]


def test_no_empty_list_of_sources():
    assert lines(report(Facts("f", "F", (number("size", 2),)))) == ["f.size = 2 B   (asked for)"]


@pytest.mark.parametrize("count", [5, 6])
def test_the_parts_of_a_long_sum_are_named_once(count):
    parts = tuple(number(f"part_{n}", n) for n in range(count))
    told = lines(report(Facts("f", "F", (total("size", Unit.BYTES, parts),))))
    assert sum(line.count("part_1") for line in told) == (2 if count == 5 else 1)
    numbers = " + ".join(str(n) for n in range(count))
    assert f"= {numbers}" in told[0] + told[1]


def test_a_figure_under_another_name_is_not_derived_again():
    """A table calls a figure "predicted"; what is made from it leads there."""
    size = computed("size", product, number("left", 2), number("right", 3))
    double = total("double", Unit.BYTES, (size, computed("other", product, *size.inputs)))
    predicted = replace(size, name="predicted")
    rows = Table(
        "t", "T", (Column("row", "row", (fact("row", "r", "here"),)), Column("p", "p", (predicted,)))
    )
    told = lines(report(rows, Facts("f", "F", (double,))), "double")
    assert "  size = 6 B   (--explain t.r.predicted)" in told
    assert "  size = left * right" not in told
    assert "  other = left * right" in told


def test_equal_rows_are_derived_once():
    size = computed("size", product, number("left", 2), number("right", 3))
    names = tuple(fact("row", n, "here") for n in (0, 1))
    told = lines(report(Table("t", "T", (Column("row", "row", names), Column("size", "size", (size, size))))))
    assert told.count("t.0.size = left * right") == 1
    assert "t.1.size = 6 B   (as t.0.size)" in told


@pytest.fixture
def measured():
    """Two figures derived, one hidden column, and a table that only machines see."""
    size = computed("size", product, number("left", 2), number("right", 3))
    names = (fact("row", "sum_total", "here"),)
    unit = Column("unit", "unit", (fact("unit", "B", "here"),), shown=False)
    seen = Table("t", "T", (Column("row", "row", names), Column("size", "size", (size,)), unit))
    times = Table(
        "steps",
        "S",
        (Column("row", "row", names), Column("seconds", "s", (fact("seconds", 0.5, "here", Unit.SECONDS),))),
        Shown.NOT,
    )
    return report(seen, times, Facts("f", "F", (number("left", 2),)))


def test_all_is_what_can_be_derived_or_is_shown(measured):
    assert [name for name, _ in chosen(measured, "all")] == ["t.sum_total.size", "f.left"]
    assert [row["name"] for row in explained_data(measured, "all")] == ["t.sum_total.size", "f.left"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("t", ["t.sum_total.size"]),
        ("t.sum_total", ["t.sum_total.size"]),
        ("sum_total", ["t.sum_total.size", "steps.sum_total.seconds"]),
        ("sum", ["t.sum_total.size", "steps.sum_total.seconds"]),
        ("size", ["t.sum_total.size"]),
        ("steps", ["steps.sum_total.seconds"]),
    ],
)
def test_figures_are_found_by_section_row_and_word(name, found, measured):
    assert [figure for figure, _ in chosen(measured, name)] == found


@pytest.mark.parametrize(
    ("name", "meant"), [("sum_totl", "sum_total"), ("f.lef", "f.left"), ("step", "steps")]
)
def test_the_closest_name_is_suggested(name, meant, measured):
    with pytest.raises(UsageError, match=rf"no figure named '{name}'. Did you mean .*{meant}"):
        chosen(measured, name)
