"""Options that commands share, and the readers of their values.

Values arrive as text and are read here, so that every wrong one gets the same kind of message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from kvplan.errors import UsageError, unknown
from kvplan.units import LARGEST_COUNT, parse_bytes, parse_count

T = TypeVar("T")

_SHARE = re.compile(r"(?=\.?\d)(\d{0,9})(?:\.(\d{0,9}))?(%?)", re.ASCII)

FORMATS = ("table", "plain", "json", "csv", "md")
_PRICE = re.compile(r"\d{1,7}(?:\.\d{1,6})?", re.ASCII)
LARGEST_PRICE = 1_000_000

MOST_VALUES = 64
LARGEST_DEGREE = 65_536


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
Price = Annotated[str, typer.Option("--price", metavar="USD", help="Price of one GPU for an hour: 2.95.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


def output_path(text: str) -> Path | None:
    """Return the file of ``-o``, or ``None`` for standard output."""
    return Path(text) if text and text != "-" else None


def specs_folder(text: str) -> Path | None:
    """Return the folder of ``--specs``.

    Raises:
        UsageError: it is no folder.
    """
    if not text:
        return None
    if not os.path.isdir(text):
        raise UsageError(
            f"--specs: {text[:80]!r} is no folder", hint="it holds models/*.yaml and gpus/*.yaml"
        )
    return Path(text)


def chosen_format(name: str, json: bool) -> str:
    """Return the output format.

    Raises:
        UsageError: it is not one of the known ones, or another than ``--json`` asks for.
    """
    if name not in FORMATS:
        raise unknown("output format", name, FORMATS)
    if json and name not in ("table", "json"):
        raise UsageError(f"--json and --format {name}: one of them")
    return "json" if json else name


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


def optional_count(option: str, text: str, largest: int = LARGEST_DEGREE) -> int | None:
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


def utilization(text: str) -> int:
    """Return ``--memory-utilization`` in ten-thousandths: ``0.9`` and ``90%`` are 9,000.

    Raises:
        UsageError: it is no share above 0 and up to 1.
    """
    return read("--memory-utilization", text, _parse_share)


def _parse_share(text: str) -> int:
    match = _SHARE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a share such as 0.9 or 90%")
    whole, fraction, percent = match[1] or "0", match[2] or "", match[3]
    scaled = int(whole + fraction) * (100 if percent else 10_000)
    value, remainder = divmod(scaled, int("1" + "0" * len(fraction)))
    if not 0 < scaled <= 10_000 * int("1" + "0" * len(fraction)):
        raise ValueError(f"{text!r} is out of range: expected above 0 and up to 1, or 100%")
    if remainder:
        raise ValueError(f"{text!r} has more than four decimals")
    return value
