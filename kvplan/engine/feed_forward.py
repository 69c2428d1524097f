"""The dense feed-forward block at run time."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.activation import Activation
from kvplan.arch.mlp import MLP
from kvplan.arch.swiglu import Swiglu
from kvplan.engine.activations import XIELU, activate, activate_gated
from kvplan.engine.adapters import Adapters
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.swiglu import bounded_swiglu

Weights: TypeAlias = Mapping[str, NDArray[np.float32]]


class DenseBlock:
    """A gated or plain block of two steps.

    Args:
        arch: its description.
        weights: the layer's weights by name.
        prefix: what the names begin with.
    """

    def __init__(self, arch: MLP, weights: Weights, prefix: str = "mlp") -> None:
        names = ("gate_proj", "up_proj") if arch.gated else ("up_proj",)
        biases = [weights.get(f"{prefix}.{name}.bias") for name in names]
        self._first = Linear.joined([weights[f"{prefix}.{name}.weight"] for name in names], biases)
        self._down = Linear(weights[f"{prefix}.down_proj.weight"], weights.get(f"{prefix}.down_proj.bias"))
        self._gated, self._act, self._swiglu = arch.gated, arch.hidden_act, arch.swiglu
        self._multipliers = arch.mlp_multipliers
        self._sparsity = arch.activation_sparsity
        own = f"{prefix}.first_step_adapter_a.weight" in weights
        self._adapters = Adapters(weights, [f"{prefix}.first_step"]) if own else None
        self._xielu: XIELU | None = None
        if arch.hidden_act is Activation.XIELU:
            bends = ("alpha_p", "alpha_n", "beta", "eps")
            self._xielu = XIELU(*(weights[f"{prefix}.act_fn.{name}"] for name in bends))

    def used_again(self, adapters: Adapters | None) -> DenseBlock:
        """Return this block with the same weights and adapters of its own."""
        found = copy(self)
        found._adapters = adapters
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        learned = 0 if self._xielu is None else self._xielu.nbytes
        added = 0 if self._adapters is None else self._adapters.nbytes
        return self._first.nbytes + self._down.nbytes + learned + added

    def __call__(self, x: NDArray[np.float32], counter: Counter) -> NDArray[np.float32]:
        """Return (rows, hidden) for x of (rows, hidden)."""
        first = self._first(x, counter)
        if self._adapters is not None:
            first += self._adapters(x, counter)
        if self._multipliers is not None:
            first[:, : first.shape[1] // 2] *= np.float32(self._multipliers[0])
        if self._sparsity:
            half = first.shape[1] // 2
            first[:, :half] = _above_cutoff(first[:, :half], self._sparsity)
        if self._xielu is None:
            between = between_steps(self._act, self._swiglu, first, gated=self._gated)
        else:
            between = self._xielu(first)
            counter.read_weights(self._xielu.nbytes)
        out = self._down(between, counter)
        return out if self._multipliers is None else out * np.float32(self._multipliers[1])


def _above_cutoff(gate: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Return by how much (rows, width) is above what such a share of a normal distribution is below."""
    spread = gate.std(axis=1, keepdims=True) * np.float32(NormalDist().inv_cdf(share))
    above: NDArray[np.float32] = np.maximum(gate - (gate.mean(axis=1, keepdims=True) + spread), np.float32(0))
    return above


def between_steps(
    act: Activation, swiglu: Swiglu | None, first: NDArray[np.float32], *, gated: bool
) -> NDArray[np.float32]:
    """Return (rows, width) between a block's steps for what the first made, which is overwritten."""
    if swiglu is not None:
        return bounded_swiglu(swiglu, first)
    return activate_gated(act, first) if gated else activate(act, first)
