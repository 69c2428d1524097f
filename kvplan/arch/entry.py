"""What one token, or one request, leaves in a layer's cache."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class KV:
    """A key of ``k_dim`` and a value of ``v_dim`` elements for each KV head.

    ``one_vector``: the value is the key, which serving engines store once; transformers lists it as both.
    """

    kv_heads: int
    k_dim: int
    v_dim: int
    one_vector: bool = False


@dataclass(frozen=True, slots=True)
class Latent:
    """One compressed vector of ``rank`` elements and one rotary key, shared by all heads (MLA)."""

    rank: int
    rope_dim: int


@dataclass(frozen=True, slots=True)
class IndexKey:
    """One key of ``dim`` elements by which an indexer finds the token again, or its block."""

    dim: int
    of_blocks: bool = False


@dataclass(frozen=True, slots=True)
class CompressedKV:
    """One vector made of several tokens, key and value of all heads at once (DeepSeek-V4)."""

    dim: int


@dataclass(frozen=True, slots=True)
class Pending:
    """So many numbers of a token, or of a request, that wait to be compressed, in the model's dtype."""

    elements: int


class StateDtype(Enum):
    """What released files ask running states to be served in; the value is its name in model files."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class State:
    """A recurrent layer's memory: the last inputs of a convolution, and a running state.

    Args:
        conv_channels: channels of the convolution; 0 without one.
        conv_kernel: inputs the convolution looks at.
        recurrent_elements: elements of the running state.
        newest_kept: transformers keeps the newest input too, which the next step has no need of.
        recurrent_dtype: what transformers keeps the running state in; empty means the model's dtype.
        served_in: what serving engines keep it in where they are not asked for a dtype, if that is not the
            model's.
        group_channels: channels of the convolution that belong to groups of heads (Mamba-2).
        groups: how many groups there are; with more tensor-parallel ranks, each is kept by several.
    """

    conv_channels: int
    conv_kernel: int
    recurrent_elements: int
    newest_kept: bool = True
    recurrent_dtype: str = "fp32"
    served_in: StateDtype | None = None
    group_channels: int = 0
    groups: int = 1

    @property
    def conv_columns(self) -> int:
        """Inputs of the convolution that transformers keeps, and the engine."""
        return self.conv_kernel if self.newest_kept else self.conv_kernel - 1

    @property
    def elements(self) -> int:
        """Elements of both, as transformers and the engine keep them."""
        return self.conv_channels * self.conv_columns + self.recurrent_elements


Entry: TypeAlias = KV | Latent | IndexKey | CompressedKV | Pending | State
