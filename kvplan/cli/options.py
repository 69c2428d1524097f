"""Options that commands share, and the readers of their values.

Values arrive as text and are read here, so that every wrong one gets the same kind of message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from kvplan.errors import ExitStatus, UsageError, unknown
from kvplan.units import LARGEST_COUNT, parse_bytes, parse_count, parse_share

if TYPE_CHECKING:
    from kvplan.results import Report
    from kvplan.specs.catalog import Found

T = TypeVar("T")

FORMATS = ("table", "plain", "json", "csv", "md")
_PRICE = re.compile(r"\d{1,7}(?:\.\d{1,6})?", re.ASCII)
LARGEST_PRICE = 1_000_000

MOST_VALUES = 64


def _complete(kind: str) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        from kvplan.specs.catalog import names

        return [name for name in names(kind) if name.startswith(incomplete)]

    return complete


complete_models = _complete("models")
complete_gpus = _complete("gpus")

Format = Annotated[str, typer.Option("--format", metavar="NAME", help=f"One of {', '.join(FORMATS)}.")]
Json = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
Output = Annotated[
    str, typer.Option("--output", "-o", metavar="FILE", help="Write to FILE, whole or not at all.")
]
Specs = Annotated[
    str, typer.Option("--specs", metavar="DIR", help="Look up names in DIR/models and DIR/gpus first.")
]
Color = Annotated[str, typer.Option("--color", metavar="WHEN", help="auto, always or never.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes on standard error.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say which files were read.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]
Explain = Annotated[
    str, typer.Option(metavar="[FIGURE]", help="Derive one figure, a section, or all of them.")
]
Check = Annotated[bool, typer.Option("--check", help="Exit 1 when it does not fit.")]


@dataclass(frozen=True, slots=True)
class ListOptions:
    """How an answer is shown, and where: what every command has."""

    format: Format = "table"
    json: Json = False
    output: Output = ""
    specs: Specs = ""
    color: Color = "auto"
    debug: Debug = False

    @property
    def shown(self) -> str:
        """The output format.

        Raises:
            UsageError: it is not one of the known ones, or another than ``--json`` asks for.
        """
        if self.format not in FORMATS:
            raise unknown("output format", self.format, FORMATS)
        if self.json and self.format not in ("table", "json"):
            raise UsageError(f"--json and --format {self.format}: one of them")
        return "json" if self.json else self.format

    @property
    def is_table(self) -> bool:
        """Whether the answer is a table on standard output; raises UsageError as :attr:`shown` does."""
        return self.shown == "table" and output_path(self.output) is None

    def require_known(self) -> None:
        """Refuse an unknown format or colour setting before anything runs; raises UsageError."""
        from kvplan.cli.streams import terminal

        _ = self.shown
        terminal(self.color)

    def folder(self) -> Path | None:
        """Return the folder of ``--specs``; raises UsageError where it is none."""
        from kvplan.specs.catalog import specs_folder

        return specs_folder(self.specs)

    def show(self, report: Report, *, explain: str = "") -> None:
        """Render a report, or with ``explain`` the derivation of some of its figures, and write it.

        Raises:
            UsageError: ``explain`` names no figure.
            FileError: the output cannot be written.
        """
        from kvplan.cli.reporting import show_report

        show_report(report, self.shown, output_path(self.output), explain=explain, color=self.color)


@dataclass(frozen=True, slots=True)
class AnswerOptions(ListOptions):
    """The same, and what is said beside an answer."""

    quiet: Quiet = False
    verbose: Verbose = False

    def show_of(self, files: Iterable[Found], report: Report, *, explain: str = "") -> None:
        """Say what is to be known of the files a report was made from, and show it as :meth:`show` does."""
        from kvplan.cli.reporting import spec_notes

        spec_notes(files, quiet=self.quiet, verbose=self.verbose)
        self.show(report, explain=explain)

    def show_all_of(self, files: Iterable[Found], reports: Sequence[Report], *, explain: str = "") -> None:
        """Do so with several reports, one after another."""
        from kvplan.cli.reporting import show_reports, spec_notes

        spec_notes(files, quiet=self.quiet, verbose=self.verbose)
        show_reports(reports, self.shown, output_path(self.output), explain=explain, color=self.color)


def output_path(text: str) -> Path | None:
    """Return the file of ``-o``, or ``None`` for standard output."""
    return Path(text) if text and text != "-" else None


def exit_where_no(report: Report) -> None:
    """End with exit status 1 where the verdict of a report is no."""
    if report.verdict is not None and not report.verdict.yes:
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)


def read(option: str, text: str, parse: Callable[[str], T]) -> T:
    """Return an option's value.

    Raises:
        UsageError: the text cannot be read; the message names the option.
    """
    try:
        return parse(text.strip())
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def count(option: str, text: str, largest: int = LARGEST_COUNT) -> int:
    """Return an option's count of at least 1.

    Raises:
        UsageError: it is none, or larger than ``largest``.
    """
    return read(option, text, lambda typed: parse_count(typed, largest))


def whole_number(option: str, text: str, largest: int) -> int:
    """Return an option's whole number from 0 up, such as a seed.

    Raises:
        UsageError: it is none, or larger than ``largest``.
    """
    if text.strip() == "0":
        return 0
    return count(option, text, largest)


def optional_count(option: str, text: str, largest: int) -> int | None:
    """Return an option's count, or ``None`` where it was not given."""
    return count(option, text, largest) if text else None


def byte_size(option: str, text: str) -> int | None:
    """Return an option's size in bytes, or ``None`` where it was not given."""
    return read(option, text, parse_bytes) if text else None


def usd(option: str, text: str) -> float | None:
    """Return an option's price in US dollars, or ``None`` where it was not given.

    Raises:
        UsageError: it is no price above 0 and up to 1,000,000.
    """
    if not text:
        return None
    if not _PRICE.fullmatch(text.strip()) or not 0 < float(text) <= LARGEST_PRICE:
        raise UsageError(f"{option}: {text[:40]!r} is not a price in US dollars such as 2.95")
    return float(text)


def counts(option: str, text: str) -> list[int]:
    """Return an option's list of counts, in order and once each: ``4k,32k``, or ``1..64`` for 1, 2, 4 ... 64.

    Raises:
        UsageError: an entry cannot be read, or there are more than 64.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        if not first.strip() or (dots and not last.strip()):
            raise UsageError(f"{option}: {text[:40]!r} has an empty entry", hint="4k,32k or 1..64")
        low = count(option, first)
        found += _doubled(option, low, count(option, last)) if dots else [low]
    found = list(dict.fromkeys(found))
    if len(found) > MOST_VALUES:
        raise UsageError(f"{option}: {len(found)} values are more than {MOST_VALUES}")
    return found


def _doubled(option: str, low: int, high: int) -> list[int]:
    if high < low:
        raise UsageError(f"{option}: the range {low:,}..{high:,} is empty")
    steps = [low]
    while steps[-1] * 2 < high:
        steps.append(steps[-1] * 2)
    return [*steps, high]


def utilization(text: str) -> float:
    """Return ``--memory-utilization`` as a share: ``0.9`` and ``90%`` are 0.9.

    Raises:
        UsageError: it is no share above 0 and up to 1.
    """
    return read("--memory-utilization", text, parse_share) / 10_000
