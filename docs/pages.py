"""What the scripts of docs/ share: Markdown, and a page that is written or compared."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path

_CODE = re.compile(r"(?::\w+:)?(``[^`]+``|`[^`]+`)")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def table(
    headings: Iterable[str], lines: Iterable[Iterable[str]], numbers: frozenset[int] = frozenset()
) -> str:
    """Return a Markdown table; the columns in ``numbers`` are set to the right."""
    headings = list(headings)
    rule = ["---:" if index in numbers else "---" for index in range(len(headings))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *lines))


def prose(text: str) -> str:
    """Return plain text as Markdown on one line: flags as code, nothing read as markup or as a cell's end."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(code(part.strip("`")) if part.startswith("`") else _escaped(part) for part in parts)


def code(text: str) -> str:
    """Return text as code that may stand in a table's cell."""
    escaped = text.replace("|", "\\|")
    return f"`{escaped}`"


def link(heading: str, shown: str = "") -> str:
    """Return a link to a heading of the same page."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return f"[{shown or heading}](#{kept.replace(' ', '-')})"


def keep(page: Path, fresh: Callable[[str], str], description: str) -> int:
    """Write a page, or with ``--check`` compare it, and return the exit status.

    Args:
        page: the file.
        fresh: makes what it should be of what it is, which is empty where there is no file.
        description: docstring of the script, for its help.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing, exit 1 on a difference")
    asked = parser.parse_args()
    found = page.read_text(encoding="utf-8") if page.is_file() else ""
    made = fresh(found)
    if asked.check:
        return 0 if made == found else 1
    page.write_text(made, encoding="utf-8")
    return 0


def _escaped(text: str) -> str:
    marked = re.sub(r"([*<|\\])", r"\\\1", text)
    return _FLAG.sub(lambda flag: code(flag[0]), marked)
