"""An indexer as a layer runs it: every token in view is scored, and the best are attended to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kvplan.arch.indexer import Indexer
from kvplan.arch.latent_attention import LatentAttention
from kvplan.engine.arrays import Float
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.norms import LayerNorm
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.step import Step
from kvplan.engine.visibility import Flags

# transformers 5.23, modeling_deepseek_v32.py, DeepseekV32Indexer.
_KEY_EPS = 1e-6


class TokenIndexer:
    """The indexer of one latent-attention layer, with its weights.

    Its scores are those of transformers: relu of each index head's query times the key, scaled, and summed
    with a weight for each head. The Hadamard transform of DeepSeek's kernels leaves them as they are.

    Args:
        arch: what it is.
        layer: the attention it chooses tokens for.
        weights: the layer's tensors by their names in the description.
        place: where its keys are in the cache.
        rotaries: the run's rotations.
    """

    def __init__(
        self,
        arch: Indexer,
        layer: LatentAttention,
        weights: Mapping[str, Float],
        place: int,
        rotaries: Rotaries,
    ) -> None:
        self._arch, self._place, self._rotated = arch, place, layer.qk_rope_head_dim
        self._queries = Linear(weights["self_attn.indexer.wq_b.weight"])
        self._keys = Linear(weights["self_attn.indexer.wk.weight"])
        norm = weights["self_attn.indexer.k_norm.weight"], weights["self_attn.indexer.k_norm.bias"]
        self._norm = LayerNorm(*norm, _KEY_EPS)
        self._weights = Linear(weights["self_attn.indexer.weights_proj.weight"])
        rope = layer.rope_parameters
        if rope is not None:
            rope = replace(rope, interleaved=arch.indexer_rope_interleave)
        self._rotary = rotaries.of(rope, layer.qk_rope_head_dim)
        self._scale = np.float32(arch.index_head_dim**-0.5 * arch.index_n_heads**-0.5)

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return sum(part.nbytes for part in (self._queries, self._keys, self._norm, self._weights))

    def __call__(self, x: Float, compressed: Float, step: Step, counter: Counter) -> tuple[Flags, ...]:
        """Store the new tokens' keys and return which tokens in view each new token attends to.

        Args:
            x: the layer's input ``(tokens, hidden)``.
            compressed: the compressed queries of its attention ``(tokens, q_lora_rank)``.
            step: the step.
            counter: gets the products and the bytes read and written.

        Returns:
            For each sequence ``(new tokens, tokens in view)``.
        """
        heads, dim = self._arch.index_n_heads, self._arch.index_head_dim
        queries = self._turned(self._queries(compressed, counter).reshape(len(x), heads, dim), step)
        keys = self._turned(self._norm(self._keys(x, counter), counter)[:, None], step)[:, 0]
        weights = self._weights(x, counter) * self._scale
        step.write_rows(self._place, (keys,), counter)
        found = []
        for index, start in enumerate(step.starts):
            rows = step.rows(index)
            scores = self._scores(queries[rows], weights[rows], step, index, counter)
            chosen = best_in_view(scores, start, self._arch.index_topk)
            found.append(step.settle(self, index, scores, chosen))
        return tuple(found)

    def _turned(self, vectors: Float, step: Step) -> Float:
        """Return index queries or keys ``(tokens, heads, dim)`` with their first elements rotated."""
        if self._rotary is not None:
            first = np.ascontiguousarray(vectors[..., : self._rotated])
            vectors[..., : self._rotated] = self._rotary.rotate(first, step.positions)
        return vectors

    def _scores(self, queries: Float, weights: Float, step: Step, index: int, counter: Counter) -> Float:
        """Return the score of every token in view for each query, ``(n, tokens)``."""
        (keys,) = step.read_rows(self._place, index, counter)
        count, heads, dim = queries.shape
        products = (queries.reshape(-1, dim) @ keys.T).reshape(count, heads, -1)
        np.maximum(products, 0, out=products)
        pairs = count * (len(keys) - count) + count * (count + 1) // 2
        counter.attention(2 * pairs * heads * (dim + 1))
        scores: Float = np.matmul(weights[:, None], products)[:, 0]
        return scores


def best_in_view(scores: Float, start: int, most: int) -> Flags:
    """Return which tokens have the best scores of those a query sees: itself and all before it.

    Args:
        scores: ``(n, tokens)``; query ``i`` is token ``start + i``.
        start: tokens before the first query.
        most: tokens chosen, all that it sees where those are fewer; of equal scores the first are.
    """
    count, tokens = scores.shape
    return best_seen(scores, np.arange(tokens) <= start + np.arange(count)[:, None], most)


def best_seen(scores: Float, seen: Flags, most: int) -> Flags:
    """Return which columns have the best scores ``(n, columns)`` of those that each row has ``seen``.

    At most ``most`` of a row are chosen, all that it sees where those are fewer; of equal scores the first.
    """
    if scores.shape[1] <= most:
        return seen
    masked = np.where(seen, scores, -np.inf)
    order = np.argsort(-masked, axis=1, kind="stable")[:, :most]
    chosen = np.zeros_like(seen)
    np.put_along_axis(chosen, order, values=True, axis=1)
    return chosen & seen
