"""``kvplan plot`` and ``--plot``: which picture of what, in which file, and what is refused."""

import json
import re

import pytest

from kvplan.errors import ExitStatus

LLAMA = ("llama-3.1-8b", "--gpu", "h100-sxm")
SHORT_RUN = ("--prompt-tokens", "8", "--tokens", "2", "--layers", "1", "--hidden", "32")
PNG, SVG = b"\x89PNG\r\n\x1a\n", b"<?xml"


@pytest.fixture
def drawn(monkeypatch):
    """The charts that are drawn, and in which theme; the pictures are made as ever."""
    from kvplan.report.plots import draw

    found, ever = [], draw.draw

    def watched(chart, theme):
        found.append((chart, theme.name))
        return ever(chart, theme)

    monkeypatch.setattr(draw, "draw", watched)
    return found


@pytest.fixture
def plotted(command, drawn, tmp_path):
    """A function that runs ``kvplan plot`` and returns the one chart that was drawn."""

    def run(*arguments):
        path = tmp_path / "picture.svg"
        assert command("plot", *arguments, "-o", str(path), "--quiet") == (0, "", [])
        assert path.read_bytes().startswith(SVG)
        ((chart, _),) = drawn
        drawn.clear()
        return chart

    return run


def lines_of(chart):
    return [line.name for line in chart.panels[0].lines]


@pytest.mark.parametrize("kind", "growth frontier memory roofline step-time heat-map".split())
def test_a_picture_of_every_kind_is_of_its_kind(kind, plotted):
    chart = plotted(kind, *LLAMA)
    assert chart.kind == kind
    assert chart.subject.startswith("llama-3.1-8b on 1 x h100-sxm")


def test_options_are_compared_where_they_are_asked_for(plotted):
    chart = plotted("compare", *LLAMA, "--no-measure", "--with", "kv=fp8", "--with", "weights=int4")
    assert chart.kind == "compare"
    assert [dot.name for dot in chart.panels[0].dots] == ["baseline", "KV fp8"]
    assert "not drawn: weights int4 (no real model was measured with its weights or windows)" in chart.notes


def test_a_run_is_drawn_without_an_accelerator(plotted):
    chart = plotted("simulate", "gpt2", "--kv", "int8")
    assert chart.title.startswith("The plan holds: ")
    assert "int8 KV" in chart.subject


# Several plans beside each other


def test_one_plan_is_named_by_its_model(plotted):
    assert lines_of(plotted("frontier", *LLAMA)) == ["llama-3.1-8b"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("llama-3.1-8b", "gpt2", "--gpu", "h100-sxm"), ["llama-3.1-8b", "gpt2"]),
        ((*LLAMA, "--gpu", "h200-sxm"), ["h100-sxm", "h200-sxm"]),
        (
            (*LLAMA, "--with", "kv=fp8", "--with", "weights=int4,kv=int8"),
            ["bf16 KV, bf16 weights", "KV fp8", "weights int4, KV int8"],
        ),
        (
            ("llama-3.1-8b", "mistral-7b-v0.1", *LLAMA[1:], "--gpu", "t4", "--with", "weights=int4"),
            [
                f"{model}, {gpu}, {stored}"
                for model in ("llama-3.1-8b", "mistral-7b-v0.1")
                for gpu in ("h100-sxm", "t4")
                for stored in ("bf16 KV, bf16 weights", "weights int4")
            ],
        ),
        # The same thing twice is one thing.
        ((*LLAMA, *LLAMA, "--with", "kv=fp8", "--with", "kv=fp8"), ["bf16 KV, bf16 weights", "KV fp8"]),
    ],
)
def test_plans_are_named_by_what_sets_them_apart(arguments, names, plotted):
    assert [bar.name for bar in plotted("memory", *arguments).panels[0].bars] == names


@pytest.mark.parametrize(
    ("changes", "options"),
    [("kv=fp8", ("--kv", "fp8")), ("weights=int4,kv=fp8", ("--weights", "int4", "--kv", "fp8"))],
)
def test_an_option_holds_what_the_same_plan_holds(changes, options, plotted, command):
    """The end of the curve of ``--with``, and what ``capacity`` with these options says of that context."""
    chart = plotted("frontier", *LLAMA, "--with", changes)
    _, out, _ = command("capacity", *LLAMA, *options, "--context", "128k", "--json")
    (row,) = json.loads(out)["max_batch"]
    line = chart.panels[0].lines[1]
    assert (line.x[-1], line.y[-1]) == (row["context_tokens"], row["batch"])


@pytest.mark.parametrize(
    ("asked", "load"),
    [((), (16, 8_192)), (("--batch", "5", "--context", "2k"), (5, 2_048))],
)
def test_the_load_of_a_comparison_is_the_one_asked_for(asked, load, plotted, monkeypatch):
    from kvplan.check import comparison

    loads, ever = [], comparison.compare

    def watched(setup, *more, **options):
        loads.append((setup.load.batch, setup.load.context))
        return ever(setup, *more, **options)

    monkeypatch.setattr(comparison, "compare", watched)
    plotted("compare", *LLAMA, "--no-measure", "--with", "kv=fp8", *asked)
    assert loads == [load]


def test_other_accelerators_are_limits_of_growth(plotted):
    chart = plotted("growth", *LLAMA, "--gpu", "h200-sxm")
    assert lines_of(chart) == ["llama-3.1-8b"]
    assert [limit.name for limit in chart.panels[0].limits] == ["pool of h100-sxm", "pool of h200-sxm"]


def test_deployment_options_load_and_theme_reach_the_picture(command, drawn, tmp_path):
    path = str(tmp_path / "roofline.png")
    asked = ("--gpus", "2", "--kv", "fp8", "--batch", "8", "--context", "16k", "--theme", "dark")
    assert command("plot", "roofline", *LLAMA, *asked, "-o", path) == (0, "", [])
    ((chart, theme),) = drawn
    assert theme == "dark"
    assert "2 x h100-sxm" in chart.subject
    assert "fp8 KV" in chart.subject
    assert "8 requests of 16k" in chart.subject


def test_the_title_of_a_frontier_is_about_the_context_asked_for(plotted):
    assert re.fullmatch(
        r"[\d,]+ requests of 8k fit at once", plotted("frontier", *LLAMA, "--context", "8k").title
    )


# Files


@pytest.mark.parametrize(("name", "begins"), [("a.png", PNG), ("a.svg", SVG), ("A.PNG", PNG)])
def test_a_name_says_the_format(name, begins, command, tmp_path):
    path = tmp_path / name
    assert command("plot", "memory", *LLAMA, "-o", str(path))[0] == 0
    assert path.read_bytes().startswith(begins)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_picture_has_the_same_bytes(suffix, command, tmp_path):
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        assert command("plot", "frontier", *LLAMA, "--with", "kv=fp8", "-o", str(path))[0] == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_was_there_stays_where_a_picture_cannot_be_made(refused, tmp_path):
    path = tmp_path / "a.svg"
    path.write_text("old")
    refused("plot", "frontier", *LLAMA, "--with", "kv=bf16", "-o", str(path))
    assert path.read_text() == "old"


def test_notes_and_files_read_are_said(command, tmp_path):
    path = str(tmp_path / "a.svg")
    _, out, lines = command("plot", "memory", "gpt2", *LLAMA, "-o", path, "--verbose")
    assert out == ""
    assert [line.split(" (")[0] for line in lines] == [
        f"read bundled:{file}.yaml" for file in ("models/gpt2", "models/llama-3.1-8b", "gpus/h100-sxm")
    ]


# Refused


REFUSED = [
    (("fronteir", *LLAMA), "no plot named 'fronteir'. Did you mean frontier?"),
    (("frontier", "llama-3.1-8b"), "a frontier plot needs --gpu"),
    (("frontier", *LLAMA, "--theme", "sepia"), "no theme named 'sepia'"),
    (("frontier", *LLAMA, "--with", "prefix=50%"), "--with prefix=50% changes how requests are served"),
    (("frontier", *LLAMA, "--with", "kv=bf16"), "--with kv=bf16: keys and values are bf16 already"),
    (("frontier", *LLAMA, "--with", "kv"), "no KV format named ''"),
    (("frontier", *LLAMA, "--context", "0"), "--context: '0' is out of range"),
    (("frontier", *LLAMA, "--batch", "x"), "--batch: 'x' is not a count"),
    (("frontier", *LLAMA, "--tp", "3"), "tensor parallel 3 does not divide"),
    (("roofline", *LLAMA, "--gpu", "t4"), "a roofline plot is of one plan, not of accelerators"),
    (("heat-map", "gpt2", *LLAMA), "a heat-map plot is of one plan, not of models"),
    (("compare", "gpt2", *LLAMA), "a compare plot is of one plan, not of models"),
    (("step-time", *LLAMA, "--with", "kv=fp8"), "a step-time plot shows no options beside each other"),
    (("roofline", "deepseek-v3", "--gpu", "h200-sxm", "--mtp"), "--mtp: how long drafting"),
    (("simulate", *LLAMA), "a simulate plot is of a run on this machine: leave out --gpu"),
    (
        ("simulate", "gpt2", "--alloc", "contiguous", "--overhead", "1GiB", "--tp", "2", "--batch", "2"),
        "a simulate plot is of a run on this machine: leave out --tp, --alloc, --overhead, --batch",
    ),
    (("simulate", "gpt2", "--with", "kv=fp8", "--context", "4k"), "a simulate plot is of a run"),
    (
        ("memory", *LLAMA, "--gpu", "t4", "--gpu", "a10", *(f"--with=chunk={n}" for n in ("1k", "2k"))),
        "more than 8 plans cannot be told apart",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: " ".join(value[:4]))
def test_what_a_kind_does_not_show_is_refused_in_one_line(arguments, message, refused, tmp_path):
    path = tmp_path / "a.svg"
    (line,) = refused("plot", *arguments, "-o", str(path))
    assert line.startswith(message)
    assert not path.exists()


@pytest.mark.parametrize("name", ["a.pdf", "a", ".png", "-"])
def test_a_name_that_says_no_format_is_refused_before_anything_is_planned(name, refused):
    (line,) = refused("plot", "memory", "no-such-model", "--gpu", "t4", "-o", name)
    assert line.startswith(f"'{name}' is no picture that is made here")


def test_a_picture_needs_a_file(refused):
    (line,) = refused("plot", "memory", *LLAMA)
    assert line.startswith("missing option '--output' / '-o'")


def test_a_folder_that_is_not_there(refused, tmp_path):
    (line,) = refused("plot", "memory", *LLAMA, "-o", str(tmp_path / "no" / "a.svg"), status=ExitStatus.FILE)
    assert "there is no such folder" in line


# --plot


ANSWERS = [
    (("capacity", *LLAMA), "frontier"),
    (("roofline", *LLAMA, "--batch", "8"), "roofline"),
    (("compare", *LLAMA, "--no-measure", "--only", "--with", "kv=fp8"), "compare"),
    (("simulate", "gpt2", *SHORT_RUN), "simulate"),
]


@pytest.mark.parametrize(("arguments", "kind"), ANSWERS, ids=[kind for _, kind in ANSWERS])
def test_an_answer_is_drawn_beside_being_told(arguments, kind, command, drawn, tmp_path):
    path = tmp_path / "answer.png"
    status, told, lines = command(*arguments, "--plot", str(path), "--theme", "dark")
    assert (status, lines) == (0, [])
    ((chart, theme),) = drawn
    assert (chart.kind, theme) == (kind, "dark")
    assert path.read_bytes().startswith(PNG)
    assert command(*arguments)[1].partition("\n")[0] == told.partition("\n")[0]
    assert len(drawn) == 1


def test_capacity_draws_the_context_it_decides(command, drawn, tmp_path):
    asked = ("--context", "4k,64k", "--plot", str(tmp_path / "a.svg"))
    status, _, _ = command("capacity", *LLAMA, *asked)
    assert status == 0
    assert "of 64k" in drawn[0][0].title


@pytest.mark.parametrize(("arguments", "kind"), ANSWERS, ids=[kind for _, kind in ANSWERS])
@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--plot", "a.pdf"), "'a.pdf' is no picture that is made here"),
        (("--plot", "a.svg", "--theme", "sepia"), "no theme named 'sepia'"),
        (("--theme", "dark"), "--theme is of a picture"),
    ],
)
def test_a_picture_that_cannot_be_is_refused_first(arguments, kind, extra, message, refused):
    (line,) = refused(*arguments, *extra)
    assert line.startswith(message)


def test_a_picture_that_cannot_be_written_ends_before_the_answer(refused, tmp_path):
    path = str(tmp_path / "no" / "a.svg")
    (line,) = refused("capacity", *LLAMA, "--plot", path, status=ExitStatus.FILE)
    assert "there is no such folder" in line


def test_several_simulations_have_no_picture(refused):
    (line,) = refused("simulate", "--all", "--plot", "a.svg")
    assert line.startswith("--plot is of one model")


def test_the_answer_no_is_still_drawn(command, drawn, tmp_path):
    asked = ("--context", "128k", "--batch", "64", "--check", "--plot", str(tmp_path / "a.svg"))
    status, out, _ = command("capacity", *LLAMA, *asked)
    assert status == ExitStatus.ANSWER_IS_NO
    assert "Does not fit" in out
    assert len(drawn) == 1
