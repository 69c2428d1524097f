"""The rotations of a run: layers that turn alike share one table."""

from __future__ import annotations

from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters
from kvplan.engine.rotary import Rotary


class Rotaries:
    """Rotations of a model's layers for sequences of up to ``max_tokens`` tokens."""

    def __init__(self, model: Model, max_tokens: int) -> None:
        self._longest = (model.max_position_embeddings, max_tokens)
        self._made: dict[tuple[RopeParameters, int], Rotary] = {}

    def of(self, parameters: RopeParameters | None, head_dim: int) -> Rotary | None:
        """Return the rotation of heads of this width, or ``None`` where positions are not rotated."""
        if parameters is None:
            return None
        key = (parameters, head_dim)
        if key not in self._made:
            self._made[key] = Rotary(parameters, head_dim, *self._longest)
        return self._made[key]
