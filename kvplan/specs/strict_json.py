"""JSON as a strict format: config.json under the limits that hold for YAML, but larger.

The standard library's reader says where nothing is, takes NaN, keeps the last of duplicate keys and
recurses; here it reads single strings only. One word that is not JSON is taken: ``Infinity``, which Python
writes for a limit that is none. What reads a number refuses it.
"""

from __future__ import annotations

import json
import re
from math import inf
from pathlib import Path
from typing import NoReturn

from kvplan.specs.document import (
    MAX_JSON_BYTES,
    MAX_JSON_VALUES,
    Document,
    DocumentBuilder,
    LineIndex,
    Place,
    printable,
    quoted,
    read_limited,
    refuse_unprintable,
)

_BLANK = re.compile(r"[ \t\n\r]+")
# Numbers, constants and everything somebody might write in their place.
_WORD = re.compile(r"[-+.\w]+")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_CONSTANTS = {"null": None, "true": True, "false": False, "Infinity": inf}
_NOT_FINITE = frozenset(("NaN", "-Infinity"))
_PYTHON_WORDS = {"None": "null", "True": "true", "False": "false"}
_CLOSERS = {"{": "}", "[": "]"}

_STRING_MESSAGES = (
    ("Unterminated string", "this quote is never closed"),
    ("Invalid control", r"line break or tab inside a string: close the quote, or write \n or \t"),
    ("Invalid \\u", r"unknown escape: \u takes four hexadecimal digits"),
    ("Invalid \\", r"unknown escape: write \\ for a backslash"),
)


def read_json(path: Path) -> Document:
    """Return a JSON file as a document.

    Raises:
        FileError: the file cannot be read.
        SpecError: it is not JSON, or breaks a limit.
    """
    return parse_json(read_limited(path, MAX_JSON_BYTES), printable(str(path)))


def parse_json(text: str, path: str) -> Document:
    """Return a JSON text as a document; ``path`` is the name its mistakes are reported under.

    Raises:
        SpecError: it is not JSON, or breaks a limit; all mistakes at once, up to the first in syntax.
    """
    refuse_unprintable(text, path)
    return _Scanner(text, DocumentBuilder(path, MAX_JSON_VALUES)).read()


class _Scanner:
    """Walks the text once; the brackets still open are a list, so depth costs no stack."""

    def __init__(self, text: str, builder: DocumentBuilder) -> None:
        self._text = text
        self._builder = builder
        self._lines = LineIndex(text)
        self._strings = json.JSONDecoder()
        self._at = 0
        self._closers: list[str] = []
        self._just_opened = False

    def read(self) -> Document:
        """Return the whole text as a document."""
        self._skip_blank()
        if not self._peek():
            self._builder.fail((1, 1), 'the file is empty: expected an object such as {"name": 1}')
        self._read_value()
        while self._closers:
            self._read_item()
        self._skip_blank()
        if self._peek():
            self._fail_here("the end of the file")
        return self._builder.finish()

    def _read_item(self) -> None:
        """Read the next item of the innermost bracket, or its end."""
        closer = self._closers[-1]
        self._skip_blank()
        if self._take(closer):
            self._closers.pop()
            self._builder.close()
            self._just_opened = False
            return
        if not self._just_opened:
            self._read_comma(closer)
        if closer == "}":
            self._read_key()
        self._read_value()

    def _read_comma(self, closer: str) -> None:
        place = self._place()
        if not self._take(","):
            self._fail_here(f"',' or '{closer}'")
        self._skip_blank()
        if self._peek() == closer:
            self._builder.fail(place, f"trailing comma before '{closer}': remove it")

    def _read_key(self) -> None:
        place = self._place()
        if self._peek() != '"':
            self._fail_here("a key in double quotes")
        self._builder.key(self._read_string(), place)
        self._skip_blank()
        if not self._take(":"):
            self._fail_here("':' after the key")
        self._skip_blank()

    def _read_value(self) -> None:
        place, first = self._place(), self._peek()
        self._just_opened = first in _CLOSERS
        if first in _CLOSERS:
            self._builder.open({} if first == "{" else [], place)
            self._closers.append(_CLOSERS[first])
            self._at += 1
        elif first == '"':
            self._builder.text(self._read_string(), place)
        else:
            self._read_word(place)

    def _read_word(self, place: Place) -> None:
        if (match := _WORD.match(self._text, self._at)) is None:
            self._fail_here("a value")
        word, self._at = match[0], match.end()
        if word in _CONSTANTS:
            self._builder.value(_CONSTANTS[word], place)
        elif _INTEGER.fullmatch(word):
            self._builder.integer(word, place)
        elif _FLOAT.fullmatch(word):
            self._builder.number(word, place)
        else:
            self._refuse_word(word, place)

    def _refuse_word(self, word: str, place: Place) -> None:
        message = f"{quoted(word)} {_why_no_value(word)}"
        if not self._closers and word not in _NOT_FINITE:
            # Not a document in JSON at all: what follows would only repeat that.
            self._builder.fail(place, message)
        self._builder.refuse(place, message)
        self._builder.value(None, place)

    def _read_string(self) -> str:
        try:
            text, self._at = self._strings.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            message = next(
                (ours for theirs, ours in _STRING_MESSAGES if error.msg.startswith(theirs)), error.msg
            )
            self._builder.fail(self._lines.place(error.pos), message)
        return str(text)

    def _skip_blank(self) -> None:
        if blank := _BLANK.match(self._text, self._at):
            self._at = blank.end()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, character: str) -> bool:
        """Step over a character if it is the next one."""
        is_next = self._peek() == character
        self._at += is_next
        return is_next

    def _place(self) -> Place:
        return self._lines.place(self._at)

    def _fail_here(self, expected: str) -> NoReturn:
        if self._text.startswith(("//", "/*", "#"), self._at):
            message = "JSON has no comments: remove it"
        elif self._peek() == "'":
            message = "JSON takes double quotes only"
        else:
            word = _WORD.match(self._text, self._at)
            found = quoted(word[0] if word else self._peek()) if self._peek() else "the end of the file"
            message = f"expected {expected}, found {found}"
        self._builder.fail(self._place(), message)


def _why_no_value(word: str) -> str:
    if word in _NOT_FINITE:
        return "is not a finite number"
    if instead := _PYTHON_WORDS.get(word):
        return f"is not JSON: write {instead}"
    if word[0] in "+-.0123456789":
        return "is not a number in JSON"
    return "is not JSON: put text in double quotes"
