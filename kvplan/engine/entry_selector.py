"""The indexer of compressed attention as a layer runs it: entries in view are scored, the best are read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvplan.arch.compressed_attention import INDEX_COMPRESSOR
from kvplan.arch.entry_indexer import EntryIndexer
from kvplan.engine.arrays import Float, Tokens
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.rotary import Rotary


class EntrySelector:
    """What scores compressed entries by their index keys.

    Args:
        arch: the indexer.
        weights: the layer's tensors by name.
        rotary: the rotation of the last elements of index queries.
        rotated: how many those are.
    """

    def __init__(
        self, arch: EntryIndexer, weights: Mapping[str, Float], rotary: Rotary, rotated: int
    ) -> None:
        self._arch = arch
        self._queries = Linear(weights[f"{INDEX_COMPRESSOR}.q_b_proj.weight"])
        self._weights = Linear(weights[f"{INDEX_COMPRESSOR}.scorer.weights_proj.weight"])
        self._rotary, self._rotated = rotary, rotated
        self._scale = np.float32(arch.index_head_dim**-0.5 * arch.index_n_heads**-0.5)

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return self._queries.nbytes + self._weights.nbytes

    def project(
        self, x: Float, compressed: Float, positions: Tokens, counter: Counter
    ) -> tuple[Float, Float]:
        """Return index queries ``(tokens, heads, dim)`` and the weights of their heads ``(tokens, heads)``.

        Args:
            x: the layer's input ``(tokens, hidden)``.
            compressed: the compressed queries of its attention ``(tokens, q_lora_rank)``.
            positions: of the tokens.
            counter: gets the products.
        """
        queries = self._queries(compressed, counter)
        queries = queries.reshape(len(x), self._arch.index_n_heads, self._arch.index_head_dim)
        tail = np.ascontiguousarray(queries[..., -self._rotated :])
        queries[..., -self._rotated :] = self._rotary.rotate(tail, positions)
        return queries, self._weights(x, counter) * self._scale

    def scores(self, queries: Float, weights: Float, keys: Float, pairs: int, counter: Counter) -> Float:
        """Return the score of every entry for each query, ``(n, entries)``; ``pairs`` of them are visible."""
        count, heads, dim = queries.shape
        products = (queries.reshape(-1, dim) @ keys.T).reshape(count, heads, -1)
        np.maximum(products, 0, out=products)
        counter.attention(2 * pairs * heads * (dim + 1))
        scores: Float = np.matmul(weights[:, None], products)[:, 0]
        return scores
