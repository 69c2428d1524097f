"""Perplexity, its change, and how sure one can be: against figures worked out by hand and printed tables."""

from math import exp, sqrt

import numpy as np
import pytest

from kvplan.check.perplexity import Estimate, block_means, perplexity, perplexity_change, student_quantile


def blocks_of(*means):
    """A window of blocks of 64 tokens, each with this mean: tokens half a nat to either side of it."""
    swing = np.where(np.arange(64) % 2, 0.5, -0.5)
    return np.concatenate([mean + swing for mean in means])


# Two-sided 95 %, as textbooks print them.
@pytest.mark.parametrize(
    ("degrees", "printed"),
    [(7, 2.3646), (9, 2.2622), (15, 2.1314), (30, 2.0423), (60, 2.0003), (120, 1.9799), (100_000, 1.9600)],
)
def test_students_quantile_is_the_printed_one(degrees, printed):
    assert student_quantile(degrees) == pytest.approx(printed, rel=1e-3)


def test_perplexity_is_the_exponential_of_the_mean_loss():
    found = perplexity([np.array([1.0, 2.0]), np.array([3.0])])
    assert found == Estimate(pytest.approx(exp(2)), None, None)


def test_an_interval_by_hand():
    """Means 1 ... 8: their mean is 4.5 and their variance 6, so 2.3646 x sqrt(6 / 8) to either side."""
    found = perplexity([blocks_of(1, 2, 3, 4), blocks_of(5, 6, 7, 8)])
    half = 2.3646 * sqrt(6 / 8)
    assert found.value == pytest.approx(exp(4.5))
    assert (found.low, found.high) == pytest.approx((exp(4.5 - half), exp(4.5 + half)), rel=2e-3)


def test_a_change_is_paired():
    """A format that adds 0.02 to every loss costs exactly that, however hard the text is here and there."""
    hard = [blocks_of(1, 9, 2, 8), blocks_of(3, 7, 4, 6)]
    found = perplexity_change([window + 0.02 for window in hard], hard)
    assert (found.value, found.low, found.high) == pytest.approx((exp(0.02) - 1,) * 3)


def test_the_interval_of_a_change_by_hand():
    plain = [blocks_of(*range(4)), blocks_of(*range(4))]
    more = [plain[0] + blocks_of(1, 2, 3, 4) / 1000, plain[1] + blocks_of(5, 6, 7, 8) / 1000]
    found = perplexity_change(more, plain)
    half = 2.3646e-3 * sqrt(6 / 8)
    assert found.value == pytest.approx(exp(0.0045) - 1)
    assert found.low == pytest.approx(exp(0.0045 - half) - 1, abs=4e-6)
    assert found.high == pytest.approx(exp(0.0045 + half) - 1, abs=4e-6)


def test_less_perplexity_is_less_than_nothing():
    found = perplexity_change([blocks_of(*[1] * 8)], [blocks_of(*[2] * 8)])
    assert found.value == pytest.approx(exp(-1) - 1)


def test_seven_blocks_are_too_few():
    found = perplexity_change([blocks_of(*range(7))], [blocks_of(*range(7))])
    assert found == Estimate(0.0, None, None)


def test_tokens_that_are_alike_in_a_row_make_a_wide_interval():
    """As samples of their own they would make it 8 times narrower: sqrt(64)."""
    losses = [np.repeat(np.arange(16.0), 64)]
    single = student_quantile(1023) * losses[0].std(ddof=1) / sqrt(1024)
    found = perplexity(losses)
    assert found.low is not None
    assert np.log(found.value / found.low) > 7 * single


def test_blocks_are_of_one_window_and_about_as_long():
    first, second = np.arange(511.0), np.arange(40.0)
    means = block_means([first, second])
    assert len(means) == 8 + 1
    assert means[0] == np.arange(64.0).mean()
    assert means[7] == np.arange(448.0, 511.0).mean()
    assert means[8] == second.mean()
