"""Pictures of every kind of panel: their data, their words, and four of them to the pixel."""

import math

import pytest

from kvplan.charts import Axis, Bar, Bars, Chart, Curves, HeatMap, Hue, Line, Spacing
from kvplan.report.plots.draw import draw
from kvplan.report.plots.theme import DARK, LIGHT, THEMES
from kvplan.units import GIB, Unit

KINDS = ("curves", "stack", "bars", "dots", "diagonal", "under-roof", "heat-map")


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_word_is_inside_and_on_no_other(kind, theme, chart, crowded):
    assert crowded(draw(chart(kind), THEMES[theme])) == []


def test_panels_stand_below_each_other_between_the_same_sides(chart, crowded):
    figure = draw(chart("stack", "curves", "diagonal"))
    assert crowded(figure) == []
    boxes = [axes.get_position() for axes in figure.axes]
    assert len({(round(box.x0, 9), round(box.x1, 9)) for box in boxes}) == 1
    assert boxes[0].y0 > boxes[1].y1 > boxes[1].y0 > boxes[2].y1


@pytest.mark.parametrize("kind", KINDS)
def test_every_axis_says_its_unit(kind, chart, written):
    figure = draw(chart(kind))
    words = [text for text, _ in written(figure)]
    (main, *_) = figure.axes
    units = ("tokens", "requests", "GiB", "ms", "times", "%", "FLOP", "blocks")
    for label in (main.get_xlabel(), main.get_ylabel()):
        ticks_have_it = label == "cache of one request" and {"2 GiB", "32 MiB"} <= set(words)
        names_of_bars = kind == "bars" and not label
        assert ticks_have_it or names_of_bars or any(unit in label for unit in units), label


def test_the_words_around_the_panels_are_those_of_the_chart(chart):
    one = chart("curves")
    assert (
        " ".join(text.get_text() for text in draw(one).texts) == f"{one.title} {one.subject} {one.notes[0]}"
    )


# ------------------------------------------------------------------ data


def test_curves_are_drawn_as_they_are(chart):
    (panel,) = chart("curves").panels
    (axes,) = draw(chart("curves")).axes
    drawn = {(tuple(line.get_xdata()), tuple(line.get_ydata())) for line in axes.lines}
    assert {(line.x, line.y) for line in panel.lines} <= drawn
    flat = {line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1}
    assert {limit.at for limit in panel.limits if not limit.upright} <= flat


def test_a_stepped_curve_holds_each_height_until_the_next():
    panel = Curves(Axis("x"), Axis("y"), (Line("a", (1.0, 2.0, 3.0), (5.0, 6.0, 4.0), stepped=True),))
    (axes,) = draw(Chart("growth", "t", "s", (panel,))).axes
    assert [line.get_drawstyle() for line in axes.lines if len(line.get_xdata()) == 3] == ["steps-post"]


def test_bands_stand_on_each_other(chart):
    (panel,) = chart("stack").panels
    (axes,) = draw(chart("stack")).axes
    floor = [0.0] * len(panel.at)
    for band, drawn in zip(panel.bands, axes.collections, strict=True):
        (path,) = drawn.get_paths()
        points = {(round(x, 9), round(y, 12)) for x, y in path.vertices}
        top = [low + height for low, height in zip(floor, band.heights, strict=True)]
        assert {(at, round(height, 12)) for at, height in zip(panel.at, top, strict=True)} <= points
        assert {(at, round(height, 12)) for at, height in zip(panel.at, floor, strict=True)} <= points
        floor = top


def test_parts_of_a_bar_follow_each_other_up_to_its_whole(chart):
    (panel,) = chart("bars").panels
    (axes,) = draw(chart("bars")).axes
    rectangles = [patch for container in axes.containers for patch in container]
    found = [(patch.get_x(), patch.get_width()) for patch in rectangles]
    expected = []
    for bar in panel.bars:
        start = 0.0
        for _, _, size in bar.parts:
            expected.append((start, size))
            start += size
    assert found == pytest.approx([pytest.approx(pair) for pair in expected])


def test_one_limit_of_all_bars_is_drawn_once():
    parts = (("weights", Hue.WEIGHTS, 15.0 * GIB), ("cache pool", Hue.KV, 5.0 * GIB))
    alike = Bars(Axis("memory", Unit.BYTES), tuple(Bar(name, parts, 20.0 * GIB) for name in "abc"), "planned")
    (axes,) = draw(Chart("memory", "t", "s", (alike,))).axes
    assert [text.get_text() for text in axes.texts].count("planned: 20 GiB") == 1


def test_cells_are_the_figures_and_those_without_are_masked(chart):
    (panel,) = chart("heat-map").panels
    axes = draw(chart("heat-map")).axes[0]
    (mesh,) = [drawn for drawn in axes.collections if hasattr(drawn, "get_coordinates")]
    values = mesh.get_array().reshape(len(panel.rows), len(panel.columns))
    for up, row in enumerate(panel.cells):
        for across, cell in enumerate(row):
            assert bool(values.mask[up][across]) == (cell is None)
            assert cell is None or math.isclose(values[up][across], cell)


def test_levels_are_named_once_each(chart, written):
    words = [text for text, _ in written(draw(chart("heat-map")))]
    assert [words.count(f"{level} ms") for level in (6, 10, 20, 30)] == [1, 1, 1, 1]


# ------------------------------------------------------------------ odd ones


def test_a_chart_with_nothing_to_draw_says_so(crowded):
    axis = Axis("context", Unit.TOKENS, Spacing.DOUBLING)
    nothing = Curves(
        axis, Axis("requests", Unit.REQUESTS, Spacing.DOUBLING), (), empty="not one request fits"
    )
    figure = draw(
        Chart("frontier", "Not one request of 32k fits", "a model on a card", (nothing,), ("a", "b"))
    )
    assert crowded(figure) == []
    assert "not one request fits" in [text.get_text() for text in figure.axes[0].texts]


def test_cells_that_have_no_value_at_all_are_hatched(crowded):
    axis = Axis("context", Unit.TOKENS)
    nothing = HeatMap(
        axis, (1.0, 2.0), Axis("requests"), (1.0,), Axis("tokens/s"), ((None, None),), "no room"
    )
    figure = draw(Chart("heat-map", "Nothing fits", "a model on a card", (nothing,), ("a", "b")))
    assert len(figure.axes) == 1
    assert "hatched: no room" in [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("spacing", Spacing)
def test_a_single_point_has_axes_around_it(spacing, crowded):
    axis = Axis("context", Unit.TOKENS, spacing)
    panel = Curves(axis, Axis("requests", Unit.REQUESTS, spacing), (Line("the only one", (7.0,), (3.0,)),))
    figure = draw(Chart("frontier", "3 requests of 7 fit", "a model on a card", (panel,)))
    assert crowded(figure) == []
    (axes,) = figure.axes
    assert axes.get_xlim()[0] < 7 < axes.get_xlim()[1]


def test_many_names_near_each_other_stand_apart(crowded):
    line = [Line(f"option {n}", (1.0, 2.0), (1.0, 100.0 + n / 9)) for n in range(12)]
    panel = Curves(Axis("x", Unit.TOKENS), Axis("y", Unit.REQUESTS), tuple(line))
    assert crowded(draw(Chart("growth", "t", "s", (panel,)))) == []


def test_what_a_user_set_for_matplotlib_changes_nothing(chart):
    import matplotlib

    from kvplan.report.plots.save import picture

    expected = picture(draw(chart("stack")), ".svg")
    changed = {"font.size": 30, "axes.labelsize": 30, "xtick.major.size": 20, "axes.spines.left": False}
    with matplotlib.rc_context(changed):
        assert picture(draw(chart("stack")), ".svg") == expected


# ------------------------------------------------------------------ to the pixel

SAME = {"style": "default", "tolerance": 4, "baseline_dir": "baseline", "savefig_kwargs": {"dpi": 100}}


@pytest.mark.mpl_image_compare(filename="curves.png", **SAME)
def test_the_picture_of_curves(chart):
    return draw(chart("curves"), LIGHT)


@pytest.mark.mpl_image_compare(filename="bars-dark.png", **SAME)
def test_the_picture_of_bars_on_dark_paper(chart):
    return draw(chart("bars"), DARK)


@pytest.mark.mpl_image_compare(filename="under-roof.png", **SAME)
def test_the_picture_of_operators_under_a_roof(chart):
    return draw(chart("under-roof"), LIGHT)


@pytest.mark.mpl_image_compare(filename="heat-map-dark.png", **SAME)
def test_the_picture_of_a_heat_map_on_dark_paper(chart):
    return draw(chart("heat-map"), DARK)
