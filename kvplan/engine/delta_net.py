"""The gated delta net at run time: a short convolution, and a state that each token decays and corrects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.activation import Activation
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.engine.activations import activate, sigmoid, softplus
from kvplan.engine.arrays import Float
from kvplan.engine.causal_convolution import CausalConvolution
from kvplan.engine.counter import Counter
from kvplan.engine.described_weights import require_shapes
from kvplan.engine.linear import Linear
from kvplan.engine.norms import GatedRMSNorm, to_unit_length
from kvplan.engine.recurrence import recur


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What the recurrence needs of some tokens; value heads are grouped by the key head they share.

    Args:
        readers: (tokens, key heads, 1, 2, key_dim), the key and the query of each head.
        overlaps: (tokens, key heads, 1, 1), the product of each key with its query.
        values: (tokens, key heads, group, value_dim).
        strengths: (tokens, key heads, group, 1), how much of a correction is written.
        decays: (tokens, key heads, group, 1, 1), what is left of the state.
    """

    readers: Float
    overlaps: Float
    values: Float
    strengths: Float
    decays: Float

    def advance(self, state: Float, token: int | slice) -> Float:
        """Take the state (..., key heads, group, key_dim, value_dim) one token on, and return what it says.

        The delta rule of arXiv 2412.06464, equation 10. The query's reading of the new state is that of the
        old one plus its share of the correction, so the old state is read once for both.
        """
        readers, decays = self.readers[token], self.decays[token]
        read = np.matmul(readers, state)
        read *= decays
        correction: Float = self.values[token] - read[..., 0, :]
        correction *= self.strengths[token]
        state *= decays
        state += readers[..., 0, :, np.newaxis] * correction[..., np.newaxis, :]
        correction *= self.overlaps[token]
        correction += read[..., 1, :]
        return correction


class DeltaNetBlock:
    """One gated delta net with its weights, its projections' rows in the order the arithmetic wants.

    Args:
        arch: its description.
        weights: the layer's weights by name.
        hidden_size: width of the residual stream.
        eps: added to the mean square by the model's norms.

    Raises:
        ValueError: a weight has not the shape of the description.
    """

    def __init__(
        self, arch: GatedDeltaNet, weights: Mapping[str, Float], hidden_size: int, eps: float
    ) -> None:
        require_shapes(arch.weights(hidden_size), weights)
        self._arch = arch
        self._group = arch.linear_num_value_heads // arch.linear_num_key_heads
        self._qkvz = Linear(weights["linear_attn.in_proj_qkvz.weight"][self._qkvz_order()])
        self._ba = Linear(weights["linear_attn.in_proj_ba.weight"][self._ba_order()])
        self._convolution = CausalConvolution(weights["linear_attn.conv1d.weight"])
        self._rates = -np.exp(weights["linear_attn.A_log"])
        self._step_bias = weights["linear_attn.dt_bias"]
        self._norm = GatedRMSNorm(weights["linear_attn.norm.weight"], arch.norm_eps or eps)
        self._out = Linear(weights["linear_attn.out_proj.weight"])

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        projections = self._qkvz.nbytes + self._ba.nbytes + self._out.nbytes
        return projections + self._norm.nbytes + self._own_nbytes

    @property
    def _own_nbytes(self) -> int:
        return self._convolution.nbytes + self._rates.nbytes + self._step_bias.nbytes

    def _qkvz_order(self) -> NDArray[np.int64]:
        """Return the rows of the projection as all queries, keys, values and gates; they come by key head."""
        key, value = self._arch.linear_key_head_dim, self._group * self._arch.linear_value_head_dim
        return _by_part(self._arch.linear_num_key_heads, (key, key, value, value))

    def _ba_order(self) -> NDArray[np.int64]:
        """Return the rows of the projection as all strengths, then all steps; they come by key head."""
        return _by_part(self._arch.linear_num_key_heads, (self._group, self._group))

    def __call__(
        self,
        x: Float,
        lengths: Sequence[int],
        conv: Float,
        recurrent: Float,
        slots: NDArray[np.int64],
        counter: Counter,
    ) -> Float:
        """Return (rows, hidden) for x of (rows, hidden), and take the states over the tokens.

        Args:
            x: the new tokens of each sequence, one sequence after another.
            lengths: (sequences,), new tokens of each.
            conv: (all slots, channels, kernel), the last inputs of the convolution, changed in place.
            recurrent: (all slots, value heads, key_dim, value_dim), the states, changed in place.
            slots: (sequences,), where each one's states are; no two the same.
            counter: counts the products with weights and with the states.

        Raises:
            ValueError: ``recurrent`` is not C-contiguous, so a view of it by key head would be a copy.
        """
        if not recurrent.flags.c_contiguous:
            raise ValueError("recurrent states must be C-contiguous")
        channels = self._arch.conv_channels
        projected = self._qkvz(x, counter)
        mixed, gate = projected[:, :channels], projected[:, channels:]
        convolved = activate(Activation.SILU, self._convolution(mixed, lengths, conv, slots))
        tokens = self._tokens(convolved, self._ba(x, counter))
        said = self._recurred(tokens, lengths, recurrent, slots)
        touched = len(slots) * (conv[0].nbytes + recurrent[0].nbytes)
        self._count(len(x), touched, recurrent[0].size, counter)
        heads = (len(x), self._arch.linear_num_value_heads, self._arch.linear_value_head_dim)
        normed = self._norm(said.reshape(heads), gate.reshape(heads), counter)
        return self._out(normed.reshape(len(x), -1), counter)

    def _count(self, rows: int, touched: int, state_size: int, counter: Counter) -> None:
        """Count the convolution, the state's three products (two reads, one update), and the states."""
        counter.attention(rows * (self._convolution.flops + 6 * state_size))
        counter.read_weights(self._own_nbytes)
        counter.read_cache(touched)
        counter.write_cache(touched)

    def _tokens(self, convolved: Float, ba: Float) -> _Tokens:
        arch, rows, group = self._arch, len(convolved), self._group
        key_heads, width = arch.linear_num_key_heads, arch.key_width
        per_key = (rows, key_heads, arch.linear_key_head_dim)
        queries = to_unit_length(convolved[:, :width].reshape(per_key))
        queries *= np.float32(arch.linear_key_head_dim**-0.5)
        keys = to_unit_length(convolved[:, width : 2 * width].reshape(per_key))
        values = convolved[:, 2 * width :].reshape(rows, key_heads, group, arch.linear_value_head_dim)
        steps = ba[:, arch.linear_num_value_heads :] + self._step_bias
        decays = np.exp(self._rates * softplus(steps))
        strengths = sigmoid(ba[:, : arch.linear_num_value_heads])
        if arch.negative_eigenvalues:
            strengths *= 2
        return _Tokens(
            np.stack((keys, queries), axis=2)[:, :, np.newaxis],
            np.matmul(keys[..., np.newaxis, :], queries[..., np.newaxis]),
            values,
            strengths.reshape(rows, key_heads, group, 1),
            decays.reshape(rows, key_heads, group, 1, 1),
        )

    def _recurred(
        self,
        tokens: _Tokens,
        lengths: Sequence[int],
        recurrent: Float,
        slots: NDArray[np.int64],
    ) -> Float:
        """Return what each token reads from its sequence's state, (rows, key heads, group, value_dim)."""
        by_key_head = (self._arch.linear_num_key_heads, self._group, *recurrent.shape[2:])
        said = np.empty(tokens.values.shape, np.float32)
        recur(tokens, lengths, recurrent.reshape(len(recurrent), *by_key_head), slots, said)
        return said


def _by_part(heads: int, parts: tuple[int, ...]) -> NDArray[np.int64]:
    """Return row numbers that bring the same part of every head together."""
    rows = np.arange(heads * sum(parts)).reshape(heads, -1)
    return np.concatenate([part.ravel() for part in np.split(rows, np.cumsum(parts)[:-1], axis=1)])
