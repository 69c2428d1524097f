"""Mixture of experts: a router, many small gated blocks of which a token uses a few, and shared ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.buffer import Buffer
from kvplan.arch.weight import Weight, bias, features, matrix
from kvplan.checks import FieldError, require_sizes
from kvplan.storage import TensorRole


@dataclass(frozen=True, slots=True)
class Experts:
    """A feed-forward block whose matrices are chosen per token by a router.

    Args:
        num_experts: routed experts.
        num_experts_per_tok: experts one token uses.
        moe_intermediate_size: width of one expert.
        shared_expert_intermediate_size: width of the expert every token uses; 0 for none.
        shared_expert_gate: the shared expert's output is scaled by a one-row gate (Qwen).
        router_bias: the router has a trained bias.
        router_bias_buffer: the router has a bias that is no parameter (DeepSeek's e_score_correction_bias).
        expert_bias: expert matrices have biases (gpt-oss).
    """

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int = 0
    shared_expert_gate: bool = False
    router_bias: bool = False
    router_bias_buffer: bool = False
    expert_bias: bool = False

    def __post_init__(self) -> None:
        shared = ("shared_expert_intermediate_size",) if self.shared_expert_intermediate_size else ()
        require_sizes(self, "num_experts", "num_experts_per_tok", "moe_intermediate_size", *shared)
        if self.num_experts_per_tok > self.num_experts:
            chosen = self.num_experts_per_tok
            raise FieldError(
                (("num_experts_per_tok",), f"must be at most num_experts ({self.num_experts}), not {chosen}")
            )
        if self.shared_expert_gate and not shared:
            raise FieldError((("shared_expert_gate",), "needs a shared_expert_intermediate_size"))

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the router, the stacked routed experts, and the shared expert."""
        return (
            *self._router_weights(hidden_size),
            *self._routed_weights(hidden_size),
            *self._shared_weights(hidden_size),
        )

    def _router_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        found = [matrix("mlp.gate", self.num_experts, hidden_size, TensorRole.ROUTER)]
        if self.router_bias:
            found.append(bias("mlp.gate", self.num_experts))
        if self.router_bias_buffer:
            name = "mlp.gate.e_score_correction_bias"
            found.append(Weight(name, (self.num_experts,), TensorRole.ROUTER, trained=False))
        return tuple(found)

    def _routed_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        width, role = self.moe_intermediate_size, TensorRole.EXPERT
        out_split, in_split = features(0, width), features(1, width)
        one = [
            matrix("mlp.experts.gate_proj", width, hidden_size, role, out_split),
            matrix("mlp.experts.up_proj", width, hidden_size, role, out_split),
            matrix("mlp.experts.down_proj", hidden_size, width, role, in_split),
        ]
        if self.expert_bias:
            one += [
                bias("mlp.experts.gate_proj", width, out_split),
                bias("mlp.experts.up_proj", width, out_split),
                bias("mlp.experts.down_proj", hidden_size),
            ]
        return tuple(replace(w, copies=self.num_experts, active_copies=self.num_experts_per_tok) for w in one)

    def _shared_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        width, role = self.shared_expert_intermediate_size, TensorRole.MLP
        if not width:
            return ()
        found = [
            matrix("mlp.shared_expert.gate_proj", width, hidden_size, role, features(0, width)),
            matrix("mlp.shared_expert.up_proj", width, hidden_size, role, features(0, width)),
            matrix("mlp.shared_expert.down_proj", hidden_size, width, role, features(1, width)),
        ]
        if self.shared_expert_gate:
            found.append(matrix("mlp.shared_expert_gate", 1, hidden_size, TensorRole.ROUTER))
        return tuple(found)

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token.

        A token is copied once for each expert it uses, as grouped expert kernels do.
        """
        chosen, width = self.num_experts_per_tok, self.moe_intermediate_size
        shared = self.shared_expert_intermediate_size
        return (
            Buffer("router scores", self.num_experts),
            Buffer("expert gate and up", chosen * 2 * width, features(0, width)),
            Buffer("expert activated", chosen * width, features(0, width)),
            Buffer("expert outputs", chosen * hidden_size),
            *((Buffer("shared expert", 3 * shared, features(0, shared)),) if shared else ()),
            Buffer("output", hidden_size),
        )
