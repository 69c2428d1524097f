"""Multi-head latent attention (DeepSeek-V2 and later): the cache holds one compressed vector per token."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import KV, Latent
from kvplan.arch.indexer import Indexer
from kvplan.arch.limits import Limits
from kvplan.arch.retention import Full
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.selected import TopTokens
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, bias, heads, matrix
from kvplan.checks import FieldError, require_sizes
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
        rope_parameters: the rotation of the rotary part; absent where positions are not rotated.
        attention_bias: the projections that make the latents have a bias, and the output projection.
        indexer: what chooses the tokens a query attends to; absent where it attends to all.
        expanded_cache: the runtime caches every head's key and value instead of the latent they are made
            from (transformers before 5, and others without a kernel for latents).
    """

    num_attention_heads: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int | None = None
    rope_parameters: RopeParameters | None = None
    attention_bias: bool = False
    indexer: Indexer | None = None
    expanded_cache: bool = False

    def __post_init__(self) -> None:
        require_sizes(self, "num_attention_heads", "kv_lora_rank", "q_lora_rank")
        require_sizes(self, "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        if self.rope_parameters is not None:
            self.rope_parameters.require_fit(self.qk_rope_head_dim)
        if self.indexer is not None:
            self._require_fit(self.indexer)

    def _require_fit(self, indexer: Indexer) -> None:
        if self.q_lora_rank is None:
            raise FieldError((("q_lora_rank",), "is needed: an indexer takes the compressed queries"))
        if indexer.index_head_dim < self.qk_rope_head_dim:
            message = f"must be at least qk_rope_head_dim ({self.qk_rope_head_dim})"
            raise FieldError((("indexer", "index_head_dim"), f"{message}, not {indexer.index_head_dim}"))
        if self.expanded_cache:
            raise FieldError((("expanded_cache",), "cannot be beside an indexer, whose kernels read latents"))

    @property
    def qk_head_dim(self) -> int:
        """Elements of a whole query or key head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return what one token leaves in the cache: the latent and the rotated key, nothing per head.

        An indexer's key is behind it. In an expanded cache there are keys and values per head instead.
        """
        if self.expanded_cache:
            return (CacheSlot(KV(self.num_attention_heads, self.qk_head_dim, self.v_head_dim), Full()),)
        latent = Latent(self.kv_lora_rank, self.qk_rope_head_dim)
        if self.indexer is None:
            return (CacheSlot(latent, Full()),)
        chosen = TopTokens(self.indexer.index_topk)
        return (CacheSlot(latent, Full(), selected=chosen), *self.indexer.slots())

    def scaled_down(self, limits: Limits) -> LatentAttention:
        """Return the mixer with as few heads as a scaled model has."""
        rank = None if self.q_lora_rank is None else min(self.q_lora_rank, limits.rank)
        return replace(
            self,
            num_attention_heads=limits.heads(self.num_attention_heads),
            q_lora_rank=rank,
            indexer=None if self.indexer is None else self.indexer.scaled_down(limits),
        )

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the projections; those that make or read the latent are held whole by every rank."""
        count, role = self.num_attention_heads, TensorRole.ATTENTION
        latent_out = self.kv_lora_rank + self.qk_rope_head_dim
        expanded = count * (self.qk_nope_head_dim + self.v_head_dim)
        return (
            *self._query_weights(hidden_size),
            *self._biases(hidden_size, latent_out),
            *self._index_weights(hidden_size),
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

    def _biases(self, hidden_size: int, latent_out: int) -> tuple[Weight, ...]:
        if not self.attention_bias:
            return ()
        queries = () if self.q_lora_rank is None else (bias("self_attn.q_a_proj", self.q_lora_rank),)
        outer = bias("self_attn.kv_a_proj_with_mqa", latent_out), bias("self_attn.o_proj", hidden_size)
        return (*queries, *outer)

    def _index_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        if self.indexer is None or self.q_lora_rank is None:
            return ()
        return self.indexer.weights(hidden_size, self.q_lora_rank)

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes in expanded form, per token."""
        count = self.num_attention_heads
        by_head = heads(0, count)
        return (
            Buffer("compressed queries", self.q_lora_rank or 0),
            Buffer("queries", count * self.qk_head_dim, by_head),
            Buffer("latent", self.kv_lora_rank + self.qk_rope_head_dim),
            *(() if self.indexer is None else self.indexer.buffers()),
            Buffer("expanded keys and values", count * (self.qk_nope_head_dim + self.v_head_dim), by_head),
            Buffer("keys with rotation", count * self.qk_head_dim, by_head),
            Buffer("attention output", count * self.v_head_dim, by_head),
            Buffer("projected output", hidden_size),
        )
