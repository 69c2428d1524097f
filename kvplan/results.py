"""What a command returns and a renderer accepts: figures, tables of figures, and the report of both.

A :class:`Quantity` knows how it came about: the formula that ran, the inputs it ran on and the parts
it is the sum of. Renderers only choose what to show; they never compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from kvplan.formula import Formula
from kvplan.units import Unit

Scalar: TypeAlias = int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class Quantity:
    """One figure: its place in the report, value and unit, and how it was found.

    Args:
        name: key in the report, such as ``weights_bytes``; the last word is the unit.
        value: the figure in its base unit; ``None`` where there is no answer.
        label: the words a person reads.
        formula: the function that produced the value from ``inputs``.
        inputs: the figures the formula was called with, in the order of its parameters.
        parts: figures that sum to this one exactly.
        source: where a figure that is not computed comes from.
        note: why the value is what it is, where no formula says it.
    """

    name: str
    value: Scalar
    unit: Unit = Unit.NONE
    label: str = ""
    formula: Formula[Any, Any] | None = None
    inputs: tuple[Quantity, ...] = field(default=(), repr=False)
    parts: tuple[Quantity, ...] = field(default=(), repr=False)
    source: str = ""
    note: str = ""

    @property
    def number(self) -> int:
        """The value as an integer; raises TypeError where it is not one."""
        if not isinstance(self.value, int):
            raise TypeError(f"{self.name} is {self.value!r}, not an integer")
        return self.value

    @property
    def amount(self) -> int | float:
        """The value as a number; raises TypeError where it is none."""
        if not isinstance(self.value, int | float):
            raise TypeError(f"{self.name} is {self.value!r}, not a number")
        return self.value


def fact(name: str, value: Scalar, source: str, unit: Unit = Unit.NONE, label: str = "") -> Quantity:
    """Return a figure that is read, not computed."""
    return Quantity(name, value, unit, label, source=source)


def computed(
    name: str, formula: Formula[Any, Any], *inputs: Quantity, label: str = "", note: str = ""
) -> Quantity:
    """Run a formula on the values of its inputs and return the figure that remembers both."""
    value = formula(*(q.amount for q in inputs))
    assert isinstance(value, int | float)
    return Quantity(name, value, formula.unit, label, formula=formula, inputs=inputs, note=note)


def total(name: str, unit: Unit, parts: tuple[Quantity, ...], label: str = "", note: str = "") -> Quantity:
    """Return the figure that is exactly the sum of its parts."""
    return Quantity(name, sum(p.amount for p in parts), unit, label, parts=parts, note=note)


class Scale(Enum):
    """What a column's figures are shown in, and how many base units that is."""

    GFLOP = ("GFLOP", 1e9)
    MB = ("MB", 1e6)
    MILLISECONDS = ("ms", 1e-3)

    @property
    def word(self) -> str:
        """What stands in the head of the column."""
        return self.value[0]

    @property
    def base_units(self) -> float:
        """How many base units one of it is."""
        return self.value[1]


class Shown(Enum):
    """How a section looks on a terminal; JSON and CSV always hold all of them."""

    LINES = "one figure a line"
    BUDGET = "parts of the last figure, with shares and bars"
    SENTENCE = "all figures on one line"
    TABLE = "a table"
    NOT = "left out: other sections say it"


@dataclass(frozen=True, slots=True)
class Facts:
    """A named group of figures: one JSON object, or one list of lines.

    Figures of a group without a key stand at the top of the JSON object by themselves.
    """

    key: str
    title: str
    quantities: tuple[Quantity, ...]
    shown: Shown = Shown.LINES

    def __getitem__(self, name: str) -> Quantity:
        for quantity in self.quantities:
            if quantity.name == name:
                return quantity
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table; ``priority`` 0 is never dropped on a narrow terminal.

    A column that is not ``shown`` is for machines: other columns tell a reader the same. ``scale`` is what
    a reader sees its figures in, to three digits.
    """

    key: str
    label: str
    cells: tuple[Quantity, ...]
    priority: int = 0
    shown: bool = True
    scale: Scale | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A named table of figures: one JSON array of objects; its first ``named_by`` columns name the row.

    ``units`` writes every cell in its base unit with the unit behind it: for columns of mixed units;
    ``handy_units`` does so in what people read them in: bytes in GiB.
    ``labels`` are words for the rows, where the first column's values are for machines; rows that are
    ``hidden`` are for machines too: other sections tell a reader of them, as they tell a machine of those
    that are ``repeated``.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    shown: Shown = Shown.TABLE
    units: bool = False
    handy_units: bool = False
    labels: tuple[str, ...] = ()
    named_by: int = 1
    hidden: tuple[int, ...] = ()
    repeated: tuple[int, ...] = ()

    def shown_columns(self) -> tuple[Column, ...]:
        """Return the columns a reader sees."""
        return tuple(column for column in self.columns if column.shown)

    def row_labels(self, named: Callable[[Quantity], str]) -> tuple[str, ...]:
        """Return what the rows are called: their labels, else ``named`` of the first column's cells."""
        return self.labels or tuple(named(cell) for cell in self.columns[0].cells)

    def rows(self) -> Iterator[tuple[Quantity, ...]]:
        """Iterate over the rows for machines, each as wide as the table."""
        rows = zip(*(column.cells for column in self.columns), strict=True)
        return (row for index, row in enumerate(rows) if index not in self.repeated)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The sentence that decides, whether the answer is yes, and the key of that answer in JSON."""

    yes: bool
    text: str
    key: str = "fits"


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of one command.

    Args:
        command: the command's name.
        heading: the line above everything.
        sections: groups and tables, in the order they are shown.
        verdict: the last line; ``None`` where there is nothing to decide.
        notes: assumptions the reader must know, one sentence each.
        inputs: what was asked, echoed.
    """

    command: str
    heading: str
    sections: tuple[Facts | Table, ...]
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()
    inputs: tuple[tuple[str, Scalar | list[int]], ...] = ()

    def section(self, key: str) -> Facts | Table:
        """Return the section with this key; raises KeyError where there is none."""
        for section in self.sections:
            if section.key == key:
                return section
        raise KeyError(key)

    def figures(self) -> Iterator[tuple[str, Quantity]]:
        """Iterate over every figure with its dotted name: ``memory.weights_bytes``, ``growth.4096.fits``."""
        for section in self.sections:
            if isinstance(section, Facts):
                for quantity in section.quantities:
                    yield f"{section.key}.{quantity.name}".lstrip("."), quantity
            else:
                for row in section.rows():
                    name = ".".join(str(quantity.value) for quantity in row[: section.named_by])
                    for quantity in row[section.named_by :]:
                        yield f"{section.key}.{name}.{quantity.name}", quantity
