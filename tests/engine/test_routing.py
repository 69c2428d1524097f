"""Routers with scores small enough to follow by hand, and against a router written out row by row."""

import math

import numpy as np
import pytest

from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.engine.routing import choose_experts

# Sigmoid scores that are near these: easy to add up by eye.
LOGIT = {score: math.log(score / (1 - score)) for score in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)}


def choose(arch, logits, correction=None):
    """Return {expert: share} for each row."""
    rows = np.atleast_2d(np.array(logits, np.float32))
    bias = None if correction is None else np.array(correction, np.float32)
    chosen, shares = choose_experts(arch, rows, bias)
    assert shares.dtype == np.float32
    assert chosen.shape == shares.shape == (len(rows), arch.num_experts_per_tok)
    return [dict(zip(*pair, strict=True)) for pair in zip(chosen.tolist(), shares.astype(float), strict=True)]


def approximately(shares):
    return pytest.approx(shares, rel=1e-6)


def test_mixtral_and_gpt_oss_share_by_a_softmax_over_the_chosen():
    # exp(1) and exp(2) among themselves.
    expected = {1: math.e / (math.e + math.e**2), 3: math.e**2 / (math.e + math.e**2)}
    assert choose(Experts(4, 2, 8), [0.0, 1.0, -5.0, 2.0]) == [approximately(expected)]


def test_qwen_may_leave_the_shares_of_a_softmax_over_all():
    logits = [0.0, 1.0, -5.0, 2.0]
    total = sum(map(math.exp, logits))
    expected = {1: math.e / total, 3: math.e**2 / total}
    assert choose(Experts(4, 2, 8, norm_topk_prob=False), logits) == [approximately(expected)]


def test_shares_are_multiplied_by_the_scaling_factor_after_they_are_normed():
    [shares] = choose(Experts(4, 2, 8, routed_scaling_factor=2.5), [0.0, 1.0, -5.0, 2.0])
    assert sum(shares.values()) == pytest.approx(2.5)


def test_huge_logits_do_not_overflow():
    assert choose(Experts(3, 1, 8), [-1e30, 1e30, 9e29]) == [{1: 1.0}]


def test_deepseek_v2_takes_experts_from_the_groups_with_the_best_single_one():
    # Groups (0, 1), (2, 3), (4, 5): the best single ones are 5 and 3; the second group has expert 2 as well.
    arch = Experts(
        6, 2, 8, topk_method=TopkMethod.GROUP_LIMITED_GREEDY, n_group=3, topk_group=1, norm_topk_prob=False
    )
    logits = [4.0, 4.0, 4.5, 4.9, -9.0, 5.0]
    total = sum(map(math.exp, logits))
    assert choose(arch, logits) == [approximately({4: math.exp(-9) / total, 5: math.exp(5) / total})]


def deepseek_v3(**others):
    given = {"n_group": 3, "topk_group": 1, "router_bias_buffer": True, **others}
    return Experts(6, 2, 8, scoring_func=Scoring.SIGMOID, topk_method=TopkMethod.NOAUX_TC, **given)


def test_deepseek_v3_takes_experts_from_the_groups_with_the_best_two():
    # Sums 0.9 + 0.1, 0.6 + 0.5, 0.2 + 0.3: the second group wins though the first has the best one.
    logits = [LOGIT[score] for score in (0.9, 0.1, 0.6, 0.5, 0.2, 0.3)]
    expected = {2: 0.6 / 1.1, 3: 0.5 / 1.1}
    assert choose(deepseek_v3(), logits, [0] * 6) == [approximately(expected)]


def test_deepseek_v3_corrects_what_it_chooses_by_and_not_the_shares():
    logits = [LOGIT[score] for score in (0.9, 0.1, 0.6, 0.5, 0.2, 0.3)]
    expected = {4: 0.2 * 2 / 0.5, 5: 0.3 * 2 / 0.5}
    assert choose(deepseek_v3(routed_scaling_factor=2.0), logits, [0, 0, 0, 0, 0.7, 0.7]) == [
        approximately(expected)
    ]


def test_deepseek_v3_chooses_among_all_groups_even_below_zero():
    # All corrected scores are negative: an expert outside the groups must not look better than them.
    logits = [LOGIT[score] for score in (0.1, 0.1, 0.6, 0.5, 0.2, 0.3)]
    assert set(choose(deepseek_v3(), logits, [-2.0] * 6)[0]) == {2, 3}


def test_scores_that_are_all_zero_give_shares_of_zero():
    assert choose(deepseek_v3(n_group=1), [-200.0] * 6, [0, 0, 0, 0, 1, 1]) == [{4: 0.0, 5: 0.0}]


def by_hand(arch, logits, correction):
    """Choose for one row with sorted lists and sums in float64."""
    if arch.scoring_func is Scoring.SIGMOID:
        scores = [1 / (1 + math.exp(-x)) for x in logits]
    else:
        total = sum(map(math.exp, logits))
        scores = [math.exp(x) / total for x in logits]
    by = [s + c for s, c in zip(scores, correction, strict=True)]
    size = arch.num_experts // arch.n_group
    groups = [range(g * size, g * size + size) for g in range(arch.n_group)]
    if arch.topk_method is TopkMethod.GREEDY:
        eligible = range(arch.num_experts)
    else:
        best = 2 if arch.topk_method is TopkMethod.NOAUX_TC else 1
        groups.sort(key=lambda group: sum(sorted((by[i] for i in group), reverse=True)[:best]), reverse=True)
        eligible = [i for group in groups[: arch.topk_group] for i in group]
    chosen = sorted(eligible, key=by.__getitem__, reverse=True)[: arch.num_experts_per_tok]
    whole = sum(scores[i] for i in chosen) if arch.norm_topk_prob else 1
    return {i: scores[i] / whole * arch.routed_scaling_factor for i in chosen}


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("scoring", Scoring)
@pytest.mark.parametrize("method", TopkMethod)
def test_many_rows_choose_as_each_would_alone(method, scoring, normed):
    groups = {} if method is TopkMethod.GREEDY else {"n_group": 8, "topk_group": 3}
    arch = Experts(
        64,
        6,
        8,
        topk_method=method,
        scoring_func=scoring,
        norm_topk_prob=normed,
        routed_scaling_factor=2.5,
        **groups,
    )
    random = np.random.default_rng(0)
    logits = random.standard_normal((40, 64)).astype(np.float32)
    noaux = method is TopkMethod.NOAUX_TC
    correction = random.standard_normal(64).astype(np.float32) if noaux else np.zeros(64, np.float32)
    found = choose(arch, logits, correction if noaux else None)
    for row, shares in zip(logits.astype(float), found, strict=True):
        assert shares == pytest.approx(by_hand(arch, row, correction.astype(float)), rel=1e-5)
