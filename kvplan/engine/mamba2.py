"""Mamba-2 at run time: a short convolution, and a matrix a head that each token lets decay and adds to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.activation import Activation
from kvplan.arch.mamba2 import GateNorm, Mamba2
from kvplan.engine.activations import activate, softplus
from kvplan.engine.arrays import Float
from kvplan.engine.causal_convolution import CausalConvolution
from kvplan.engine.counter import Counter
from kvplan.engine.described_weights import require_shapes
from kvplan.engine.linear import Linear
from kvplan.engine.norms import scale_to_unit
from kvplan.engine.recurrence import recur


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What the recurrence needs of some tokens; heads are grouped by what they share.

    Args:
        decays: (tokens, groups, heads, 1, 1), what is left of the state.
        inputs: (tokens, groups, heads, head_dim, 1), what a token adds, times its step.
        writers: (tokens, groups, 1, 1, state), where it adds it.
        readers: (tokens, groups, state, 1), what it reads.
    """

    decays: Float
    inputs: Float
    writers: Float
    readers: Float

    def advance(self, state: Float, token: int | slice) -> Float:
        """Take the state (..., groups, heads, head_dim, state) one token on, and return what it reads.

        Equation 1 of arXiv 2405.21060, with one rate of decay a head. The result is (..., groups,
        heads x head_dim).
        """
        state *= self.decays[token]
        state += self.inputs[token] * self.writers[token]
        rows = state.reshape(*state.shape[:-3], -1, state.shape[-1])
        read: Float = np.matmul(rows, self.readers[token])
        return read[..., 0]


class Mamba2Block:
    """One Mamba-2 with its weights.

    Args:
        arch: its description.
        weights: the layer's weights by name.
        hidden_size: width of the residual stream.
        eps: added to the mean square by the norm of the output.

    Raises:
        ValueError: a weight has not the shape of the description.
    """

    def __init__(self, arch: Mamba2, weights: Mapping[str, Float], hidden_size: int, eps: float) -> None:
        require_shapes(arch.weights(hidden_size), weights)
        self._arch = arch
        names = ("mamba.in_proj", "mamba.in_proj_groups")
        self._in = Linear.joined(
            [weights[f"{name}.weight"] for name in names], [weights.get(f"{name}.bias") for name in names]
        )
        self._multipliers = None if arch.ssm_multipliers is None else _by_row(arch)
        self._convolution = _convolution(weights)
        self._rates = -np.exp(weights["mamba.A_log"])
        self._step_bias, self._skip = weights["mamba.dt_bias"], weights["mamba.D"]
        self._norm_scale, self._eps = weights.get("mamba.norm.weight"), np.float32(eps)
        self._out = Linear(weights["mamba.out_proj.weight"], weights.get("mamba.out_proj.bias"))

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        scale = 0 if self._norm_scale is None else self._norm_scale.nbytes
        return self._in.nbytes + self._out.nbytes + scale + self._own_nbytes

    @property
    def _own_nbytes(self) -> int:
        of_heads = self._rates.nbytes + self._step_bias.nbytes + self._skip.nbytes
        return self._convolution.nbytes + of_heads

    def __call__(
        self,
        x: Float,
        lengths: Sequence[int],
        conv: Float,
        recurrent: Float,
        slots: NDArray[np.int64],
        counter: Counter,
    ) -> Float:
        """Return (rows, hidden) for x of (rows, hidden); arguments as :meth:`MambaBlock.__call__`'s."""
        arch, rows, width = self._arch, len(x), self._arch.width
        projected = self._in(x, counter)
        if self._multipliers is not None:
            projected *= self._multipliers
        gate, passing = projected[:, :width], projected[:, width : 2 * width]
        steps, shared = (
            projected[:, 2 * width : 2 * width + arch.num_heads],
            projected[:, -2 * arch.group_width :],
        )
        mixed = np.concatenate((passing, shared), axis=1)
        convolved = activate(Activation.SILU, self._convolution(mixed, lengths, conv, slots))
        grouped = (arch.n_groups, arch.num_heads // arch.n_groups, arch.head_dim, arch.state_size)
        said = np.empty((rows, arch.n_groups, width // arch.n_groups), np.float32)
        tokens = self._tokens(convolved, softplus(steps + self._step_bias))
        recur(tokens, lengths, recurrent.reshape(len(recurrent), *grouped), slots, said)
        self._count(rows, len(slots) * (conv[0].nbytes + recurrent[0].nbytes), recurrent[0].size, counter)
        by_head = convolved[:, :width].reshape(rows, arch.num_heads, arch.head_dim)
        by_head *= self._skip[:, np.newaxis]
        output = said.reshape(rows, width)
        output += by_head.reshape(rows, width)
        return self._out(self._gated(output, gate, counter), counter)

    def _count(self, rows: int, touched: int, state_size: int, counter: Counter) -> None:
        """Count the convolution, the state's two products (one update, one reading), and the states."""
        counter.attention(rows * (self._convolution.flops + 4 * state_size))
        counter.read_weights(self._own_nbytes)
        counter.read_cache(touched)
        counter.write_cache(touched)

    def _tokens(self, convolved: Float, steps: Float) -> _Tokens:
        arch, rows, width = self._arch, len(convolved), self._arch.width
        by_head = (rows, arch.n_groups, arch.num_heads // arch.n_groups)
        inputs = convolved[:, :width].reshape(rows, arch.num_heads, arch.head_dim) * steps[..., np.newaxis]
        written, read = np.split(convolved[:, width:].reshape(rows, 2 * arch.n_groups, -1), 2, axis=1)
        return _Tokens(
            np.exp(self._rates * steps).reshape(*by_head, 1, 1),
            inputs.reshape(*by_head, arch.head_dim, 1),
            written[:, :, np.newaxis, np.newaxis],
            read[..., np.newaxis],
        )

    def _gated(self, output: Float, gate: Float, counter: Counter) -> Float:
        """Return the output (rows, width) times its activated gate, normalised in groups before or after."""
        gates = activate(Activation.SILU, np.ascontiguousarray(gate))
        match self._arch.gate_norm:
            case GateNorm.AFTER_GATE:
                output *= gates
                return self._normed(output, counter)
            case GateNorm.BEFORE_GATE:
                output = self._normed(output, counter)
        output *= gates
        return output

    def _normed(self, output: Float, counter: Counter) -> Float:
        """Return the output with each group's part normalised by itself (arXiv 1910.07467)."""
        assert self._norm_scale is not None
        grouped = output.reshape(len(output), self._arch.n_groups, -1)
        normed = scale_to_unit(grouped, self._eps).reshape(output.shape)
        normed *= self._norm_scale
        counter.read_weights(self._norm_scale.nbytes)
        return normed


def _convolution(weights: Mapping[str, Float]) -> CausalConvolution:
    """Return the convolution of heads' channels and groups' channels as one."""
    names = ("mamba.conv1d", "mamba.conv1d_groups")
    biases = [weights[f"{name}.bias"] for name in names if f"{name}.bias" in weights]
    filters = np.concatenate([weights[f"{name}.weight"] for name in names])
    return CausalConvolution(filters, np.concatenate(biases) if biases else None)


def _by_row(arch: Mamba2) -> Float:
    """Return what each projected number is multiplied by, in the order of the projection."""
    assert arch.ssm_multipliers is not None
    gate, passing, written, read, steps = arch.ssm_multipliers
    factors = (gate, passing, steps, written, read)
    widths = (arch.width, arch.width, arch.num_heads, arch.group_width, arch.group_width)
    return np.repeat(np.array(factors, np.float32), widths)
