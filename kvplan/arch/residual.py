"""What a layer's residual stream and its parts' outputs are multiplied by before they are added."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.checks import require_amounts


@dataclass(frozen=True, slots=True)
class ResidualFactors:
    """The weights of DeepNorm's sums (arXiv 2203.00555), as MiniMax-01 has them.

    Args:
        mixer_alpha, mlp_alpha: the residual's, where the mixer's or the MLP's output is added to it.
        mixer_beta, mlp_beta: that output's.
    """

    mixer_alpha: float = 1.0
    mixer_beta: float = 1.0
    mlp_alpha: float = 1.0
    mlp_beta: float = 1.0

    def __post_init__(self) -> None:
        require_amounts(self, *self.__slots__)
