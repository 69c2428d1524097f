"""Standard streams: what the terminal can show, and where an answer goes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kvplan.errors import FileError, KvplanError, unknown
from kvplan.files import write_atomically
from kvplan.report.terminal import Terminal

COLORS = ("auto", "always", "never")


def terminal(color: str) -> Terminal:
    """Return what standard output can show.

    Raises:
        UsageError: ``color`` is not auto, always or never.
    """
    if color not in COLORS:
        raise unknown("colour setting", color, COLORS)
    is_terminal = sys.stdout.isatty()
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Terminal(
        width=os.get_terminal_size(sys.stdout.fileno()).columns or None if is_terminal else None,
        color=color == "always" or (color == "auto" and is_terminal and not plain),
        unicode=(sys.stdout.encoding or "ascii").lower().replace("-", "") == "utf8",
    )


def put(text: str, output: Path | None) -> None:
    """Write an answer to a file, whole or not at all, or to standard output.

    Raises:
        FileError: the file, or standard output, cannot be written.
        BrokenPipeError: the reader of standard output went away.
    """
    if output is not None:
        write_atomically(output, text)
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except UnicodeEncodeError:
        sys.stdout.write(text.encode("ascii", "replace").decode("ascii"))
        sys.stdout.flush()
    except OSError as error:
        raise FileError(f"cannot write to standard output: {error.strerror}") from error


def say(text: str) -> None:
    """Write a line of progress, a note or a warning to standard error."""
    encoding = sys.stderr.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)


def say_error(error: KvplanError) -> None:
    """Write an error to standard error: one line for each mistake."""
    for index, line in enumerate(error.lines()):
        say(f"error: {line}" if index == 0 else f"       {line}")
