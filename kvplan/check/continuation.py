"""A text that a released model has read, and what it added to it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kvplan.check.beside_transformers import BesideTransformers

# What a terminal may obey; tabs and line breaks stay.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Continuation:
    """A text read and continued.

    Args:
        read: the text that was read.
        whole_tokens: tokens of the text it is the beginning of.
        added: the text added to it; a stop token is none.
        stopped: whether a stop token ended it.
        streamed: whether the text was shown as it was made.
        beside: what transformers makes of the same tokens.
    """

    read: str
    whole_tokens: int
    added: str
    stopped: bool
    streamed: bool
    beside: BesideTransformers


def shown_text(text: str) -> str:
    """Return a text with its control characters as escapes: a model may write what a terminal obeys."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
