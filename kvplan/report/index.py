"""What a page about plans shows: of each the answer of its check, and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from kvplan.charts import Chart
from kvplan.report.plots.theme import Theme
from kvplan.results import Report


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart drawn in one theme: its file, from the folder of the page, and its bytes."""

    theme: Theme
    file: str
    data: bytes

    @property
    def media_type(self) -> str:
        """The format, as browsers call it."""
        return {".svg": "image/svg+xml", ".png": "image/png"}[PurePosixPath(self.file).suffix]


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart, drawn in one theme or in several: the first is shown unless a reader prefers another."""

    name: str
    chart: Chart
    drawn: tuple[Drawn, ...]

    @property
    def words(self) -> str:
        """What a reader who does not see the picture is told."""
        return f"{self.chart.title}: {self.chart.subject}"


@dataclass(frozen=True, slots=True)
class PlanPage:
    """What there is to say and show of a plan.

    Args:
        name: the plan's.
        checked: whether it holds; ``None`` where it requires nothing.
        pictures: in the order they are shown.
        left_out: what is not drawn and why, one sentence each.
    """

    name: str
    checked: Report | None
    pictures: tuple[Picture, ...]
    left_out: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """Whether it holds, in words."""
        verdict = self.checked.verdict if self.checked is not None else None
        return verdict.text if verdict is not None else "It requires nothing."


def themes_of(pages: Sequence[PlanPage]) -> tuple[Theme, ...]:
    """Return the themes that the pictures are drawn in."""
    drawn = (one.theme for page in pages for picture in page.pictures for one in picture.drawn)
    return tuple({theme.name: theme for theme in drawn}.values())
