"""What every file of weights is to its readers: tensors by name, given back in float32."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvplan.specs.document import printable

F32: TypeAlias = NDArray[np.float32]

_LONGEST_NAME = 120


class TensorFile(Protocol):
    """A file, or several that belong together, whose tensors have the names that Hugging Face's have."""

    @property
    def label(self) -> str:
        """How a message names it."""

    def names(self) -> tuple[str, ...]:
        """Return the name of every tensor."""

    def place(self, name: str) -> str:
        """Return the label of the file that holds a tensor: one of several, where there are."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, output features first."""

    def dtype(self, name: str) -> str:
        """Return the number format or weight format a tensor is stored in: ``bf16``, ``q8_0``.

        Raises:
            UsageError: it is in none that is understood.
        """

    def read(self, name: str) -> F32:
        """Return the values of a tensor, in an array of its own.

        Raises:
            UsageError: it is stored in a format that is not understood.
        """


def shown_name(name: str) -> str:
    """Return a tensor's name in quotes as a message shows it: printable, and cut where it is long."""
    text = printable(name)
    return f"'{text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 3] + '...'}'"


def shown_shape(shape: tuple[int, ...]) -> str:
    """Return a shape as people write it: ``14,336 x 4,096``."""
    return " x ".join(f"{length:,}" for length in shape) or "a single number"
