"""``kvplan plot all``: which pictures of a plan, in which files, all or none, the same bytes each time."""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kvplan
from kvplan.cli.app import main
from kvplan.errors import ExitStatus
from kvplan.files import write_folder

SMALL = """\
name: small
model: qwen3-1.7b
gpu: l4
workload: {batch: [2, 4], context: [1k, 2k]}
compare: [kv=fp8, prefix=50%]
require: [fits at batch 2 context 1k, tpot <= 1 ms at batch 4 context 2k]
"""
TWO = "name: two\nmodel: gpt2\ngpu: [l4, t4]\n"
KINDS = ["growth", "frontier", "memory", "roofline", "step-time", "heat-map", "compare", "simulate"]
OF_EACH = [f"{kind}-{gpu}" for kind in ("roofline", "step-time", "heat-map") for gpu in ("l4", "t4")]


@pytest.fixture
def plan(tmp_path):
    """A function that writes a plan file and returns its name."""

    def write(text, name="plan.yaml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of two plans, drawn in both themes."""
    folder = tmp_path_factory.mktemp("drawn")
    for name, text in (("small", SMALL), ("two", TWO)):
        (folder / f"{name}.yaml").write_text(text)
    plans = [str(folder / "small.yaml"), str(folder / "two.yaml")]
    assert main(["plot", "all", *plans, "-o", str(folder / "out"), "--theme", "both", "--quiet"]) == 0
    return folder / "out"


@pytest.fixture
def quick(monkeypatch):
    """The kinds that are asked for, in place of charts: what each is of, none of them drawn."""
    from kvplan.api import plot_all
    from kvplan.api.plot import chart

    asked = []

    def only_memory(kind, of, on_step=None):
        if kind == "memory" and not on_step:  # whether an option is shown at all
            return chart(kind, of)
        asked.append((kind, of))
        return chart("memory", of if of.gpus else plot_all.Subject(of.models, ["h200-sxm"], (), {}))

    monkeypatch.setattr(plot_all, "chart", only_memory)
    return asked


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_kind_that_applies_is_a_file_in_each_theme(drawn):
    pictures = [f"small/{kind}" for kind in KINDS]
    pictures += [f"two/{name}" for name in (*KINDS[:3], *OF_EACH, "simulate")]
    named = [f"{name}{ending}.svg" for name in pictures for ending in ("", "-dark")]
    assert files_in(drawn) == sorted([*named, "index.md", "index.html"])
    assert all((drawn / name).read_bytes().startswith(b"<?xml") for name in named)


def test_themes_differ_by_their_paper(drawn):
    light, dark = ((drawn / "small" / f"growth{e}.svg").read_text() for e in ("", "-dark"))
    assert "#ffffff" in light
    assert "#0d1117" not in light
    assert "#0d1117" in dark


def test_the_page_holds_every_picture_as_it_is_in_its_file(drawn):
    page = (drawn / "index.html").read_text()
    held = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page)
    assert sorted(base64.b64decode(one) for one in held) == sorted(
        p.read_bytes() for p in drawn.glob("*/*.svg")
    )


def test_the_page_loads_nothing(drawn):
    page = (drawn / "index.html").read_text()
    outside = re.sub(r"data:image/svg\+xml;base64,[A-Za-z0-9+/=]+", "", page)
    assert "://" not in outside
    assert "<script" not in outside
    assert not re.search(r'(?:src|srcset|href)="(?!#|")', outside)


def test_the_pages_say_what_check_says(drawn, command):
    status, out, _ = command("check", str(drawn.parent / "small.yaml"), "--format", "md")
    assert status == ExitStatus.ANSWER_IS_NO
    markdown = (drawn / "index.md").read_text()
    assert out in markdown
    assert "| two | It requires nothing. |" in markdown
    html = (drawn / "index.html").read_text()
    assert "1 of 2 is not met on l4: tpot &lt;= 1 ms at batch 4 context 2k" in html
    assert '<td class="no">' in html


def test_every_file_the_markdown_names_is_there(drawn):
    named = re.findall(r'(?:src|srcset)="([^"]+)"', (drawn / "index.md").read_text())
    assert sorted(named) == sorted(str(path.relative_to(drawn)) for path in drawn.glob("*/*.svg"))


def test_the_same_plans_are_the_same_bytes_without_a_display(drawn):
    """In another process, with other hashes and a backend that would open windows."""
    again = drawn.parent / "again"
    plans = [str(drawn.parent / name) for name in ("small.yaml", "two.yaml")]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "MPLBACKEND": "TkAgg"}
    environment.pop("DISPLAY", None)
    words = [sys.executable, "-m", "kvplan", "plot", "all", *plans, "-o", str(again), "--theme", "both"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert files_in(again) == files_in(drawn)
    assert [n for n in files_in(again) if (again / n).read_bytes() != (drawn / n).read_bytes()] == []


# What pictures are of


def test_pictures_are_of_the_heaviest_load_and_of_options_that_they_show(quick, plan):
    kvplan.plot_all([plan(SMALL)])
    assert [kind for kind, _ in quick] == KINDS
    of = dict(quick)
    assert [list(of[kind].changes) for kind in KINDS[:3]] == [["kv=fp8"]] * 3
    assert [list(of[kind].changes) for kind in KINDS[3:6]] == [[]] * 3
    assert list(of["compare"].changes) == ["kv=fp8", "prefix=50%"]
    assert {(of[kind].batch, of[kind].context) for kind in KINDS[:7]} == {(4, 2048)}


def test_a_context_is_no_longer_than_a_request_can_be(quick, plan):
    kvplan.plot_all([plan(TWO + "deployment: {max_length: 512}\nworkload: {context: 1k}\n")])
    assert dict(quick)["heat-map"].context == 512


def test_a_run_is_cached_as_the_plan_is(quick, plan):
    text = TWO.replace("gpt2", "deepseek-v2-lite").replace("[l4, t4]", "h200-sxm")
    kvplan.plot_all([plan(text + "deployment: {kv: fp8, latent_cache: expanded}\n")])
    run = dict(quick)["simulate"]
    assert (run.options, list(run.gpus)) == ({"kv": "fp8", "latent_cache": "expanded"}, [])


@pytest.mark.parametrize(
    ("gpus", "options", "names"),
    [
        ("[l4, t4]", 3, ["memory"]),
        ("[l4, t4]", 4, ["memory-l4", "memory-t4"]),
        ("l4", 7, ["memory"]),
        ("l4", 9, ["memory"]),
    ],
)
def test_no_more_than_eight_plans_are_beside_each_other(gpus, options, names, quick, plan):
    changes = [f"chunk={100 * n}" for n in range(1, 1 + options)]
    files = kvplan.plot_all([plan(TWO.replace("[l4, t4]", gpus) + f"compare: [{', '.join(changes)}]\n")])
    assert [name for name in files if "memory" in name] == [f"two/{name}.svg" for name in names]
    shown = [of for kind, of in quick if kind == "memory"]
    assert all(len(of.gpus) * (1 + len(of.changes)) <= 8 for of in shown)
    assert all(len(of.changes) == min(options, 7) for of in shown)
    beyond = "Not drawn: chunk=800, chunk=900: more options than the 7 that can be told apart"
    assert (beyond in files["index.html"].decode()) == (options == 9)


def test_what_cannot_be_drawn_is_named_on_the_page(plan):
    text = "name: p\nmodel: deepseek-v3\ngpu: h200-sxm\ndeployment: {gpus: 8, mtp: true, kv: fp8}\n"
    files = kvplan.plot_all([plan(text + "compare: [weights=int4]\n")])
    assert [name for name in files if "time" in name or "roofline" in name or "compare" in name] == []
    reason = "roofline, step-time, heat-map, compare: --mtp: how long drafting with prediction layers"
    assert all(f"Not drawn: {reason}" in files[name].decode() for name in ("index.md", "index.html"))


def test_a_plan_that_does_not_fit_is_shown_not_to(plan):
    text = "name: p\nmodel: llama-3.1-70b\ngpu: t4\nworkload: {batch: 1, context: 4k}\nrequire: [fits]\n"
    files = kvplan.plot_all([plan(text)])
    assert {"p/growth.svg", "p/frontier.svg", "p/memory.svg"} <= files.keys()
    assert "is not met on t4: fits" in files["index.md"].decode()


def test_png_and_dark(quick, plan):
    files = kvplan.plot_all([plan(SMALL)], format="png", theme="dark")
    assert files["small/growth.png"].startswith(b"\x89PNG")
    assert b"color-scheme: dark" in files["index.html"]
    assert b"data:image/png;base64," in files["index.html"]


# Refused, with the folder as it was


REFUSED = [
    ("name: b\nmodel: gtp2\ngpu: l4\n", ":2:8: model: no model named 'gtp2'"),
    ("name: b\nmodel: gpt2\ngpu: l4\ndeployment: {gpus: 5, tp: 5}\n", ": tensor parallel 5"),
    ("name: small\nmodel: gpt2\ngpu: l4\n", " are both named 'small'"),
    ("name: index.md\nmodel: gpt2\ngpu: l4\n", "'index.md' would take the place of the page"),
    (
        "name: b\nmodel: gpt2\ngpu: l4\ndeployment: {mtp: true}\nrequire: [ttft <= 1 ms at context 1]\n",
        "prediction",
    ),
    ("name: b\nmodel: gpt2\ngpu: l4\nrequire: [tpot <= 1 parsec]\nworkload: {batch: 1, context: 1}\n", ":4:"),
    ("name: [", "b.yaml:"),
]


@pytest.mark.parametrize("there", [False, True], ids=["new", "old"])
@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_mistake_in_the_second_plan_leaves_the_folder_alone(text, message, there, plan, refused, tmp_path):
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
        (folder / "index.md").write_text("old")
    (line,) = refused("plot", "all", plan(SMALL, "a.yaml"), plan(text, "b.yaml"), "-o", str(folder))
    assert message in line
    assert str(tmp_path / "b.yaml") in line or "b.yaml" in line
    assert folder.exists() == there
    if there:
        assert files_in(folder) == ["index.md"]
        assert (folder / "index.md").read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--theme", "lihgt"), "no theme named 'lihgt'. Did you mean light?"),
        (("--format", "pdf"), "no picture format named 'pdf'; expected one of svg, png"),
    ],
)
def test_what_is_not_known_is_refused_before_anything_is_drawn(
    arguments, message, quick, plan, refused, tmp_path
):
    (line,) = refused("plot", "all", plan(SMALL), "-o", str(tmp_path / "out"), *arguments)
    assert line.startswith(message)
    assert quick == []
    assert not (tmp_path / "out").exists()


def test_plans_and_a_folder_are_needed(plan, refused, tmp_path):
    (line,) = refused("plot", "all", plan(SMALL))
    assert line.startswith("missing option '--output' / '-o'")
    (line,) = refused("plot", "all", "-o", str(tmp_path / "out"))
    assert line.startswith("missing argument 'PLAN'")


def test_all_is_a_word_of_the_command_not_a_kind(refused, plan, tmp_path, command):
    (line,) = refused("plot", "-o", "a.svg", "all", plan(SMALL))
    assert line.startswith("all stands right behind plot")
    status, out, _ = command("plot", "all", "--help")
    assert status == 0
    assert "plot all [OPTIONS]" in out


def test_a_place_that_is_no_folder(quick, plan, refused, tmp_path):
    (tmp_path / "file").write_text("old")
    for place, reason in (("file", "it is a file"), ("no/out", "there is no such folder")):
        (line,) = refused("plot", "all", plan(SMALL), "-o", str(tmp_path / place), status=ExitStatus.FILE)
        assert reason in line
    assert quick == []
    assert (tmp_path / "file").read_text() == "old"


def test_other_files_of_the_folder_stay(quick, plan, command, tmp_path):
    (tmp_path / "out" / "small").mkdir(parents=True)
    for name in ("mine.txt", "small/mine.svg", "small/growth.svg"):
        (tmp_path / "out" / name).write_text("old")
    assert command("plot", "all", plan(SMALL), "-o", str(tmp_path / "out"))[::2] == (0, [])
    assert (tmp_path / "out" / "mine.txt").read_text() == "old"
    assert (tmp_path / "out" / "small" / "mine.svg").read_text() == "old"
    assert (tmp_path / "out" / "small" / "growth.svg").read_bytes().startswith(b"<?xml")


# Writing a folder


@pytest.mark.parametrize("blocked", ["b/c", "b"])
def test_nothing_is_written_where_one_file_cannot_be(blocked, tmp_path):
    from kvplan.errors import FileError

    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a").write_text("old")
    if blocked == "b":
        (folder / "b").write_text("a file")
    else:
        (folder / "b" / "c").mkdir(parents=True)
    before = sorted(str(path) for path in folder.rglob("*"))
    with pytest.raises(FileError):
        write_folder(folder, {"a": b"new", "b/c": b"new"})
    assert (folder / "a").read_text() == "old"
    assert sorted(str(path) for path in folder.rglob("*")) == before


def test_a_full_disk_leaves_no_folder(tmp_path, monkeypatch):
    from kvplan.errors import FileError

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileError, match="no space left on device"):
        write_folder(tmp_path / "out", {"a": b"new"})
    assert not (tmp_path / "out").exists()


def test_files_can_be_read_by_others(tmp_path):
    write_folder(tmp_path / "out", {"b/c": b"new"})
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "out" / "b" / "c").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "folder").mkdir()
    assert (tmp_path / "out" / "b").stat().st_mode == (tmp_path / "folder").stat().st_mode
