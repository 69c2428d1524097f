"""Renderers on reports made to break them: odd texts, missing answers, nothing at all, narrow screens."""

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.report.export import render_csv, render_json, render_markdown, render_plain, to_dict
from kvplan.report.table import render_table
from kvplan.report.terminal import Terminal
from kvplan.report.words import cell, scaled
from kvplan.results import Column, Facts, Quantity, Report, Scale, Shown, Table, Verdict, fact
from kvplan.units import GIB, Unit

ODD = 'a | b, "c"\n[bold]d[/bold] :smile: 1e3 é'


def facts(*values, shown=Shown.LINES):
    return Facts(
        "facts",
        "Facts",
        tuple(fact(f"f{n}", value, "here", label=f"label {n}") for n, value in enumerate(values)),
        shown,
    )


def table(rows, *, priority=0):
    names = tuple(fact("name", f"row{n}", "here") for n in range(len(rows)))
    cells = tuple(fact("size", value, "here", Unit.BYTES) for value in rows)
    more = tuple(fact("words", "some words", "here") for _ in rows)
    columns = (
        Column("name", "name", names),
        Column("size", "size", cells),
        Column("words", "said", more, priority),
    )
    return Table("rows", "Rows", columns)


def report(*sections, heading="heading", verdict=None, notes=()):
    return Report("test", heading, sections, verdict, notes, (("asked", 1),))


ALL = {
    "table": lambda found: render_table(found, Terminal()),
    "plain": render_plain,
    "json": lambda found: render_json(to_dict(found)),
    "csv": render_csv,
    "md": render_markdown,
}
formats = pytest.mark.parametrize("render", ALL.values(), ids=ALL)


@formats
@pytest.mark.parametrize("value", [None, True, 0, -1, 10**30, 0.1, 1e-9, 1e300, "", " ", ODD], ids=repr)
def test_any_value_in_a_fact_and_in_a_cell(render, value):
    shown = render(report(facts(value), Table("t", "T", (Column("c", "c", (fact("c", value, "here"),)),))))
    assert shown.endswith("\n")


@formats
def test_a_report_of_nothing(render):
    assert render(report()).endswith("\n")
    assert render(report(Facts("f", "F", ()), Table("u", "U", (Column("c", "c", ()),)))).endswith("\n")


@formats
def test_odd_text_everywhere(render):
    found = report(facts(ODD), heading=ODD, verdict=Verdict(False, ODD), notes=(ODD,))
    assert "bold" in render(found), "markup is text here"


def test_json_is_what_was_put_in():
    data = json.loads(
        render_json(to_dict(report(facts(ODD, None, True, 10**30), verdict=Verdict(True, ODD))))
    )
    assert data["facts"] == {"f0": ODD, "f1": None, "f2": True, "f3": 10**30}
    assert data["verdict"] == {"fits": True, "text": ODD}
    assert data["inputs"] == {"asked": 1}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_is_no_number(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        render_json({"x": number})


def test_csv_reads_back():
    rows = list(csv.reader(io.StringIO(render_csv(report(facts(ODD, None, True, 10**30))))))
    assert rows == [
        ["figure", "value", "unit"],
        ["facts.f0", ODD, ""],
        ["facts.f1", "", ""],
        ["facts.f2", "true", ""],
        ["facts.f3", str(10**30), ""],
    ]


def test_plain_is_one_line_a_figure():
    lines = render_plain(report(facts(ODD, 1_000_000, "a, b"), verdict=Verdict(True, "fits"))).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["facts.f0", "facts.f1", "facts.f2", "verdict"]
    assert lines[1:] == ["facts.f1 1000000", "facts.f2 a, b", "verdict fits"]


def test_markdown_cells_hold_no_bars_and_no_line_breaks():
    lines = render_markdown(report(facts(ODD, "plain"))).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 4
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)


@pytest.mark.parametrize("width", [None, 1, 10, 20, 40, 80, 200])
@pytest.mark.parametrize("priority", [0, 1])
def test_a_number_is_never_cut(width, priority):
    sizes = [123_456_789 * GIB, 1, None]
    shown = render_table(
        report(table(sizes, priority=priority), facts(123_456_789_012_345_678)), Terminal(width)
    )
    assert "123,456,789.00" in shown
    assert "123,456,789,012,345,678" in shown
    assert "…" not in shown
    assert ("some words" in shown) or ("(noroomfor:said)" in "".join(shown.split()))


@pytest.mark.parametrize("width", [1, 10, 20, 40])
def test_a_unit_stays_with_its_number(width):
    found = report(Facts("f", "F", (Quantity("a", 36_864, Unit.BYTES_PER_TOKEN, "a longish label of it"),)))
    assert re.search(r"36,864 B/token$", render_table(found, Terminal(width)), re.MULTILINE)


def test_ascii_where_unicode_is_not_shown():
    budget = Facts(
        "m",
        "M",
        tuple(fact(n, v * GIB, "here", Unit.BYTES, "é") for n, v in (("a", 1), ("b", 3))),
        Shown.BUDGET,
    )
    shown = render_table(report(budget, heading="é …"), Terminal(unicode=False))
    assert shown.isascii()
    assert "########" in shown
    assert "█" in render_table(report(budget), Terminal())


def test_colour_only_where_asked_for():
    found = report(facts(1), verdict=Verdict(True, "Fits."))
    assert "\x1b[" in render_table(found, Terminal(80, color=True))
    assert "\x1b[" not in render_table(found, Terminal(80, color=False))


def test_colour_changes_nothing_but_colour():
    found = report(facts(1, "two"), table([1, 2]), verdict=Verdict(False, "Does not fit."))
    coloured = re.sub(r"\x1b\[[0-9;]*m", "", render_table(found, Terminal(80, color=True)))
    assert [line.rstrip() for line in coloured.splitlines()] == render_table(found, Terminal(80)).splitlines()


@formats
@given(
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60),
    number=st.integers(-(10**20), 10**20),
)
def test_any_text_and_number(render, text, number):
    shown = render(report(facts(text, number), heading=text, verdict=Verdict(True, text)))
    assert str(number) in shown.replace(",", "")


# Tables in base units


def numbered(*sizes, first=0, labels=(), name="layer"):
    """A table of numbered rows in base units, its sizes under a head of two lines."""
    rows = range(first, first + len(sizes))
    return Table(
        "t",
        "T",
        (
            Column(name, name, tuple(fact(name, n, "here") for n in rows)),
            Column("size", "size\nplanned", tuple(fact("size", n, "here", Unit.BYTES) for n in sizes)),
            Column("kind", "kind", tuple(fact("kind", "k", "here") for _ in rows), shown=False),
        ),
        units=True,
        labels=labels,
    )


def rows_of(found, width=None):
    lines = render_table(report(found), Terminal(width)).splitlines()[3:]
    return [line.split() for line in lines if line]


def test_equal_rows_of_a_running_number_are_one():
    assert rows_of(numbered(2048, 2048, 2048, 1, 2048))[3:] == [
        ["0-2", "2,048"],
        ["3", "1"],
        ["4", "2,048"],
    ]
    assert "| 0-2 | 2,048 |\n| 3 | 1 |\n| 4 | 2,048 |" in render_markdown(
        report(numbered(2048, 2048, 2048, 1, 2048))
    )


@pytest.mark.parametrize("table", [numbered(7, 7, first=3), numbered(7, 7, labels=("a", "b")), numbered(7)])
def test_rows_that_have_names_stay_by_themselves(table):
    assert len(rows_of(table)) == 3 + len(table.columns[0].cells)


def test_machines_get_every_row_and_the_hidden_column():
    data = to_dict(report(numbered(7, 7)))
    assert data["t"] == [{"layer": n, "size": 7, "kind": "k"} for n in (0, 1)]


def test_a_unit_all_cells_share_is_in_the_head_and_else_behind_each():
    assert rows_of(numbered(2048, 1))[:3] == [["size"], ["planned"], ["layer", "(B)"]]
    assert rows_of(numbered(2048, None))[2:] == [["layer", "(B)"], ["0", "2,048"], ["1", "-"]]
    assert "| layer | size planned (B) |" in render_markdown(report(numbered(2048, 1)))
    units = (
        fact("v", 2048, "here", Unit.BYTES),
        fact("v", 0.0125, "here", Unit.SECONDS),
        fact("v", None, "here"),
    )
    names = tuple(fact("name", n, "here") for n in "abc")
    mixed = Table("t", "T", (Column("name", "name", names), Column("v", "v", units)), units=True)
    assert rows_of(mixed) == [["name", "v"], ["a", "2,048", "B"], ["b", "12.5", "ms"], ["c", "-"]]


def test_a_head_of_two_lines_is_one_in_what_there_was_no_room_for():
    wide = numbered(2048, 1)
    columns = (*wide.columns[:1], Column("size", "size\nplanned", wide.columns[1].cells, priority=1))
    more = Column("words", "more\nwords", tuple(fact("w", "x" * 40, "here") for _ in range(2)), priority=2)
    shown = render_table(report(Table("t", "T", (*columns, more), units=True)), Terminal(40))
    assert "\n  (no room for: more words)\n" in shown


def test_a_heading_of_several_lines():
    shown = render_table(report(facts(1), heading="one\ntwo"), Terminal(80))
    assert shown.startswith("one\ntwo\n\n")
    assert render_markdown(report(facts(1), heading="one\ntwo")).startswith("### one\n\ntwo\n\n")


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.00481234, Unit.SECONDS, "4.81 ms"),
        (4.15e10, Unit.BYTES_PER_SECOND, "41.5 GB/s"),
        (1.16e11, Unit.FLOPS_PER_SECOND, "116 GFLOP/s"),
        (0.15761, Unit.SHARE, "15.8 %"),
        (826.4, Unit.TOKENS_PER_SECOND, "826 tokens/s"),
        (8.1e-7, Unit.NONE, "8.1e-07"),
    ],
)
def test_what_is_measured_is_shown_to_three_digits_and_exported_whole(value, unit, shown):
    found = report(Facts("f", "F", (fact("a", value, "here", unit, "a"),)))
    assert f"  a   {shown}\n" in render_table(found, Terminal())
    assert render_plain(found) == f"f.a {value!r} {unit.value}".rstrip() + "\n"
    assert float(list(csv.reader(io.StringIO(render_csv(found))))[1][1]) == value


# ------------------------------------------------------------------ scales, names of two columns, hidden rows


@pytest.mark.parametrize(
    ("value", "scale", "expected"),
    [
        (0, Scale.MB, "-"),
        (None, Scale.MB, "-"),
        (1_610_612_736, Scale.MB, "1,611"),
        (65_536, Scale.MB, "0.066"),
        (999, Scale.MB, "<0.001"),
        (1_000, Scale.MB, "0.001"),
        (0.00048, Scale.MILLISECONDS, "0.480"),
        (0.0012824, Scale.MILLISECONDS, "1.28"),
        (0.0115, Scale.MILLISECONDS, "11.5"),
        (1_097_930_000_000, Scale.GFLOP, "1,098"),
    ],
)
def test_a_scaled_figure_has_three_digits_and_is_never_shown_as_nothing(value, scale, expected):
    assert scaled(Quantity("x", value), scale) == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1.5, Unit.TIMES, "x1.50"),
        (0.0714, Unit.USD, "0.0714"),
        (1_234.5, Unit.USD, "1,234"),
        (0.5, Unit.SHARE, "50"),
        (0.0005, Unit.SHARE, "<0.1"),
        (0.0, Unit.SHARE, "0"),
        (295.343, Unit.FLOPS_PER_BYTE, "295"),
    ],
)
def test_cells_of_rates_and_prices(value, unit, expected):
    assert cell(Quantity("x", value, unit)) == expected


def timed(**more):
    cells = {"name": ("read", "write", "total"), "batch": (1, 8, 8), "bound_s": (0.001, 0.25, 0.0)}
    columns = tuple(
        Column(
            key,
            {"bound_s": "bound"}.get(key, key),
            tuple(fact(key, value, "here") for value in values),
            scale=Scale.MILLISECONDS if key == "bound_s" else None,
        )
        for key, values in cells.items()
    )
    return Table("steps", "Steps", columns, named_by=2, **more)


def test_a_scaled_column_says_so_in_its_head_and_stays_in_base_units_for_machines():
    found = report(timed())
    shown = render_table(found, Terminal())
    assert "bound (ms)" in shown
    assert re.search(r"read +1 +1\.00\n", shown)
    assert re.search(r"write +8 +250\n", shown)
    assert re.search(r"total +8 +-\n", shown)
    assert "steps.write.8.bound_s 0.25\n" in render_plain(found)
    assert to_dict(found)["steps"][1] == {"name": "write", "batch": 8, "bound_s": 0.25}


def test_hidden_rows_are_for_machines_alone():
    found = report(timed(hidden=(1,), labels=("reading", "writing", "all")))
    for shown in (render_table(found, Terminal()), render_markdown(found)):
        assert "reading" in shown
        assert "writing" not in shown
        assert "all" in shown
    assert [row["name"] for row in to_dict(found)["steps"]] == ["read", "write", "total"]
    assert "steps.write.8.bound_s" in render_csv(found)


def test_figures_of_a_group_are_an_object_of_their_own_in_json():
    names = ("size", "error.output", "error.logits", "1.5", "a b.c")
    found = to_dict(report(Facts("f", "F", tuple(fact(name, n, "here") for n, name in enumerate(names)))))
    assert found["f"] == {"size": 0, "error": {"output": 1, "logits": 2}, "1.5": 3, "a b.c": 4}
