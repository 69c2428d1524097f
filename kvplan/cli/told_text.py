"""A text on standard output as it is made, and what goes on, on standard error, while none is."""

from __future__ import annotations

from kvplan.cli.progress import Steps
from kvplan.cli.streams import put


class ToldText:
    """A text that is told piece by piece.

    Args:
        steps: shows what goes on; its line and the text never share the terminal.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._last = ""

    def add(self, piece: str) -> None:
        """Show a piece of the text; raises FileError where standard output cannot be written."""
        if piece:
            self._steps.stop()
            put(piece, None)
            self._last = piece

    def step(self, doing: str) -> None:
        """End the text and show what goes on behind it."""
        self.end()
        self._steps(doing)

    def end(self) -> None:
        """End the last line of the text, if there was one, and leave a line free behind it."""
        if self._last:
            put("\n" if self._last.endswith("\n") else "\n\n", None)
            self._last = ""
