"""The indexer of block-sparse attention: it scores blocks of tokens, and attention sees the best of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import IndexKey
from kvplan.arch.limits import Limits
from kvplan.arch.retention import Full
from kvplan.arch.selected import TopBlocks
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, kv_heads, matrix
from kvplan.checks import FieldError, require_sizes
from kvplan.storage import TensorRole

_ROLE = TensorRole.ATTENTION
# Blocks that a scaled model's query sees: few, so that a short run leaves some out.
_FEW_BLOCKS = 4


@dataclass(frozen=True, slots=True)
class BlockIndexer:
    """What chooses the blocks of tokens each query attends to (MiniMax-M3; transformers 5.23, minimax_m3_vl).

    A block's score is the largest product of an index query with an index key in it. Each index head makes
    a choice of its own, for the KV heads that belong to it. Index keys are shared by the index heads and
    cached; every tensor-parallel rank has all of them.

    Args:
        index_n_heads: index heads, each for an equal share of the KV heads.
        index_head_dim: elements of an index query or key.
        index_block_size: tokens of a block; blocks begin at multiples of it.
        index_topk_blocks: blocks a query attends to, all that it sees where those are fewer.
        index_local_blocks: how many of them are the query's own and those right before it, whatever their
            scores.
    """

    index_n_heads: int
    index_head_dim: int
    index_block_size: int
    index_topk_blocks: int
    index_local_blocks: int = 1

    def __post_init__(self) -> None:
        require_sizes(self, "index_n_heads", "index_head_dim")
        require_sizes(self, "index_block_size", "index_topk_blocks", "index_local_blocks")
        if self.index_local_blocks > self.index_topk_blocks:
            message = f"must be at most index_topk_blocks ({self.index_topk_blocks})"
            raise FieldError((("index_local_blocks",), f"{message}, not {self.index_local_blocks}"))

    @property
    def selected(self) -> TopBlocks:
        """What a query sees of the tokens that are kept."""
        return TopBlocks(self.index_topk_blocks, self.index_block_size)

    def slot(self) -> CacheSlot:
        """Return what one token leaves in the cache for it: an index key."""
        return CacheSlot(IndexKey(self.index_head_dim, of_blocks=True), Full())

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the projections, and the norms of queries and keys; heads are cut with the KV heads."""
        queries, by_head = self.index_n_heads * self.index_head_dim, kv_heads(self.index_n_heads)
        return (
            matrix("self_attn.index_q_proj", queries, hidden_size, _ROLE, by_head),
            matrix("self_attn.index_k_proj", self.index_head_dim, hidden_size, _ROLE),
            Weight("self_attn.index_q_norm.weight", (self.index_head_dim,), TensorRole.NORM),
            Weight("self_attn.index_k_norm.weight", (self.index_head_dim,), TensorRole.NORM),
        )

    def buffers(self) -> tuple[Buffer, ...]:
        """Return the arrays alive while a prefill chunk passes, per token."""
        queries, by_head = self.index_n_heads * self.index_head_dim, kv_heads(self.index_n_heads)
        return (Buffer("index queries", queries, by_head), Buffer("index key", self.index_head_dim))

    def of_fewer(self, kv_heads: int) -> BlockIndexer:
        """Return the indexer beside so many KV heads: with as many index heads of its own as share them."""
        return replace(self, index_n_heads=gcd(self.index_n_heads, kv_heads))

    def scaled_down(self, limits: Limits) -> BlockIndexer:
        """Return the indexer with so few and so short blocks that a short run leaves some out."""
        blocks = min(self.index_topk_blocks, max(_FEW_BLOCKS, self.index_local_blocks))
        return replace(
            self,
            index_block_size=min(self.index_block_size, max(1, limits.window // blocks)),
            index_topk_blocks=blocks,
        )
