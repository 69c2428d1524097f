"""Ticks and units: as people type counts and read sizes, never two or fewer without need."""

from itertools import pairwise

import pytest
from matplotlib.figure import Figure

from kvplan.charts import Axis, Spacing
from kvplan.report.plots.axes import amount, doublings, dress, marked_in, number, tenfolds, titled, view
from kvplan.report.plots.text import width_inches
from kvplan.units import GIB, MIB, Unit, short_count


@pytest.mark.parametrize(
    ("unit", "largest", "marked"),
    [
        (Unit.BYTES, 3 * GIB, (GIB, "GiB")),
        (Unit.BYTES, 2000 * GIB, (GIB, "GiB")),
        (Unit.BYTES, 1 << 44, (1 << 40, "TiB")),
        (Unit.BYTES, 5 * MIB, (MIB, "MiB")),
        (Unit.BYTES, 100, (1, "B")),
        (Unit.SECONDS, 0.02, (1e-3, "ms")),
        (Unit.SECONDS, 2.0, (1.0, "s")),
        (Unit.SECONDS, 2e-6, (1e-6, "µs")),
        (Unit.FLOPS_PER_SECOND, 989e12, (1e12, "TFLOP/s")),
        (Unit.SHARE, 0.3, (0.01, "%")),
        (Unit.TOKENS, 7, (1.0, "tokens")),
    ],
)
def test_an_axis_is_marked_in_a_unit_of_its_size(unit, largest, marked):
    assert marked_in(unit, largest) == marked


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (12.345, "12.3"),
        (999.4, "999"),
        (999.6, "1,000"),
        (123456, "123,456"),
        (2.5e6, "2.5M"),
    ],
)
def test_numbers_have_three_digits_and_thousands_apart(value, text):
    assert number(value) == text


def test_a_figure_has_the_unit_of_its_axis():
    assert amount(512 * MIB, Axis("cache", Unit.BYTES), 8 * GIB) == "0.5 GiB"
    assert amount(0.0123, Axis("step", Unit.SECONDS), 0.05) == "12.3 ms"


def test_a_unit_is_not_said_twice():
    assert titled(Axis("context", Unit.TOKENS), "tokens") == "context (tokens)"
    assert titled(Axis("requests at once", Unit.REQUESTS), "requests") == "requests at once"


def test_powers_of_two_go_up_to_the_largest():
    assert doublings(1024, 131072) == [1 << power for power in range(10, 18)]
    assert doublings(3, 9) == [2, 4, 8]


def test_powers_of_ten_have_twos_and_fives_between_where_there_are_few():
    assert tenfolds(1, 1000) == [1, 10, 100, 1000]
    assert tenfolds(2, 30) == pytest.approx([1, 2, 5, 10, 20, 50, 100, 200, 500])


def test_an_axis_goes_past_what_is_on_it_even_where_that_is_one_number():
    low, high = view([5.0], Spacing.EVEN, 0.1)
    assert low < 5 < high
    low, high = view([5.0], Spacing.TENFOLD, 0.1)
    assert 0 < low < 5 / 1.5
    assert high > 5 * 1.5
    assert view([0.0, 10.0], Spacing.EVEN, 0.1) == (-1, 11)


@pytest.mark.parametrize("inches", [2, 4, 8])
def test_ticks_are_as_many_as_have_room_with_the_largest_among_them(inches):
    axes = Figure(figsize=(inches, 2), dpi=150).add_axes((0, 0, 1, 1))
    dress(axes, Axis("context", Unit.TOKENS, Spacing.DOUBLING), [32, 1 << 30], upright=False)
    found = [int(at) for at in axes.get_xticks()]
    assert found[-1] == 1 << 30
    assert len({high // low for low, high in pairwise(found)}) == 1
    widths = [width_inches(short_count(at), 9) for at in found]
    assert 3 <= len(found) <= 9
    assert sum(widths) < inches


def test_numbers_nearer_than_a_doubling_have_round_marks_around_them():
    axes = Figure(figsize=(6, 4)).add_axes((0, 0, 1, 1))
    dress(axes, Axis("requests", Unit.REQUESTS, Spacing.DOUBLING), [4437, 4667], upright=True)
    assert [at for at in axes.get_yticks() if at in (4000, 5000)] == [4000, 5000]
