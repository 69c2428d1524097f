"""Formulas: one expression, a unit and a source each, and a printed form that is what ran."""

import importlib
import pkgutil

import pytest

import kvplan
from kvplan.formula import Formula, formula
from kvplan.units import Unit


@formula(Unit.BYTES, "a test")
def tiles(rows: int, columns: int) -> int:
    """Whole tiles."""
    return -(-rows // 16) * columns


def every_formula():
    found = {}
    for module in pkgutil.walk_packages(kvplan.__path__, "kvplan."):
        if module.name == "kvplan.__main__":
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Formula):
                found[value.function.__module__, name] = value
    return found


FORMULAS = every_formula()


def test_there_are_formulas():
    assert len(FORMULAS) > 20


@pytest.mark.parametrize("name", FORMULAS, ids=".".join)
def test_each_is_one_expression_with_a_source(name):
    found = FORMULAS[name]
    assert found.name == name[1]
    assert found.source.strip()
    assert isinstance(found.unit, Unit)
    assert found.function.__doc__
    expression = found.expression()
    compile(expression, "formula", "eval")
    assert "\n" not in expression
    for parameter in found.parameters:
        assert parameter in expression


def test_printed_form():
    assert tiles.parameters == ("rows", "columns")
    assert tiles.expression() == "-(-rows // 16) * columns"
    assert tiles.substituted({"rows": 33, "columns": 5}) == "-(-33 // 16) * 5"
    assert tiles(33, 5) == eval(tiles.substituted({"rows": 33, "columns": 5})) == 15


def test_names_that_are_no_input_stay():
    assert tiles.substituted({"rows": 33}) == "-(-33 // 16) * columns"


def test_more_than_one_expression_is_refused():
    @formula(Unit.NONE, "a test")
    def two(number: int) -> int:
        number += 1
        return number * 2

    with pytest.raises(TypeError, match="formula two must be one return expression"):
        two.expression()


def test_a_formula_keeps_its_function():
    assert tiles.function(1, 1) == 1
    assert tiles.unit is Unit.BYTES
    assert tiles.source == "a test"
