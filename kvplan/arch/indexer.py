"""The indexer of sparse attention: it scores every token in view, and attention sees the best of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import IndexKey
from kvplan.arch.limits import Limits
from kvplan.arch.retention import Full
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, matrix
from kvplan.checks import require_sizes
from kvplan.storage import TensorRole


@dataclass(frozen=True, slots=True)
class Indexer:
    """What chooses the tokens each query attends to (DeepSeek Sparse Attention, arXiv 2512.02556).

    A token's score is a weighted sum over index heads of ``relu(query x key)``. Keys are shared by the index
    heads and cached; queries are made from the compressed queries of the attention beside it. Every
    tensor-parallel rank has all of it: each needs the whole choice.

    Args:
        index_n_heads: index heads.
        index_head_dim: elements of an index query or key.
        index_topk: tokens a query attends to.
        indexer_rope_interleave: neighbours are rotated together in index queries and keys.
        shared: the choice is that of the nearest layer before with an indexer of its own; there are no
            weights, and no keys are cached (arXiv 2603.12201).
    """

    index_n_heads: int
    index_head_dim: int
    index_topk: int
    indexer_rope_interleave: bool = False
    shared: bool = False

    def __post_init__(self) -> None:
        require_sizes(self, "index_n_heads", "index_head_dim", "index_topk")

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return what one token leaves in the cache: an index key, unless the choice is another layer's."""
        return () if self.shared else (CacheSlot(IndexKey(self.index_head_dim), Full()),)

    def weights(self, hidden_size: int, q_lora_rank: int) -> tuple[Weight, ...]:
        """Return the projections, and the LayerNorm of the keys."""
        if self.shared:
            return ()
        queries, role = self.index_n_heads * self.index_head_dim, TensorRole.ATTENTION
        return (
            matrix("self_attn.indexer.wq_b", queries, q_lora_rank, role),
            matrix("self_attn.indexer.wk", self.index_head_dim, hidden_size, role),
            Weight("self_attn.indexer.k_norm.weight", (self.index_head_dim,), TensorRole.NORM),
            Weight("self_attn.indexer.k_norm.bias", (self.index_head_dim,), TensorRole.NORM),
            # Quantised releases leave it alone, as they do routers (GLM-5-FP8's modules_to_not_convert).
            matrix("self_attn.indexer.weights_proj", self.index_n_heads, hidden_size, TensorRole.ROUTER),
        )

    def buffers(self) -> tuple[Buffer, ...]:
        """Return the arrays alive while a prefill chunk passes, per token."""
        if self.shared:
            return ()
        return (
            Buffer("index queries", self.index_n_heads * self.index_head_dim),
            Buffer("index key", self.index_head_dim),
            Buffer("weights of index heads", self.index_n_heads),
        )

    def scaled_down(self, limits: Limits) -> Indexer:
        """Return the indexer with few heads, and so few tokens chosen that a short run leaves some out."""
        heads, chosen = limits.heads(self.index_n_heads), min(self.index_topk, limits.window)
        return replace(self, index_n_heads=heads, index_topk=chosen)
