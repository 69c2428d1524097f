"""A gated unit whose two halves are bounded before they are multiplied."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.checks import FieldError, require_amounts


@dataclass(frozen=True, slots=True)
class Swiglu:
    """``(up + up_offset) * gate * sigmoid(alpha * gate)``, the halves bounded by ``limit``.

    Args:
        limit: the gate is cut above it, the linear half on both sides.
        alpha: slope of the gate's sigmoid: 1 is SiLU, 1.702 comes near GELU (arXiv 1606.08415, section 2).
        up_offset: added to the bounded linear half (gpt-oss, MiniMax-M3: 1).
        limit_after: the activated gate is cut, not what goes into the activation (Step).
    """

    limit: float
    alpha: float = 1.0
    up_offset: float = 0.0
    limit_after: bool = False

    def __post_init__(self) -> None:
        require_amounts(self, "limit", "alpha")
        if self.up_offset not in (0.0, 1.0):
            raise FieldError((("up_offset",), f"must be 0 or 1, not {self.up_offset:g}"))
