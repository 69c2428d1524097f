"""Attention of many queries over tokens that an indexer has chosen for each of them."""

from __future__ import annotations

import numpy as np

from kvplan.engine.counter import Counter
from kvplan.engine.kv_codecs import F32
from kvplan.engine.visibility import Flags

# Queries whose scores are made together: heads x queries x tokens of them exist at once.
_QUERIES_AT_ONCE = 64


def attend_chosen(queries: F32, keys: F32, values: F32, chosen: Flags, scale: float, counter: Counter) -> F32:
    """Return what many queries make of the tokens chosen for each, ``(n, heads, v_dim)``.

    Args:
        queries: ``(n, heads, k_dim)``.
        keys, values: ``(tokens, kv_heads, k_dim)`` and ``(tokens, kv_heads, v_dim)``.
        chosen: ``(kv_heads, n, tokens)``, or ``(1, n, tokens)`` where all heads see the same; at least one
            token for each query.
        scale: what scores are multiplied by.
        counter: gets the products of chosen pairs.
    """
    count, heads, k_dim = queries.shape
    kv_heads, v_dim = values.shape[1:]
    by_head, values_by_head = keys.transpose(1, 2, 0), values.transpose(1, 0, 2)
    grouped = queries.reshape(count, kv_heads, -1, k_dim).transpose(1, 2, 0, 3)
    mixed = np.empty((count, heads, v_dim), np.float32)
    for first in range(0, count, _QUERIES_AT_ONCE):
        some = grouped[:, :, first : first + _QUERIES_AT_ONCE]
        rows = slice(first, first + some.shape[2])
        scores: F32 = np.matmul(some.reshape(kv_heads, -1, k_dim), by_head)
        by_query = scores.reshape(*some.shape[:3], -1)
        np.copyto(by_query, -np.inf, where=~chosen[:, None, rows])
        to_weights(scores, scale)
        made = np.matmul(scores, values_by_head).reshape(*some.shape[:3], v_dim)
        mixed[rows] = made.transpose(2, 0, 1, 3).reshape(-1, heads, v_dim)
    seen = int(chosen.sum()) * heads // len(chosen)
    counter.attention(2 * seen * (k_dim + v_dim))
    return mixed


def to_weights(scores: F32, scale: float) -> None:
    """Turn scores into the weights of their softmax over the last axis, in place."""
    scores *= np.float32(scale)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
