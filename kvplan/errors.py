"""Every error kvplan raises on purpose, and the exit status each one means.

KvplanError
├── UsageError    a name, flag or combination that cannot be right     exit 2
│   └── OutOfBlocks   (engine) a cache is full                        exit 2
├── SpecError     a YAML or JSON file that is not what it should be    exit 2
└── FileError     a file that could not be read or written             exit 3
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitStatus(IntEnum):
    """What the shell is told when a command ends."""

    SUCCESS = 0
    ANSWER_IS_NO = 1
    USAGE = 2
    FILE = 3
    INTERNAL = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class KvplanError(Exception):
    """An error whose message is written for the person who typed the command."""

    exit_status: ExitStatus = ExitStatus.USAGE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def lines(self) -> tuple[str, ...]:
        """Return the lines to print, one per mistake, each ending in its hint."""
        return (f"{self.message}   ({self.hint})" if self.hint else self.message,)


class UsageError(KvplanError):
    """A name, a flag or a combination of flags that cannot be right."""


class FileError(KvplanError):
    """A file that could not be read or written."""

    exit_status = ExitStatus.FILE


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file: where (1-based line and column) and what was expected."""

    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.message}"


class SpecError(KvplanError):
    """A YAML or JSON file with mistakes: all of them, in the order of the file."""

    def __init__(self, problems: Sequence[Problem], *, hint: str = "") -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.path, p.line, p.column)))
        super().__init__("\n".join(str(p) for p in self.problems), hint=hint)

    def lines(self) -> tuple[str, ...]:
        """Return one line per mistake; the hint, where there is one, ends the last."""
        lines = [str(problem) for problem in self.problems]
        if self.hint:
            lines[-1] += f"   ({self.hint})"
        return tuple(lines)


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return ``"did you mean a, b?"`` for the known words closest to ``wrong``, or ``""``."""
    import difflib

    lowered = {word.lower(): word for word in known}
    close = difflib.get_close_matches(wrong.lower()[:64], list(lowered), n=3, cutoff=0.6)
    if not close:
        return ""
    return f"did you mean {', '.join(lowered[word] for word in close)}?"


def unknown(kind: str, wrong: str, known: Iterable[str], *, see: str = "") -> UsageError:
    """Build the error for a name that is not one of the known ones.

    ``kind`` is the noun ("accelerator"), ``see`` a command that lists what there is.
    """
    words = list(known)
    suggestion = did_you_mean(wrong, words)
    shown = wrong if len(wrong) <= 64 else wrong[:61] + "..."
    message = f"no {kind} named {shown!r}"
    if suggestion:
        message += ". " + suggestion[0].upper() + suggestion[1:]
    elif len(words) <= 40:
        message += f"; expected one of {', '.join(words)}"
    elif not see:
        message += f"; expected one of {', '.join(words[:32])} and {len(words) - 32} others"
    return UsageError(message, hint=see)
