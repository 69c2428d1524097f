"""The keys of a GGUF file under interpretation: typed reading, and a memory of which were understood."""

from __future__ import annotations

from math import isfinite
from typing import NoReturn

from kvplan.checks import LARGEST_SIZE
from kvplan.specs.config import LARGEST_NUMBER
from kvplan.specs.document import quoted, shown
from kvplan.specs.gguf_header import GgufHeader, GgufTensor, Value

# What files say of themselves, of their tokenizer and of how they were made.
_HARMLESS = ("general.", "tokenizer.", "quantize.imatrix.")


class Keys:
    """The keys that describe the architecture; each is named here without the architecture before it."""

    def __init__(self, header: GgufHeader) -> None:
        """Look at a file.

        Raises:
            UsageError: it does not name its architecture.
        """
        architecture = header.metadata.get("general.architecture")
        if not isinstance(architecture, str):
            header.refuse("'general.architecture' is required")
        self.header = header
        self.architecture = architecture
        self._tensors = {tensor.name: tensor for tensor in header.tensors}
        self._understood: set[str] = set()

    def refuse(self, key: str, message: str) -> NoReturn:
        """Raise the error that names a key."""
        self.header.refuse(f"{self.architecture}.{key}: {message}")

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return f"{self.architecture}.{key}" in self.header.metadata

    def is_zero(self, key: str) -> bool:
        """Whether the key is there with a 0, which some writers mean absence by."""
        return self._get(key) == 0

    def _get(self, key: str) -> Value | None:
        name = f"{self.architecture}.{key}"
        self._understood.add(name)
        return self.header.metadata.get(name)

    def integer(self, key: str, default: int | None = None) -> int:
        """Return the positive integer under the key; a list that says the same of every layer is one."""
        value = self._get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self.header.refuse(f"'{self.architecture}.{key}' is required")
        if isinstance(value, tuple):
            if len(set(value)) != 1:
                self.refuse(key, "layers that differ are not understood")
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_SIZE:
            self.refuse(key, f"expected a whole number from 1 to {LARGEST_SIZE:,}, not {shown(value)}")
        return value

    def integers(self, key: str, length: int) -> tuple[int, ...]:
        """Return the whole numbers from 0 under the key, one for each of so many layers."""
        value = self._get(key)
        if not isinstance(value, tuple) or len(value) != length:
            self.refuse(key, f"expected a list with a number for each of the {length:,} layers")
        found = tuple(n for n in value if isinstance(n, int) and 0 <= n <= LARGEST_SIZE)
        if len(found) != length:
            self.refuse(key, "expected whole numbers")
        return found

    def number(self, key: str, default: float | None = None) -> float:
        """Return the number above 0 under the key."""
        value = self._get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self.header.refuse(f"'{self.architecture}.{key}' is required")
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            self.refuse(key, f"expected a number, not {shown(value)}")
        if not 0 < value <= LARGEST_NUMBER:
            self.refuse(key, f"expected a number above 0 and up to {LARGEST_NUMBER:,.0f}, not {shown(value)}")
        return float(value)

    def text(self, key: str, default: str) -> str:
        """Return the text under the key."""
        value = self._get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.refuse(key, f"expected text, not {shown(value)}")
        return value

    def only(self, key: str, *allowed: Value) -> None:
        """Refuse any other value of a key that may be missing."""
        value = self._get(key)
        if value is not None and value not in allowed:
            expected = " or ".join(shown(one) for one in allowed)
            self.refuse(key, f"{shown(value)} is not understood, only {expected}")

    def tensor(self, name: str) -> GgufTensor | None:
        """Return a tensor by its name."""
        return self._tensors.get(name)

    def has_tensor(self, ending: str) -> bool:
        """Whether the file has a tensor whose name ends so."""
        return any(name.endswith(ending) for name in self._tensors)

    def finish(self) -> None:
        """Refuse what nobody read: it might change what is cached or multiplied.

        Raises:
            UsageError: a key is not understood, or the file is one of several.
        """
        pieces = self.header.metadata.get("split.count", 0)
        if pieces not in (0, 1):
            message = f"it is one of {shown(pieces)} files of a model"
            self.header.refuse(message, hint="join them with llama-gguf-split --merge")
        for name in self.header.metadata:
            if name not in self._understood and not name.startswith((*_HARMLESS, "split.")):
                self.header.refuse(f"key {quoted(name)} is not understood")
