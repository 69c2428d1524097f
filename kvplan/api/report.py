"""A report that renders itself, and draws what it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kvplan import results
from kvplan.errors import UsageError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kvplan.charts import Chart


@dataclass(frozen=True, slots=True, repr=False)
class Report(results.Report):
    """The answer to one question.

    Args:
        charts: kinds of plots it can be shown as, the best first, each with what makes its chart.
    """

    charts: Mapping[str, Callable[[], Chart]] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, report: results.Report, charts: Mapping[str, Callable[[], Chart]]) -> Report:
        """Return a report that can be drawn."""
        told = (report.command, report.heading, report.sections, report.verdict, report.notes)
        return cls(*told, report.inputs, charts)

    def __repr__(self) -> str:
        said = f": {self.verdict.text}" if self.verdict is not None else ""
        return f"<{self.command} report{said}>"

    def __str__(self) -> str:
        from kvplan.report.table import render_table
        from kvplan.report.terminal import Terminal

        return render_table(self, Terminal())

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as plain data: base units, the unit in the key."""
        from kvplan.report.export import to_dict

        return to_dict(self)

    def to_json(self) -> str:
        """Return what ``--json`` prints."""
        from kvplan.report.export import render_json

        return render_json(self.to_dict())

    def to_csv(self) -> str:
        """Return every figure as one row: its dotted name, value and unit."""
        from kvplan.report.export import render_csv

        return render_csv(self)

    def to_markdown(self) -> str:
        """Return the report as GitHub Markdown."""
        from kvplan.report.export import render_markdown

        return render_markdown(self)

    def chart(self, kind: str = "") -> Chart:
        """Return what a plot shows, as data; the first of ``charts`` where no kind is named.

        Raises:
            UsageError: this report has no plot of that kind.
        """
        if not self.charts:
            raise UsageError(f"this {self.command} report has no plot")
        if kind and kind not in self.charts:
            raise unknown("plot", kind, self.charts)
        return self.charts[kind or next(iter(self.charts))]()

    def plot(self, kind: str = "", theme: str = "light") -> Figure:
        """Return a picture: ``report.plot().savefig("frontier.png")``.

        Args:
            kind: one of ``charts``; the first where none is named.
            theme: ``light`` or ``dark``.

        Raises:
            UsageError: there is no such plot or theme.
        """
        from kvplan.report.plots.draw import draw
        from kvplan.report.plots.theme import theme_named

        chosen = theme_named(theme)
        return draw(self.chart(kind), chosen)
