"""Which modules a command loads: start-up time, in a form that does not depend on the machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLANS = Path(__file__).parents[2] / "examples" / "plans"
PROBE = """
import json, sys
arguments = json.loads(sys.argv[1])
sys.argv = ["kvplan", *arguments]
from kvplan.__main__ import main
try:
    status = main()
except SystemExit as stop:
    status = stop.code
sys.stdout.flush()
print("\\n" + json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""
SEARCHED_AT_EXIT = """
import gc, sys
sys.argv = ["kvplan", "models", "list", "--format", "csv"]
from kvplan.__main__ import main
status = main()
print("\\n", len(gc.get_objects()), file=sys.stderr)
sys.exit(status)
"""


def modules(arguments, expected=0, **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=True,
    )
    status, loaded = json.loads(done.stderr.splitlines()[-1])
    assert status == expected
    return done.stdout, loaded


def among(loaded, names):
    return [name for name in names if any(m == name or m.startswith(f"{name}.") for m in loaded)]


# matplotlib is for pictures alone.
NEVER = ("matplotlib", "torch", "pandas", "requests", "urllib.request", "http.client")
LIGHT = (*NEVER, "numpy", "yaml", "kvplan.plan", "kvplan.specs.model_file")
UNDRAWN = (*NEVER, "numpy", "kvplan.charts", "kvplan.engine", "kvplan.check")


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        pytest.param(["--version"], (*LIGHT, "typer", "pydantic", "rich", "kvplan.cli"), id="version"),
        pytest.param(["--help"], LIGHT, id="help"),
        pytest.param(["capacity", "--help"], LIGHT, id="capacity help"),
        pytest.param(["capacity", "gemma-2-9b", "--gpu", "h100-sxm"], UNDRAWN, id="capacity"),
        pytest.param(
            ["capacity", "qwen3-next-80b-a3b", "--gpu", "h100-sxm", "--json"],
            (*UNDRAWN, "rich.table"),
            id="capacity json",
        ),
        pytest.param(["roofline", "--help"], LIGHT, id="roofline help"),
        pytest.param(
            ["roofline", "gemma-2-9b", "--gpu", "h100-sxm", "--batch", "1,8", "--price", "2.5"],
            UNDRAWN,
            id="roofline",
        ),
        pytest.param(
            ["roofline", "mixtral-8x7b", "--gpu", "h100-sxm", "--tp", "4", "--phase", "prefill", "--json"],
            (*UNDRAWN, "rich.table"),
            id="roofline json",
        ),
        pytest.param(["check", "--help"], LIGHT, id="check help"),
        pytest.param(
            ["check", str(PLANS / "laptop.yaml"), "--json"],
            (*UNDRAWN, "rich.table"),
            id="check",
        ),
        pytest.param(["models", "list", "--format", "csv"], (*NEVER, "numpy"), id="models list"),
        pytest.param(["gpus", "show", "t4"], (*NEVER, "numpy"), id="gpus show"),
        pytest.param(["plot", "--help"], LIGHT, id="plot help"),
        pytest.param(["simulate", "--help"], (*LIGHT, "kvplan.check", "kvplan.engine"), id="simulate help"),
        pytest.param(["quality", "--help"], (*LIGHT, "kvplan.check", "kvplan.engine"), id="quality help"),
    ],
)
def test_a_command_loads_only_what_it_needs(arguments, absent):
    out, loaded = modules(arguments)
    assert out
    assert among(loaded, absent) == []


@pytest.mark.parametrize(
    "options",
    [
        ["gpt3"],
        ["gpt2", "--batch", "0"],
        ["gpt2", "--cache", "ring"],
        ["gpt2", "--kv", "bf17"],
        ["gpt2", "--color", "x"],
        ["gpt2", "--prompt-tokens", "64k"],
        ["gpt2", "--kv", "int8-kivi", "--block-size", "16"],
        ["deepseek-v3", "--kv", "int8-kivi"],
        ["llama-3.1-405b", "--hidden", "8k", "--layers", "126", "--batch", "256", "--prompt-tokens", "64k"],
    ],
    ids=" ".join,
)
def test_a_simulation_is_refused_before_the_engine_is_loaded(options):
    out, loaded = modules(["simulate", *options], expected=2)
    assert out == ""
    assert among(loaded, (*NEVER, "numpy", "kvplan.engine", "rich.table", "rich.progress")) == []


def test_a_short_simulation_loads_no_progress_bar():
    tiny = "--layers 1 --hidden 32 --prompt-tokens 4 --tokens 2".split()
    out, loaded = modules(["simulate", "gpt2", *tiny, "--json"])
    assert out.startswith("{")
    assert among(loaded, (*NEVER, "rich.progress", "rich.table")) == []


def test_the_interpreter_searches_no_garbage_when_it_ends():
    """A hundred thousand objects, of all modules, are left then: none is free before the process is."""
    done = subprocess.run(
        [sys.executable, "-c", SEARCHED_AT_EXIT], capture_output=True, text=True, check=True
    )
    assert done.stdout
    assert int(done.stderr) < 100


DRAWN = ["llama-3.1-8b", "--gpu", "h100-sxm"]


@pytest.mark.parametrize("arguments", [["plot", "memory", *DRAWN, "-o"], ["capacity", *DRAWN, "--plot"]])
def test_a_picture_loads_no_windows_and_no_engine(arguments, tmp_path):
    """pyplot would look for a display, and keep every figure."""
    _, loaded = modules([*arguments, str(tmp_path / "a.svg")], MPLBACKEND="TkAgg")
    assert "matplotlib.figure" in loaded
    assert among(loaded, ("matplotlib.pyplot", "tkinter", "kvplan.engine", "kvplan.check", "pandas")) == []


WRONG = [["-o", "a.pdf"], ["-o", "a.svg", "--theme", "x"], ["-o", "a.svg", "--tp", "3"]]


@pytest.mark.parametrize("wrong", WRONG, ids=" ".join)
def test_a_picture_is_refused_before_matplotlib_is_loaded(wrong):
    out, loaded = modules(["plot", "memory", *DRAWN, *wrong], expected=2)
    assert out == ""
    assert among(loaded, ("matplotlib", "numpy", "kvplan.engine")) == []


GPTS = "gpt-j-6b gpt-neo-2.7b gpt-neox-20b gpt-oss-120b gpt-oss-20b gpt2 gpt2-medium".split()


@pytest.mark.parametrize(
    ("words", "expected", "unexpected"),
    [
        ("kvplan capacity llama-3.1-", ["llama-3.1-405b", "llama-3.1-70b", "llama-3.1-8b"], "llama-2-7b"),
        ("kvplan capacity gpt2 --gpu h100", ["h100-nvl", "h100-pcie", "h100-sxm"], "a10"),
        ("kvplan roofline llama-3.1-", ["llama-3.1-405b", "llama-3.1-70b", "llama-3.1-8b"], "llama-2-7b"),
        ("kvplan roofline gpt2 --gpu h100", ["h100-nvl", "h100-pcie", "h100-sxm"], "a10"),
        ("kvplan simulate gpt", GPTS, "phi-2"),
        ("kvplan plot memory llama-3.1-", ["llama-3.1-405b", "llama-3.1-70b", "llama-3.1-8b"], "llama-2-7b"),
        ("kvplan plot memory gpt2 --gpu h100", ["h100-nvl", "h100-pcie", "h100-sxm"], "a10"),
        ("kvplan models show gpt", GPTS, "phi-2"),
        ("kvplan gpus show rtx40", ["rtx4080", "rtx4090"], "rtx3090"),
    ],
)
def test_the_shell_completes_names_without_reading_files(words, expected, unexpected):
    out, loaded = modules(
        [],
        _KVPLAN_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )
    assert out.split() == expected
    assert unexpected not in out
    assert among(loaded, (*NEVER, "numpy", "yaml", "kvplan.plan", "kvplan.specs.model_file")) == []
