"""What weight tensors are for: storage formats choose by it."""

from __future__ import annotations

from enum import Enum


class TensorRole(Enum):
    """What a weight tensor is for; formats choose by it."""

    EMBEDDING = "embedding"
    POSITIONS = "position embedding"
    HEAD = "lm_head"
    ATTENTION = "attention matrix"
    MLP = "mlp matrix"
    EXPERT = "expert matrix"
    ROUTER = "router"
    NORM = "norm"
    BIAS = "bias"
    STATE = "recurrence parameter"
    TOWER = "vision or audio tower"


LINEAR = frozenset({TensorRole.ATTENTION, TensorRole.MLP, TensorRole.EXPERT})
EXPERTS_ONLY = frozenset({TensorRole.EXPERT})
NOTHING: frozenset[TensorRole] = frozenset()
EVERY_MATRIX = LINEAR | {TensorRole.EMBEDDING, TensorRole.HEAD}
