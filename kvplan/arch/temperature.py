"""Queries that grow with their position, so that attention over a long context stays sharp."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.checks import FieldError, require_amounts


@dataclass(frozen=True, slots=True)
class TemperatureTuning:
    """Queries are multiplied by ``1 + attn_scale x ln(1 + floor(place / floor_scale))`` (arXiv 2501.19399).

    Args:
        attn_scale: how much they grow (Ministral 3: ``llama_4_scaling_beta``).
        floor_scale: tokens of one step (Ministral 3: the trained context).
        first_place: the place of the first token: 1 in Llama 4, 0 in Ministral 3.
    """

    attn_scale: float
    floor_scale: float
    first_place: int = 1

    def __post_init__(self) -> None:
        require_amounts(self, "attn_scale", "floor_scale")
        if self.first_place not in (0, 1):
            raise FieldError((("first_place",), f"must be 0 or 1, not {self.first_place}"))
