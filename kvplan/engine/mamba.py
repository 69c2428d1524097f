"""Mamba at run time: a short convolution, and small states that each token lets decay and adds to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.activation import Activation
from kvplan.arch.mamba import Mamba, StateNorm
from kvplan.engine.activations import activate, softplus
from kvplan.engine.arrays import Float
from kvplan.engine.causal_convolution import CausalConvolution
from kvplan.engine.counter import Counter
from kvplan.engine.described_weights import require_shapes
from kvplan.engine.linear import Linear
from kvplan.engine.norms import RMSNorm, scale_to_unit
from kvplan.engine.recurrence import recur


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What the recurrence needs of some tokens.

    Args:
        rates: (channels, state), how fast each number of a state decays, below zero.
        steps: (tokens, channels), how far a token takes the state on.
        inputs: (tokens, channels), what it adds, times its step.
        writers: (tokens, state), where it adds it.
        readers: (tokens, state), what it reads.
    """

    rates: Float
    steps: Float
    inputs: Float
    writers: Float
    readers: Float

    def advance(self, state: Float, token: int | slice) -> Float:
        """Take the state (..., channels, state) one token on, and return what it reads, (..., channels).

        Equations 2a and 2b of arXiv 2312.00752, with the rates and inputs of its algorithm 2.
        """
        decays = self.steps[token][..., np.newaxis] * self.rates
        state *= np.exp(decays, out=decays)
        state += self.inputs[token][..., np.newaxis] * self.writers[token][..., np.newaxis, :]
        read: Float = np.matmul(state, self.readers[token][..., np.newaxis])
        return read[..., 0]


class MambaBlock:
    """One Mamba with its weights.

    Args:
        arch: its description.
        weights: the layer's weights by name.
        hidden_size: width of the residual stream.
        eps: added to the mean square by the model's norms.

    Raises:
        ValueError: a weight has not the shape of the description.
    """

    def __init__(self, arch: Mamba, weights: Mapping[str, Float], hidden_size: int, eps: float) -> None:
        require_shapes(arch.weights(hidden_size), weights)
        self._arch = arch
        self._in = Linear(weights["mamba.in_proj.weight"], weights.get("mamba.in_proj.bias"))
        self._convolution = CausalConvolution(
            weights["mamba.conv1d.weight"], weights.get("mamba.conv1d.bias")
        )
        self._x = Linear(weights["mamba.x_proj.weight"])
        self._dt = Linear(weights["mamba.dt_proj.weight"], weights["mamba.dt_proj.bias"])
        self._rates = -np.exp(weights["mamba.A_log"])
        self._skip = weights["mamba.D"]
        self._out = Linear(weights["mamba.out_proj.weight"], weights.get("mamba.out_proj.bias"))
        self._eps = arch.state_norm_eps or eps
        names = ("dt", "b", "c") if arch.state_norm is StateNorm.RMS else ()
        self._norms = [RMSNorm(weights[f"mamba.{name}_layernorm.weight"], self._eps) for name in names]

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        projections = sum(linear.nbytes for linear in (self._in, self._x, self._dt, self._out))
        return projections + sum(norm.nbytes for norm in self._norms) + self._own_nbytes

    @property
    def _own_nbytes(self) -> int:
        return self._convolution.nbytes + self._rates.nbytes + self._skip.nbytes

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
            conv: (all slots, channels, columns), the last inputs of the convolution, changed in place.
            recurrent: (all slots, elements), the states, C-contiguous, changed in place.
            slots: (sequences,), where each one's states are; no two the same.
            counter: counts the products with weights and with the states.
        """
        width = self._arch.intermediate_size
        projected = self._in(x, counter)
        convolved = self._convolution(projected[:, :width], lengths, conv, slots)
        convolved = activate(Activation.SILU, convolved)
        said = np.empty(convolved.shape, np.float32)
        states = recurrent.reshape(len(recurrent), width, self._arch.state_size)
        recur(self._tokens(convolved, counter), lengths, states, slots, said)
        self._count(len(x), len(slots) * (conv[0].nbytes + recurrent[0].nbytes), counter)
        convolved *= self._skip
        said += convolved
        said *= activate(Activation.SILU, projected[:, width:])
        return self._out(said, counter)

    def _count(self, rows: int, touched: int, counter: Counter) -> None:
        """Count the convolution, the state's two products (one update, one reading), and the states."""
        counter.attention(rows * (self._convolution.flops + 4 * self._rates.size))
        counter.read_weights(self._own_nbytes)
        counter.read_cache(touched)
        counter.write_cache(touched)

    def _tokens(self, convolved: Float, counter: Counter) -> _Tokens:
        rank, size = self._arch.time_step_rank, self._arch.state_size
        parts = np.split(self._x(convolved, counter), (rank, rank + size), axis=1)
        match self._arch.state_norm:
            case StateNorm.RMS:
                parts = [norm(part, counter) for norm, part in zip(self._norms, parts, strict=True)]
            case StateNorm.UNIT:
                parts = [scale_to_unit(part, np.float32(self._eps)) for part in parts]
        steps = softplus(self._dt(parts[0], counter))
        return _Tokens(self._rates, steps, steps * convolved, parts[1], parts[2])
