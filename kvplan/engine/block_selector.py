"""An indexer of blocks as a layer runs it: every block in view is scored, and the best are attended to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.block_indexer import BlockIndexer
from kvplan.arch.model import Model
from kvplan.engine.arrays import Float
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.qk_norms import AnyQkNorm, make_qk_norm
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.step import Step
from kvplan.engine.visibility import Flags, Positions


class BlockSelector:
    """The indexer of one block-sparse attention layer, with its weights.

    Args:
        arch: what it is.
        layer: the attention it chooses blocks for; index heads are rotated as its heads are.
        model: the model both are in.
        weights: the layer's tensors by their names in the description.
        place: where its keys are in the cache.
        rotaries: the run's rotations.
    """

    def __init__(
        self,
        arch: BlockIndexer,
        layer: Attention,
        model: Model,
        weights: Mapping[str, Float],
        place: int,
        rotaries: Rotaries,
    ) -> None:
        self._arch, self._place = arch, place
        self._queries = Linear(weights["self_attn.index_q_proj.weight"])
        self._keys = Linear(weights["self_attn.index_k_proj.weight"])
        self._q_norm = make_qk_norm(QkNorm.HEAD, model, weights, "self_attn.index_q_norm")
        self._k_norm = make_qk_norm(QkNorm.HEAD, model, weights, "self_attn.index_k_norm")
        self._rotary = rotaries.of(layer.rope_parameters, layer.head_dim)
        self._kv_heads_each = layer.num_key_value_heads // arch.index_n_heads

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        parts = (self._queries, self._keys, self._q_norm, self._k_norm)
        return sum(part.nbytes for part in parts if part is not None)

    def __call__(self, x: Float, step: Step, counter: Counter) -> tuple[Flags, ...]:
        """Store the new tokens' index keys and return which tokens each KV head's queries attend to.

        Args:
            x: the layer's input ``(tokens, hidden)``.
            step: the step.
            counter: gets the products and the bytes read and written.

        Returns:
            For each sequence ``(kv_heads, new tokens, tokens in view)``.
        """
        shape = (len(x), self._arch.index_n_heads, self._arch.index_head_dim)
        queries = self._turned(self._queries(x, counter).reshape(shape), self._q_norm, step, counter)
        keys = self._turned(self._keys(x, counter)[:, None], self._k_norm, step, counter)
        step.write_rows(self._place, (keys[:, 0],), counter)
        found = (
            self._chosen(queries[step.rows(index)], step, index, counter) for index in range(len(step.counts))
        )
        return tuple(np.repeat(flags, self._kv_heads_each, axis=0) for flags in found)

    def _turned(self, heads: Float, norm: AnyQkNorm | None, step: Step, counter: Counter) -> Float:
        """Return index queries or keys ``(tokens, heads, dim)``, normalised and rotated."""
        assert norm is not None
        heads = norm(heads, counter)
        return heads if self._rotary is None else self._rotary.rotate(heads, step.positions)

    def _chosen(self, queries: Float, step: Step, index: int, counter: Counter) -> Flags:
        """Return what a sequence's queries attend to, ``(index heads, new tokens, tokens in view)``."""
        arch, start = self._arch, step.starts[index]
        (keys,) = step.read_rows(self._place, index, counter)
        count, heads, dim = queries.shape
        products = np.matmul(queries.transpose(1, 0, 2), keys.T)
        pairs = count * (len(keys) - count) + count * (count + 1) // 2
        counter.attention(2 * pairs * heads * dim)
        seen = np.arange(len(keys)) <= start + np.arange(count)[:, None]
        scores = best_of_blocks(np.where(seen, products, -np.inf), arch.index_block_size)
        own = (start + np.arange(count)) // arch.index_block_size
        blocks = best_blocks(scores, own, arch.index_topk_blocks, arch.index_local_blocks)
        by_query = scores.transpose(1, 0, 2), blocks.transpose(1, 0, 2)
        blocks = step.settle(self, index, *by_query).transpose(1, 0, 2)
        tokens: Flags = np.repeat(blocks, arch.index_block_size, axis=2)[..., : len(keys)] & seen
        return tokens


def best_of_blocks(scores: Float, block_tokens: int) -> Float:
    """Return the best score in each block, ``(heads, n, blocks)``, of scores ``(heads, n, tokens)``."""
    firsts = np.arange(0, scores.shape[2], block_tokens)
    best: Float = np.maximum.reduceat(scores, firsts, axis=2)
    return best


def best_blocks(scores: Float, own: Positions, most: int, local: int) -> Flags:
    """Return which blocks have the best scores of those a query sees.

    Args:
        scores: ``(heads, n, blocks)``, minus infinity where a query sees nothing of a block.
        own: ``(n,)`` the block each query stands in.
        most: blocks chosen, all that it sees where those are fewer; of equal scores the first are.
        local: how many of them are its own and those right before it, whatever their scores.
    """
    boosted, queries = scores.copy(), np.arange(len(own))
    for back in range(local):
        boosted[:, queries, np.maximum(own - back, 0)] = np.inf
    order = np.argsort(-boosted, axis=2, kind="stable")[..., :most]
    chosen = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(chosen, order, values=True, axis=2)
    seen: Flags = chosen & ~np.isneginf(boosted)
    return seen
