"""What one token, or one request, leaves in a layer's cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class KV:
    """A key of ``k_dim`` and a value of ``v_dim`` elements for each KV head."""

    kv_heads: int
    k_dim: int
    v_dim: int


@dataclass(frozen=True, slots=True)
class Latent:
    """One compressed vector of ``rank`` elements and one rotary key, shared by all heads (MLA)."""

    rank: int
    rope_dim: int


@dataclass(frozen=True, slots=True)
class State:
    """A recurrent layer's memory: the last inputs of a convolution, and a running state.

    ``conv_channels`` channels keep the ``conv_kernel`` inputs the convolution looks at; the running
    state has ``recurrent_elements`` elements.
    """

    conv_channels: int
    conv_kernel: int
    recurrent_elements: int


Entry: TypeAlias = KV | Latent | State
