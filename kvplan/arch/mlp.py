"""The dense feed-forward block: gated (three matrices) or plain (two)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.activation import Activation
from kvplan.arch.adapter import adapter
from kvplan.arch.buffer import Buffer
from kvplan.arch.limits import Limits
from kvplan.arch.swiglu import Swiglu
from kvplan.arch.weight import Weight, bias, features, matrix
from kvplan.checks import LARGEST_AMOUNT, FieldError, require_sizes
from kvplan.storage import TensorRole


@dataclass(frozen=True, slots=True)
class MLP:
    """A two-step feed-forward block.

    Args:
        intermediate_size: width between the two steps.
        gated: the first step is a pair of matrices, one gating the other.
        mlp_bias: every matrix has a bias.
        hidden_act: the function between the two steps.
        swiglu: how the gate and the linear half are bounded and multiplied; absent for the plain form.
        mlp_multipliers: what the gate is multiplied by before its function, and the block's output
            (Falcon-H1); absent for none.
        activation_sparsity: share of the gate's elements, were they normal, that are set to zero (Gemma 3n).
        adapter_rank: rank of what is added to the first step by a low-rank product; absent for none (Zamba2).
    """

    intermediate_size: int
    gated: bool = True
    mlp_bias: bool = False
    hidden_act: Activation = Activation.SILU
    swiglu: Swiglu | None = None
    mlp_multipliers: tuple[float, float] | None = None
    activation_sparsity: float = 0.0
    adapter_rank: int | None = None

    def __post_init__(self) -> None:
        require_sizes(self, "intermediate_size", "adapter_rank")
        if self.swiglu is not None and not (self.gated and self.hidden_act is Activation.SILU):
            raise FieldError((("swiglu",), "needs a block gated by silu"))
        if self.mlp_multipliers is not None and (not self.gated or self.swiglu is not None):
            raise FieldError((("mlp_multipliers",), "needs a plain gated block"))
        if not 0 <= self.activation_sparsity < 1:
            raise FieldError((("activation_sparsity",), "must be from 0 to below 1"))
        if self.activation_sparsity and not self.gated:
            raise FieldError((("activation_sparsity",), "needs a gated block"))
        if any(not 0 < factor <= LARGEST_AMOUNT for factor in self.mlp_multipliers or ()):
            raise FieldError((("mlp_multipliers",), f"must be above 0 and at most {LARGEST_AMOUNT:,.0f}"))
        if self.gated and self.hidden_act is Activation.XIELU:
            raise FieldError((("hidden_act",), "xielu needs a block that is not gated"))

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the matrices and, where there are any, biases and what the activation has learned."""
        width, role = self.intermediate_size, TensorRole.MLP
        first = ("mlp.gate_proj", "mlp.up_proj") if self.gated else ("mlp.up_proj",)
        found = [matrix(name, width, hidden_size, role, features(0, width)) for name in first]
        found.append(matrix("mlp.down_proj", hidden_size, width, role, features(1, width)))
        if self.mlp_bias:
            found += [bias(name, width, features(0, width)) for name in first]
            found.append(bias("mlp.down_proj", hidden_size))
        if self.hidden_act is Activation.XIELU:
            found += _xielu_weights()
        if self.adapter_rank is not None:
            rows, split = len(first) * width, features(0, width)
            found += adapter("mlp.first_step", rows, hidden_size, self.adapter_rank, role, split)
        return tuple(found)

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""
        width = self.intermediate_size
        first = Buffer(
            "gate and up" if self.gated else "up", width * (2 if self.gated else 1), features(0, width)
        )
        inner = () if self.adapter_rank is None else (Buffer("adapter", self.adapter_rank),)
        return (first, *inner, Buffer("activated", width, features(0, width)), Buffer("output", hidden_size))

    def scaled_down(self, limits: Limits) -> MLP:
        """Return the block as narrow as a scaled model's."""
        return replace(self, intermediate_size=limits.width(self.intermediate_size))


def _xielu_weights() -> list[Weight]:
    """Return the numbers xIELU is bent by: two are learned, and two are fixed."""
    learned = [Weight(f"mlp.act_fn.{name}", (1,), TensorRole.NORM) for name in ("alpha_p", "alpha_n")]
    fixed = [Weight(f"mlp.act_fn.{name}", (1,), TensorRole.NORM, trained=False) for name in ("beta", "eps")]
    return learned + fixed
