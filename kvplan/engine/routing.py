"""Which experts a token uses, and with what share: the routers of Mixtral, Qwen, DeepSeek and gpt-oss."""

from __future__ import annotations

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.engine.activations import sigmoid

# What DeepSeek-V3 adds to the sum it divides by: sigmoid scores may all be 0.
_NO_ZERO = np.float32(1e-20)


def choose_experts(
    arch: Experts, logits: NDArray[np.float32], correction: NDArray[np.float32] | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each row's experts and their shares, both (rows, num_experts_per_tok), in no order.

    Args:
        arch: the description of the router.
        logits: (rows, num_experts).
        correction: (num_experts,), added to the scores experts are chosen by, not to their shares.
    """
    scores = _softmax(logits) if arch.scoring_func is Scoring.SOFTMAX else sigmoid(logits)
    best = _best(_eligible(arch, scores, correction), arch.num_experts_per_tok)
    shares = np.take_along_axis(scores, best, axis=1)
    if arch.norm_topk_prob:
        shares /= np.add.reduce(shares, axis=1, keepdims=True) + _NO_ZERO
    if arch.routed_scaling_factor != 1:
        shares *= np.float32(arch.routed_scaling_factor)
    return best, shares


def _eligible(
    arch: Experts, scores: NDArray[np.float32], correction: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Return the scores to choose by (rows, num_experts), -inf for experts outside the chosen groups."""
    match arch.topk_method:
        case TopkMethod.GREEDY:
            return scores
        case TopkMethod.GROUP_LIMITED_GREEDY:
            best_in_group = 1
        case TopkMethod.NOAUX_TC:
            best_in_group = 2
            if correction is not None:
                scores = scores + correction
        case _:
            assert_never(arch.topk_method)
    return _in_best_groups(arch, scores, best_in_group)


def _in_best_groups(arch: Experts, scores: NDArray[np.float32], best_in_group: int) -> NDArray[np.float32]:
    """Return the scores where a group is among the best by the sum of so many of its own, -inf elsewhere."""
    if arch.topk_group >= arch.n_group:
        return scores
    grouped = scores.reshape(len(scores), arch.n_group, -1)
    counted = min(best_in_group, grouped.shape[2])
    standing = np.partition(grouped, -counted, axis=2)[:, :, -counted:].sum(axis=2)
    open_groups = np.zeros(standing.shape, bool)
    np.put_along_axis(open_groups, _best(standing, arch.topk_group), True, axis=1)
    return np.where(open_groups[:, :, np.newaxis], grouped, -np.inf).reshape(scores.shape)


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the columns of each row's ``count`` largest scores, in no order."""
    return np.argpartition(scores, -count, axis=1)[:, -count:]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    out = logits - np.maximum.reduce(logits, axis=1, keepdims=True)
    np.exp(out, out=out)
    out /= np.add.reduce(out, axis=1, keepdims=True)
    return out
