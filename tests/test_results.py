"""Figures that remember how they came about, and the report that holds them."""

import pytest

from kvplan.formula import formula
from kvplan.results import Column, Facts, Quantity, Report, Scale, Table, computed, fact, total
from kvplan.units import Unit


@formula(Unit.BYTES, "a test")
def product(left: int, right: int) -> int:
    """Left times right."""
    return left * right


def report():
    facts = Facts("memory", "Memory", (fact("a", 1, "here"), fact("b", 2, "here")))
    table = Table(
        "growth",
        "Growth",
        (
            Column("context", "context", (fact("context", 10, "asked"), fact("context", 20, "asked"))),
            Column("bytes", "bytes", (fact("bytes", 100, "x"), fact("bytes", 200, "x"))),
        ),
    )
    return Report("capacity", "heading", (facts, table))


def test_computed_remembers_its_formula_and_inputs():
    left, right = fact("left", 6, "here"), fact("right", 7, "there")
    found = computed("bytes", product, left, right, label="all of it")
    assert (found.value, found.unit, found.label) == (42, Unit.BYTES, "all of it")
    assert found.formula is product
    assert found.inputs == (left, right)


def test_total_is_the_sum_of_its_parts():
    parts = tuple(fact("part", n, "here") for n in (1, 2, 39))
    found = total("bytes", Unit.BYTES, parts)
    assert (found.value, found.parts) == (42, parts)
    assert total("none", Unit.BYTES, ()).value == 0


def test_only_an_integer_is_a_number():
    assert fact("n", 3, "here").number == 3
    for value in ("3", None, 2.5):
        with pytest.raises(TypeError, match="not an integer"):
            Quantity("n", value).number  # noqa: B018


def test_sections_and_figures_by_name():
    found = report()
    assert found.section("memory")["b"].value == 2
    for missing in (lambda: found.section("other"), lambda: found.section("memory")["c"]):
        with pytest.raises(KeyError):
            missing()
    assert [(name, q.value) for name, q in found.figures()] == [
        ("memory.a", 1),
        ("memory.b", 2),
        ("growth.10.bytes", 100),
        ("growth.20.bytes", 200),
    ]


def test_rows_of_a_table():
    table = report().section("growth")
    assert [[q.value for q in row] for row in table.rows()] == [[10, 100], [20, 200]]


def test_columns_of_different_height_are_refused():
    table = Table("t", "T", (Column("a", "a", (fact("a", 1, "x"),)), Column("b", "b", ())))
    with pytest.raises(ValueError, match="shorter"):
        list(table.rows())


def test_a_figure_may_be_a_fraction_but_not_a_word():
    assert fact("n", 2.5, "here").amount == 2.5
    assert fact("n", 3, "here").amount == 3
    for value in ("3", None):
        with pytest.raises(TypeError, match="not a number"):
            Quantity("n", value).amount  # noqa: B018


def test_fractions_are_computed_and_summed():
    half = computed("bytes", product, fact("left", 0.5, "here"), fact("right", 7, "there"))
    assert half.value == 3.5
    assert total("bytes", Unit.BYTES, (half, fact("more", 2, "here"))).value == 5.5


def test_a_row_named_by_two_columns():
    cells = {
        "name": ("a", "a", "b"),
        "batch": (1, 8, 1),
        "bytes": (10, 80, 20),
    }
    columns = tuple(
        Column(key, key, tuple(fact(key, value, "x") for value in values)) for key, values in cells.items()
    )
    found = Report("roofline", "heading", (Table("operators", "Operators", columns, named_by=2),))
    assert [(name, q.value) for name, q in found.figures()] == [
        ("operators.a.1.bytes", 10),
        ("operators.a.8.bytes", 80),
        ("operators.b.1.bytes", 20),
    ]


def test_scales_are_decimal():
    assert {scale.word: scale.base_units for scale in Scale} == {
        "GFLOP": 1e9,
        "MB": 1e6,
        "ms": 1e-3,
    }
