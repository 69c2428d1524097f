"""The indexer of compressed attention: it scores compressed entries, and attention sees the best of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.buffer import Buffer
from kvplan.arch.limits import Limits
from kvplan.arch.weight import Weight, matrix
from kvplan.checks import require_sizes
from kvplan.storage import TensorRole


@dataclass(frozen=True, slots=True)
class EntryIndexer:
    """What chooses the entries each query attends to (transformers 5.23, DeepseekV4Indexer).

    An entry's score is a weighted sum over index heads of ``relu(query x key)``. Its key is made by a narrow
    compressor of its own out of the same tokens as the entry, and cached beside it. Every tensor-parallel
    rank has all of it: each needs the whole choice.

    Args:
        index_n_heads: index heads.
        index_head_dim: elements of an index query or key.
        index_topk: entries a query attends to.
    """

    index_n_heads: int
    index_head_dim: int
    index_topk: int

    def __post_init__(self) -> None:
        require_sizes(self, "index_n_heads", "index_head_dim", "index_topk")

    def weights(self, q_lora_rank: int) -> tuple[Weight, ...]:
        """Return the projection of index queries; the others read the layer's input."""
        queries = self.index_n_heads * self.index_head_dim
        name = "self_attn.compressor.indexer.q_b_proj"
        return (matrix(name, queries, q_lora_rank, TensorRole.ATTENTION),)

    def buffers(self) -> tuple[Buffer, ...]:
        """Return the arrays alive while a prefill chunk passes, per token, but for what is compressed."""
        return (
            Buffer("index queries", self.index_n_heads * self.index_head_dim),
            Buffer("weights of index heads", self.index_n_heads),
        )

    def scaled_down(self, limits: Limits, ratio: int) -> EntryIndexer:
        """Return the indexer with few heads, and so few entries chosen that a short run leaves some out."""
        heads, chosen = limits.heads(self.index_n_heads), max(1, limits.window // ratio)
        return replace(self, index_n_heads=heads, index_topk=min(self.index_topk, chosen))
