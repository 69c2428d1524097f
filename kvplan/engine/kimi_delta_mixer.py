"""Kimi delta attention at run time: a state that each token decays by channel and corrects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kvplan.arch.activation import Activation
from kvplan.arch.kimi_delta_attention import KimiDeltaAttention
from kvplan.arch.model import Model
from kvplan.engine.activations import activate, sigmoid, softplus
from kvplan.engine.arrays import Float
from kvplan.engine.causal_convolution import CausalConvolution
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.norms import RMSNorm, to_unit_length
from kvplan.engine.recurrence import recur
from kvplan.engine.step import Step


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What the recurrence needs of some tokens.

    Args:
        readers: (tokens, heads, 2, head_dim), the key and the query of each head, decayed.
        keys: (tokens, heads, head_dim).
        overlaps: (tokens, heads, 1), the product of each key with its query.
        values: (tokens, heads, head_dim).
        strengths: (tokens, heads, 1), how much of a correction is written.
        decays: (tokens, heads, head_dim, 1), what is left of each key channel's row of the state.
    """

    readers: Float
    keys: Float
    overlaps: Float
    values: Float
    strengths: Float
    decays: Float

    def advance(self, state: Float, token: int | slice) -> Float:
        """Take the state (..., heads, head_dim, head_dim) one token on, and return what it says.

        The delta rule of arXiv 2510.26692, equation 1. The query's reading of the new state is that of the
        decayed one plus its share of the correction, so the old state is read once for both.
        """
        read = np.matmul(self.readers[token], state)
        correction: Float = self.values[token] - read[..., 0, :]
        correction *= self.strengths[token]
        state *= self.decays[token]
        state += self.keys[token][..., np.newaxis] * correction[..., np.newaxis, :]
        correction *= self.overlaps[token]
        correction += read[..., 1, :]
        return correction


class KimiDeltaMixer:
    """One layer of Kimi delta attention with its weights; arguments as :class:`AttentionMixer`'s."""

    def __init__(
        self, arch: KimiDeltaAttention, model: Model, weights: Mapping[str, Float], place: int
    ) -> None:
        self._arch, self._place = arch, place

        def linear(*names: str) -> Linear:
            return Linear.joined([weights[f"self_attn.{name}_proj.weight"] for name in names])

        self._inputs = linear("q", "k", "v", "f_a", "g_a", "b")
        self._decay, self._gate, self._out = linear("f_b"), linear("g_b"), linear("o")
        self._convolution = CausalConvolution(weights["self_attn.conv1d.weight"])
        # One rate for all channels of a head.
        self._rates = -np.exp(weights["self_attn.A_log"])[:, np.newaxis]
        self._step_bias = weights["self_attn.dt_bias"]
        self._norm = RMSNorm(weights["self_attn.o_norm.weight"], model.norm_eps)

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        products = (self._inputs, self._decay, self._gate, self._out, self._norm)
        return sum(part.nbytes for part in products) + self._own_nbytes

    @property
    def _own_nbytes(self) -> int:
        return self._convolution.nbytes + self._rates.nbytes + self._step_bias.nbytes

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what the layer adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        arch, states = self._arch, step.states(self._place)
        width, dim = arch.width, arch.linear_head_dim
        ends = np.cumsum([3 * width, dim, dim])
        mixed, decay, gate, strength = np.split(self._inputs(x, counter), ends, axis=1)
        convolved = self._convolution(mixed, step.counts, states.conv, step.slots)
        tokens = self._tokens(
            activate(Activation.SILU, convolved),
            self._decay(np.ascontiguousarray(decay), counter),
            sigmoid(strength),
        )
        said = np.empty(tokens.values.shape, np.float32)
        recurrent = states.recurrent.reshape(-1, arch.linear_num_heads, dim, dim)
        recur(tokens, step.counts, recurrent, step.slots, said)
        self._count(len(x), len(step.counts) * states.slot_nbytes, counter)
        normed = self._norm(said, counter).reshape(len(x), width)
        normed *= sigmoid(self._gate(np.ascontiguousarray(gate), counter))
        return self._out(normed, counter)

    def _tokens(self, convolved: Float, decay: Float, strengths: Float) -> _Tokens:
        heads, dim = self._arch.linear_num_heads, self._arch.linear_head_dim
        per_head = (len(convolved), heads, dim)
        queries, keys, values = (part.reshape(per_head) for part in np.split(convolved, 3, axis=1))
        queries = to_unit_length(queries) * np.float32(dim**-0.5)
        keys = to_unit_length(keys)
        steps = softplus(decay + self._step_bias).reshape(per_head)
        decays = np.exp(self._rates * steps)
        return _Tokens(
            np.stack((keys, queries), axis=2) * decays[:, :, np.newaxis],
            keys,
            np.matmul(keys[..., np.newaxis, :], queries[..., np.newaxis])[..., 0],
            values,
            strengths[..., np.newaxis],
            decays[..., np.newaxis],
        )

    def _count(self, rows: int, touched: int, counter: Counter) -> None:
        """Count the convolution, the state's three products (two reads, one update), and the states."""
        state_size = self._arch.width * self._arch.linear_head_dim
        counter.attention(rows * (self._convolution.flops + 6 * state_size))
        counter.read_weights(self._own_nbytes)
        counter.read_cache(touched)
        counter.write_cache(touched)
