"""A causal convolution of each channel by itself, over inputs that each sequence keeps between steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.arrays import Float


class CausalConvolution:
    """Each channel's sum of its last inputs by a filter of its own.

    Args:
        weight: (channels, 1, kernel), the filters; the newest input is multiplied by the last column.
        bias: (channels,), or ``None``.
    """

    def __init__(self, weight: Float, bias: Float | None = None) -> None:
        self._filters, self._bias = np.ascontiguousarray(weight[:, 0].T), bias

    @property
    def nbytes(self) -> int:
        """Bytes of the filters and the bias."""
        return self._filters.nbytes + (0 if self._bias is None else self._bias.nbytes)

    @property
    def flops(self) -> int:
        """Operations of one token."""
        return 2 * self._filters.size

    def __call__(self, x: Float, lengths: Sequence[int], inputs: Float, slots: NDArray[np.int64]) -> Float:
        """Return (rows, channels) for x of (rows, channels), and take the inputs over the tokens.

        Args:
            x: the new tokens of each sequence, one sequence after another.
            lengths: (sequences,), new tokens of each.
            inputs: (all slots, channels, columns), the last inputs, changed in place; columns are the
                kernel or one less, as no token needs the oldest.
            slots: (sequences,), where each one's inputs are; no two the same.
        """
        out = np.empty(x.shape, np.float32)
        if np.all(np.equal(lengths, 1)):
            kept = inputs[slots]
            self._convolve(x[:, np.newaxis], kept, out[:, np.newaxis])
            inputs[slots] = kept
        else:
            start = 0
            for length, slot in zip(lengths, slots, strict=True):
                stop = start + length
                self._convolve(x[start:stop], inputs[slot], out[start:stop])
                start = stop
        if self._bias is not None:
            out += self._bias
        return out

    def _convolve(self, x: Float, kept: Float, out: Float) -> None:
        """Write the sums of new tokens (..., tokens, channels) to ``out``, and move ``kept`` on.

        ``kept`` is (..., channels, columns).
        """
        tokens, kernel, columns = x.shape[-2], len(self._filters), kept.shape[-1]
        joined = np.concatenate((kept.swapaxes(-1, -2), x), axis=-2)
        first = columns - kernel + 1
        np.multiply(joined[..., first : first + tokens, :], self._filters[0], out=out)
        for lag in range(1, kernel):
            out += joined[..., first + lag : first + lag + tokens, :] * self._filters[lag]
        kept[...] = joined[..., tokens:, :].swapaxes(-1, -2)
