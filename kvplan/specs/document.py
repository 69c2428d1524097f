"""A spec file as plain data, with the line and column of everything in it.

The YAML and the JSON reader both fill a ``DocumentBuilder``, so both obey the same limits.
"""

from __future__ import annotations

import math
import os
import re
import stat
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeAlias

from kvplan.errors import FileError, Problem, SpecError

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_INTEGER_DIGITS = 30
# A megabyte can hold half a million list items, each with a path of up to 64 steps: 300 MB of places.
MAX_VALUES = 50_000
# A config.json may name every expert of a quantised model: MiniMax-M3-NVFP4 has 22,422 modules in 2.8 MB.
# Its values are many but shallow, and so the steps of their paths are bounded too: 100 MB of places.
MAX_JSON_BYTES = 8 << 20
MAX_JSON_VALUES = 200_000
MAX_PATH_STEPS = MAX_VALUES * MAX_DEPTH // 4
# Nobody reads more than this many mistakes, and a hostile file can hold 300,000.
MAX_PROBLEMS = 100
# No more of a file than this is repeated in a message.
MAX_QUOTED = 40
MAX_PATH = 500

NodePath: TypeAlias = tuple[str | int, ...]
Place: TypeAlias = tuple[int, int]

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# What no spec needs and a terminal may obey; libyaml also ends a line at U+0085, U+2028 and U+2029,
# where editors do not, so the line numbers would no longer agree.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_NUL = "NUL byte: this is not a text file"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: plain data, and the 1-based (line, column) of each value and key by its path.

    ``text_starts`` has the first character of each text that stands in the file as it is read, on one line.
    """

    path: str
    data: object
    value_places: Mapping[NodePath, Place]
    key_places: Mapping[NodePath, Place]
    text_starts: Mapping[NodePath, Place] = field(default_factory=dict)

    def at(self, path: NodePath) -> object:
        """Return the value at a path that is there."""
        found = self.data
        for step in path:
            if isinstance(found, list):
                assert isinstance(step, int)
                found = found[step]
            else:
                assert isinstance(found, dict)
                found = found[step]
        return found

    def place(self, path: NodePath) -> Place:
        """Return where the value at a path is, or the nearest value around it that has a place."""
        for length in range(len(path), -1, -1):
            if (place := self.value_places.get(path[:length])) is not None:
                return place
        return (1, 1)

    def key_place(self, path: NodePath) -> Place:
        """Return where the key at a path is, or ``place(path)`` where the path has no key."""
        place = self.key_places.get(path)
        return self.place(path) if place is None else place

    def problem_within(self, path: NodePath, offset: int, message: str) -> Problem:
        """Return a mistake placed at a character of a text, or at the text where that cannot be told."""
        if (start := self.text_starts.get(path)) is None:
            return self.problem(path, message)
        return Problem(self.path, start[0], start[1] + offset, message)

    def problem(self, path: NodePath, message: str, *, at_key: bool = False) -> Problem:
        """Return a mistake placed at the value, or with ``at_key`` at the key, of a path."""
        line, column = self.key_place(path) if at_key else self.place(path)
        return Problem(self.path, line, column, message)


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not been read; ``key`` is the one that waits for its value."""

    path: NodePath
    data: dict[str | int, object] | list[object]
    key: str | int | None = None


class DocumentBuilder:
    """Collects the values and the mistakes of one file, in the order a parser meets them.

    A mistake leaves a stand-in value behind and the pass goes on; no document with a mistake is returned.
    """

    def __init__(self, path: str, most_values: int = MAX_VALUES) -> None:
        """Start with nothing read; ``path`` is the name mistakes are reported under."""
        self._path = path
        self._most_values = most_values
        self._path_steps = 0
        self._data: object = None
        self._open: list[_Open] = []
        self._problems: list[Problem] = []
        self._value_places: dict[NodePath, Place] = {}
        self._key_places: dict[NodePath, Place] = {}
        self._text_starts: dict[NodePath, Place] = {}

    @property
    def expects_key(self) -> bool:
        """Whether what comes next in the file is the key of a mapping."""
        return bool(self._open) and self._open[-1].key is None and isinstance(self._open[-1].data, dict)

    def refuse(self, place: Place, message: str) -> None:
        """Note a mistake and go on.

        Raises:
            SpecError: there are more mistakes than anyone would read.
        """
        self._problems.append(Problem(self._path, *place, message))
        if len(self._problems) == MAX_PROBLEMS:
            self.fail(place, f"stopped here, after {MAX_PROBLEMS} mistakes")

    def fail(self, place: Place, message: str) -> NoReturn:
        """End the pass with a mistake that leaves the rest of the file without meaning.

        Raises:
            SpecError: always, with every mistake so far.
        """
        raise SpecError([*self._problems, Problem(self._path, *place, message)])

    def open(self, container: dict[str | int, object] | list[object], place: Place) -> None:
        """Begin an empty mapping or list; what is added next goes into it.

        Raises:
            SpecError: it is nested too deep.
        """
        if len(self._open) == MAX_DEPTH:
            self.fail(place, f"nested deeper than {MAX_DEPTH} levels")
        self._open.append(_Open(self.value(container, place), container))

    def close(self) -> None:
        """End the innermost mapping or list."""
        self._open.pop()

    def key(self, name: str, place: Place) -> None:
        """Add the key of the next value."""
        if _SURROGATE.search(name):
            self.refused_key(place, f"key {quoted(name)} holds half of a surrogate pair")
            return
        mapping = self._open[-1]
        path = (*mapping.path, name)
        if (first := self._key_places.get(path)) is not None:
            self.refused_key(place, f"duplicate key {quoted(name)} (first at {_first_place(first, place)})")
            return
        mapping.key = name
        self._key_places[path] = place

    def refused_key(self, place: Place, message: str) -> None:
        """Note a key that cannot be one; its value is still searched for mistakes."""
        self.refuse(place, message)
        # A number stands in for it, as no real key is one: the keys below it are duplicates of no others.
        mapping = self._open[-1]
        mapping.key = len(mapping.data)

    def value(self, value: object, place: Place) -> NodePath:
        """Add a value to the innermost mapping or list and return its path.

        Raises:
            SpecError: the file holds too many values.
        """
        path = self._attach(value)
        self._value_places[path] = place
        if len(self._value_places) > self._most_values:
            self.fail(place, f"more than {self._most_values:,} values in one file")
        self._path_steps += len(path)
        if len(self._value_places) > MAX_VALUES and self._path_steps > MAX_PATH_STEPS:
            self.fail(place, f"more than {MAX_VALUES:,} values in one file, nested this deep")
        return path

    def _attach(self, value: object) -> NodePath:
        if not self._open:
            self._data = value
            return ()
        parent = self._open[-1]
        if isinstance(parent.data, list):
            parent.data.append(value)
            return (*parent.path, len(parent.data) - 1)
        key, parent.key = parent.key, None
        assert key is not None, "the parser added a value before its key"
        parent.data[key] = value
        return (*parent.path, key)

    def text(self, text: str, place: Place, start: Place | None = None) -> None:
        """Add a string; ``start`` is where it begins, if it stands in the file as it is."""
        if _SURROGATE.search(text):
            self.refuse(place, f"text {quoted(text)} holds half of a surrogate pair")
        path = self.value(text, place)
        if start is not None:
            self._text_starts[path] = start

    def integer(self, digits: str, place: Place) -> None:
        """Add a decimal integer, given as written."""
        count = len(digits.lstrip("+-"))
        if count > MAX_INTEGER_DIGITS:
            self.refuse(place, f"integer of {count:,} digits: at most {MAX_INTEGER_DIGITS} are allowed")
            digits = "0"
        self.value(int(digits), place)

    def number(self, digits: str, place: Place) -> None:
        """Add a floating-point number, given as written."""
        number = float(digits)
        if not math.isfinite(number):
            self.refuse(place, f"{quoted(digits)} is too large for a floating-point number")
        self.value(number, place)

    def finish(self) -> Document:
        """Return the document.

        Raises:
            SpecError: there were mistakes.
        """
        if self._problems:
            raise SpecError(self._problems)
        return Document(self._path, self._data, self._value_places, self._key_places, self._text_starts)


class LineIndex:
    """Finds the line and column of an offset in a text."""

    def __init__(self, text: str) -> None:
        """Note where each line begins."""
        self._starts = [0, *(line_break.end() for line_break in _LINE_BREAK.finditer(text))]

    def place(self, offset: int) -> Place:
        """Return the 1-based line and column, both in characters, of an offset."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


def quoted(text: str) -> str:
    """Return a text in quotes as a message shows it: no control characters, and cut where it is long."""
    return repr(text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 3] + "...")


def shown(value: object) -> str:
    """Return a value as a message shows it: one line, and cut where it is long."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case dict():
            return "a mapping"
        case list():
            return "a list"
    return str(value)[:MAX_QUOTED]


def dotted(path: NodePath) -> str:
    """Return a path as a message begins with it: ``kinds.full.mlp: ``; nothing for the whole file."""
    text = ""
    for step in path:
        name = f"[{step}]" if isinstance(step, int) else printable(step)[:MAX_QUOTED] or "''"
        text += f".{name}" if text and isinstance(step, str) else name
    return f"{text}: " if text else ""


def shortened(path: Path) -> str:
    """Return a path as a message shows it: its end, where it is longer than a line."""
    text = str(path)
    return text if len(text) <= MAX_PATH else f"...{text[3 - MAX_PATH :]}"


def printable(text: str) -> str:
    """Return a text, such as a file name, with what cannot be printed written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def holds_unprintable(text: str) -> bool:
    """Whether an escape has brought into a text what no file may hold."""
    return _UNPRINTABLE.search(text) is not None


def refuse_unprintable(text: str, path: str) -> None:
    r"""Refuse a text holding anything but printable characters, tabs and line breaks.

    Raises:
        SpecError: at the first such character.
    """
    if (found := _UNPRINTABLE.search(text)) is None:
        return
    message = _NUL if found[0] == "\0" else f"unprintable character U+{ord(found[0]):04X}: remove it"
    raise SpecError([Problem(path, *LineIndex(text).place(found.start()), message)])


def read_limited(path: Path, most_bytes: int = MAX_BYTES) -> str:
    """Return the text of a UTF-8 file of at most so many bytes, without its byte order mark.

    Raises:
        FileError: it cannot be read, or is no regular file.
        SpecError: it is too large, no text in UTF-8, or holds what cannot be printed.
    """
    text = read_text(path, most_bytes)
    refuse_unprintable(text, printable(shortened(path)))
    return text


def read_text(path: Path, most_bytes: int) -> str:
    """Return the same of a file that may hold any character but NUL, such as one for a model to read.

    Raises:
        FileError: it cannot be read, or is no regular file.
        SpecError: it is too large, or no text in UTF-8.
    """
    name = printable(shortened(path))
    content = read_start(path, most_bytes + 1)
    if len(content) > most_bytes:
        message = f"the file is larger than {most_bytes >> 20} MiB ({most_bytes:,} bytes)"
        raise SpecError([Problem(name, 1, 1, message)])
    text = _decode(content, name)
    if (nul := text.find("\0")) >= 0:
        raise SpecError([Problem(name, *LineIndex(text).place(nul), _NUL)])
    return text


def read_start(path: Path, most_bytes: int) -> bytes:
    """Return the first bytes of a file, at most so many.

    Raises:
        FileError: it cannot be read, or is no regular file.
    """
    name = printable(shortened(path))
    try:
        return _read_bytes(path, name, most_bytes)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error


def _first_place(first: Place, again: Place) -> str:
    """Name the line of the first of two keys, and the column where the line alone says nothing."""
    return f"line {first[0]}" if first[0] != again[0] else f"column {first[1]}"


def opened(path: Path) -> BinaryIO:
    """Open a regular file to read its bytes.

    Raises:
        FileError: it cannot be opened, or is no regular file.
    """
    name = printable(shortened(path))
    try:
        return _opened(path, name)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error


def _read_bytes(path: Path, name: str, most_bytes: int) -> bytes:
    with _opened(path, name) as file:
        return file.read(most_bytes)


def _opened(path: Path, name: str) -> BinaryIO:
    # Looked at twice: merely opening a device can have effects, and the file can change in between.
    _refuse_irregular(path.stat().st_mode, name)
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 (the caller closes it)
    try:
        _refuse_irregular(os.fstat(file.fileno()).st_mode, name)
    except FileError:
        file.close()
        raise
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file so that a pipe with nobody at its other end does not block (Windows has no such flag)."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _refuse_irregular(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise FileError(f"cannot read '{name}': it is a folder", hint="name a file inside it")
    if not stat.S_ISREG(mode):
        raise FileError(
            f"cannot read '{name}': it is a device, a pipe or a socket",
            hint="save the text as a regular file first",
        )


def _unreadable(name: str, error: OSError | ValueError) -> FileError:
    reason, hint = _why_unreadable(error)
    return FileError(f"cannot read '{name}': {reason}", hint=hint)


def _why_unreadable(error: OSError | ValueError) -> tuple[str, str]:
    """Return the reason in plain words, and what to do about it."""
    match error:
        case FileNotFoundError():
            return "there is no such file", "check the spelling and the current folder"
        case NotADirectoryError():
            return "a part of its path is not a folder", "check the spelling of the path"
        case PermissionError():
            return "permission denied", "check the rights on the file and its folders"
        case OSError():
            return printable(error.strerror or "the system refused").lower(), "check the path and the disk"
        case _:
            return "that cannot be a file name", "check the spelling of the path"


def _decode(content: bytes, path: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # ``error.object`` is what the offsets count in: the content without its byte order mark.
        before = error.object[: error.start].decode()
        message = f"byte 0x{error.object[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise SpecError([Problem(path, *LineIndex(before).place(len(before)), message)]) from error
