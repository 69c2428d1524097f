"""Lightning attention at run time: a key x value matrix a head, which each token decays and adds to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.lightning_attention import LightningAttention
from kvplan.engine.activations import activate, sigmoid
from kvplan.engine.arrays import Float
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.norms import RMSNorm
from kvplan.engine.recurrence import recur
from kvplan.engine.step import Step

# The norm of all heads has this one whatever the model's other norms have
# (transformers 5.23, modeling_minimax.py).
_NORM_EPS = 1e-6
# Keeps the last layer's rates above zero, as the models were trained with.
_LEAST = 1e-5


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Queries, keys and values, (tokens, heads, head_dim) each; what is left of a state, (heads, 1, 1)."""

    queries: Float
    keys: Float
    values: Float
    decays: Float

    def advance(self, state: Float, token: int | slice) -> Float:
        """Take the state (..., heads, head_dim, head_dim) one token on, and return what it says.

        arXiv 2401.04658, equation 3 with a decay of each head.
        """
        state *= self.decays
        state += self.keys[token][..., np.newaxis] * self.values[token][..., np.newaxis, :]
        said: Float = np.matmul(self.queries[token][..., np.newaxis, :], state)[..., 0, :]
        return said


def decay_rates(heads: int, index: int, depth: int) -> NDArray[np.float32]:
    """Return how fast each head forgets, (heads,): ALiBi's slopes, slower the later the layer.

    Args:
        heads: how many there are.
        index, depth: the layer's number, and how many layers the model has.
    """
    slopes = 2.0 ** (-8 / heads * np.arange(1, heads + 1))
    return np.asarray(slopes * (1 - index / (depth - 1 + _LEAST) + _LEAST), np.float32)


class LightningMixer:
    """One layer of lightning attention with its weights.

    Args:
        arch: its description.
        weights: the layer's weights by name.
        place: the place of its states in the cache.
        index, depth: the layer's number, and how many layers the model has: its decay depends on both.
    """

    def __init__(
        self, arch: LightningAttention, weights: Mapping[str, Float], place: int, index: int, depth: int
    ) -> None:
        self._arch, self._place = arch, place
        self._qkv = Linear(weights["self_attn.qkv_proj.weight"])
        self._gate = Linear(weights["self_attn.output_gate.weight"])
        self._norm = RMSNorm(weights["self_attn.norm.weight"], _NORM_EPS)
        self._out = Linear(weights["self_attn.out_proj.weight"])
        rates = decay_rates(arch.num_attention_heads, index, depth)
        self._decays = np.exp(-rates)[:, np.newaxis, np.newaxis]

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        return sum(part.nbytes for part in (self._qkv, self._gate, self._norm, self._out))

    def __call__(self, x: Float, step: Step, counter: Counter) -> Float:
        """Return what the layer adds for each new token; ``x`` and the result are ``(tokens, hidden)``."""
        heads, dim, states = self._arch.num_attention_heads, self._arch.head_dim, step.states(self._place)
        mixed = activate(self._arch.hidden_act, self._qkv(x, counter)).reshape(len(x), heads, 3 * dim)
        queries, keys, values = np.split(mixed, 3, axis=2)
        tokens = _Tokens(queries, keys, values, self._decays)
        said = np.empty((len(x), heads, dim), np.float32)
        recur(tokens, step.counts, states.recurrent.reshape(-1, heads, dim, dim), step.slots, said)
        self._count(len(x), len(step.counts) * states.slot_nbytes, counter)
        normed = self._norm(said.reshape(len(x), -1), counter)
        normed *= sigmoid(self._gate(x, counter))
        return self._out(normed, counter)

    def _count(self, rows: int, touched: int, counter: Counter) -> None:
        """Count the state's two products, an update and a read, and the states."""
        counter.attention(rows * 4 * self._arch.width * self._arch.head_dim)
        counter.read_cache(touched)
        counter.write_cache(touched)
