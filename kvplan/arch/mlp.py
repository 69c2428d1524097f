"""The dense feed-forward block: gated (three matrices) or plain (two)."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.activation import Activation
from kvplan.arch.buffer import Buffer
from kvplan.arch.weight import Weight, bias, features, matrix
from kvplan.checks import require_sizes
from kvplan.storage import TensorRole


@dataclass(frozen=True, slots=True)
class MLP:
    """A two-step feed-forward block.

    Args:
        intermediate_size: width between the two steps.
        gated: the first step is a pair of matrices, one gating the other.
        mlp_bias: every matrix has a bias.
        hidden_act: the function between the two steps.
    """

    intermediate_size: int
    gated: bool = True
    mlp_bias: bool = False
    hidden_act: Activation = Activation.SILU

    def __post_init__(self) -> None:
        require_sizes(self, "intermediate_size")

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the matrices and, where there are any, their biases."""
        width, role = self.intermediate_size, TensorRole.MLP
        first = ("mlp.gate_proj", "mlp.up_proj") if self.gated else ("mlp.up_proj",)
        found = [matrix(name, width, hidden_size, role, features(0, width)) for name in first]
        found.append(matrix("mlp.down_proj", hidden_size, width, role, features(1, width)))
        if self.mlp_bias:
            found += [bias(name, width, features(0, width)) for name in first]
            found.append(bias("mlp.down_proj", hidden_size))
        return tuple(found)

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""
        width = self.intermediate_size
        first = Buffer(
            "gate and up" if self.gated else "up", width * (2 if self.gated else 1), features(0, width)
        )
        return (first, Buffer("activated", width, features(0, width)), Buffer("output", hidden_size))
