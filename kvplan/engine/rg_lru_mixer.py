"""The recurrent block of Griffin at run time: one branch convolved and recurred, gated by the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kvplan.arch.rg_lru import RgLru
from kvplan.engine.activations import activate, sigmoid, softplus
from kvplan.engine.arrays import Float
from kvplan.engine.causal_convolution import CausalConvolution
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.recurrence import recur
from kvplan.engine.step import Step

_BLOCK = "temporal_block"
# The power of the recurrent gate: c of arXiv 2402.19427, section 2.4.
_POWER = np.float32(8)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What is left of the state, and what is added to it; both (tokens, channels)."""

    decays: Float
    added: Float

    def advance(self, state: Float, token: int | slice) -> Float:
        """Take the state (..., channels) one token on, and return it: arXiv 2402.19427, equation 4."""
        state *= self.decays[token]
        state += self.added[token]
        return state


class _Gate:
    """A sigmoid of each block of channels times a matrix of its own: weight (blocks, inputs, outputs)."""

    def __init__(self, weight: Float, bias: Float) -> None:
        self._weight, self._bias = weight, bias

    @property
    def nbytes(self) -> int:
        """Bytes of the weight and the bias."""
        return self._weight.nbytes + self._bias.nbytes

    @property
    def flops(self) -> int:
        """Operations of one token."""
        return 2 * self._weight.size

    def __call__(self, x: Float) -> Float:
        """Return the gate of each channel; ``x`` and the result are ``(tokens, channels)``."""
        blocks = x.reshape(len(x), len(self._weight), -1).transpose(1, 0, 2)
        products = np.matmul(blocks, self._weight).transpose(1, 0, 2).reshape(x.shape)
        return sigmoid(products + self._bias)


class RgLruMixer:
    """One recurrent block with its weights; arguments as :class:`AttentionMixer`'s, but the model."""

    def __init__(self, arch: RgLru, weights: Mapping[str, Float], place: int) -> None:
        self._arch, self._place = arch, place
        own = {name.removeprefix(f"{_BLOCK}."): array for name, array in weights.items()}
        names = ("linear_x", "linear_y")
        self._branches = Linear.joined(
            [own[f"{name}.weight"] for name in names], [own[f"{name}.bias"] for name in names]
        )
        self._out = Linear(own["linear_out.weight"], own["linear_out.bias"])
        self._convolution = CausalConvolution(own["conv_1d.weight"], own["conv_1d.bias"])
        self._input_gate = _Gate(own["rg_lru.input_gate_weight"], own["rg_lru.input_gate_bias"])
        self._recurrent_gate = _Gate(own["rg_lru.recurrent_gate_weight"], own["rg_lru.recurrent_gate_bias"])
        self._rates = -_POWER * softplus(own["rg_lru.recurrent_param"])

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        return self._branches.nbytes + self._out.nbytes + self._own_nbytes

    @property
    def _own_nbytes(self) -> int:
        gates = self._input_gate.nbytes + self._recurrent_gate.nbytes
        return self._convolution.nbytes + gates + self._rates.nbytes

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what the block adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        states, width = step.states(self._place), self._arch.lru_width
        branches = self._branches(x, counter)
        convolved = self._convolution(branches[:, :width], step.counts, states.conv, step.slots)
        said = np.empty_like(convolved)
        recur(self._tokens(convolved, step), step.counts, states.recurrent, step.slots, said)
        self._count(len(x), len(step.counts) * states.slot_nbytes, counter)
        said *= activate(self._arch.hidden_activation, np.ascontiguousarray(branches[:, width:]))
        return self._out(said, counter)

    def _tokens(self, convolved: Float, step: Step) -> _Tokens:
        logarithms = self._rates * self._recurrent_gate(convolved)
        # What keeps the state's size; a sequence's first token finds nothing to keep.
        shares = np.sqrt(-np.expm1(2 * logarithms))
        shares[step.positions == 0] = 1
        return _Tokens(np.exp(logarithms), convolved * self._input_gate(convolved) * shares)

    def _count(self, rows: int, touched: int, counter: Counter) -> None:
        """Count the convolution, the gates, the state's decay and sum, and the states."""
        gates = self._input_gate.flops + self._recurrent_gate.flops
        counter.attention(rows * (self._convolution.flops + gates + 2 * self._arch.lru_width))
        counter.read_weights(self._own_nbytes)
        counter.read_cache(touched)
        counter.write_cache(touched)
