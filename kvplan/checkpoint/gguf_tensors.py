"""Tensors out of a GGUF file, memory-mapped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvplan.checkpoint.tensor_file import F32
from kvplan.errors import UsageError
from kvplan.extra import required
from kvplan.specs.gguf_header import GgufHeader

# Types whose values are known here to be what ggml makes of them.
READ = (
    *("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"),
)


class GgufFile:
    """The tensors of a GGUF file by the names it has for them.

    Raises:
        UsageError: one is stored in a type that is not read here; the package is not installed.
    """

    def __init__(self, header: GgufHeader) -> None:
        self.label = header.label
        self._gguf = required("gguf", "reading the weights of GGUF files")
        self._tensors = {tensor.name: tensor for tensor in header.tensors}
        for tensor in header.tensors:
            if tensor.type.name not in READ:
                message = f"{self.label}: tensor {tensor.name!r} is stored as {tensor.type.name}"
                raise UsageError(message, hint=f"weights are read in {', '.join(READ)}")
        self._bytes: NDArray[np.uint8] = np.memmap(header.path, np.uint8, mode="r")

    def names(self) -> tuple[str, ...]:
        """Return the name of every tensor, in the order of the file."""
        return tuple(self._tensors)

    def place(self, name: str) -> str:
        """Return the file's own label: it holds every tensor."""
        return self.label

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, outputs first."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> str:
        """Return the weight format a tensor is stored in: ``q4_1``."""
        return self._tensors[name].type.format

    def read(self, name: str) -> F32:
        """Return the values of a tensor, in an array of its own."""
        tensor = self._tensors[name]
        stored = self._bytes[tensor.start : tensor.start + tensor.bytes]
        rows = stored.reshape(*tensor.shape[:-1], -1)
        found = self._gguf.dequantize(rows, self._gguf.GGMLQuantizationType[tensor.type.name])
        return np.array(found, np.float32).reshape(tensor.shape)
