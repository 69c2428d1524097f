"""Mixture of experts: a router, many small blocks of which a token uses a few, and shared ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from kvplan.arch.activation import Activation
from kvplan.arch.buffer import Buffer
from kvplan.arch.limits import Limits
from kvplan.arch.mlp import MLP
from kvplan.arch.swiglu import Swiglu
from kvplan.arch.weight import Weight, bias, features, matrix
from kvplan.checks import FieldError, require_amounts, require_multiple, require_sizes
from kvplan.storage import TensorRole

SHARED = "mlp.shared_expert"
# The experts of every token, where a table says them.
HASH_TABLE = "mlp.tid2eid"
# The matrices that make latents of hidden states, and hidden states of latents.
LATENT_IN, LATENT_OUT = "mlp.fc1_latent_proj", "mlp.fc2_latent_proj"
# Of experts with norms of their own: of what the shared one gives, around the routed ones, and of the router.
SHARED_NORM, ROUTED_INPUT_NORM = "mlp.shared_expert_norm", "mlp.experts_input_norm"
ROUTED_NORM, ROUTER_NORM = "mlp.experts_norm", "mlp.gate_norm"


class Scoring(Enum):
    """How a router's logits become scores; the value is its name in config files."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    SQRT_SOFTPLUS = "sqrtsoftplus"


class TopkMethod(Enum):
    """How experts are chosen by their scores; the value is its name in config files.

    ``greedy`` takes the best; ``group_limited_greedy`` takes them from the groups with the best single
    expert (DeepSeek-V2); ``noaux_tc`` adds the router's correction bias to the scores it chooses by, and
    takes groups by the sum of their best two (DeepSeek-V3). ``sparsemixer`` takes the best, then the best
    of the others, each with its share of a softmax over the logits near its own (arXiv 2409.12136).
    """

    GREEDY = "greedy"
    GROUP_LIMITED_GREEDY = "group_limited_greedy"
    NOAUX_TC = "noaux_tc"
    SPARSEMIXER = "sparsemixer"


@dataclass(frozen=True, slots=True)
class Experts:
    """A feed-forward block whose matrices are chosen per token by a router.

    Args:
        num_experts: routed experts.
        num_experts_per_tok: experts one token uses.
        moe_intermediate_size: width of one expert.
        shared_expert_intermediate_size: width of the expert every token uses; 0 for none.
        gated: the first step of every expert is a pair of matrices, one gating the other.
        moe_latent_size: routed experts take and give vectors so long, which one matrix makes of the hidden
            state and another turns back (Nemotron-3 Super); absent where they take the hidden state itself.
        shared_expert_gate: the shared expert's output is scaled by a one-row gate (Qwen).
        router_bias: the router has a trained bias.
        router_bias_buffer: a bias that is no parameter is added to the scores experts are chosen by, not to
            their shares (DeepSeek's e_score_correction_bias).
        router_bias_parameter: such a bias is a parameter (Ernie 4.5).
        expert_bias: matrices of routed experts have biases (gpt-oss).
        mlp_bias: the shared expert's matrices, and those into and out of the latent, have biases.
        hidden_act: the function between an expert's two steps.
        swiglu: how a routed expert's gate and linear half are bounded and multiplied; absent where plain.
        shared_swiglu: the same of the shared expert.
        scoring_func: how router logits become scores.
        topk_method: how experts are chosen from the scores.
        router_jitter_noise: half the relative distance from the best within which a logit is near it, to
            ``sparsemixer``.
        n_group, topk_group: experts are chosen from the best ``topk_group`` of ``n_group`` groups.
        norm_topk_prob: the scores of the chosen experts are scaled to sum to one.
        routed_scaling_factor: the routed experts' output is multiplied by it.
        scales_input: shares multiply what goes into an expert, not what comes out (Llama 4).
        hash_vocab_size: experts are looked up by a token's id in a table with so many rows, which is no
            parameter; scores say their shares alone (DeepSeek-V4's first layers).
        own_norms: routed experts read the residual stream behind a norm of their own, and each expert's share
            is multiplied by a trained scale; the router reads it normalised too, by a trained scale and the
            root of its width; what routed and shared experts give is normalised before it is added (Gemma 4).
    """

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int = 0
    gated: bool = True
    moe_latent_size: int | None = None
    shared_expert_gate: bool = False
    router_bias: bool = False
    router_bias_buffer: bool = False
    router_bias_parameter: bool = False
    expert_bias: bool = False
    mlp_bias: bool = False
    hidden_act: Activation = Activation.SILU
    swiglu: Swiglu | None = None
    shared_swiglu: Swiglu | None = None
    scoring_func: Scoring = Scoring.SOFTMAX
    topk_method: TopkMethod = TopkMethod.GREEDY
    router_jitter_noise: float | None = None
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    scales_input: bool = False
    own_norms: bool = False
    hash_vocab_size: int | None = None

    def __post_init__(self) -> None:
        shared = ("shared_expert_intermediate_size",) if self.shared_expert_intermediate_size else ()
        require_sizes(self, "num_experts", "num_experts_per_tok", "moe_intermediate_size", *shared)
        require_sizes(self, "moe_latent_size", "n_group", "topk_group", "hash_vocab_size")
        require_amounts(self, "routed_scaling_factor", "router_jitter_noise")
        require_multiple(self.num_experts, "num_experts", self.n_group, "n_group")
        self._require_groups()
        self._require_enough_to_choose_from()
        self._require_parts()

    def _require_parts(self) -> None:
        """Raise FieldError where a field speaks of a part that is not there."""
        if self.shared_expert_gate and not self.shared_expert_intermediate_size:
            raise FieldError((("shared_expert_gate",), "needs a shared_expert_intermediate_size"))
        if self.shared_swiglu is not None and not self.shared_expert_intermediate_size:
            raise FieldError((("shared_swiglu",), "needs a shared_expert_intermediate_size"))
        if self.hash_vocab_size is not None and self.topk_method is not TopkMethod.GREEDY:
            raise FieldError((("hash_vocab_size",), "goes with topk_method greedy: scores choose nothing"))
        if self.own_norms and not self.shared_expert_intermediate_size:
            raise FieldError((("own_norms",), "needs a shared_expert_intermediate_size"))
        if self.swiglu is not None and not (self.gated and self.hidden_act is Activation.SILU):
            raise FieldError((("swiglu",), "needs experts gated by silu"))
        if self.router_bias_buffer and self.router_bias_parameter:
            raise FieldError((("router_bias_parameter",), "cannot be beside router_bias_buffer"))
        if self.is_corrected and self.topk_method is not TopkMethod.NOAUX_TC:
            which = "router_bias_buffer" if self.router_bias_buffer else "router_bias_parameter"
            raise FieldError(((which,), "is read by topk_method noaux_tc only"))
        if self.topk_method is TopkMethod.SPARSEMIXER:
            self._require_sparsemixer()
        elif self.router_jitter_noise is not None:
            raise FieldError((("router_jitter_noise",), "is read by topk_method sparsemixer only"))

    def _require_sparsemixer(self) -> None:
        if self.num_experts_per_tok != 2:
            raise FieldError((("num_experts_per_tok",), "must be 2 for topk_method sparsemixer"))
        if self.router_jitter_noise is None:
            raise FieldError((("router_jitter_noise",), "is needed by topk_method sparsemixer"))
        if self.scoring_func is not Scoring.SOFTMAX:
            raise FieldError((("topk_method",), "sparsemixer goes with plain softmax scores only"))

    def _require_groups(self) -> None:
        if self.topk_group > self.n_group:
            message = f"must be at most n_group ({self.n_group}), not {self.topk_group}"
            raise FieldError((("topk_group",), message))
        if self.n_group > 1 and self.topk_method in (TopkMethod.GREEDY, TopkMethod.SPARSEMIXER):
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

    @property
    def is_corrected(self) -> bool:
        """Whether a bias is added to the scores experts are chosen by."""
        return self.router_bias_buffer or self.router_bias_parameter

    @property
    def shared_expert(self) -> MLP | None:
        """The expert every token uses, a dense block."""
        if not self.shared_expert_intermediate_size:
            return None
        return MLP(
            self.shared_expert_intermediate_size,
            gated=self.gated,
            mlp_bias=self.mlp_bias,
            hidden_act=self.hidden_act,
            swiglu=self.shared_swiglu,
        )

    def expert_input(self, hidden_size: int) -> int:
        """Return the length of what goes into a routed expert, and of what comes out."""
        return self.moe_latent_size or hidden_size

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the router, the stacked routed experts with what is around them, and the shared expert."""
        return (
            *self._router_weights(hidden_size),
            *self._latent_weights(hidden_size),
            *self._routed_weights(hidden_size),
            *self._shared_weights(hidden_size),
            *self._own_norm_weights(hidden_size),
        )

    def _own_norm_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        if not self.own_norms:
            return ()
        names = (SHARED_NORM, ROUTED_INPUT_NORM, ROUTED_NORM, ROUTER_NORM)
        return (
            *(Weight(f"{name}.weight", (hidden_size,), TensorRole.NORM) for name in names),
            Weight("mlp.per_expert_scale", (self.num_experts,), TensorRole.NORM),
        )

    def _router_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        found = [matrix("mlp.gate", self.num_experts, hidden_size, TensorRole.ROUTER)]
        if self.router_bias:
            found.append(bias("mlp.gate", self.num_experts))
        if self.hash_vocab_size is not None:
            table = (self.hash_vocab_size, self.num_experts_per_tok)
            found.append(Weight(HASH_TABLE, table, TensorRole.EMBEDDING, trained=False))
        if self.is_corrected:
            name, trained = "mlp.gate.e_score_correction_bias", self.router_bias_parameter
            found.append(Weight(name, (self.num_experts,), TensorRole.ROUTER, trained=trained))
        return tuple(found)

    def _latent_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        if self.moe_latent_size is None:
            return ()
        sizes = (
            (LATENT_IN, self.moe_latent_size, hidden_size),
            (LATENT_OUT, hidden_size, self.moe_latent_size),
        )
        found = [matrix(name, rows, columns, TensorRole.MLP) for name, rows, columns in sizes]
        if self.mlp_bias:
            found += [bias(name, rows) for name, rows, _ in sizes]
        return tuple(found)

    def _routed_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        width, outside, role = self.moe_intermediate_size, self.expert_input(hidden_size), TensorRole.EXPERT
        out_split, in_split = features(0, width), features(1, width)
        first = ("mlp.experts.gate_proj", "mlp.experts.up_proj") if self.gated else ("mlp.experts.up_proj",)
        one = [matrix(name, width, outside, role, out_split) for name in first]
        one.append(matrix("mlp.experts.down_proj", outside, width, role, in_split))
        if self.expert_bias:
            one += [bias(name, width, out_split) for name in first]
            one.append(bias("mlp.experts.down_proj", outside))
        return tuple(replace(w, copies=self.num_experts, active_copies=self.num_experts_per_tok) for w in one)

    def _shared_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        if self.shared_expert is None:
            return ()
        found = [
            replace(w, name=f"{SHARED}.{w.name.removeprefix('mlp.')}")
            for w in self.shared_expert.weights(hidden_size)
        ]
        if self.shared_expert_gate:
            found.append(matrix("mlp.shared_expert_gate", 1, hidden_size, TensorRole.ROUTER))
        return tuple(found)

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token.

        A token is copied once for each expert it uses, as grouped expert kernels do.
        """
        chosen, width, latent = self.num_experts_per_tok, self.moe_intermediate_size, self.moe_latent_size
        shared, halves = self.shared_expert_intermediate_size, 2 if self.gated else 1
        first = "gate and up" if self.gated else "up"
        return (
            Buffer("router scores", self.num_experts),
            *((Buffer("latents in and out", 2 * latent),) if latent else ()),
            Buffer(f"expert {first}", chosen * halves * width, features(0, width)),
            Buffer("expert activated", chosen * width, features(0, width)),
            Buffer("expert outputs", chosen * self.expert_input(hidden_size)),
            *((Buffer("shared expert", (halves + 1) * shared, features(0, shared)),) if shared else ()),
            Buffer("output", hidden_size),
        )

    def scaled_down(self, limits: Limits) -> Experts:
        """Return as many experts, each as narrow as a scaled model's."""
        shared, latent = self.shared_expert_intermediate_size, self.moe_latent_size
        rows = self.hash_vocab_size
        narrowest = max(1, limits.expert_features // self.num_experts)
        return replace(
            self,
            moe_intermediate_size=min(limits.width(self.moe_intermediate_size), narrowest),
            shared_expert_intermediate_size=limits.width(shared) if shared else 0,
            moe_latent_size=limits.width(latent) if latent else None,
            hash_vocab_size=rows and min(rows, limits.vocabulary),
        )
