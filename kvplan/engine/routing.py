"""Which experts a token uses, and with what share: the routers of every released mixture."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.engine.activations import sigmoid, softplus
from kvplan.engine.visibility import Flags

# What DeepSeek-V3 adds to the sum it divides by: sigmoid scores may all be 0.
_NO_ZERO = np.float32(1e-20)


class Round(Enum):
    """What a router chooses, one after the other: of groups and experts, or as a sparse mixer does."""

    GROUPS = "groups"
    EXPERTS = "experts"
    FIRST = "the first expert"
    NEAR_FIRST = "the logits near the first"
    SECOND = "the second expert"
    NEAR_SECOND = "the logits near the second"


Settle: TypeAlias = Callable[[Round, NDArray[np.float32], Flags], Flags]
"""Is given scores and what they choose ``(rows, ..., options)``, and returns what is chosen instead."""


def choose_experts(
    arch: Experts,
    logits: NDArray[np.float32],
    correction: NDArray[np.float32] | None,
    known: NDArray[np.int64] | None = None,
    settle: Settle | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each row's experts and their shares, both (rows, num_experts_per_tok), in no order.

    Args:
        arch: the description of the router.
        logits: (rows, num_experts).
        correction: (num_experts,), added to the scores experts are chosen by, not to their shares.
        known: (rows, num_experts_per_tok), the experts where a table says them.
        settle: may choose otherwise between scores that are equal but for rounding.
    """
    if known is not None:
        best, shares = known, np.take_along_axis(_scores(arch.scoring_func, logits), known, axis=1)
    elif arch.topk_method is TopkMethod.SPARSEMIXER:
        assert arch.router_jitter_noise is not None
        best, shares = _sparsemixer(logits, np.float32(2 * arch.router_jitter_noise), settle)
    else:
        best, shares = _by_scores(arch, logits, correction, settle)
    if arch.norm_topk_prob:
        shares /= np.add.reduce(shares, axis=1, keepdims=True) + _NO_ZERO
    if arch.routed_scaling_factor != 1:
        shares *= np.float32(arch.routed_scaling_factor)
    return best, shares


def _by_scores(
    arch: Experts,
    logits: NDArray[np.float32],
    correction: NDArray[np.float32] | None,
    settle: Settle | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each row's best experts and their scores."""
    scores = _scores(arch.scoring_func, logits)
    eligible = _eligible(arch, scores, correction, settle)
    best = _best(eligible, arch.num_experts_per_tok, Round.EXPERTS, settle)
    return best, np.take_along_axis(scores, best, axis=1)


def _scores(scoring: Scoring, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    match scoring:
        case Scoring.SOFTMAX:
            return _softmax(logits)
        case Scoring.SIGMOID:
            return sigmoid(logits)
        case Scoring.SQRT_SOFTPLUS:
            return np.sqrt(softplus(logits))
        case _:
            assert_never(scoring)


def _sparsemixer(
    logits: NDArray[np.float32], nearness: np.float32, settle: Settle | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each row's best two experts, each with its share among the logits that are near its own.

    The second's are without the best one. Distances are relative to the larger of the logit's size and the
    best one (arXiv 2409.12136; at inference nothing is sampled).
    """
    left, chosen, shares = logits.copy(), [], []
    for which, near_which in ((Round.FIRST, Round.NEAR_FIRST), (Round.SECOND, Round.NEAR_SECOND)):
        best = _best(left, 1, which, settle)
        top = np.take_along_axis(left, best, axis=1)
        reach: NDArray[np.float32] = nearness * np.maximum(np.abs(logits), top)
        near = _reaches(logits + reach, top, near_which, settle)
        among = _softmax(np.where(near, left, np.float32(-np.inf)))
        chosen.append(best)
        shares.append(np.take_along_axis(among, best, axis=1))
        np.put_along_axis(left, best, np.float32(-np.inf), axis=1)
    return np.concatenate(chosen, axis=1), np.concatenate(shares, axis=1)


def _reaches(
    values: NDArray[np.float32], limit: NDArray[np.float32], what: Round, settle: Settle | None
) -> Flags:
    """Return which values (rows, n) reach their row's limit (rows, 1)."""
    found: Flags = values >= limit
    if settle is None:
        return found
    both = np.stack(np.broadcast_arrays(values, limit), axis=2)
    return settle(what, both, np.stack([found, ~found], axis=2))[:, :, 0]


def _eligible(
    arch: Experts,
    scores: NDArray[np.float32],
    correction: NDArray[np.float32] | None,
    settle: Settle | None,
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
        case TopkMethod.SPARSEMIXER:
            raise AssertionError("sparsemixer has no scores to choose by")
        case _:
            assert_never(arch.topk_method)
    return _in_best_groups(arch, scores, best_in_group, settle)


def _in_best_groups(
    arch: Experts, scores: NDArray[np.float32], best_in_group: int, settle: Settle | None
) -> NDArray[np.float32]:
    """Return the scores where a group is among the best by the sum of so many of its own, -inf elsewhere."""
    if arch.topk_group >= arch.n_group:
        return scores
    grouped = scores.reshape(len(scores), arch.n_group, -1)
    counted = min(best_in_group, grouped.shape[2])
    standing = np.partition(grouped, -counted, axis=2)[:, :, -counted:].sum(axis=2)
    open_groups = np.zeros(standing.shape, bool)
    np.put_along_axis(open_groups, _best(standing, arch.topk_group, Round.GROUPS, settle), True, axis=1)
    return np.where(open_groups[:, :, np.newaxis], grouped, -np.inf).reshape(scores.shape)


def _best(scores: NDArray[np.float32], count: int, what: Round, settle: Settle | None) -> NDArray[np.int64]:
    """Return the columns of each row's ``count`` largest scores, in no order."""
    best = np.argpartition(scores, -count, axis=1)[:, -count:]
    if settle is None:
        return best
    chosen = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(chosen, best, values=True, axis=1)
    return np.nonzero(settle(what, scores, chosen))[1].reshape(best.shape)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    out = logits - np.maximum.reduce(logits, axis=1, keepdims=True)
    np.exp(out, out=out)
    out /= np.add.reduce(out, axis=1, keepdims=True)
    return out
