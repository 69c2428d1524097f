"""Attention over a window of tokens and compressed entries of all before (DeepSeek-V4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import KV, CompressedKV, IndexKey, Pending
from kvplan.arch.entry_indexer import EntryIndexer
from kvplan.arch.limits import Limits
from kvplan.arch.retention import Compressed, PerRequest, Sliding, Unfinished
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.selected import TopTokens
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Split, Weight, heads, matrix
from kvplan.checks import FieldError, require_multiple, require_sizes
from kvplan.storage import TensorRole

# What makes entries, and what makes the keys an indexer finds them by.
COMPRESSOR, INDEX_COMPRESSOR = "self_attn.compressor", "self_attn.compressor.indexer"


@dataclass(frozen=True, slots=True)
class CompressedAttention:
    """Attention with one key for all heads, which is their value too (transformers 5.23, deepseek_v4).

    A query sees a window of tokens, and of all up to itself one entry for each whole run of tokens: their
    sum, weighted by a softmax of gates over the run. With an indexer an entry is made of two runs, its own
    and the one before, by other projections of each, and a query sees the best entries only. The part of a
    result that was rotated with its key is turned back by the query's position.

    Args:
        num_attention_heads: query heads.
        head_dim: elements of a head, and of the key.
        q_lora_rank: rank of the queries' compression.
        qk_rope_head_dim: elements at the end of a head that are rotated.
        o_groups: groups of heads, each brought to ``o_lora_rank`` elements by a matrix of its own.
        o_lora_rank: elements of each group before the output projection.
        sliding_window: last tokens a query sees, itself included.
        rope_parameters: the rotation of queries, keys and entries.
        compress_ratio: tokens of a run; absent where a query sees the window alone.
        indexer: what chooses the entries a query attends to; absent where it attends to all.
    """

    num_attention_heads: int
    head_dim: int
    q_lora_rank: int
    qk_rope_head_dim: int
    o_groups: int
    o_lora_rank: int
    sliding_window: int
    rope_parameters: RopeParameters
    compress_ratio: int | None = None
    indexer: EntryIndexer | None = None

    def __post_init__(self) -> None:
        require_sizes(self, "num_attention_heads", "head_dim", "q_lora_rank", "qk_rope_head_dim")
        require_sizes(self, "o_groups", "o_lora_rank", "sliding_window", "compress_ratio")
        require_multiple(self.num_attention_heads, "num_attention_heads", self.o_groups, "o_groups")
        self.rope_parameters.require_fit(self.qk_rope_head_dim)
        narrowest = self.head_dim
        if self.indexer is not None:
            if self.compress_ratio is None:
                raise FieldError((("indexer",), "needs a compress_ratio"))
            narrowest = min(narrowest, self.indexer.index_head_dim)
        if self.qk_rope_head_dim > narrowest:
            message = f"must be at most the {narrowest} elements of a head, not {self.qk_rope_head_dim}"
            raise FieldError((("qk_rope_head_dim",), message))

    @property
    def series(self) -> int:
        """Runs of tokens an entry is made of; each has projections of its own."""
        return 1 if self.indexer is None else 2

    @property
    def compressed_dim(self) -> int:
        """Elements of an entry and of its index key together."""
        return self.head_dim + (0 if self.indexer is None else self.indexer.index_head_dim)

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return the window; and the entries, their index keys, and what is kept to make the next ones."""
        window = CacheSlot(KV(1, self.head_dim, self.head_dim, one_vector=True), Sliding(self.sliding_window))
        if self.compress_ratio is None:
            return (window,)
        kept, entry = Compressed(self.compress_ratio), CompressedKV(self.head_dim)
        # A compressor's product and its gate, of every series.
        waiting = CacheSlot(Pending(2 * self.series * self.compressed_dim), Unfinished(self.compress_ratio))
        if self.indexer is None:
            return (window, CacheSlot(entry, kept), waiting)
        return (
            window,
            CacheSlot(entry, kept, selected=TopTokens(self.indexer.index_topk)),
            CacheSlot(IndexKey(self.indexer.index_head_dim), kept),
            waiting,
            # The last whole run's part in the next entry.
            CacheSlot(Pending(2 * self.compress_ratio * self.compressed_dim), PerRequest()),
        )

    def attended(self) -> tuple[CacheSlot, ...]:
        """Return the slots whose vectors queries are multiplied with: the window, and the entries."""
        return self.slots()[: 1 if self.compress_ratio is None else 2]

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the projections; the key, its compressors and the indexer are held whole by every rank."""
        count, dim, role = self.num_attention_heads, self.head_dim, TensorRole.ATTENTION
        grouped = self.o_groups * self.o_lora_rank
        return (
            matrix("self_attn.q_a_proj", self.q_lora_rank, hidden_size, role),
            Weight("self_attn.q_a_norm.weight", (self.q_lora_rank,), TensorRole.NORM),
            matrix("self_attn.q_b_proj", count * dim, self.q_lora_rank, role, heads(0, count)),
            matrix("self_attn.kv_proj", dim, hidden_size, role),
            Weight("self_attn.kv_norm.weight", (dim,), TensorRole.NORM),
            Weight("self_attn.sinks", (count,), TensorRole.BIAS, heads(0, count)),
            *self._compressor_weights(hidden_size),
            # One matrix for each group of heads, below each other.
            matrix("self_attn.o_a_proj", grouped, count * dim // self.o_groups, role, self._groups(0)),
            matrix("self_attn.o_b_proj", hidden_size, grouped, role, self._groups(1)),
        )

    def _groups(self, axis: int) -> Split:
        return Split(axis, self.o_groups, "groups of heads (o_groups)")

    def _compressor_weights(self, hidden_size: int) -> tuple[Weight, ...]:
        if self.compress_ratio is None:
            return ()
        found = self._compressor(COMPRESSOR, self.head_dim, self.compress_ratio, hidden_size)
        if self.indexer is None:
            return found
        count, dim = self.indexer.index_n_heads, self.indexer.index_head_dim
        return (
            *found,
            *self._compressor(INDEX_COMPRESSOR, dim, self.compress_ratio, hidden_size),
            *self.indexer.weights(self.q_lora_rank),
            matrix(f"{INDEX_COMPRESSOR}.scorer.weights_proj", count, hidden_size, TensorRole.ROUTER),
        )

    def _compressor(self, name: str, dim: int, ratio: int, hidden_size: int) -> tuple[Weight, ...]:
        """Return what makes vectors of ``dim`` elements of runs; quantised releases leave it alone."""
        width, role = self.series * dim, TensorRole.ROUTER
        return (
            matrix(f"{name}.kv_proj", width, hidden_size, role),
            matrix(f"{name}.gate_proj", width, hidden_size, role),
            Weight(f"{name}.position_bias", (ratio, width), TensorRole.BIAS),
            Weight(f"{name}.kv_norm.weight", (dim,), TensorRole.NORM),
        )

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""
        queries, by_head = self.num_attention_heads * self.head_dim, heads(0, self.num_attention_heads)
        waiting = 0 if self.compress_ratio is None else 2 * self.series * self.compressed_dim
        return (
            Buffer("compressed queries", self.q_lora_rank),
            Buffer("queries", queries, by_head),
            Buffer("key", self.head_dim),
            Buffer("to be compressed, and gates", waiting),
            *(() if self.indexer is None else self.indexer.buffers()),
            Buffer("attention output", queries, by_head),
            Buffer("groups of heads", self.o_groups * self.o_lora_rank, self._groups(0)),
            Buffer("projected output", hidden_size),
        )

    def scaled_down(self, limits: Limits) -> CompressedAttention:
        """Return the mixer with few heads, and a window and a choice that a short run goes past."""
        count, ratio = limits.heads(self.num_attention_heads), self.compress_ratio
        return replace(
            self,
            num_attention_heads=count,
            q_lora_rank=min(self.q_lora_rank, limits.rank),
            o_groups=gcd(self.o_groups, count),
            o_lora_rank=min(self.o_lora_rank, limits.rank),
            sliding_window=min(self.sliding_window, limits.window),
            indexer=None
            if self.indexer is None or ratio is None
            else self.indexer.scaled_down(limits, ratio),
        )
