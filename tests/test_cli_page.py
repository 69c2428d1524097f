"""docs/cli.md is what its script writes now, wherever it runs, and leaves nothing out."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def section(heading):
    """Return what stands between a heading and the next one."""
    (found,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return found


@pytest.mark.parametrize("width", ["20", "300"])
def test_the_page_is_fresh_in_any_terminal_and_locale(width):
    """After a change of commands or options: python docs/cli.py."""
    surroundings = os.environ | {"COLUMNS": width, "LC_ALL": "C", "TERM": "dumb", "PYTHONHASHSEED": width}
    script = [sys.executable, ROOT / "docs" / "cli.py", "--check"]
    assert subprocess.run(script, check=False, timeout=100, env=surroundings).returncode == 0


def test_every_command_of_the_help_and_each_of_its_flags_stand_in_its_section_or_among_shared_ones(capsys):
    """The help is asked for as a person would; flags are what it prints at the beginning of lines."""
    from kvplan.cli.app import main

    shared = PAGE.partition("## Options that commands share")[2]

    def visit(words):
        assert main([*words, "--help"]) == 0
        said = capsys.readouterr().out
        text = section(" ".join(("kvplan", *words)))
        for flags in re.findall(r"^  (-[^ ]*(?:, -[^ ]+| / -[^ ]+)*)", said, re.MULTILINE):
            for flag in re.findall(r"-[\w-]+", flags):
                borrowed = f"| `{flag}`" in shared or f", `{flag}` |" in shared
                assert flag == "--help" or f"`{flag}`" in text or borrowed, (words, flag)
        listed = re.findall(r"^  ([a-z][\w-]*) ", said.partition("Commands:")[2], re.MULTILINE)
        for command in listed:
            visit((*words, command))
        return listed

    assert {"capacity", "roofline", "compare", "simulate", "plot", "models", "gpus"} <= set(visit(()))


def test_a_command_by_hand():
    assert "kvplan gpus show GPU [OPTIONS]" in section("kvplan gpus show")
    assert "| `GPU` | required | A name or a YAML file. |" in section("kvplan gpus show")
    assert "| `--context` | `LIST` |  | Contexts in tokens: 4k,32k,128k. k is 1,024. |" in PAGE
    assert "kvplan simulate [MODEL] [OPTIONS]" in section("kvplan simulate")
    assert "| `--chunk` | `N` | `256` |" in section("kvplan simulate")
    assert "[deployment options](#deployment-options)" in section("kvplan roofline")
    assert "`--tp`" not in section("kvplan roofline")
    assert "| `-o`, `--output` | `FILE` |  |" in section("Output options")


def test_exit_statuses_are_those_of_a_shell():
    found = re.findall(r"^\| (\d+) \|", section("Exit statuses"), re.MULTILINE)
    assert found == ["0", "1", "2", "3", "70", "130", "141"]


def test_every_variable_that_the_package_reads_is_named():
    read = set()
    for path in (ROOT / "kvplan").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(ast.Attribute(attr="environ"), "get"), args=[name, *_]):
                    read.add(ast.literal_eval(name))
                case ast.Call(func=ast.Attribute(attr="getenv"), args=[name, *_]):
                    read.add(ast.literal_eval(name))
                case ast.Subscript(value=ast.Attribute(attr="environ"), slice=name):
                    read.add(ast.literal_eval(name))
    named = re.findall(r"^\| `(\w+)` \|", section("Environment"), re.MULTILINE)
    assert "KVPLAN_SPECS" in read
    assert sorted(named) == sorted(read)


def test_links_lead_to_headings():
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= headings
