"""Multi-head latent attention (DeepSeek-V2 and later): the cache holds one compressed vector per token."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import Latent
from kvplan.arch.retention import Full
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, heads, matrix
from kvplan.checks import require_sizes
from kvplan.storage import TensorRole


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Attention whose keys and values are expanded from a cached latent (arXiv 2405.04434, section 2.1).

    Args:
        num_attention_heads: query heads; all share the one latent.
        kv_lora_rank: elements of the cached latent.
        qk_nope_head_dim: elements of a query or key head without rotation.
        qk_rope_head_dim: elements of the rotated part, cached once for all heads.
        v_head_dim: elements of a value head.
        q_lora_rank: rank of the query's own compression; absent when queries are projected directly.
        rope_parameters: the rotation of the rotary part.
    """

    num_attention_heads: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int | None = None
    rope_parameters: RopeParameters | None = None

    def __post_init__(self) -> None:
        require_sizes(self, *(name for name in self.__slots__ if name != "rope_parameters"))
        if self.rope_parameters is not None:
            self.rope_parameters.require_fit(self.qk_rope_head_dim)

    @property
    def qk_head_dim(self) -> int:
        """Elements of a whole query or key head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def slot(self) -> CacheSlot:
        """Return what one token leaves in the cache: the latent and the rotated key, nothing per head."""
        return CacheSlot(Latent(self.kv_lora_rank, self.qk_rope_head_dim), Full())

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the projections; those that make or read the latent are held whole by every rank."""
        count, role = self.num_attention_heads, TensorRole.ATTENTION
        latent_out = self.kv_lora_rank + self.qk_rope_head_dim
        expanded = count * (self.qk_nope_head_dim + self.v_head_dim)
        return (
            *self._query_weights(hidden_size),
            matrix("self_attn.kv_a_proj_with_mqa", latent_out, hidden_size, role),
            Weight("self_attn.kv_a_layernorm.weight", (self.kv_lora_rank,), TensorRole.NORM),
            matrix("self_attn.kv_b_proj", expanded, self.kv_lora_rank, role, heads(0, count)),
            matrix("self_attn.o_proj", hidden_size, count * self.v_head_dim, role, heads(1, count)),
        )

    def _query_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        count, role = self.num_attention_heads, TensorRole.ATTENTION
        queries = count * self.qk_head_dim
        if self.q_lora_rank is None:
            return (matrix("self_attn.q_proj", queries, hidden_size, role, heads(0, count)),)
        return (
            matrix("self_attn.q_a_proj", self.q_lora_rank, hidden_size, role),
            Weight("self_attn.q_a_layernorm.weight", (self.q_lora_rank,), TensorRole.NORM),
            matrix("self_attn.q_b_proj", queries, self.q_lora_rank, role, heads(0, count)),
        )

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes in expanded form, per token."""
        count = self.num_attention_heads
        by_head = heads(0, count)
        return (
            Buffer("compressed queries", self.q_lora_rank or 0),
            Buffer("queries", count * self.qk_head_dim, by_head),
            Buffer("latent", self.kv_lora_rank + self.qk_rope_head_dim),
            Buffer("expanded keys and values", count * (self.qk_nope_head_dim + self.v_head_dim), by_head),
            Buffer("keys with rotation", count * self.qk_head_dim, by_head),
            Buffer("attention output", count * self.v_head_dim, by_head),
            Buffer("projected output", hidden_size),
        )
