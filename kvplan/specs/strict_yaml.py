"""YAML as a strict subset: no way to write one thing and have another one read.

Only libyaml's *events* are used. Its loaders build objects, crash on 50,000 nested brackets, keep the
last of duplicate keys and expand aliases without end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import yaml

from kvplan.specs.document import (
    Document,
    DocumentBuilder,
    LineIndex,
    Place,
    printable,
    quoted,
    read_limited,
    refuse_unprintable,
)

_Loader = yaml.CBaseLoader if yaml.__with_libyaml__ else yaml.BaseLoader

_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")

# What readers of YAML 1.1 and 1.2 disagree on, each with what to write instead.
_WORDS = {
    **dict.fromkeys(("yes", "Yes", "YES", "on", "On", "ON", "True", "TRUE"), "true"),
    **dict.fromkeys(("no", "No", "NO", "off", "Off", "OFF", "False", "FALSE"), "false"),
    **dict.fromkeys(("Null", "NULL"), "null"),
}
_TRAPS = (
    (re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"), "is not a finite number"),
    (
        re.compile(r"[-+]?0[0-9_]+"),
        "could be read as octal: write it without the leading zero, or put it in quotes",
    ),
    (
        re.compile(r"[-+]?0(?:o[0-7_]+|x[0-9a-f_]+|b[01_]+)", re.IGNORECASE),
        "is not a decimal number: write it in decimal, or put it in quotes",
    ),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"),
        "could be read as a number in base 60: put it in quotes",
    ),
    (
        re.compile(r"(?=[^_]*_)[-+]?\.?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?"),
        "is a number with underscores: write it without them, or put it in quotes",
    ),
)
# Most scalars begin with another character than these and need no further look.
_SUSPECT_STARTS = "0123456789+-.~" + "".join({word[0] for word in (*_WORDS, "null", "true", "false")})

# Where libyaml could see a directive. It compares each %TAG with all before it, which takes many seconds
# for a megabyte of them and happens before the first event.
_DIRECTIVE = re.compile(r"(?<![^\r\n])%")

_TAB = "a tab cannot indent: use spaces"
_UNEXPECTED_COLON = "unexpected ':': put a text that holds ': ' in quotes, and check the indentation"
_SYNTAX_MESSAGES = {
    "mapping values are not allowed in this context": _UNEXPECTED_COLON,
    "mapping values are not allowed here": _UNEXPECTED_COLON,
    "found a tab character that violates indentation": _TAB,
    "found a tab character where an indentation space is expected": _TAB,
    "did not find expected key": "expected a 'key: value' here: check the indentation and the brackets",
    "did not find expected '-' indicator": "expected a '- item' here: check the indentation",
    "block sequence entries are not allowed in this context": "unexpected '-': begin a list on its own line",
    "did not find expected ',' or ']'": "expected ',' or ']'",
    "did not find expected ',' or '}'": "expected ',' or '}'",
    "did not find expected node content": "expected a value here",
    "could not find expected ':'": "expected ': ' after a key",
    "did not find expected <document start>": "unexpected text after the end of the document",
    "found unexpected end of stream": "this quote is never closed",
    "found unknown escape character": "unknown escape: write \\\\ for a backslash, or use single quotes",
    "found invalid Unicode character escape code": "unknown escape: there is no such character",
    "found unexpected document indicator": "'---' or '...' inside quotes: indent the line",
    "found undefined tag handle": "tags (!name) are not allowed: remove it",
}
# Noticed a line or a file later: the mistake is where the quote or the key begins.
_FOUND_TOO_LATE = ("found unexpected end of stream", "could not find expected ':'")


def read_yaml(path: Path) -> Document:
    """Return a YAML file as a document.

    Raises:
        FileError: the file cannot be read.
        SpecError: it is not the strict subset of YAML described above.
    """
    return parse_yaml(read_limited(path), printable(str(path)))


def parse_yaml(text: str, path: str) -> Document:
    """Return a YAML text as a document; ``path`` is the name its mistakes are reported under.

    Raises:
        SpecError: it is not the strict subset of YAML described above; all mistakes at once.
    """
    refuse_unprintable(text, path)
    builder = DocumentBuilder(path)
    if directive := _DIRECTIVE.search(text):
        place = LineIndex(text).place(directive.start())
        builder.fail(place, "directives (%) are not allowed: remove the line")
    documents, is_empty = 0, True
    for event in _events(text, builder):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents == 2:
                builder.fail(_place(event), "a second document starts here: one file holds one")
        is_empty = is_empty and not _has_content(event)
        _add(event, builder)
    if is_empty:
        builder.fail((1, 1), "the file is empty: expected a mapping such as 'name: value'")
    return builder.finish()


def _events(text: str, builder: DocumentBuilder) -> Iterator[yaml.Event]:
    """Yield the events one by one; the parser keeps its place in a list, so depth costs no stack."""
    try:
        yield from yaml.parse(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        _fail_syntax(error, text, builder)
    except (ValueError, OverflowError):
        # Only the pure Python parser: it hands "\\UFFFFFFFF" to chr(), and has no place to tell.
        builder.fail((1, 1), "an escape in double quotes is no Unicode character")


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _has_content(event: yaml.Event) -> bool:
    """Whether the event is a node other than the empty one libyaml puts where nothing is written."""
    if isinstance(event, yaml.ScalarEvent):
        return bool(event.value or event.style or event.tag or event.anchor)
    return isinstance(event, yaml.NodeEvent)


def _add(event: yaml.Event, builder: DocumentBuilder) -> None:
    place = _place(event)
    if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
        _refuse_properties(event, place, builder)
    match event:
        case yaml.ScalarEvent() if builder.expects_key:
            _add_key(event.value, bool(event.style), place, builder)
        case yaml.ScalarEvent() if event.style:
            builder.text(event.value, place, _text_start(event))
        case yaml.ScalarEvent():
            _add_plain(event, place, builder)
        case yaml.AliasEvent() if builder.expects_key:
            builder.refused_key(place, "aliases (*name) are not allowed: write the key out")
        case yaml.AliasEvent():
            builder.refuse(place, "aliases (*name) are not allowed: write the value out again")
            builder.value(None, place)
        case yaml.CollectionStartEvent() if builder.expects_key:
            builder.fail(place, "a key must be text, not a list or a mapping")
        case yaml.MappingStartEvent():
            builder.open({}, place)
        case yaml.SequenceStartEvent():
            builder.open([], place)
        case yaml.CollectionEndEvent():
            builder.close()


def _refuse_properties(
    event: yaml.ScalarEvent | yaml.CollectionStartEvent, place: Place, builder: DocumentBuilder
) -> None:
    if event.anchor is not None:
        builder.refuse(place, "anchors (&name) are not allowed: remove it")
    if event.tag is not None:
        builder.refuse(place, "tags (!name) are not allowed: remove it")


def _add_key(name: str, is_quoted: bool, place: Place, builder: DocumentBuilder) -> None:
    if is_quoted or _is_plain_text(name):
        builder.key(name, place)
    elif name == "<<":
        builder.refused_key(place, "merge keys (<<) are not allowed: write the keys out")
    elif name == "":
        builder.refused_key(place, "a key is missing here")
    else:
        builder.refused_key(place, f"the unquoted key {quoted(name)} is not text: put it in quotes")


def _is_plain_text(name: str) -> bool:
    if name == "<<":
        return False
    if name[:1] not in _SUSPECT_STARTS:
        return True
    return name not in _CONSTANTS and not _FLOAT.fullmatch(name) and _trap(name) is None


def _text_start(event: yaml.ScalarEvent) -> Place | None:
    """Return where a text's first character is, if the text is in the file as it is, on one line."""
    begin, end = event.start_mark, event.end_mark
    quotes = 1 if event.style in ("'", '"') else 0
    if begin is None or end is None or begin.line != end.line:
        return None
    # Escapes, and quotes that stand doubled, make it longer in the file than it is.
    as_it_is = end.index - begin.index == len(event.value) + 2 * quotes
    return (begin.line + 1, begin.column + 1 + quotes) if as_it_is else None


def _add_plain(event: yaml.ScalarEvent, place: Place, builder: DocumentBuilder) -> None:
    """Add an unquoted scalar as what YAML 1.2 says it is, if YAML 1.1 says the same."""
    text = event.value
    if text[:1] not in _SUSPECT_STARTS:
        builder.text(text, place, _text_start(event))
    elif text in _CONSTANTS:
        builder.value(_CONSTANTS[text], place)
    elif _INTEGER.fullmatch(text):
        builder.integer(text, place)
    elif trap := _trap(text):
        builder.refuse(place, f"{quoted(text)} {trap}")
        builder.value(None, place)
    elif _FLOAT.fullmatch(text):
        builder.number(text, place)
    else:
        builder.text(text, place, _text_start(event))


def _trap(text: str) -> str | None:
    """Say what is ambiguous about an unquoted scalar and what to write, or None where nothing is."""
    if meaning := _WORDS.get(text):
        return f"could be read as {meaning}: write {meaning}, or put it in quotes"
    return next((advice for pattern, advice in _TRAPS if pattern.fullmatch(text)), None)


def _fail_syntax(error: yaml.MarkedYAMLError, text: str, builder: DocumentBuilder) -> NoReturn:
    """End the pass at a syntax error, in our words where we have some."""
    problem, mark, opening = error.problem or "", error.problem_mark, error.context_mark
    if problem in _FOUND_TOO_LATE:
        mark = opening
    if mark is None or mark.index >= len(text):
        # At the end libyaml names a line that is not there.
        place = LineIndex(text).place(len(text))
    else:
        place = (mark.line + 1, mark.column + 1)
    if mark is not None and problem.endswith("cannot start any token"):
        message = _bad_start(text[mark.index])
    else:
        message = _SYNTAX_MESSAGES.get(problem) or f"not valid YAML: {printable(problem[:68])}"
    if opening is not None and text[opening.index : opening.index + 1] in ("[", "{"):
        message += f" ({text[opening.index]!r} opened at line {opening.line + 1})"
    builder.fail(place, message)


def _bad_start(character: str) -> str:
    if character == "\t":
        return _TAB
    return f"{quoted(character)} cannot begin a value: put the text in quotes"
