"""A mixture of experts at run time: of the routed ones, those that were chosen are computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.experts import (
    HASH_TABLE,
    LATENT_IN,
    LATENT_OUT,
    ROUTED_INPUT_NORM,
    ROUTED_NORM,
    ROUTER_NORM,
    SHARED,
    SHARED_NORM,
    Experts,
)
from kvplan.engine.activations import sigmoid
from kvplan.engine.counter import Counter
from kvplan.engine.feed_forward import DenseBlock, Weights, between_steps
from kvplan.engine.linear import Linear, StackedLinear, join_biases
from kvplan.engine.norms import RMSNorm
from kvplan.engine.routing import Round, choose_experts
from kvplan.engine.step import Step
from kvplan.engine.visibility import Flags


class ExpertBlock:
    """A router and its experts: the rows of an expert are multiplied together, other experts not at all.

    Args:
        arch: its description.
        weights: the layer's weights by name, experts stacked on the first axis.
        norm_eps: what norms of its own add under the root.
    """

    def __init__(self, arch: Experts, weights: Weights, norm_eps: float = 1e-6) -> None:
        self._arch = arch
        self._norms = _OwnNorms(weights, norm_eps) if arch.own_norms else None
        self._router = Linear(weights["mlp.gate.weight"], weights.get("mlp.gate.bias"))
        self._correction = weights.get("mlp.gate.e_score_correction_bias")
        self._table = weights.get(HASH_TABLE)
        latent = arch.moe_latent_size is not None
        self._into_latent = _linear(weights, LATENT_IN) if latent else None
        self._out_of_latent = _linear(weights, LATENT_OUT) if latent else None
        first = ("mlp.experts.gate_proj", "mlp.experts.up_proj")[0 if arch.gated else 1 :]
        joined = np.concatenate([weights[f"{name}.weight"] for name in first], axis=1)
        self._first = StackedLinear(joined, join_biases([weights.get(f"{name}.bias") for name in first]))
        down = "mlp.experts.down_proj"
        self._down = StackedLinear(weights[f"{down}.weight"], weights.get(f"{down}.bias"))
        self._shared = _SharedExpert(arch, weights) if arch.shared_expert_intermediate_size else None

    @property
    def nbytes(self) -> int:
        """Bytes of the weights, those of experts that were never chosen included."""
        latent = (self._into_latent, self._out_of_latent)
        parts = (self._router, self._correction, self._table, *latent, self._shared, self._norms)
        beside = sum(part.nbytes for part in parts if part is not None)
        return beside + self._first.nbytes + self._down.nbytes

    def __call__(
        self,
        x: NDArray[np.float32],
        counter: Counter,
        residual: NDArray[np.float32] | None = None,
        step: Step | None = None,
    ) -> NDArray[np.float32]:
        """Return (rows, hidden) for x of (rows, hidden), the residual stream it is of, and its step.

        The step says the tokens where a table needs them, and holds the router to what it chose before.
        """
        if self._norms is not None:
            assert residual is not None
            return self._with_norms(self._norms, x, residual, counter, step)
        out = self._chosen(x, x, counter, step)
        if self._shared is not None:
            out += self._shared(x, counter)
        return out

    def _with_norms(
        self,
        norms: _OwnNorms,
        x: NDArray[np.float32],
        residual: NDArray[np.float32],
        counter: Counter,
        step: Step | None,
    ) -> NDArray[np.float32]:
        assert self._shared is not None
        routed_by, into = norms.of_router(residual, counter), norms.into_routed(residual, counter)
        out = norms.of_routed(self._chosen(routed_by, into, counter, step, norms.expert_scales), counter)
        out += norms.of_shared(self._shared(x, counter), counter)
        return out

    def _chosen(
        self,
        routed_by: NDArray[np.float32],
        x: NDArray[np.float32],
        counter: Counter,
        step: Step | None,
        scales: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Return what the experts give that a table or the router chooses; scales multiply their shares."""
        logits = self._router(routed_by, counter)
        if self._correction is not None:
            counter.read_weights(self._correction.nbytes)
        chosen, shares = self._routes(logits, step)
        if scales is not None:
            counter.read_weights(scales.nbytes)
            shares *= scales[chosen]
        into = x if self._into_latent is None else self._into_latent(x, counter)
        out = self._routed(into, chosen, shares, counter)
        return out if self._out_of_latent is None else self._out_of_latent(out, counter)

    def _routes(
        self, logits: NDArray[np.float32], step: Step | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return each row's experts and their shares, both (rows, num_experts_per_tok)."""
        if self._table is not None:
            assert step is not None
            assert step.tokens is not None
            known = self._table[step.tokens].astype(np.int64)
            return choose_experts(self._arch, logits, self._correction, known)
        if step is None:
            return choose_experts(self._arch, logits, self._correction)

        def settle(what: Round, scores: NDArray[np.float32], chosen: Flags) -> Flags:
            return step.settle_all((self, what), scores, chosen)

        return choose_experts(self._arch, logits, self._correction, settle=settle)

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
        own_shares = shares.ravel()[by_expert, np.newaxis]
        into = x[by_expert // per_row]
        if self._arch.scales_input:
            into *= own_shares
        outputs = self._down(self._between(self._first(into, counts, counter)), counts, counter)
        if not self._arch.scales_input:
            outputs *= own_shares
        by_row = np.empty_like(outputs)
        by_row[by_expert] = outputs
        out: NDArray[np.float32] = np.add.reduce(by_row.reshape(rows, per_row, x.shape[1]), axis=1)
        return out

    def _between(self, first: NDArray[np.float32]) -> NDArray[np.float32]:
        return between_steps(self._arch.hidden_act, self._arch.swiglu, first, gated=self._arch.gated)


class _OwnNorms:
    """The norms of experts that have norms of their own, and the scales of their shares."""

    def __init__(self, weights: Weights, eps: float) -> None:
        names = (SHARED_NORM, ROUTED_INPUT_NORM, ROUTED_NORM, ROUTER_NORM)
        norms = [RMSNorm(weights[f"{name}.weight"], eps) for name in names]
        self.of_shared, self.into_routed, self.of_routed, self._of_router = norms
        self.expert_scales = weights["mlp.per_expert_scale"]

    @property
    def nbytes(self) -> int:
        norms = (self.of_shared, self.into_routed, self.of_routed, self._of_router)
        return sum(norm.nbytes for norm in norms) + self.expert_scales.nbytes

    def of_router(self, residual: NDArray[np.float32], counter: Counter) -> NDArray[np.float32]:
        """Return what the router reads: the residual stream normalised, over the root of its width."""
        return self._of_router(residual, counter) * np.float32(residual.shape[1] ** -0.5)


class _SharedExpert:
    """The expert every row uses, scaled by a gate of its own where there is one."""

    def __init__(self, arch: Experts, weights: Weights) -> None:
        block = arch.shared_expert
        assert block is not None
        self._block = DenseBlock(block, weights, SHARED)
        self._gate = Linear(weights["mlp.shared_expert_gate.weight"]) if arch.shared_expert_gate else None

    @property
    def nbytes(self) -> int:
        return self._block.nbytes + (0 if self._gate is None else self._gate.nbytes)

    def __call__(self, x: NDArray[np.float32], counter: Counter) -> NDArray[np.float32]:
        out = self._block(x, counter)
        if self._gate is not None:
            out *= sigmoid(self._gate(x, counter))
        return out


def _linear(weights: Weights, name: str) -> Linear:
    return Linear(weights[f"{name}.weight"], weights.get(f"{name}.bias"))
