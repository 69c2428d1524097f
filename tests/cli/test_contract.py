"""What others build on: exit statuses, help, the keys of the JSON, and one answer for one question."""

import csv
import io
import json
import os
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
import typer

from kvplan.cli.app import app
from kvplan.errors import ExitStatus
from kvplan.specs.catalog import bundled_folder

CONFIG = Path(__file__).parent.parent / "data" / "hf_configs" / "llama-3.1-8b.json"
PLANS = Path(__file__).parents[2] / "examples" / "plans"
MAKE_CHECKPOINT = Path(__file__).parents[1] / "checkpoint" / "make_checkpoint.py"
LLAMA = ("capacity", "llama-3.1-8b", "--gpu", "h100-sxm")


# Exit statuses


def test_success(command):
    status, out, lines = command(*LLAMA)
    assert (status, lines) == (ExitStatus.SUCCESS, [])
    assert "\nFits. " in out


def test_the_answer_is_no_only_where_it_was_asked_for(command):
    too_long = (*LLAMA, "--context", "128k", "--batch", "64")
    assert command(*too_long)[0] == ExitStatus.SUCCESS
    status, out, lines = command(*too_long, "--check")
    assert (status, lines) == (ExitStatus.ANSWER_IS_NO, [])
    assert "Does not fit" in out
    assert command(*LLAMA, "--check")[0] == ExitStatus.SUCCESS


def test_usage(refused):
    refused(*LLAMA, "--tp", "0", status=ExitStatus.USAGE)


def test_file(refused):
    refused("models", "show", "./nowhere.yaml", status=ExitStatus.FILE)


@pytest.fixture
def bug(monkeypatch):
    """A function that makes planning raise an error; a method, as no module keeps a copy of one."""

    def plant(error):
        def broken(*_):
            raise error

        monkeypatch.setattr("kvplan.hardware.device.Device.memory_bytes", property(broken))

    return plant


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("division by zero"), KeyError("x\x1b"), RecursionError()]
)
def test_a_bug_is_one_line_and_asks_for_a_report(error, bug, command):
    bug(error)
    status, out, lines = command(*LLAMA)
    assert (status, out) == (ExitStatus.INTERNAL, "")
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert lines[0].startswith(f"error: internal error: {type(error).__name__}: ")
    assert lines[0].endswith("   (--debug shows where; please report it)")


@pytest.mark.parametrize(
    ("arguments", "error", "status"),
    [
        (LLAMA, ZeroDivisionError("here"), ExitStatus.INTERNAL),
        ((*LLAMA, "--tp", "0"), None, ExitStatus.USAGE),
        (("models", "show", "./nowhere.yaml"), None, ExitStatus.FILE),
    ],
)
def test_debug_shows_the_traceback_and_keeps_the_status(arguments, error, status, bug, command):
    if error:
        bug(error)
    found, out, lines = command(*arguments, "--debug")
    assert (found, out) == (status, "")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("error: ")


def test_interrupted(bug, command):
    bug(KeyboardInterrupt())
    status, out, lines = command(*LLAMA)
    assert (status, out) == (ExitStatus.INTERRUPTED, "")
    assert [line for line in lines if line] == ["interrupted"]


# Help


def leaves(group, path=()):
    for name, found in group.commands.items():
        words = (*path, *name.split())
        if hasattr(found, "commands"):
            yield from leaves(found, words)
        else:
            yield pytest.param(words, found, id=" ".join(words))


@pytest.mark.parametrize(("path", "leaf"), list(leaves(typer.main.get_command(app))))
def test_every_command_has_help_and_an_example_that_runs(path, leaf, command, tmp_path, monkeypatch):
    status, out, lines = command(*path, "--help")
    assert (status, lines) == (0, [])
    assert out.startswith("Usage: ")
    options = [parameter for parameter in leaf.params if parameter.name != "help"]
    assert all(getattr(option, "help", "") for option in options), "an option without a word of help"
    examples = [line for line in leaf.help.splitlines() if line.strip().startswith("Example: ")]
    assert len(examples) == 1
    (tmp_path / "my-model").mkdir()
    shutil.copy(CONFIG, tmp_path / "my-model" / "config.json")
    shutil.copy(PLANS / "laptop.yaml", tmp_path / "plan.yaml")
    if "my-checkpoint" in examples[0]:
        runpy.run_path(str(MAKE_CHECKPOINT))["write_checkpoint"](tmp_path / "my-checkpoint")
        (tmp_path / "book.txt").write_text("the end of it is in the air, " * 200, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(examples[0].partition("Example: ")[2])
    assert program == "kvplan"
    assert tuple(arguments[: len(path)]) == path
    status, _, lines = command(*arguments)
    assert status == 0, lines


# JSON

# The keys that issue 2 promises; a section may grow, none of these may go.
PROMISED = {
    "model": {"name": str, "params_total": int, "params_active": int},
    "gpu": {"name": str, "count": int, "memory_bytes": int},
    "deployment": {},
    "memory": {
        "total_bytes": int,
        "weights_bytes": int,
        "activation_bytes": int,
        "overhead_bytes": int,
        "kv_pool_bytes": int,
    },
    "kv": {
        "bytes_per_token": int,
        "bytes_per_token_per_gpu": int,
        "state_bytes_per_sequence": int,
        "block_tokens": int,
        "pool_blocks": int,
        "pool_tokens": int,
    },
    "growth": [{"context_tokens": int, "kv_live_bytes": int, "kv_allocated_bytes": int, "fits": bool}],
    "max_context": [{"batch": int, "context_tokens": int}],
    "max_batch": [{"context_tokens": int, "batch": int}],
    "verdict": {"fits": bool, "text": str},
}

# Dense, windows, latent, recurrent, learned positions, a tower; one that fits and one that does not.
QUESTIONS = [
    LLAMA,
    ("capacity", "gemma-2-9b", "--gpu", "rtx4090", "--weights", "int4", "--kv", "fp8"),
    ("capacity", "deepseek-v3", "--gpu", "h200-sxm", "--gpus", "8"),
    ("capacity", "qwen3-next-80b-a3b", "--gpu", "h100-sxm", "--tp", "4", "--state", "vllm"),
    ("capacity", "gpt2", "--gpu", "t4", "--alloc", "contiguous"),
    ("capacity", "gemma-3-27b", "--gpu", "mi300x", "--pp", "2"),
    ("capacity", "llama-3.1-405b", "--gpu", "t4"),
]
questions = pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: f"{q[1]} on {q[3]}")


def refuse_constant(name):
    raise AssertionError(f"{name} in the JSON")


def read_json(command, question):
    status, out, lines = command(*question, "--json")
    assert status == 0, lines
    return json.loads(out, parse_constant=refuse_constant)


@questions
def test_json_has_what_is_promised(question, command):
    data = read_json(command, question)
    assert {"schema_version", "kvplan_version", "command", "inputs", "notes"} == data.keys() - PROMISED.keys()
    for section, keys in PROMISED.items():
        rows = data[section] if isinstance(keys, list) else [data[section]]
        promised = keys[0] if isinstance(keys, list) else keys
        assert rows
        for row in rows:
            assert {key: type(row[key]) for key in promised} == promised


@questions
def test_json_counts_are_not_negative_and_memory_adds_up(question, command):
    data = read_json(command, question)
    numbers = [value for section in ("model", "gpu", "memory", "kv") for value in data[section].values()]
    assert all(value >= 0 for value in numbers if not isinstance(value, str))
    memory = data["memory"]
    total = memory.pop("total_bytes")
    short = memory.pop("shortfall_bytes", 0)
    assert sum(memory.values()) - short == total or sum(memory.values()) + short == total


# Tables whose first two columns name a row: an operator and a batch, a kernel and a format, a GPU and a name.
NAMED_BY_TWO = ("operators", "efficiency", "requirements")


@pytest.mark.parametrize(
    "question",
    [
        ("models", "list"),
        ("models", "show", "deepseek-v3"),
        ("gpus", "list"),
        ("gpus", "show", "h100-sxm"),
        LLAMA,
        ("roofline", "mixtral-8x7b", "--gpu", "h100-sxm", "--tp", "4", "--batch", "1,8", "--price", "3"),
        ("roofline", "deepseek-v3", "--gpu", "h200-sxm", "--tp", "8", "--phase", "prefill"),
        ("check", str(PLANS / "edge.yaml")),
    ],
    ids=lambda question: " ".join(Path(word).name for word in question),
)
def test_the_formats_agree(question, command):
    """Each figure of the CSV and of the plain lines is the figure of the JSON, to the last digit."""
    data = read_json(command, question)
    figures = {}
    for section, value in data.items():
        if isinstance(value, dict) and section != "inputs":
            figures |= {f"{section}.{key}": found for key, found in value.items()}
        elif isinstance(value, list):
            rows = [row for row in value if isinstance(row, dict)]
            named_by = 2 if section in NAMED_BY_TWO else 1
            for row in rows:
                name = ".".join(str(found) for found in [*row.values()][:named_by])
                figures |= {f"{section}.{name}.{key}": row[key] for key in [*row][named_by:]}
    _, out, _ = command(*question, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["figure"]: row["value"] for row in rows} == {
        name: {True: "true", False: "false", None: ""}.get(value, str(value))
        if not isinstance(value, str) and (value is None or isinstance(value, bool))
        else str(value)
        for name, value in figures.items()
    }
    _, out, _ = command(*question, "--format", "plain")
    lines = out.splitlines()
    named = dict(line.split(" ", 1) for line in lines)
    for row in rows:
        if row["figure"].startswith("verdict."):
            continue
        shown = named[row["figure"]]
        plain = {"true": "yes", "false": "no", "": "-"}.get(row["value"], row["value"])
        if isinstance(figures[row["figure"]], float):
            assert float(shown.split()[0]) == figures[row["figure"]]
        else:
            assert shown in (plain, f"{plain} {row['unit']}")


def test_json_with_and_without_the_long_name(command):
    assert command(*LLAMA, "--json") == command(*LLAMA, "--format", "json")


@pytest.mark.parametrize("form", ["table", "plain", "json", "csv", "md"])
def test_a_report_of_times_holds_in_a_file_what_standard_output_would(form, command, tmp_path):
    asked, path = ("roofline", "gpt2", "--gpu", "t4", "--batch", "1,8", "--format", form), tmp_path / "answer"
    _, shown, _ = command(*asked)
    assert command(*asked, "-o", str(path)) == (0, "", [])
    assert path.read_text(encoding="utf-8") == shown


def test_markdown_of_times_has_a_cell_for_each_head(command):
    _, out, _ = command("roofline", "gpt2", "--gpu", "t4", "--batch", "1,8", "--format", "md")
    tables = [block.splitlines() for block in out.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 4
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_markdown_has_a_cell_for_each_head(command):
    _, out, _ = command(*LLAMA, "--format", "md")
    tables = [block.splitlines() for block in out.split("\n\n") if block.startswith("|")]
    assert tables
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert "| 32k | 4.00 | 4.00 | yes | 13 |" in out


@pytest.mark.parametrize("form", ["table", "plain", "json", "csv", "md"])
def test_the_same_question_has_the_same_answer(form, command):
    assert command(*LLAMA, "--format", form) == command(*LLAMA, "--format", form)


# Streams and files


def test_notes_are_on_standard_error_and_can_be_silenced(command, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "gpt2.yaml").write_text(
        (bundled_folder() / "models" / "gpt2.yaml").read_text(encoding="utf-8")
    )
    asked = ("capacity", "gpt2", "--gpu", "t4", "--json", "--specs", str(tmp_path))
    status, out, lines = command(*asked)
    assert status == 0
    json.loads(out)
    path = tmp_path / "models" / "gpt2.yaml"
    assert lines == [f"note: {path} hides a file of the same name further down the search path"]
    assert command(*asked, "--quiet") == (0, out, [])


def test_verbose_says_what_was_read(command):
    _, _, lines = command(*LLAMA, "--verbose")
    assert [line.split(" (")[0] for line in lines] == [
        "read bundled:models/llama-3.1-8b.yaml",
        "read bundled:gpus/h100-sxm.yaml",
    ]
    assert all("sha256" in line for line in lines)


@pytest.mark.parametrize("form", ["table", "plain", "json", "csv", "md"])
def test_a_file_holds_what_standard_output_would(form, command, tmp_path):
    path = tmp_path / "answer"
    _, shown, _ = command(*LLAMA, "--format", form)
    assert command(*LLAMA, "--format", form, "-o", str(path)) == (0, "", [])
    assert path.read_text(encoding="utf-8") == shown


@pytest.mark.parametrize("step", ["tempfile.mkstemp", "os.fsync", "os.chmod", "os.replace"])
def test_a_file_that_cannot_be_written_is_left_as_it_was(step, refused, tmp_path, monkeypatch):
    path = tmp_path / "answer"
    path.write_text("old")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, fail)
    lines = refused(*LLAMA, "-o", str(path), status=ExitStatus.FILE)
    assert lines == [f"cannot write '{path}': no space left on device   (choose another place with -o)"]
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["answer"]


def test_an_import_can_be_planned(command, tmp_path):
    path = tmp_path / "mine.yaml"
    status, out, lines = command("models", "import", str(CONFIG), "--name", "mine", "-o", str(path))
    assert (status, out) == (0, "")
    assert lines == ["note: mine: 8,030,261,248 parameters in 32 layers"]
    _, imported, _ = command("capacity", str(path), "--gpu", "h100-sxm", "--json")
    _, bundled, _ = command(*LLAMA, "--json")
    assert json.loads(imported)["memory"] == json.loads(bundled)["memory"]


def test_an_import_with_hostile_names_is_read_back(command, tmp_path):
    source = "a: b #c\n'\"\x1b[31m" + "é"
    path = tmp_path / "mine.yaml"
    status, _, _ = command(
        "models", "import", str(CONFIG), "--source", source.replace("\x1b", ""), "-o", str(path)
    )
    assert status == 0
    status, out, lines = command("models", "show", str(path), "--json")
    assert (status, lines) == (0, [])
    assert json.loads(out)["model"]["source"] == source.replace("\x1b", "")


def test_a_note_is_one_printable_line_whatever_a_folder_is_called(command, tmp_path):
    folder = tmp_path / "a\x1b[31m\nb"
    (folder / "models").mkdir(parents=True)
    bundled = bundled_folder() / "models" / "gpt2.yaml"
    shutil.copy(bundled, folder / "models" / "gpt2.yaml")
    status, _, lines = command(
        "capacity", "gpt2", "--gpu", "t4", "--json", "--specs", str(folder), "--verbose"
    )
    assert status == 0
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
