"""Alternating updates: several residual streams of which a layer computes one and corrects all (Gemma 3n)."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.norm import Norm
from kvplan.arch.weight import Weight, matrix
from kvplan.checks import FieldError, require_sizes
from kvplan.storage import TensorRole

# What a model has for each stream but the first: into it, and out of it.
INTO_STREAM, OUT_OF_STREAM = "altup_projections", "altup_unembed_projections"


@dataclass(frozen=True, slots=True)
class AltUp:
    """Residual streams, and a layer's way through them (arXiv 2301.13310), with LAuReL (arXiv 2411.07501).

    A layer predicts every stream from all of them, runs on the active one, and corrects every stream by how
    far that prediction was off. A product of low rank is added to the attention's output on the way.

    Args:
        altup_num_inputs: streams.
        altup_active_idx: the stream a layer runs on.
        altup_correct_scale: the corrected active stream is scaled before a layer's own input is added.
        laurel_rank: the rank of the product.
    """

    altup_num_inputs: int
    altup_active_idx: int = 0
    altup_correct_scale: bool = True
    laurel_rank: int = 64

    def __post_init__(self) -> None:
        require_sizes(self, "altup_num_inputs", "laurel_rank")
        if not 0 <= self.altup_active_idx < self.altup_num_inputs:
            raise FieldError((("altup_active_idx",), f"must be 0 to {self.altup_num_inputs - 1}"))

    def input_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the matrices that make the other streams of the first one."""
        return self._of_streams(INTO_STREAM, hidden_size)

    def output_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the matrices that bring the other streams back."""
        return self._of_streams(OUT_OF_STREAM, hidden_size)

    def _of_streams(self, name: str, hidden_size: int) -> tuple[Weight, ...]:
        others, role = range(self.altup_num_inputs - 1), TensorRole.HEAD
        return tuple(matrix(f"{name}.{index}", hidden_size, hidden_size, role) for index in others)

    def layer_weights(self, hidden_size: int, norm: Norm) -> tuple[Weight, ...]:
        """Return what every layer has: a router of streams, its two maps, a scale, and LAuReL's product."""
        count, role = self.altup_num_inputs, TensorRole.ROUTER
        return (
            # Both the prediction and the correction are routed by it.
            matrix("altup.modality_router", count, hidden_size, role, passes=2),
            *norm.weights("altup.router_norm", hidden_size),
            matrix("altup.prediction_coefs", count * count, count, role),
            matrix("altup.correction_coefs", count, count, role),
            Weight("altup.correct_output_scale", (hidden_size,), TensorRole.NORM),
            matrix("laurel.linear_left", self.laurel_rank, hidden_size, TensorRole.MLP),
            matrix("laurel.linear_right", hidden_size, self.laurel_rank, TensorRole.MLP),
            *norm.weights("laurel.post_laurel_norm", hidden_size),
        )
