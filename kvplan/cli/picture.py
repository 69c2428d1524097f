"""The options of a picture, and the picture they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvplan.errors import UsageError

if TYPE_CHECKING:
    from kvplan.charts import Chart

Theme = Annotated[str, typer.Option("--theme", metavar="NAME", help="Colours of the picture: light or dark.")]


@dataclass(frozen=True, slots=True)
class PlotOptions:
    """Whether an answer is drawn too."""

    plot: Annotated[
        str, typer.Option("--plot", metavar="FILE", help="Draw the answer too: FILE.png or FILE.svg.")
    ] = ""
    theme: Theme = "light"

    def require_known(self) -> None:
        """Refuse, before anything runs, a picture that cannot be made; raises UsageError."""
        if self.plot:
            require_possible(self.plot, self.theme)
        elif self.theme != "light":
            raise UsageError("--theme is of a picture", hint="--plot FILE.svg")

    def save(self, chart: Callable[[], Chart], on_step: Callable[[str], None]) -> None:
        """Draw what an answer is about, where asked to; raises FileError where it cannot be written."""
        if self.plot:
            on_step("reckoning the chart")
            save_picture(chart(), self.plot, self.theme, on_step)


def require_possible(path: str, theme: str) -> None:
    """Refuse a file name that says no format, and a theme that is not there; raises UsageError."""
    from kvplan.report.plots.save import require_picture
    from kvplan.report.plots.theme import theme_named

    require_picture(Path(path))
    theme_named(theme)


def save_picture(chart: Chart, path: str, theme: str, on_step: Callable[[str], None]) -> None:
    """Write the picture of a chart, whole or not at all; raises FileError where it cannot be written."""
    from kvplan.report.plots.draw import draw
    from kvplan.report.plots.save import save
    from kvplan.report.plots.theme import theme_named

    on_step("drawing")
    figure = draw(chart, theme_named(theme))
    on_step("writing the picture")
    save(figure, Path(path))
