"""What a GGUF file says of its tokenizer, checked: tokens, merges, scores, and which tokens are special."""

from __future__ import annotations

from collections.abc import Iterator

from kvplan.specs.document import quoted, shown
from kvplan.specs.gguf_header import GgufHeader, Value

_PREFIX = "tokenizer.ggml."
# gguf, constants.py, TokenType: where they stand in a text these are the token; only the first are special.
CONTROL, USER_DEFINED = 3, 4
_TYPES = range(7)
_STOPS = ("eos_token_id", "eot_token_id", "eom_token_id")


class Vocabulary:
    """The keys of a file's tokenizer; each is named here without what all begin with."""

    def __init__(self, header: GgufHeader, vocab_size: int) -> None:
        """Look at a file whose model has so many tokens.

        Raises:
            UsageError: it has no tokens, others than the model, or one twice.
        """
        self.header = header
        if f"{_PREFIX}model" not in header.metadata:
            header.refuse("it has no tokenizer", hint="its weights can be planned, not run on text")
        self.tokens = self._texts("tokens")
        if len(self.tokens) != vocab_size:
            count = len(self.tokens)
            header.refuse(f"its tokenizer has {count:,} tokens, its model {vocab_size:,}: they do not match")
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            twice = next(token for index, token in enumerate(self.tokens) if self.ids[token] != index)
            header.refuse(f"token {quoted(twice)} is there twice")

    def _get(self, key: str) -> Value | None:
        return self.header.metadata.get(f"{_PREFIX}{key}")

    def _texts(self, key: str) -> tuple[str, ...]:
        found = self._get(key)
        if not isinstance(found, tuple):
            self.header.refuse(f"'{_PREFIX}{key}' is required, a list of texts")
        texts = tuple(one for one in found if isinstance(one, str))
        if len(texts) != len(found):
            self.header.refuse(f"{_PREFIX}{key}: expected a list of texts")
        return texts

    def text(self, key: str, default: str) -> str:
        """Return the text under a key."""
        found = self._get(key)
        if found is None:
            return default
        if not isinstance(found, str):
            self.header.refuse(f"{_PREFIX}{key}: expected text, not {shown(found)}")
        return found

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false under a key."""
        found = self._get(key)
        if found is None:
            return default
        if not isinstance(found, bool):
            self.header.refuse(f"{_PREFIX}{key}: expected true or false, not {shown(found)}")
        return found

    def token(self, key: str) -> int | None:
        """Return the token under a key; ``None`` where it is not there."""
        found = self._get(key)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < len(self.tokens):
            self.header.refuse(f"{_PREFIX}{key}: {shown(found)} is none of the {len(self.tokens):,} tokens")
        return found

    def required_token(self, key: str, why: str) -> int:
        """Return the token under a key that has to be there."""
        found = self.token(key)
        if found is None:
            self.header.refuse(f"'{_PREFIX}{key}' is required: {why}")
        return found

    def stop_tokens(self) -> frozenset[int]:
        """Return the tokens behind which there is no more text."""
        found = (self.token(key) for key in _STOPS)
        return frozenset(token for token in found if token is not None)

    def added(self) -> Iterator[tuple[str, bool]]:
        """Iterate over tokens that are themselves where a text has them, and whether each is special."""
        types = self._numbers("token_type")
        if types and any(kind not in _TYPES for kind in types):
            self.header.refuse(f"{_PREFIX}token_type: a token is of a kind that is not understood")
        for token, kind in zip(self.tokens, types, strict=bool(types)):
            if kind in (CONTROL, USER_DEFINED) and token:
                yield token, kind == CONTROL

    def _numbers(self, key: str) -> tuple[float, ...]:
        """Return the numbers under a key, one for each token; empty where it is not there."""
        found = self._get(key)
        if found is None:
            return ()
        if not isinstance(found, tuple) or len(found) != len(self.tokens):
            self.header.refuse(f"{_PREFIX}{key}: expected a number for each of the tokens")
        numbers = tuple(n for n in found if isinstance(n, int | float) and not isinstance(n, bool))
        if len(numbers) != len(found):
            self.header.refuse(f"{_PREFIX}{key}: expected a list of numbers")
        return numbers

    def merges(self) -> list[tuple[str, str]]:
        """Return the pairs that are joined, the first one first.

        Raises:
            UsageError: a merge is no pair of tokens that are one together.
        """
        found = []
        for merge in self._texts("merges"):
            first, _, second = merge[1:].partition(" ")
            pair = merge[:1] + first, second
            if any(token not in self.ids for token in (*pair, "".join(pair))):
                self.header.refuse(f"{_PREFIX}merges: {quoted(merge)} is no pair of tokens that are one")
            found.append(pair)
        return found

    def merges_by_score(self) -> list[tuple[str, str]]:
        """Return every pair of tokens that are one together, those that make the best token first."""
        scores = self._numbers("scores")
        if not scores:
            self.header.refuse(f"'{_PREFIX}scores' is required, a number for each token")
        best = sorted(range(len(scores)), key=lambda index: -scores[index])
        return [pair for index in best for pair in self._pairs(self.tokens[index])]

    def _pairs(self, token: str) -> Iterator[tuple[str, str]]:
        for cut in range(1, len(token)):
            if token[:cut] in self.ids and token[cut:] in self.ids:
                yield token[:cut], token[cut:]
