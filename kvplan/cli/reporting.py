"""Showing a report in the format that was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from kvplan.cli.streams import put, say, terminal
from kvplan.errors import UsageError
from kvplan.report.terminal import Terminal
from kvplan.results import Report
from kvplan.specs.catalog import Found, fingerprint


def show_report(
    report: Report, format_name: str, output: Path | None, *, explain: str = "", color: str = "auto"
) -> None:
    """Render a report, or with ``explain`` the derivation of some of its figures, and write it.

    Raises:
        UsageError: ``explain`` names no figure, or ``color`` no setting.
        FileError: the output cannot be written.
    """
    screen = terminal(color) if output is None else Terminal()
    put(
        _explained(report, format_name, explain) if explain else _rendered(report, format_name, screen),
        output,
    )


def show_reports(
    reports: Sequence[Report],
    format_name: str,
    output: Path | None,
    *,
    explain: str = "",
    color: str = "auto",
) -> None:
    """Do so with several reports, one after another; as JSON they are a list.

    Raises:
        UsageError: ``explain`` names no figure, or ``color`` no setting.
        FileError: the output cannot be written.
    """
    if len(reports) == 1:
        show_report(reports[0], format_name, output, explain=explain, color=color)
        return
    screen = terminal(color) if output is None else Terminal()
    if format_name == "json":
        from kvplan.report.explain import explained_data
        from kvplan.report.export import render_json, to_dict

        put(render_json([explained_data(r, explain) if explain else to_dict(r) for r in reports]), output)
        return
    texts = [
        _explained(r, format_name, explain) if explain else _rendered(r, format_name, screen) for r in reports
    ]
    if format_name == "csv":  # one head for all
        texts[1:] = [text.partition("\n")[2] for text in texts[1:]]
    put(("" if format_name in ("csv", "plain") else "\n").join(texts), output)


def spec_notes(files: Iterable[Found], *, quiet: bool, verbose: bool) -> None:
    """Say on standard error which bundled names are hidden and, if asked, which files were read."""
    for found in files:
        if found.shadows and not quiet:
            say(f"note: {found.label} hides a file of the same name further down the search path")
        if verbose:
            what, value = fingerprint(found.path)
            say(f"read {found.label} ({what.replace('_', ' ')} {value})")


def _explained(report: Report, format_name: str, name: str) -> str:
    from kvplan.report.explain import explained_data, render_explained
    from kvplan.report.export import render_json

    if format_name == "json":
        return render_json(explained_data(report, name))
    if format_name != "table":
        raise UsageError(f"--explain has no {format_name} form", hint="--format table or --format json")
    return render_explained(report, name)


def _rendered(report: Report, format_name: str, screen: Terminal) -> str:
    if format_name == "table":
        from kvplan.report.table import render_table

        return render_table(report, screen)
    from kvplan.report import export

    match format_name:
        case "json":
            return export.render_json(export.to_dict(report))
        case "csv":
            return export.render_csv(report)
        case "md":
            return export.render_markdown(report)
    return export.render_plain(report)
