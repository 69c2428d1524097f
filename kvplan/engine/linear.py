"""Linear layers: weights kept in narrow panels, so that few rows stream through them at memory speed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.counter import Counter
from kvplan.engine.huge_pages import HugePages

PANEL = 64
# OpenBLAS multiplies without first copying its operands where rows x columns x inputs is at most this
# (its kernel/x86_64/sgemm_small_kernel_permit_skylakex.c); only its AVX-512 builds do.
_UNCOPIED_PRODUCT = 1_000_000
_AVX512_CORES = ("skylakex", "cooperlake", "sapphirerapids")
_AVX512_FEATURES = ("X86_V4", "AVX512_SKX")
# From here on copying costs less than adding up parts.
_MANY_ROWS = 48
# Partial results are summed while they are in the second-level cache.
_PARTIAL_ELEMENTS = 1 << 18
# Of all layers that are made in this process, of one model mostly.
_MEMORY = HugePages()


class Linear:
    """``x @ weight.T + bias`` for any number of rows.

    Args:
        weight: (outputs, inputs).
        bias: (outputs,), or ``None``.
        panel: outputs that are stored together.

    Attributes:
        nbytes: of the weight and the bias.
    """

    def __init__(
        self, weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None, *, panel: int = PANEL
    ) -> None:
        self.outputs, self.inputs = weight.shape
        self._panels, self._rest = into_panels(weight, panel)
        self._bias = bias
        self.nbytes = _nbytes(self._panels, self._rest, bias)

    @classmethod
    def joined(
        cls,
        weights: Sequence[NDArray[np.float32]],
        biases: Sequence[NDArray[np.float32] | None] = (),
        *,
        panel: int = PANEL,
    ) -> Linear:
        """Return one layer that makes the outputs of several, one after another.

        Raises:
            ValueError: some have a bias and some have none.
        """
        return cls(np.concatenate(weights), join_biases(biases), panel=panel)

    def __call__(self, x: NDArray[np.float32], counter: Counter) -> NDArray[np.float32]:
        """Return (rows, outputs) for x of (rows, inputs)."""
        out = multiply(x, self._panels, self._rest)
        if self._bias is not None:
            out += self._bias
        counter.matmul(len(x), self.inputs, self.outputs, self.nbytes)
        return out

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows of the weight with these numbers, (n, inputs): a tied model's embeddings.

        Raises:
            IndexError: a number is not that of a row.
        """
        if len(ids) and not 0 <= ids.min() <= ids.max() < self.outputs:
            raise IndexError(f"rows are numbered 0 to {self.outputs - 1}")
        width = self._panels.shape[2]
        in_panels = len(self._panels) * width
        found = np.empty((len(ids), self.inputs), np.float32)
        inside = ids < in_panels
        panel, column = np.divmod(ids[inside], width)
        found[inside] = self._panels[panel, :, column]
        found[~inside] = self._rest[:, ids[~inside] - in_panels].T
        return found


class StackedLinear:
    """Equal linear layers in one array, of which a call uses the ones its rows belong to.

    Args:
        weight: (layers, outputs, inputs).
        bias: (layers, outputs), or ``None``.
        panel: outputs that are stored together.

    Attributes:
        nbytes: of all the weights and biases.
    """

    def __init__(
        self, weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None, *, panel: int = PANEL
    ) -> None:
        self.layers, self.outputs, self.inputs = weight.shape
        self._panels, self._rest = into_panels(weight, panel)
        self._bias = bias
        self.nbytes = _nbytes(self._panels, self._rest, bias)

    def __call__(
        self, x: NDArray[np.float32], counts: NDArray[np.int64], counter: Counter
    ) -> NDArray[np.float32]:
        """Return (rows, outputs) for x of (rows, inputs), rows of the same layer together.

        Args:
            x: rows of the first layer, then of the second, and so on.
            counts: (layers,), how many rows belong to each.
            counter: counts the layers that have a row.
        """
        out = np.empty((len(x), self.outputs), np.float32)
        used = np.flatnonzero(counts)
        stops = np.cumsum(counts)[used].tolist()
        start = 0
        for layer, stop in zip(used.tolist(), stops, strict=True):
            out[start:stop] = multiply(x[start:stop], self._panels[layer], self._rest[layer])
            start = stop
        if self._bias is not None:
            out += np.repeat(self._bias, counts, axis=0)
        counter.matmul(len(x), self.inputs, self.outputs, len(used) * (self.nbytes // self.layers))
        return out


def join_biases(biases: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    """Return the biases one after another, or ``None`` where there are none.

    Raises:
        ValueError: some layers have a bias and some have none.
    """
    given = [bias for bias in biases if bias is not None]
    if len(given) != len(biases) and given:
        raise ValueError("layers can be joined when all of them have a bias or none has")
    return np.concatenate(given, axis=-1) if given else None


def _nbytes(*arrays: NDArray[np.float32] | None) -> int:
    return sum(array.nbytes for array in arrays if array is not None)


def into_panels(weight: NDArray[np.float32], panel: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (..., outputs, inputs) as panels (..., outputs // panel, inputs, panel) and the columns left."""
    *stack, outputs, inputs = weight.shape
    whole = outputs // panel * panel
    panels = _MEMORY.zeros((*stack, whole // panel, inputs, panel))
    panels[...] = weight[..., :whole, :].reshape(*stack, whole // panel, panel, inputs).swapaxes(-1, -2)
    rest = _MEMORY.zeros((*stack, inputs, outputs - whole))
    rest[...] = weight[..., whole:, :].swapaxes(-1, -2)
    return panels, rest


def multiply(
    x: NDArray[np.float32], panels: NDArray[np.float32], rest: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return x (rows, inputs) times one layer, as :func:`into_panels` cuts it: (rows, outputs)."""
    rows = len(x)
    if rows == 1 and has_uncopied_products():
        # A product of one row is a matrix-vector product, which is slower than one of two rows.
        x = _twice(x)
    count, _, width = panels.shape
    whole, left = count * width, rest.shape[1]
    out = np.empty((len(x), whole + left), np.float32)
    if count:
        _multiply_panels(x, panels, out[:, :whole].reshape(len(x), count, width).swapaxes(0, 1))
    if left:
        _multiply_panels(x, rest[np.newaxis], out[np.newaxis, :, whole:])
    return out[:rows]


def _twice(row: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a row (1, inputs) two times, (2, inputs)."""
    # Not by row.repeat: whose code is no other call's, and has left the cache when it is needed again.
    rows = np.empty((2, row.shape[1]), np.float32)
    rows[...] = row
    return rows


def _multiply_panels(x: NDArray[np.float32], panels: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write x (rows, inputs) times panels (count, inputs, width) to out (count, rows, width).

    Few rows are multiplied by parts of the inputs small enough for uncopied products.
    """
    rows, (count, inputs, width) = len(x), panels.shape
    in_parts = has_uncopied_products() and rows <= _MANY_ROWS
    parts = _parts(rows, inputs, width) if in_parts else 1
    if parts == 1:
        np.matmul(x, panels, out=out)
        return
    pieces = x.reshape(rows, parts, inputs // parts).swapaxes(0, 1)
    split = panels.reshape(count, parts, inputs // parts, width)
    group = max(1, _PARTIAL_ELEMENTS // (parts * rows * width))
    for first in range(0, count, group):
        last = first + group
        np.add.reduce(np.matmul(pieces, split[first:last]), axis=1, out=out[first:last])


@cache
def _parts(rows: int, inputs: int, width: int) -> int:
    """Return into how many equal parts to cut the inputs; 1 where none near enough divides them."""
    least = max(1, -(-rows * inputs * width // _UNCOPIED_PRODUCT))
    return next((parts for parts in range(least, 2 * least + 1) if inputs % parts == 0), 1)


@cache
def has_uncopied_products() -> bool:
    """Whether this NumPy's BLAS multiplies small matrices without copying them first.

    OpenBLAS does where it runs its AVX-512 kernels: on processors that have the instructions, unless
    OPENBLAS_CORETYPE chooses other kernels.
    """
    build = np.show_config(mode="dicts")
    if build is None or "openblas" not in str(
        build.get("Build Dependencies", {}).get("blas", {}).get("name")
    ):
        return False
    chosen = os.environ.get("OPENBLAS_CORETYPE")
    if chosen:
        return chosen.lower() in _AVX512_CORES
    extensions = build.get("SIMD Extensions", {})
    present = {*extensions.get("baseline", ()), *extensions.get("found", ())}
    return not present.isdisjoint(_AVX512_FEATURES)
