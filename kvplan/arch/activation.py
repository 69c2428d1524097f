"""The functions between the two steps of a feed-forward block."""

from __future__ import annotations

from enum import Enum


class Activation(Enum):
    """A feed-forward block's non-linearity; the value is Hugging Face's name."""

    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu_pytorch_tanh"
    RELU = "relu"
    RELU_SQUARED = "relu2"
    QUICK_GELU = "quick_gelu"
    # Bent by two numbers that each layer has learned (Apertus).
    XIELU = "xielu"
