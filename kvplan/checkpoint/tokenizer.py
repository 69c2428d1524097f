"""From text to tokens and back, by the tokenizer that came with a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvplan.errors import UsageError
from kvplan.extra import required
from kvplan.specs.document import printable, read_start, shortened

# Tokens in front of a stream's first that decide whether its text begins with a space.
_TOKENS_BEFORE = 4
# What stands for bytes that are no whole character.
_REPLACEMENT = "\ufffd"
_LONGEST_REASON = 100
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class Tokenizer:
    """A tokenizer of a model.

    Args:
        inner: a ``tokenizers.Tokenizer``; it is changed not to cut or to fill up text.
        vocab_size: tokens that the model has an embedding of.
        stop_tokens: tokens behind which there is no more text.
        label: how a message names it.

    Raises:
        UsageError: it has tokens that the model has no embedding of.
    """

    def __init__(self, inner: Any, vocab_size: int, stop_tokens: frozenset[int], label: str) -> None:
        inner.no_truncation()
        inner.no_padding()
        self.size = 1 + max(inner.get_vocab(with_added_tokens=True).values(), default=-1)
        self.stop_tokens = stop_tokens
        self._inner = inner
        self._vocab_size = vocab_size
        self._label = label
        # Released tokenizers may have a token for images added behind the model's last (Gemma 3 1B): it is
        # refused only where a text has it.
        largest = max(inner.get_vocab(with_added_tokens=False).values(), default=-1)
        if largest >= vocab_size:
            raise UsageError(
                f"{label}: token {largest:,} is none of the model's {vocab_size:,}",
                hint="this tokenizer belongs to another model",
            )

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the tokens of a text, ``(tokens,)``, as transformers' tokenizer called with it alone.

        The text is taken as it is: no chat template is laid round it. What the tokenizer itself puts round
        every text (Llama 3: a token in front) is there, and special tokens written out in the text are
        those tokens.

        Raises:
            UsageError: it is no text in Unicode, or has a token that the model has no embedding of.
        """
        if _SURROGATE.search(text):
            raise UsageError("the text holds half of a surrogate pair: it is no text in Unicode")
        tokens = np.array(self._inner.encode(text).ids, np.int64)
        beyond = tokens[tokens >= self._vocab_size]
        if len(beyond):
            shown = printable(str(self._inner.id_to_token(int(beyond[0]))))[:40]
            message = f"{self._label}: token {beyond[0]:,} ('{shown}') is none of the model's"
            raise UsageError(f"{message} {self._vocab_size:,}, and the text has it")
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens, special ones included; bytes that are no character are U+FFFD."""
        return str(self._inner.decode([int(token) for token in tokens], skip_special_tokens=False))

    def stream(self, after: Sequence[int] | NDArray[np.int64] = ()) -> TextStream:
        """Return the text of tokens that come one by one, behind these."""
        return TextStream(self.decode, [int(token) for token in after[-_TOKENS_BEFORE:]])


class TextStream:
    """Text out of tokens that come one by one: only whole characters, each once.

    A token can end inside a character, and what it begins with can depend on the token before it. So the
    tokens since the last text given out, and those of that text, are decoded again with each new one.
    """

    def __init__(self, decode: Callable[[Iterable[int]], str], before: Sequence[int]) -> None:
        self._decode = decode
        self._tokens = list(before)
        self._given_out = len(before)

    def add(self, token: int) -> str:
        """Return the text that is final with one more token; nothing while it ends inside a character."""
        self._tokens.append(int(token))
        text = self._pending()
        return "" if text.endswith(_REPLACEMENT) else self._give_out(text)

    def rest(self) -> str:
        """Return the text that is left when no more tokens come."""
        return self._give_out(self._pending())

    def _pending(self) -> str:
        before = self._decode(self._tokens[: self._given_out])
        return self._decode(self._tokens)[len(before) :]

    def _give_out(self, text: str) -> str:
        if text:
            del self._tokens[: self._given_out]
            self._given_out = len(self._tokens)
        return text


def from_tokenizer_json(path: Path, vocab_size: int, stop_tokens: frozenset[int]) -> Tokenizer:
    """Return the tokenizer in a tokenizer.json of a model with so many tokens.

    Raises:
        FileError: the file cannot be read.
        UsageError: it is no tokenizer, or that of another model; the package is not installed.
    """
    label = printable(shortened(path))
    read_start(path, 1)
    package = required("tokenizers", "reading tokenizer.json")
    try:
        inner = package.Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 (the package raises no class of its own)
        reason = printable(str(error))[:_LONGEST_REASON]
        raise UsageError(f"{label}: no tokenizer: {reason}") from None
    return Tokenizer(inner, vocab_size, stop_tokens, label)
