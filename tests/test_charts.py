"""Charts refuse what no axis has, and a roof is where its memory and its peak meet."""

import math

import pytest

from kvplan.charts import Band, Bar, Dot, Hue, Line, Roof


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan])
def test_numbers_that_no_axis_has_are_refused(wrong):
    for make in (
        lambda: Line("a line", (1.0, 2.0), (1.0, wrong)),
        lambda: Line("a line", (1.0, wrong), (1.0, 2.0)),
        lambda: Band("a band", Hue.KV, (wrong,)),
        lambda: Bar("a bar", (("weights", Hue.WEIGHTS, wrong),)),
        lambda: Dot("a dot", 1.0, wrong),
        lambda: Dot("a dot", 1.0, 1.0, weight=wrong),
    ):
        with pytest.raises(ValueError, match="not finite"):
            make()


def test_a_curve_has_a_height_at_every_place():
    with pytest.raises(ValueError, match="a line: series of different lengths"):
        Line("a line", (1.0, 2.0), (1.0,))


def test_a_roof_rises_to_its_ridge_and_is_flat_from_there():
    roof = Roof("bf16", 1000.0, 10.0)
    assert roof.ridge == 100
    assert [roof.at(intensity) for intensity in (1, 99, 100, 101, 1e9)] == [10, 990, 1000, 1000, 1000]
