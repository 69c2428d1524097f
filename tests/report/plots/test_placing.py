"""Names beside points: off each other, off the marks, off lines where they can be, and inside."""

import itertools

import pytest
from matplotlib.figure import Figure

from kvplan.report.plots.placing import Box, Named, name_points
from kvplan.report.plots.theme import LIGHT


@pytest.fixture
def axes():
    """Axes of 400 x 400 pixels."""
    figure = Figure(figsize=(4, 4), dpi=100)
    return figure.add_axes((0, 0, 1, 1))


def boxes(axes):
    return [text.get_window_extent() for text in axes.texts]


def test_boxes_know_what_they_share():
    box = Box(0, 0, 10, 10)
    assert box.overlap(Box(5, 5, 20, 20)) == 25
    assert box.overlap(Box(10, 0, 20, 10)) == 0
    assert box.outside(Box(0, 0, 10, 4)) == 60
    assert box.middle == (5, 5)


def test_names_of_near_points_lie_beside_each_other(axes):
    points = [Named(f"point {n}", 200 + 3 * n, 200 + 2 * n, 5, "#000000") for n in range(8)]
    name_points(axes, points, LIGHT)
    assert [text.get_text() for text in axes.texts] == [point.text for point in points]
    found = boxes(axes)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(found, 2))
    assert not any(box.contains(point.x, point.y) for box in found for point in points)


@pytest.mark.parametrize(("x", "y"), [(2, 2), (398, 2), (2, 398), (398, 398)])
def test_a_name_stays_inside_at_a_corner(axes, x, y):
    name_points(axes, [Named("a long name", x, y, 4, "#000000")], LIGHT)
    (box,) = boxes(axes)
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= 400
    assert box.y1 <= 400


def test_a_name_keeps_off_a_line_and_off_words_that_stand_there(axes):
    level = [(0.0, 200.0), (400.0, 200.0)]
    point = Named("a name", 200, 200, 4, "#000000")
    name_points(axes, [point], LIGHT, lines=[level], written=[Box(100, 204, 300, 240)])
    (box,) = boxes(axes)
    assert box.y1 < 200


def test_a_name_that_is_far_has_a_line_to_its_point(axes):
    around = [Box(150, 150, 250, 250)]
    name_points(axes, [Named("a name", 200, 200, 4, "#123456")], LIGHT, written=around)
    assert [line.get_color() for line in axes.lines] == ["#123456"]
    name_points(axes, [Named("near", 50, 50, 4, "#654321")], LIGHT)
    assert len(axes.lines) == 1


def test_points_without_names_are_only_kept_clear(axes):
    name_points(axes, [Named("", 200, 200, 4, "#000000")], LIGHT)
    assert not axes.texts
