"""Hyper-connections: residual streams that every mixer and MLP reads, feeds and mixes anew (DeepSeek-V4)."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.weight import Weight, matrix
from kvplan.checks import require_amounts, require_sizes
from kvplan.storage import TensorRole

# A layer's connections around its mixer and its MLP, and the model's before its last norm.
MIXER_CONNECTION, MLP_CONNECTION, HEAD_CONNECTION = "attn_hc", "ffn_hc", "hc_head"


@dataclass(frozen=True, slots=True)
class HyperConnections:
    """Residual streams, and a part's way through them (arXiv 2409.19606; transformers 5.23, deepseek_v4).

    A part reads a sum of the streams; its output is added to all of them, after they have been mixed by a
    matrix whose rows and columns each sum to one (Sinkhorn and Knopp). The weights of the sum, of the output
    and of the matrix are made for every token from the normalised streams.

    Args:
        hc_mult: streams.
        hc_sinkhorn_iters: how often rows and columns of the matrix are divided by their sums.
        hc_eps: added to what is divided by, and to the weights of the sum.
    """

    hc_mult: int
    hc_sinkhorn_iters: int = 20
    hc_eps: float = 1e-6

    def __post_init__(self) -> None:
        require_sizes(self, "hc_mult", "hc_sinkhorn_iters")
        require_amounts(self, "hc_eps")

    def layer_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return what makes the weights around a layer's mixer, and around its MLP."""
        rows = (2 + self.hc_mult) * self.hc_mult
        names = (MIXER_CONNECTION, MLP_CONNECTION)
        return tuple(w for name in names for w in self._connection(name, rows, 3, hidden_size))

    def output_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return what makes the weights of the last sum of streams."""
        return self._connection(HEAD_CONNECTION, self.hc_mult, 1, hidden_size)

    def _connection(self, name: str, rows: int, scales: int, hidden_size: int) -> tuple[Weight, ...]:
        return (
            matrix(f"{name}.fn", rows, self.hc_mult * hidden_size, TensorRole.ROUTER),
            Weight(f"{name}.base", (rows,), TensorRole.BIAS),
            Weight(f"{name}.scale", (scales,), TensorRole.NORM),
        )
