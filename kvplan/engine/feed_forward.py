"""Feed-forward blocks at run time: dense, and a mixture of experts of which only chosen ones are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.experts import Experts
from kvplan.arch.mlp import MLP
from kvplan.engine.activations import activate, activate_gated, sigmoid
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear, StackedLinear, join_biases
from kvplan.engine.routing import choose_experts

# gpt-oss: gate * sigmoid(1.702 gate), an approximation of GELU (arXiv 1606.08415, section 2).
_SWIGLU_ALPHA = np.float32(1.702)

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
        self._gated, self._act = arch.gated, arch.hidden_act

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._first.nbytes + self._down.nbytes

    def __call__(self, x: NDArray[np.float32], counter: Counter) -> NDArray[np.float32]:
        """Return (rows, hidden) for x of (rows, hidden)."""
        first = self._first(x, counter)
        between = activate_gated(self._act, first) if self._gated else activate(self._act, first)
        return self._down(between, counter)


class ExpertBlock:
    """A router and its experts: the rows of an expert are multiplied together, other experts not at all.

    Args:
        arch: its description.
        weights: the layer's weights by name, experts stacked on the first axis.
    """

    def __init__(self, arch: Experts, weights: Weights) -> None:
        self._arch = arch
        self._router = Linear(weights["mlp.gate.weight"], weights.get("mlp.gate.bias"))
        self._correction = weights.get("mlp.gate.e_score_correction_bias")
        halves = ("mlp.experts.gate_proj", "mlp.experts.up_proj")
        first = np.concatenate([weights[f"{name}.weight"] for name in halves], axis=1)
        self._first = StackedLinear(first, join_biases([weights.get(f"{name}.bias") for name in halves]))
        down = "mlp.experts.down_proj"
        self._down = StackedLinear(weights[f"{down}.weight"], weights.get(f"{down}.bias"))
        self._shared = _SharedExpert(arch, weights) if arch.shared_expert_intermediate_size else None

    @property
    def nbytes(self) -> int:
        """Bytes of the weights, those of experts that were never chosen included."""
        correction = 0 if self._correction is None else self._correction.nbytes
        shared = 0 if self._shared is None else self._shared.nbytes
        return self._router.nbytes + correction + self._first.nbytes + self._down.nbytes + shared

    def __call__(self, x: NDArray[np.float32], counter: Counter) -> NDArray[np.float32]:
        """Return (rows, hidden) for x of (rows, hidden)."""
        logits = self._router(x, counter)
        if self._correction is not None:
            counter.read_weights(self._correction.nbytes)
        chosen, shares = choose_experts(self._arch, logits, self._correction)
        out = self._routed(x, chosen, shares, counter)
        if self._shared is not None:
            out += self._shared(x, counter)
        return out

    def _routed(
        self,
        x: NDArray[np.float32],
        chosen: NDArray[np.int64],
        shares: NDArray[np.float32],
        counter: Counter,
    ) -> NDArray[np.float32]:
        """Return the experts' outputs summed by their shares; ``chosen`` and ``shares`` are (rows, k)."""
        rows, per_row = chosen.shape
        by_expert = np.argsort(chosen, axis=None, kind="stable")
        counts = np.bincount(chosen.ravel(), minlength=self._arch.num_experts)
        between = self._activated(self._first(x[by_expert // per_row], counts, counter))
        outputs = self._down(between, counts, counter)
        outputs *= shares.ravel()[by_expert, np.newaxis]
        by_row = np.empty_like(outputs)
        by_row[by_expert] = outputs
        out: NDArray[np.float32] = np.add.reduce(by_row.reshape(rows, per_row, x.shape[1]), axis=1)
        return out

    def _activated(self, gate_and_up: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._arch.swiglu_limit is None:
            return activate_gated(self._arch.hidden_act, gate_and_up)
        return _clamped_swiglu(gate_and_up, np.float32(self._arch.swiglu_limit))


class _SharedExpert:
    """The expert every row uses, scaled by a gate of its own where there is one."""

    def __init__(self, arch: Experts, weights: Weights) -> None:
        block = MLP(arch.shared_expert_intermediate_size, hidden_act=arch.hidden_act)
        self._block = DenseBlock(block, weights, "mlp.shared_expert")
        self._gate = Linear(weights["mlp.shared_expert_gate.weight"]) if arch.shared_expert_gate else None

    @property
    def nbytes(self) -> int:
        return self._block.nbytes + (0 if self._gate is None else self._gate.nbytes)

    def __call__(self, x: NDArray[np.float32], counter: Counter) -> NDArray[np.float32]:
        out = self._block(x, counter)
        if self._gate is not None:
            out *= sigmoid(self._gate(x, counter))
        return out


def _clamped_swiglu(gate_and_up: NDArray[np.float32], limit: np.float32) -> NDArray[np.float32]:
    """Return (up + 1) gate sigmoid(1.702 gate) with the gate clamped above and up on both sides (gpt-oss)."""
    width = gate_and_up.shape[1] // 2
    gate = np.minimum(gate_and_up[:, :width], limit)
    up = np.clip(gate_and_up[:, width:], -limit, limit)
    up += np.float32(1)
    up *= gate
    up *= sigmoid(gate * _SWIGLU_ALPHA)
    return up
