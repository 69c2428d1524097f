"""A report for machines and documents: JSON, CSV, Markdown, and plain lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from io import StringIO
from typing import Any

from kvplan import __version__
from kvplan.report.grid import Grid, grid
from kvplan.report.words import exact
from kvplan.results import Facts, Quantity, Report, Shown

SCHEMA_VERSION = 1
# What begins something in GitHub's Markdown. An underscore inside a word does not, nor "<" before "=".
_MARKUP = re.compile(r"[\\`*\[\]|~]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def to_dict(report: Report) -> dict[str, Any]:
    """Return the report as plain data: base units, the unit in the key."""
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kvplan_version": __version__,
        "command": report.command,
        "inputs": dict(report.inputs),
    }
    for section in report.sections:
        if isinstance(section, Facts):
            figures = _object(section.quantities)
            data.update({section.key: figures} if section.key else figures)
        else:
            data[section.key] = [_object(row) for row in section.rows()]
    if report.verdict is not None:
        data["verdict"] = {report.verdict.key: report.verdict.yes, "text": report.verdict.text}
    data["notes"] = list(report.notes)
    return data


def _object(quantities: Iterable[Quantity]) -> dict[str, Any]:
    """Return figures as one object: those named ``group.name`` in an object of their own inside it."""
    found: dict[str, Any] = {}
    for quantity in quantities:
        group, dot, name = quantity.name.partition(".")
        if dot and group.isidentifier():
            found.setdefault(group, {})[name] = quantity.value
        else:
            found[quantity.name] = quantity.value
    return found


def render_json(data: object) -> str:
    """Return data as JSON in ASCII, whatever the stream; NaN and infinities are refused, not written."""
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def render_csv(report: Report) -> str:
    """Return every figure as one row: its dotted name, value and unit."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("figure", "value", "unit"))
    for name, quantity in report.figures():
        value = str(quantity.value).lower() if isinstance(quantity.value, bool) else quantity.value
        writer.writerow((name, value, quantity.unit.value))
    if report.verdict is not None:
        writer.writerow((f"verdict.{report.verdict.key}", str(report.verdict.yes).lower(), ""))
        writer.writerow(("verdict.text", report.verdict.text, ""))
    return text.getvalue()


def render_plain(report: Report) -> str:
    """Return every figure as one line, ``name value unit``, in base units and without decoration."""
    lines = [f"{name} {_in_base_unit(quantity)}" for name, quantity in report.figures()]
    if report.verdict is not None:
        lines.append(f"verdict {report.verdict.text}")
    return "\n".join(lines) + "\n"


def _in_base_unit(quantity: Quantity) -> str:
    """Return a figure in its base unit, to the last digit and without thousands separators."""
    value = quantity.value
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, float):
        return f"{value!r} {quantity.unit.value}".rstrip()
    return exact(quantity).replace(",", "")


def render_markdown(report: Report) -> str:
    """Return the report as GitHub Markdown."""
    title, _, rest = report.heading.partition("\n")
    blocks = [f"### {escaped_markdown(title)}", *([escaped_markdown(rest)] if rest else [])]
    for section in report.sections:
        if section.shown is Shown.NOT:
            continue
        found = grid(section)
        body = escaped_markdown(found) if isinstance(found, str) else _markdown_rows(found)
        blocks += [f"**{escaped_markdown(section.title)}**", body]
    if report.verdict is not None:
        blocks.append(f"**{escaped_markdown(report.verdict.text)}**")
    blocks += [f"_{escaped_markdown(note)}_" for note in report.notes]
    return "\n\n".join(blocks) + "\n"


def _markdown_rows(found: Grid) -> str:
    rule = ["---" if words else "---:" for words in found.words]
    heads, *rows = ([escaped_markdown(text) for text in row] for row in (found.heads, *found.rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *rows))


def escaped_markdown(text: str) -> str:
    """Return a text on one line that GitHub shows as it is: no tag, link, emphasis or cell begins in it."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", text.replace("\n", " "))
