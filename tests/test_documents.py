"""Documents show what commands print: each is run in an empty folder and compared, word for word.

What a fenced block is, its language says: ``console`` is run by a shell, ``pycon`` by Python, and what they
show is compared; ``sh`` shows nothing: commands of kvplan in it must end well, others begin with what says
why they are not run here; ``text`` is no command, ``python`` a formula.
"""

from __future__ import annotations

import doctest
import os
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main

from kvplan.cli.app import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"console", "pycon", "sh", "text", "python"}
RELEASED = tuple(f"kvplan {command} SmolLM2-135M-Instruct" for command in ("quality", "simulate"))
# What is not run: installing, all tests at once, measuring this machine, and what reads a released model.
NOT_RUN = ("pip install ", "python3 -m venv ", "bash .ci/run", "python benchmarks/", *RELEASED)
IMAGES = Path("docs", "images")
MAKE_CHECKPOINT = ROOT / "tests" / "checkpoint" / "make_checkpoint.py"
# What commands in documents read: files of a clone, and those a reader has, which the clone has examples of.
READ = {
    **{name: name for name in ("README.md", "benchmarks", "examples", "tests")},
    "book.txt": "README.md",
    "plan.yaml": "examples/plans/laptop.yaml",
    "my-model/config.json": "tests/data/hf_configs/gemma-2-9b.json",
}

# Speeds and errors of a run; counts are never among them.
MEASURED = re.compile(r"tokens/s|GB/s|GFLOP/s| ms$|logit error|the logits of these random weights")
NUMBER = re.compile(r" *[\d.,]+(e-\d+)?%?")
# What random weights lose, in compare's table behind the two columns that are quoted, and in its advice.
PRICES = re.compile(r"((?<=[a-z])(?: +[-+<\d.]+){2})(?: +[-<\d.]+){2}$|logits off by .* the same")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language and its lines."""

    document: Path
    line: int
    language: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def text(self) -> str:
        """Its lines, each ended."""
        return "".join(f"{line}\n" for line in self.lines)

    def commands(self) -> list[tuple[str, str]]:
        """Return each command of a console with what is shown below it."""
        assert self.lines[0].startswith("$ "), f"{self}: a console begins with a command"
        found: list[tuple[str, list[str]]] = []
        for line in self.lines:
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
        return [(command, "\n".join(shown).strip("\n")) for command, shown in found]


def blocks_of(document: Path) -> list[Block]:
    """Return the fenced blocks of a document."""
    found: list[Block] = []
    begun, language, lines = 0, "", []
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        if not line.lstrip().startswith("```"):
            lines.append(line)
            continue
        if begun:
            assert line == "```", f"{document}:{number}: what ends a block begins its line"
            found.append(Block(document, begun, language, tuple(lines)))
            begun = 0
        else:
            begun, language, lines = number, line.strip().removeprefix("```"), []
    assert not begun, f"{document}:{begun}: this block does not end"
    return found


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]
CONSOLES = [block for block in BLOCKS if block.language == "console"]
UNSHOWN = [
    pytest.param(line, id=f"{block} {line}")
    for block in BLOCKS
    for line in block.lines
    if block.language == "sh" and line.startswith("kvplan ") and not line.startswith(RELEASED)
]
PYTHON = [block for block in BLOCKS if block.language == "pycon"]


def prose_of(document: Path) -> str:
    """Return a document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, but for what documents read: where a reader's clone would be."""
    monkeypatch.chdir(tmp_path)
    for name, source in READ.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / source)
    (tmp_path / IMAGES).mkdir(parents=True)
    runpy.run_path(str(MAKE_CHECKPOINT))["write_checkpoint"](tmp_path / "my-checkpoint")
    return tmp_path


@pytest.fixture
def shell(folder):
    """A function that runs one command of a reader, after one that left a status."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KVPLAN_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C.UTF-8",
        "XDG_CONFIG_HOME": str(folder / "no-settings"),
    }

    def run(command: str, status: int) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", f"(exit {status})\n{command}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=100,
            check=False,
        )
        return done.returncode, (done.stdout + done.stderr).strip("\n")

    return run


# What is run


@pytest.mark.parametrize("block", CONSOLES, ids=str)
def test_commands_print_what_is_shown(block, shell, folder):
    status = 0
    for command, shown in block.commands():
        assert not status or command == "echo $?", f"{block}: {command} follows a failure that is not told"
        status, printed = shell(command, status)
        assert unmeasured(command, printed) == unmeasured(command, shown)
        status = 0 if printed.startswith("error: ") else status
    assert not status, f"{block}: ends with a failure that is not told"
    for path in (folder / IMAGES).iterdir():
        assert drawn(path) == pytest.approx(drawn(ROOT / IMAGES / path.name), abs=1), (
            f"{path.name}: {block} draws it anew"
        )


@pytest.mark.parametrize("line", UNSHOWN)
def test_commands_whose_answer_is_not_shown_end_well(line, shell):
    assert shell(line, 0)[0] == 0


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_answers_what_is_shown(block, folder):
    test = doctest.DocTestParser().get_doctest(block.text, {}, str(block), str(block.document), block.line)
    told: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(told)


def unmeasured(command: str, text: str) -> str:
    """Return what a command printed without the numbers that were measured where it ran."""
    lines = text.splitlines()
    if command.startswith("kvplan compare"):
        lines = [PRICES.sub(lambda price: f"{price[1] or ''}#", line) for line in lines]
    if command.startswith("kvplan simulate"):
        lines = [NUMBER.sub("#", line) if MEASURED.search(line) else line for line in lines]
    return "\n".join(lines)


# What is not run, and that nothing else is not


def test_every_document_is_looked_at():
    assert {"README.md", "CONTRIBUTING.md", "tutorial.md", "timing.md"} <= {path.name for path in DOCUMENTS}
    assert len(CONSOLES) >= 15
    assert PYTHON


def test_no_console_is_passed_over():
    """As many as a plain search for their first line finds: none is lost by how blocks are read here."""
    said = sum(path.read_text(encoding="utf-8").count("```console\n$ ") for path in DOCUMENTS)
    assert len(CONSOLES) == said


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_says_what_it_is(block):
    assert block.language in LANGUAGES
    if block.language == "sh":
        unreasoned = [line for line in block.lines if not line.startswith(("kvplan ", *NOT_RUN))]
        assert unreasoned == []
    if block.language == "text":
        assert not re.search(r"^(\$ |>>> |python |kvplan (?!.*\[OPTIONS\]))", block.text, re.MULTILINE)
    if block.language == "python":
        assert block.document.name == "formulas.md"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_command_stands_in_an_indented_block(document):
    assert not re.search(r"^(?: {4}|\t) *(\$ |kvplan |python )", prose_of(document), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_named_in_a_sentence_exist_with_their_options(document):
    for named in re.findall(r"`kvplan ([^`]+)`", prose_of(document)):
        command, words = typer.main.get_command(app), named.split()
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"kvplan {named}"
            command = command.commands[words.pop(0)]
        known = {word for parameter in command.params for word in parameter.opts} | {"--help"}
        unknown = [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]
        assert unknown == [], f"kvplan {named}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_scripts_and_pages_that_are_named_exist(document):
    prose = prose_of(document)
    scripts = [ROOT / name for name in re.findall(r"`python ([\w/.]+\.py)", prose)]
    pages = re.findall(r"(?:\]\(|src=\"|srcset=\")(?!https?:)([^)#\"\s]+)", prose)
    missing = [path for path in [*scripts, *(document.parent / page for page in pages)] if not path.exists()]
    assert missing == []


# Pictures


@pytest.mark.parametrize("path", sorted((ROOT / IMAGES).iterdir()), ids=lambda path: path.name)
def test_a_picture_is_shown_and_made_by_a_command_beside_it(path):
    stem = path.stem.removesuffix("-light").removesuffix("-dark")
    shells = [block for block in BLOCKS if block.language in ("console", "sh")]
    (document,) = {block.document for block in shells if f"{IMAGES.as_posix()}/{stem}-" in block.text}
    assert f"images/{path.name}" in prose_of(document)
    assert path.suffix == ".svg"


def test_a_picture_that_changed_is_seen(tmp_path):
    """Lines that moved by more than a point, other words: not the fonts of another matplotlib."""
    path = ROOT / IMAGES / "frontier-light.svg"
    old = path.read_text(encoding="utf-8")
    words, moved = tmp_path / "words.svg", tmp_path / "moved.svg"
    words.write_text(old.replace("<!-- requests at once -->", "<!-- requests -->"), encoding="utf-8")
    first = next(line for line in old.splitlines() if line.startswith("L "))
    x, y = map(float, first.split()[1:])
    moved.write_text(old.replace(first, f"L {x} {y + 3}", 1), encoding="utf-8")
    assert drawn(path) == pytest.approx(drawn(path), abs=1)
    for changed in (words, moved):
        assert drawn(path) != pytest.approx(drawn(changed), abs=1)


def drawn(path: Path) -> dict[str, float]:
    """Return the words, colours and places of a picture: all of it but the shapes of letters."""
    text = path.read_text(encoding="utf-8")
    words = {f"word {at}: {word}": 0.0 for at, word in enumerate(re.findall(r"<!-- (.*?) -->", text))}
    colours = {
        f"colour {at}: {colour}": 0.0 for at, colour in enumerate(re.findall(r"(?:fill|stroke): #\w+", text))
    }
    strokes = re.findall(r' d="([^"]*)"', re.sub(r"<defs>.*?</defs>", "", text, flags=re.DOTALL))
    numbers = [float(number) for stroke in strokes for number in re.findall(r"-?[\d.]+", stroke)]
    return words | colours | {f"place {at}": number for at, number in enumerate(numbers)}
