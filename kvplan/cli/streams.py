"""Standard streams: what the terminal can show, and where an answer goes."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from kvplan.errors import FileError, KvplanError, unknown
from kvplan.files import write_atomically
from kvplan.report.terminal import Terminal
from kvplan.specs.document import printable

COLORS = ("auto", "always", "never")


def terminal(color: str) -> Terminal:
    """Return what standard output can show.

    Raises:
        UsageError: ``color`` is not auto, always or never.
    """
    if color not in COLORS:
        raise unknown("colour setting", color, COLORS)
    if sys.stdout is None:
        return Terminal()
    is_terminal = sys.stdout.isatty()
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Terminal(
        width=os.get_terminal_size(sys.stdout.fileno()).columns or None if is_terminal else None,
        color=color == "always" or (color == "auto" and is_terminal and not plain),
        unicode=_is_unicode(),
    )


def _is_unicode() -> bool:
    """Whether more than ASCII can be shown: Python writes UTF-8 even where the locale is said to be C."""
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    return encoding == "utf8" and os.environ.get("LC_ALL") not in ("C", "POSIX")


def put(text: str, output: Path | None) -> None:
    """Write an answer to a file, whole or not at all, or to standard output.

    Raises:
        FileError: the file, or standard output, cannot be written.
        BrokenPipeError: the reader of standard output went away.
    """
    if output is not None:
        write_atomically(output, text)
        return
    if sys.stdout is None:
        raise FileError("cannot write to standard output: it is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except UnicodeEncodeError:
        sys.stdout.write(text.encode("ascii", "replace").decode("ascii"))
        sys.stdout.flush()
    except OSError as error:
        reason = (error.strerror or "refused").lower()
        raise FileError(f"cannot write to standard output: {reason}") from error


def say(text: str) -> None:
    """Write one line to standard error: progress, a note, a warning; where nobody can read it, nothing."""
    if sys.stderr is None:
        return
    encoding = sys.stderr.encoding or "ascii"
    with contextlib.suppress(OSError):
        print(printable(text).encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)


def say_error(error: KvplanError) -> None:
    """Write an error to standard error: one line for each mistake."""
    for index, line in enumerate(error.lines()):
        say(f"error: {line}" if index == 0 else f"       {line}")
