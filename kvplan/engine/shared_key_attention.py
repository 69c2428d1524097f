"""Attention of all heads over one set of vectors that are keys and values at once (DeepSeek-V4)."""

from __future__ import annotations

import numpy as np

from kvplan.engine.counter import Counter
from kvplan.engine.kv_codecs import F32
from kvplan.engine.visibility import Flags

# Queries whose scores are made together: heads x queries x vectors of them exist at once.
_QUERIES_AT_ONCE = 64


def attend_shared(queries: F32, vectors: F32, seen: Flags, scale: float, sinks: F32, counter: Counter) -> F32:
    """Return what queries make of the vectors each of them sees, ``(n, heads, dim)``.

    Args:
        queries: ``(n, heads, dim)``.
        vectors: ``(m, dim)``.
        seen: ``(n, m)``, at least one vector for each query.
        scale: what scores are multiplied by.
        sinks: ``(heads,)`` logits that take part in each head's softmax and have no value.
        counter: gets the products of visible pairs.
    """
    count, heads, dim = queries.shape
    mixed = np.empty_like(queries)
    for first in range(0, count, _QUERIES_AT_ONCE):
        rows = slice(first, first + _QUERIES_AT_ONCE)
        scores: F32 = queries[rows].reshape(-1, dim) @ vectors.T
        scores *= np.float32(scale)
        by_query = scores.reshape(-1, heads, len(vectors))
        np.copyto(by_query, -np.inf, where=~seen[rows, None])
        highest = np.maximum(by_query.max(axis=2), sinks)[..., None]
        by_query -= highest
        np.exp(by_query, out=by_query)
        by_query /= by_query.sum(axis=2, keepdims=True) + np.exp(sinks[:, None] - highest)
        mixed[rows] = (scores @ vectors).reshape(-1, heads, dim)
    counter.attention(2 * int(seen.sum()) * heads * 2 * dim)
    return mixed
