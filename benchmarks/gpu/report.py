"""The tables: what was measured beside what kvplan says, as Markdown. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prediction import Predicted

from kvplan.units import gib

MICRO, MILLI = 1e-6, 1e-3
TIMES = ("measured", "kvplan bound", "kvplan estimate", "measured / bound", "estimate error", "how")


@dataclass(frozen=True, slots=True)
class TimeRow:
    """One measured time.

    Args:
        cells: what it is the time of, a cell for each of the topic's names.
        measured_s: the median.
        predicted: what kvplan says of the same call.
        how: how it ran: in a captured graph or not, with which kernels.
    """

    cells: tuple[str, ...]
    measured_s: float
    predicted: Predicted
    how: str

    @property
    def wrong(self) -> bool:
        """Whether it was faster than anything can be: the plan or the measuring is at fault."""
        return self.measured_s < self.predicted.bound_s

    def markdown(self) -> str:
        """Return its line of the table."""
        bound_s, estimate_s = self.predicted.bound_s, self.predicted.estimate_s
        verdict = "**BEATS THE BOUND**" if self.wrong else f"{self.measured_s / bound_s:.2f}x"
        return _line(
            *self.cells,
            *(time_text(seconds) for seconds in (self.measured_s, bound_s, estimate_s)),
            verdict,
            f"{estimate_s / self.measured_s - 1:+.0%}",
            self.how,
        )


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """One category of memory.

    Args:
        name: the category.
        measured_bytes: what was found.
        planned_bytes: what kvplan plans.
        exact: both are sums over the same arrays, so that any difference is a mistake.
    """

    name: str
    measured_bytes: int
    planned_bytes: int
    exact: bool = False

    @property
    def wrong(self) -> bool:
        """Whether two sums that have to be equal are not."""
        return self.exact and self.measured_bytes != self.planned_bytes

    def markdown(self) -> str:
        """Return its line of the table."""
        difference = self.planned_bytes - self.measured_bytes
        share = f" ({difference / self.measured_bytes:+.1%})" if self.measured_bytes else ""
        verdict = f"**NOT EQUAL: {difference:+,} B**" if self.wrong else f"{gib(difference)} GiB{share}"
        equal = self.exact and not self.wrong
        return _line(
            self.name,
            f"{gib(self.measured_bytes)} GiB",
            f"{gib(self.planned_bytes)} GiB",
            "equal to the byte" if equal else verdict,
        )


@dataclass(frozen=True, slots=True)
class Topic:
    """One table, what it is of, and what was left out of it."""

    title: str
    about: str
    names: tuple[str, ...]
    rows: Sequence[TimeRow | MemoryRow]
    skipped: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Return the topic as Markdown."""
        memory = any(isinstance(row, MemoryRow) for row in self.rows)
        heads = (*self.names, *(("measured", "planned", "planned - measured") if memory else TIMES))
        rule = _line(*("---" if name in self.names or name == "how" else "---:" for name in heads))
        lines = [f"## {self.title}", "", self.about]
        if self.rows:
            lines += ["", _line(*heads), rule, *(row.markdown() for row in self.rows)]
        if self.skipped:
            lines += ["", *(f"- left out: {reason}" for reason in self.skipped)]
        return "\n".join(lines)


def document(title: str, facts: Iterable[tuple[str, str]], topics: Iterable[Topic]) -> str:
    """Return a whole report: a heading, facts about the machine, the tables and the verdict."""
    found = list(topics)
    parts = [f"# {title}", "\n".join(f"- {name}: {value}" for name, value in facts)]
    return "\n\n".join([*parts, *(topic.markdown() for topic in found), verdict(found)]) + "\n"


def mistakes(topics: Iterable[Topic]) -> list[str]:
    """Return a sentence for each figure that cannot be: a bound beaten, exact bytes that differ."""
    found = []
    for topic in topics:
        for row in topic.rows:
            if row.wrong and isinstance(row, TimeRow):
                found.append(
                    f"{topic.title}, {', '.join(row.cells)}: measured {time_text(row.measured_s)} "
                    f"is below the bound of {time_text(row.predicted.bound_s)}"
                )
            elif row.wrong and isinstance(row, MemoryRow):
                found.append(
                    f"{topic.title}, {row.name}: measured {row.measured_bytes:,} B, "
                    f"planned {row.planned_bytes:,} B"
                )
    return found


def verdict(topics: Sequence[Topic]) -> str:
    """Return the closing lines: what cannot be, or that nothing such was found."""
    found = mistakes(topics)
    if found:
        lines = [f"**{len(found)} IMPOSSIBLE FIGURES: kvplan, the card's file or this script is wrong.**", ""]
        return "\n".join([*lines, *(f"- {sentence}" for sentence in found)])
    times = sum(isinstance(row, TimeRow) for topic in topics for row in topic.rows)
    return f"No measured time of {times} is below its bound; bytes that have to be equal are."


def time_text(seconds: float) -> str:
    """Return a time with three digits that count, in us or ms."""
    value, unit = (seconds / MILLI, "ms") if seconds >= MILLI else (seconds / MICRO, "us")
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
