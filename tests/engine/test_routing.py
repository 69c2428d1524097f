"""Routers with scores small enough to follow by hand, and against a router written out row by row."""

import math

import numpy as np
import pytest

from kvplan.arch.experts import Experts, Scoring, TopkMethod
from kvplan.engine.routing import Round, choose_experts

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
    with np.errstate(over="ignore"):  # as in a decoder's step
        assert choose(deepseek_v3(n_group=1), [-200.0] * 6, [0, 0, 0, 0, 1, 1]) == [{4: 0.0, 5: 0.0}]


def test_llama_4_takes_the_sigmoid_of_the_chosen_logits():
    arch = Experts(3, 1, 8, scoring_func=Scoring.SIGMOID, norm_topk_prob=False)
    assert choose(arch, [LOGIT[0.2], LOGIT[0.7], LOGIT[0.6]]) == [approximately({1: 0.7})]


def test_deepseek_v4_scores_by_the_root_of_a_softplus():
    # ln(1 + e^x) is 4 for x = ln(e^4 - 1), and 1 for x = ln(e - 1): roots 2 and 1.
    logits = [math.log(math.e**4 - 1), math.log(math.e - 1), -50.0]
    assert choose(Experts(3, 2, 8, scoring_func=Scoring.SQRT_SOFTPLUS), logits) == [
        approximately({0: 2 / 3, 1: 1 / 3})
    ]


def sparsemixer(jitter):
    return Experts(
        4,
        2,
        8,
        topk_method=TopkMethod.SPARSEMIXER,
        router_jitter_noise=jitter,
        norm_topk_prob=False,
    )


def test_a_sparse_mixer_shares_among_logits_near_the_best_then_near_the_second():
    # At most 20% below 10 is 9 alone; without 10, at most 20% below 9 are 8 and 7.5.
    expected = {0: 1 / (1 + math.exp(-1)), 1: 1 / (1 + math.exp(-1) + math.exp(-1.5))}
    assert choose(sparsemixer(0.1), [10.0, 9.0, 7.5, 7.0]) == [
        approximately({0: expected[0], 1: 1 / (1 + math.exp(-1.5))})
    ]
    assert choose(sparsemixer(0.099), [10.0, 9.0, 8.0, 7.5]) == [approximately(expected)]


def test_a_sparse_mixer_measures_from_the_larger_of_a_logit_and_the_best():
    # From -1 to -5 are 4 of 5: 0.8, near by 2 x 0.41, not by 2 x 0.39. From -5 to -20 are 0.75.
    near = {0: 1 / (1 + math.exp(-4)), 1: 1 / (1 + math.exp(-15) + math.exp(-16))}
    assert choose(sparsemixer(0.41), [-1.0, -5.0, -20.0, -21.0]) == [approximately(near)]
    [shares] = choose(sparsemixer(0.39), [-1.0, -5.0, -20.0, -21.0])
    assert shares[0] == 1.0


def test_a_sparse_mixers_shares_are_not_those_of_its_whole():
    [shares] = choose(sparsemixer(0.01), [10.0, 9.0, 8.0, 7.5])
    assert shares == {0: 1.0, 1: 1.0}


def by_hand(arch, logits, correction):
    """Choose for one row with sorted lists and sums in float64."""
    if arch.scoring_func is Scoring.SIGMOID:
        scores = [1 / (1 + math.exp(-x)) for x in logits]
    elif arch.scoring_func is Scoring.SQRT_SOFTPLUS:
        scores = [math.sqrt(math.log1p(math.exp(x))) for x in logits]
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
@pytest.mark.parametrize("method", [m for m in TopkMethod if m is not TopkMethod.SPARSEMIXER])
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


def settling(arch, logits, instead, correction=None):
    """Return {expert: share} of one row where some rounds choose as ``instead`` says, and what each saw."""
    asked = {}

    def settle(what, scores, chosen):
        assert scores.shape == chosen.shape
        asked[what] = scores[0].astype(float).tolist()
        return np.array([instead[what]], np.bool_) if what in instead else chosen

    bias = None if correction is None else np.array(correction, np.float32)
    chosen, shares = choose_experts(arch, np.array([logits], np.float32), bias, settle=settle)
    return dict(zip(chosen[0].tolist(), shares[0].astype(float).tolist(), strict=True)), asked


def test_experts_may_be_settled_by_the_scores_they_are_chosen_by():
    logits = [0.0, 1.0, 1.0, 2.0]
    total = sum(map(math.exp, logits))
    for experts in ((1, 3), (2, 3)):
        instead = {Round.EXPERTS: [expert in experts for expert in range(4)]}
        shares, asked = settling(Experts(4, 2, 8, norm_topk_prob=False), logits, instead)
        assert shares == approximately({expert: math.exp(logits[expert]) / total for expert in experts})
        assert asked == {Round.EXPERTS: approximately([math.exp(logit) / total for logit in logits])}


def test_groups_are_settled_before_the_experts_in_them():
    logits = [LOGIT[score] for score in (0.9, 0.1, 0.6, 0.5, 0.2, 0.3)]
    shares, asked = settling(deepseek_v3(), logits, {Round.GROUPS: [1, 0, 0]}, [0, 0, 0, 0, 0.7, 0.1])
    assert shares == approximately({0: 0.9, 1: 0.1})
    assert asked[Round.GROUPS] == approximately([1.0, 1.1, 1.3])
    assert asked[Round.EXPERTS] == approximately([0.9, 0.1, *[-math.inf] * 4])


def test_a_sparse_mixer_is_settled_in_the_order_it_chooses():
    """The first has its share among three, the second among the two that are left."""
    third = math.exp(-0.1)
    for first, second in ((0, 1), (1, 0)):
        instead = {Round.FIRST: [expert == first for expert in range(4)]}
        shares, asked = settling(sparsemixer(0.01), [10.0, 10.0, 9.9, 0.0], instead)
        assert shares == approximately({first: 1 / (2 + third), second: 1 / (1 + third)})
        left = [-math.inf if expert == first else [10, 10, 9.9, 0][expert] for expert in range(4)]
        assert asked[Round.SECOND] == approximately(left)


def test_what_is_near_to_a_sparse_mixer_is_settled_for_each_logit():
    """Each is compared with what it must reach: 9 and 20% of 10 with 10, of which it is near."""
    logits = [10.0, 9.0, 7.5, 7.0]
    alone = [[expert == 0, expert != 0] for expert in range(4)]
    shares, asked = settling(sparsemixer(0.1), logits, {Round.NEAR_FIRST: alone})
    assert shares == approximately({0: 1.0, 1: 1 / (1 + math.exp(-1.5))})
    reached = np.array([[12, 10], [11, 10], [9.5, 10], [9, 10]])
    assert np.array(asked[Round.NEAR_FIRST]) == approximately(reached)
    shares, _ = settling(sparsemixer(0.1), logits, {})
    assert shares[0] == pytest.approx(1 / (1 + math.exp(-1)))
