"""Mixture of experts: a router, many small gated blocks of which a token uses a few, and shared ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from kvplan.arch.activation import Activation
from kvplan.arch.buffer import Buffer
from kvplan.arch.weight import Weight, bias, features, matrix
from kvplan.checks import FieldError, require_amounts, require_multiple, require_sizes
from kvplan.storage import TensorRole


class Scoring(Enum):
    """How a router's logits become scores; the value is its name in config files."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


class TopkMethod(Enum):
    """How experts are chosen by their scores; the value is its name in config files.

    ``greedy`` takes the best; ``group_limited_greedy`` takes them from the groups with the best single
    expert (DeepSeek-V2); ``noaux_tc`` adds the router's correction bias to the scores it chooses by, and
    takes groups by the sum of their best two (DeepSeek-V3).
    """

    GREEDY = "greedy"
    GROUP_LIMITED_GREEDY = "group_limited_greedy"
    NOAUX_TC = "noaux_tc"


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
        hidden_act: the function between an expert's two steps.
        swiglu_limit: the gate and the linear half are clamped to it, and the linear half is raised by
            one (gpt-oss); absent for the plain form.
        scoring_func: how router logits become scores.
        topk_method: how experts are chosen from the scores.
        n_group, topk_group: experts are chosen from the best ``topk_group`` of ``n_group`` groups.
        norm_topk_prob: the scores of the chosen experts are scaled to sum to one.
        routed_scaling_factor: the routed experts' output is multiplied by it.
    """

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int = 0
    shared_expert_gate: bool = False
    router_bias: bool = False
    router_bias_buffer: bool = False
    expert_bias: bool = False
    hidden_act: Activation = Activation.SILU
    swiglu_limit: float | None = None
    scoring_func: Scoring = Scoring.SOFTMAX
    topk_method: TopkMethod = TopkMethod.GREEDY
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0

    def __post_init__(self) -> None:
        shared = ("shared_expert_intermediate_size",) if self.shared_expert_intermediate_size else ()
        require_sizes(self, "num_experts", "num_experts_per_tok", "moe_intermediate_size", *shared)
        require_sizes(self, "n_group", "topk_group")
        require_amounts(self, "swiglu_limit", "routed_scaling_factor")
        require_multiple(self.num_experts, "num_experts", self.n_group, "n_group")
        self._require_groups()
        self._require_enough_to_choose_from()
        if self.shared_expert_gate and not shared:
            raise FieldError((("shared_expert_gate",), "needs a shared_expert_intermediate_size"))

    def _require_groups(self) -> None:
        if self.topk_group > self.n_group:
            message = f"must be at most n_group ({self.n_group}), not {self.topk_group}"
            raise FieldError((("topk_group",), message))
        if self.n_group > 1 and self.topk_method is TopkMethod.GREEDY:
            raise FieldError((("n_group",), "needs a topk_method that chooses groups"))
        if self.n_group == self.num_experts > 1 and self.topk_method is TopkMethod.NOAUX_TC:
            raise FieldError((("n_group",), "must leave two experts or more in a group"))

    def _require_enough_to_choose_from(self) -> None:
        chosen = self.num_experts_per_tok
        if chosen > self.num_experts:
            raise FieldError(
                (("num_experts_per_tok",), f"must be at most num_experts ({self.num_experts}), not {chosen}")
            )
        in_groups = self.num_experts // self.n_group * self.topk_group
        if chosen > in_groups:
            message = f"must be at most the {in_groups} experts of topk_group groups, not {chosen}"
            raise FieldError((("num_experts_per_tok",), message))

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
