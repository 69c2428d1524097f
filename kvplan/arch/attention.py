"""Softmax attention with cached keys and values: MHA, GQA and MQA, full or sliding-window."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import KV
from kvplan.arch.retention import Chunked, Full, Retention, Sliding
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, bias, heads, kv_heads, matrix
from kvplan.checks import FieldError, require_amounts, require_multiple, require_sizes
from kvplan.storage import TensorRole


@dataclass(frozen=True, slots=True)
class Attention:
    """Scaled dot-product attention over keys and values cached per KV head.

    Args:
        num_attention_heads: query heads.
        num_key_value_heads: heads that are cached; query heads are a multiple of it.
        head_dim: elements of a query, key or value head.
        sliding_window: tokens a query sees, itself included; absent when it sees all.
        qkv_bias: the query, key and value projections have a bias.
        out_bias: the output projection has a bias.
        qk_norm: queries and keys are normalised per head, with ``head_dim`` weights each.
        output_gate: the query projection also makes a gate as wide as the query (Qwen3-Next).
        sinks: each query head has a learned sink logit (gpt-oss).
        rope_parameters: the rotation of queries and keys; absent where positions are not rotated.
        query_pre_attn_scalar: scores are divided by its square root; ``head_dim`` where absent (Gemma).
        attn_logit_softcapping: scores are bent to stay below it by a hyperbolic tangent (Gemma 2).
        attention_chunk_size: a query sees its own chunk of so many tokens only (Llama 4).
        sink_tokens: first tokens that stay in view beside a window (arXiv 2309.17453).
    """

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    sliding_window: int | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    output_gate: bool = False
    sinks: bool = False
    rope_parameters: RopeParameters | None = None
    query_pre_attn_scalar: float | None = None
    attn_logit_softcapping: float | None = None
    attention_chunk_size: int | None = None
    sink_tokens: int = 0

    def __post_init__(self) -> None:
        require_sizes(self, "num_attention_heads", "num_key_value_heads", "head_dim", "sliding_window")
        require_sizes(self, "attention_chunk_size", *(("sink_tokens",) if self.sink_tokens else ()))
        require_amounts(self, "query_pre_attn_scalar", "attn_logit_softcapping")
        require_multiple(
            self.num_attention_heads, "num_attention_heads", self.num_key_value_heads, "num_key_value_heads"
        )
        if self.attention_chunk_size is not None and self.sliding_window is not None:
            raise FieldError((("attention_chunk_size",), "cannot be beside a sliding_window"))
        if self.sink_tokens and self.sliding_window is None:
            raise FieldError((("sink_tokens",), "needs a sliding_window"))
        if self.rope_parameters is not None:
            self.rope_parameters.require_fit(self.head_dim)

    def slot(self) -> CacheSlot:
        """Return what one token leaves in the cache and for how long."""
        entry = KV(self.num_key_value_heads, self.head_dim, self.head_dim)
        return CacheSlot(entry, self._retention())

    def _retention(self) -> Retention:
        if self.sliding_window is not None:
            return Sliding(self.sliding_window, self.sink_tokens)
        return Full() if self.attention_chunk_size is None else Chunked(self.attention_chunk_size)

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the projections and, where there are any, biases, norms and sinks."""
        queries = self.num_attention_heads * self.head_dim
        cached = self.num_key_value_heads * self.head_dim
        by_head, by_kv_head = heads(0, self.num_attention_heads), kv_heads(self.num_key_value_heads)
        gated = queries * (2 if self.output_gate else 1)
        role = TensorRole.ATTENTION
        found = [
            matrix("self_attn.q_proj", gated, hidden_size, role, by_head),
            matrix("self_attn.k_proj", cached, hidden_size, role, by_kv_head),
            matrix("self_attn.v_proj", cached, hidden_size, role, by_kv_head),
            matrix("self_attn.o_proj", hidden_size, queries, role, heads(1, self.num_attention_heads)),
        ]
        if self.qkv_bias:
            found += [
                bias("self_attn.q_proj", gated, by_head),
                bias("self_attn.k_proj", cached, by_kv_head),
                bias("self_attn.v_proj", cached, by_kv_head),
            ]
        if self.out_bias:
            found.append(bias("self_attn.o_proj", hidden_size))
        if self.qk_norm:
            found += [
                Weight("self_attn.q_norm.weight", (self.head_dim,), TensorRole.NORM),
                Weight("self_attn.k_norm.weight", (self.head_dim,), TensorRole.NORM),
            ]
        if self.sinks:
            found.append(Weight("self_attn.sinks", (self.num_attention_heads,), TensorRole.BIAS, by_head))
        return tuple(found)

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""
        queries = self.num_attention_heads * self.head_dim
        cached = self.num_key_value_heads * self.head_dim
        by_head, by_kv_head = heads(0, self.num_attention_heads), kv_heads(self.num_key_value_heads)
        return (
            Buffer("queries", queries * (2 if self.output_gate else 1), by_head),
            Buffer("keys", cached, by_kv_head),
            Buffer("values", cached, by_kv_head),
            Buffer("attention output", queries, by_head),
            Buffer("projected output", hidden_size),
        )
