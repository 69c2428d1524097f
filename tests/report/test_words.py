"""Measured figures as people read them."""

import pytest

from kvplan.report.words import cell, header, with_unit
from kvplan.results import Quantity
from kvplan.units import Unit


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.0, Unit.CHANGE, "0"),
        (0.00046, Unit.CHANGE, "+0.05"),
        (-0.0031, Unit.CHANGE, "-0.31"),
        (-0.00004, Unit.CHANGE, "+0.00"),
        (0.2, Unit.CHANGE, "+20.00"),
        (53.96, Unit.CHANGE, "+5,396"),
        (10.2293173, Unit.PERPLEXITY, "10.229"),
        (562.2112, Unit.PERPLEXITY, "562.211"),
        (123456.7, Unit.PERPLEXITY, "123,456.700"),
        (0.0, Unit.NATS_PER_TOKEN, "0"),
        (3.788e-05, Unit.NATS_PER_TOKEN, "3.79e-05"),
        (0.11057, Unit.NATS_PER_TOKEN, "0.111"),
        (None, Unit.CHANGE, "-"),
    ],
)
def test_a_cell(value, unit, shown):
    assert cell(Quantity("figure", value, unit)) == shown


def test_a_change_is_in_percent():
    assert header("change", Unit.CHANGE) == "change (%)"
    assert with_unit(Quantity("change", 0.021677, Unit.CHANGE)) == "+2.17 %"
