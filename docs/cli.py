"""Write docs/cli.md: every command and option, read from the command line itself.

    python docs/cli.py [--check]

With ``--check`` nothing is written, and the exit status is 1 where the page is not what would be written.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

from pages import code, keep, link, prose, table
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from kvplan.cli.app import app
from kvplan.cli.options import FORMATS, LARGEST_PRICE, MOST_VALUES
from kvplan.errors import ExitStatus
from kvplan.storage import KV_FORMATS, STATE_LAYOUTS, WEIGHT_FORMATS
from kvplan.units import KIB, MIB

PAGE = Path(__file__).parent / "cli.md"
HEAD = """<!-- Written by python docs/cli.py: change the commands, not this page. -->

# The command line

What `--help` says of every command, on one page. The answer goes to standard output; progress, notes,
warnings and errors go to standard error. Nothing asks questions, opens windows or uses the network."""
OPTION_HEADINGS = ("option", "value", "default", "meaning")

# Title and first sentence, where those of the dataclass are about the code.
SHARED = {
    "DeploymentOptions": ("Deployment options", "How a model is cut, stored and served."),
    "ListOptions": ("Output options", "How an answer is shown, and where."),
    "AnswerOptions": ("Note options", "What is said beside an answer, on standard error."),
}

FORMAT_MEANINGS = {
    "table": "tables for readers, as wide as the terminal; as wide as they are where there is none",
    "plain": "one figure a line, in its base unit, for `grep` and `awk`: name, value, unit",
    "json": "every figure in its base unit, with the unit in its key; `schema_version` says which form",
    "csv": "one figure a line, in its base unit: figure, value, unit",
    "md": "Markdown tables",
}
STATUS_MEANINGS = {
    ExitStatus.SUCCESS: "the command did what was asked",
    ExitStatus.ANSWER_IS_NO: "the answer is no: it does not fit, with `--check`; a figure differs, in "
    "`kvplan simulate`; a plan does not keep what it requires, in `kvplan check`",
    ExitStatus.USAGE: "a command, option or value that cannot be right, or a YAML or JSON file with mistakes",
    ExitStatus.FILE: "a file, or standard output, could not be read or written",
    ExitStatus.INTERNAL: "a bug: please report it, with what `--debug` shows",
    ExitStatus.INTERRUPTED: "interrupted, with Ctrl-C",
    ExitStatus.BROKEN_PIPE: "the reader of standard output went away",
}
ENVIRONMENT = {
    "KVPLAN_SPECS": "a folder whose `models` and `gpus` names are looked up in, after that of `--specs`",
    "NO_COLOR": "where it is not empty, no colour, unless `--color always`",
    "TERM": "`dumb`: no colour, unless `--color always`",
    "LC_ALL": "`C` or `POSIX`: tables in ASCII",
    "OPENBLAS_CORETYPE": "kernels of NumPy's OpenBLAS; the engine cuts its products to suit them",
}
LOOKED_UP = """A model or GPU with a path separator, or that ends in `.yaml`, `.yml` or `.json`, is a file; a
folder with a `config.json` is one too. Any other is a name, looked up in the folder of `--specs`, then of
`KVPLAN_SPECS`, then of `specs = "DIR"` in `./kvplan.toml`, then in the user's configuration folder
(`~/.config/kvplan` on Linux), then among the bundled files."""


@dataclass(frozen=True)
class Row:
    """An option or an argument, as a table shows it."""

    flags: tuple[str, ...]
    value: str
    default: str
    meaning: str

    @classmethod
    def of(cls, given: TyperOption | TyperArgument) -> Row:
        """Return that of an option or argument of the command line."""
        takes_value = isinstance(given, TyperArgument) or not given.is_flag
        flags = tuple(sorted((*given.opts, *given.secondary_opts), key=len))
        repeated = " May be given several times." if isinstance(given, TyperOption) and given.multiple else ""
        return cls(
            flags,
            code(given.metavar or (given.name or "").upper()) if takes_value else "",
            _default(given),
            prose((given.help or "") + repeated),
        )

    def cells(self) -> tuple[str, ...]:
        """Return what stands in an option's line."""
        return ", ".join(code(flag) for flag in self.flags), self.value, self.default, self.meaning


@dataclass(frozen=True)
class Shared:
    """Options that several commands have: the fields that a dataclass adds to those it is derived from."""

    title: str
    about: str
    names: frozenset[str]

    @classmethod
    def of(cls, group: type[Any]) -> Iterator[Shared]:
        """Iterate over those of a dataclass: what it is derived from comes first."""
        known: set[str] = set()
        for part in reversed(group.__mro__):
            if is_dataclass(part):
                names = {field.name for field in fields(part)}
                words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", part.__name__).capitalize()
                title, about = SHARED.get(part.__name__, (words, inspect.getdoc(part) or ""))
                yield cls(title, prose(about), frozenset(names - known))
                known |= names


@dataclass(frozen=True)
class Command:
    """A command, or a group of them, under its full name."""

    name: str
    typed: TyperCommand | TyperGroup

    @cached_property
    def paragraphs(self) -> list[str]:
        """The paragraphs of its help; the first says what it is for."""
        return (self.typed.help or "").split("\n\n")

    @cached_property
    def arguments(self) -> list[TyperArgument]:
        """What it is given without a flag."""
        return [one for one in self.typed.params if isinstance(one, TyperArgument) and not one.hidden]

    @cached_property
    def options(self) -> dict[str, Row]:
        """Its options by the names of their parameters."""
        found = (one for one in self.typed.params if isinstance(one, TyperOption) and not one.hidden)
        return {one.name or "": Row.of(one) for one in found}

    @cached_property
    def shared(self) -> list[Shared]:
        """The options it has from dataclasses, as ``kvplan.cli.spread`` spread them."""
        if self.typed.callback is None:
            return []
        hints = get_type_hints(inspect.unwrap(self.typed.callback), include_extras=True)
        groups = (hint for hint in hints.values() if isinstance(hint, type) and is_dataclass(hint))
        return [one for group in groups for one in Shared.of(group)]

    def subcommands(self) -> Iterator[Command]:
        """Iterate over the commands of a group."""
        if isinstance(self.typed, TyperGroup):
            for name, one in self.typed.commands.items():
                if not one.hidden:
                    assert isinstance(one, TyperCommand | TyperGroup)
                    yield Command(f"{self.name} {name}", one)

    def all(self) -> Iterator[Command]:
        """Iterate over it and everything below it."""
        yield self
        for one in self.subcommands():
            yield from one.all()

    def usage(self) -> str:
        """Return the line that says how it is called."""
        words = [self.name]
        for argument in self.arguments:
            word = (argument.metavar or (argument.name or "").upper()).removesuffix("...")
            word += "..." if argument.nargs == -1 else ""
            words.append(word if argument.required else f"[{word}]")
        for row in self.options.values():
            if row.default == "required":
                words.append(f"{row.flags[-1]} {row.value.strip('`')}")
        words.append("[OPTIONS]")
        if isinstance(self.typed, TyperGroup):
            words.append("COMMAND ...")
        return " ".join(words)


def _default(given: TyperOption | TyperArgument) -> str:
    if given.required:
        return "required"
    if isinstance(given.default, bool):
        return code(given.opts[0]) if given.default else ""
    return "" if given.default in (None, "", (), []) else code(str(given.default))


def shared_rows(commands: Iterable[Command]) -> dict[Shared, list[Row]]:
    """Return the options that commands share, in the order in which commands first have them."""
    found: dict[Shared, list[Row]] = {}
    for command in commands:
        for group in command.shared:
            rows = [row for name, row in command.options.items() if name in group.names]
            found.setdefault(group, rows)
    return found


def section(command: Command, shared: dict[Shared, list[Row]]) -> Iterator[str]:
    """Iterate over the paragraphs about one command."""
    purpose, *further = command.paragraphs
    yield f"## {command.name}"
    yield prose(purpose)
    yield f"```text\n{command.usage()}\n```"
    examples = [one for one in further if one.startswith("Example: ")]
    yield from (prose(one) for one in further if one not in examples)
    yield from (f"```sh\n{' '.join(one.removeprefix('Example: ').split())}\n```" for one in examples)
    if command.arguments:
        rows = (Row.of(argument) for argument in command.arguments)
        yield table(("argument", "default", "meaning"), ((r.value, r.default, r.meaning) for r in rows))
    taken = {name for group in command.shared for name in group.names}
    borrowed = {
        group: [row for name, row in command.options.items() if name not in taken and row in rows]
        for group, rows in shared.items()
    }
    known = [row for rows in borrowed.values() for row in rows]
    own = [row for name, row in command.options.items() if name not in taken and row not in known]
    if own:
        yield table(OPTION_HEADINGS, (row.cells() for row in own))
    others = [f"the {_linked(group)}" for group in command.shared] + [
        f"of the {_linked(group)} {', '.join(code(row.flags[-1]) for row in rows)}"
        for group, rows in borrowed.items()
        if rows
    ]
    if others:
        yield f"Also {'; '.join(others)}."
    if isinstance(command.typed, TyperGroup) and " " in command.name:  # the contents list those of kvplan
        yield _listed(command.subcommands())


def _linked(group: Shared) -> str:
    return link(group.title, group.title[:1].lower() + group.title[1:])


def _listed(commands: Iterable[Command]) -> str:
    rows = [(link(one.name, code(one.name)), prose(one.paragraphs[0])) for one in commands]
    return table(("command", "what it does"), rows)


def shared_section(group: Shared, rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the paragraphs about options that several commands have."""
    return f"### {group.title}", group.about, table(OPTION_HEADINGS, (row.cells() for row in rows))


def values() -> str:
    """Return the table of what values of options look like."""
    rows = [
        ("`N`", f"a whole number: `8192`, `4k`. `k` and `Ki` are {KIB:,}, `M` and `Mi` {MIB:,}"),
        ("`LIST`", f"up to {MOST_VALUES} of them: `4k,32k`; `1..64` is 1, 2, 4 ... 64"),
        ("`SIZE`", "bytes: `1.5GiB`, `80GB`. GB is 10^9, GiB is 2^30"),
        ("`SHARE`", "above 0 and up to 1: `0.9` or `90%`, with at most four decimals"),
        ("`USD`", f"a price in US dollars up to {LARGEST_PRICE:,}: `2.95`"),
        ("`FORMAT` of `--weights`", ", ".join(code(one.name) for one in WEIGHT_FORMATS)),
        ("`FORMAT` of `--kv`", ", ".join(code(one.name) for one in KV_FORMATS)),
        ("`LAYOUT` of `--state`", ", ".join(code(one.name) for one in STATE_LAYOUTS)),
    ]
    return table(("value", "how it is written"), rows)


def generated() -> str:
    """Return the page."""
    typed = get_command(app)
    assert isinstance(typed, TyperGroup)
    commands = list(Command("kvplan", typed).all())
    shared = shared_rows(commands)
    statuses = ((str(status.value), STATUS_MEANINGS[status]) for status in ExitStatus)
    titles = [group.title for group in shared]
    further = (*titles, "Values", "Formats", "Exit statuses", "Environment")
    parts = [
        HEAD,
        "## Contents",
        _listed(commands),
        f"What commands share: {', '.join(link(title, title.lower()) for title in further)}.",
        *(part for command in commands for part in section(command, shared)),
        "## Options that commands share",
        *(part for group, rows in shared.items() for part in shared_section(group, rows)),
        "## Values",
        values(),
        LOOKED_UP,
        "## Formats",
        table(("`--format`", "what is written"), ((code(one), FORMAT_MEANINGS[one]) for one in FORMATS)),
        "## Exit statuses",
        table(("status", "meaning"), statuses, frozenset({0})),
        "## Environment",
        table(("variable", "meaning"), ((code(name), said) for name, said in ENVIRONMENT.items())),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(keep(PAGE, lambda _: generated(), __doc__ or ""))
