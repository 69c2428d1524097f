"""Progress of long runs: on a terminal only, on standard error, and only once they have taken a second."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_S = 1.0


class Steps:
    """Steps of a run, shown as a line that leaves no trace."""

    def __init__(self, shown: bool) -> None:
        self._began = monotonic() if shown else float("inf")
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._done = 0

    def __call__(self, doing: str) -> None:
        """Say that a step has ended, and what is going on."""
        self._done += 1
        # A terminal that shows ASCII alone must not end a run.
        words = doing.encode("ascii", "replace").decode("ascii")
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=words, completed=self._done)
        elif monotonic() - self._began > PATIENCE_S:
            self._start(words)

    def _start(self, words: str) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.description}, step {task.completed:,.0f}", markup=False)
        columns = (SpinnerColumn("line"), text, TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, get_time=monotonic)
        self._progress.start()
        self._task = self._progress.add_task(words, total=None, completed=self._done)
        # What is told is the time of the run, not of the line.
        self._progress.tasks[0].start_time = self._began

    def stop(self) -> None:
        """Take the line away, until the next step."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


@contextmanager
def progress(*, quiet: bool) -> Iterator[Steps]:
    """Show steps while the block runs, unless asked not to or nobody looks at standard error."""
    steps = Steps(not quiet and sys.stderr is not None and sys.stderr.isatty())
    try:
        yield steps
    finally:
        steps.stop()
