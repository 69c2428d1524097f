"""Files of pictures: the same bytes for the same chart, in any process, and never pyplot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kvplan
from kvplan.errors import FileError, UsageError
from kvplan.report.plots.draw import draw
from kvplan.report.plots.save import picture, save

# Draws a chart in a process of its own and prints a digest of its bytes.
DRAWN = """
import hashlib, sys
from kvplan.charts import Axis, Chart, Curves, Dot, Dots, Limit, Line, Spacing
from kvplan.report.plots.draw import draw
from kvplan.report.plots.save import picture
from kvplan.units import Unit
assert not any(name.split(".")[0] in ("matplotlib", "numpy") for name in sys.modules), "imported too early"
axis = Axis("context", Unit.TOKENS, Spacing.DOUBLING)
lines = tuple(Line(f"line {n}", (1024.0, 8192.0), (1.0, 4.0 + n)) for n in range(3))
panels = (
    Curves(axis, Axis("requests", Unit.REQUESTS, Spacing.DOUBLING), lines, (Limit("limit", 9.0),), "fits"),
    Dots(Axis("gain", Unit.TIMES), Axis("error", Unit.SHARE), (Dot("a", 1.0, 0.1), Dot("b", 2.0, 0.2)))
)
for suffix in (".svg", ".png"):
    chart = Chart("growth", "A title", "a subject", panels)
    print(hashlib.sha256(picture(draw(chart), suffix)).hexdigest())
assert "matplotlib.pyplot" not in sys.modules, "pyplot was imported"
"""


def in_a_process(seed, **variables):
    # The package is the one that is tested.
    root = str(Path(kvplan.__file__).parents[1])
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": root}
    for name in ("DISPLAY", "MPLBACKEND"):
        environment.pop(name, None)
    environment |= variables
    done = subprocess.run(
        [sys.executable, "-c", DRAWN], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bytes_are_the_same_in_any_process_and_pyplot_is_never_imported():
    first = in_a_process("1")
    assert len(first) == 2
    # A backend with windows, and no display: neither is touched.
    assert in_a_process("2", MPLBACKEND="tkagg") == first


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_bytes_are_the_same_twice(suffix, chart):
    one = chart("curves", "heat-map")
    assert picture(draw(one), suffix) == picture(draw(one), suffix)
    figure = draw(one)
    assert picture(figure, suffix) == picture(figure, suffix)


def test_a_picture_says_no_date_and_no_writer(chart):
    drawn = picture(draw(chart("bars")), ".svg")
    assert b"<dc:date>" not in drawn
    assert b"<dc:creator>" not in drawn
    assert b"Software" not in picture(draw(chart("bars")), ".png")


def test_words_of_an_svg_are_paths(chart):
    drawn = picture(draw(chart("bars")), ".svg")
    assert b"<text" not in drawn
    assert b"<path" in drawn


@pytest.mark.parametrize(
    ("name", "begins"), [("a.png", b"\x89PNG"), ("b.svg", b"<?xml"), ("c.SVG", b"<?xml")]
)
def test_the_name_says_the_format(tmp_path, chart, name, begins):
    save(draw(chart("bars")), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_without_a_format_is_refused_before_anything_is_written(tmp_path, chart):
    with pytest.raises(UsageError, match=r"'a\.jpeg' is no picture"):
        save(draw(chart("bars")), tmp_path / "a.jpeg")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_an_error_of_files(tmp_path, chart):
    with pytest.raises(FileError):
        save(draw(chart("bars")), tmp_path / "not there" / "a.svg")
