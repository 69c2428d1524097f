"""Sampling: which tokens can be drawn, how often, and that nothing but a request's own numbers decides it."""

import numpy as np
import pytest

from kvplan.engine.sampling import Sampler
from kvplan.errors import UsageError


def logits_of(*probabilities):
    return np.log(np.array([probabilities])).astype(np.float32)


def draw(sampler, logits, count, request=0):
    """Draw ``count`` times from one row, as one request's steps."""
    rows = np.repeat(logits, count, axis=0)
    return sampler.sample(rows, [request] * count, range(count))


def shares(tokens, size):
    return np.bincount(tokens, minlength=size) / len(tokens)


def test_greedy_takes_the_best_and_the_first_of_equals():
    logits = np.array([[0, 3, 3], [5, 1, 2], [-7, -8, -6]], np.float32)
    assert Sampler().sample(logits, [0, 1, 2], [0, 0, 0]).tolist() == [1, 0, 2]
    assert Sampler(0, top_k=2, top_p=0.5, seed=9).sample(logits, [4, 4, 4], [1, 2, 3]).tolist() == [1, 0, 2]


def test_tokens_are_drawn_as_often_as_their_probabilities_say():
    probabilities = (0.5, 0.05, 0.25, 0.2)
    found = draw(Sampler(1.0, seed=3), logits_of(*probabilities), 4_000)
    # Four standard deviations of 4,000 draws are at most 0.032.
    assert np.abs(shares(found, 4) - probabilities).max() < 0.032


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_divides_the_logits(temperature):
    powered = np.array([0.5, 0.05, 0.25, 0.2]) ** (1 / temperature)
    found = draw(Sampler(temperature, seed=3), logits_of(0.5, 0.05, 0.25, 0.2), 4_000)
    assert np.abs(shares(found, 4) - powered / powered.sum()).max() < 0.032


@pytest.mark.parametrize("temperature", [1e-3, 1e-310])
def test_a_tiny_temperature_takes_the_best(temperature):
    found = draw(Sampler(temperature), np.array([[1.0, -1e4, 1.5, 1.4]], np.float32), 50)
    assert set(found.tolist()) == {2}


@pytest.mark.parametrize(
    ("top_k", "possible"),
    [(1, {2}), (2, {2, 4}), (3, {2, 4, 0}), (4, {2, 4, 0, 1}), (5, set(range(5))), (99, set(range(5)))],
)
def test_top_k_draws_from_the_best(top_k, possible):
    # Tokens 1 and 3 are equal: the lower number is the better one.
    logits = logits_of(0.2, 0.1, 0.35, 0.1, 0.25)
    assert set(draw(Sampler(1.0, top_k=top_k), logits, 300).tolist()) == possible


def test_of_many_equals_top_k_takes_the_lowest_numbers():
    # The odd tokens are better than the even ones, which are equal: 100 of those are left.
    logits = np.array([np.arange(1_000) % 2], np.float32)
    assert set(draw(Sampler(1.0, top_k=600), logits, 3_000).tolist()) <= {
        *range(1, 1_000, 2),
        *range(0, 200, 2),
    }


@pytest.mark.parametrize(
    ("top_p", "possible"),
    [(0.01, {2}), (0.34, {2}), (0.36, {2, 4}), (0.59, {2, 4}), (0.61, {0, 2, 4}), (1.0, set(range(5)))],
)
def test_top_p_draws_from_the_fewest_that_have_it(top_p, possible):
    logits = logits_of(0.2, 0.12, 0.35, 0.08, 0.25)
    assert set(draw(Sampler(1.0, top_p=top_p), logits, 300).tolist()) == possible


def test_top_p_is_a_share_of_what_top_k_left():
    # Of 0.35 and 0.25, the first alone has 0.58.
    logits = logits_of(0.2, 0.12, 0.35, 0.08, 0.25)
    assert set(draw(Sampler(1.0, top_k=2, top_p=0.58), logits, 300).tolist()) == {2}
    assert set(draw(Sampler(1.0, top_k=2, top_p=0.59), logits, 300).tolist()) == {2, 4}


def test_what_is_left_is_drawn_in_proportion():
    found = draw(Sampler(1.0, top_k=3, seed=5), logits_of(0.2, 0.15, 0.3, 0.1, 0.25), 4_000)
    assert np.abs(shares(found, 5) - np.array([0.2, 0, 0.3, 0, 0.25]) / 0.75).max() < 0.032


def test_a_request_draws_the_same_whoever_shares_its_batch():
    random = np.random.default_rng(0)
    sampler, logits = Sampler(0.8, top_k=40, top_p=0.9, seed=7), random.standard_normal((6, 500), np.float32)
    together = sampler.sample(logits, [10, 11, 12, 13, 14, 15], [3, 1, 4, 1, 5, 9])
    backwards = sampler.sample(logits[::-1], [15, 14, 13, 12, 11, 10], [9, 5, 1, 4, 1, 3])
    alone = sampler.sample(logits[2:3], [12], [4])
    assert together.dtype == np.int64
    assert together.tolist() == backwards[::-1].tolist()
    assert alone.tolist() == [together[2]]


def test_seed_request_and_step_each_change_the_draw():
    logits = np.zeros((200, 1_000), np.float32)
    steps, first = range(200), Sampler(1.0, seed=1).sample(logits, [0] * 200, range(200))
    assert Sampler(1.0, seed=1).sample(logits, [0] * 200, steps).tolist() == first.tolist()
    others = [
        Sampler(1.0, seed=2).sample(logits, [0] * 200, steps),
        Sampler(1.0, seed=1).sample(logits, [1] * 200, steps),
        Sampler(1.0, seed=1).sample(logits, [0] * 200, range(1, 201)),
    ]
    # Two independent streams of 200 draws agree 0.2 times on average.
    assert all((first == other).sum() < 5 for other in others)
    assert len(set(first.tolist())) > 150


def test_the_largest_seed_and_numbers_are_drawn_from():
    tokens = Sampler(1.0, seed=2**64 - 1).sample(np.zeros((1, 10), np.float32), [2**63], [2**63])
    assert 0 <= tokens[0] < 10


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_logits_that_are_no_numbers_are_refused(temperature, broken):
    with pytest.raises(ValueError, match="finite"):
        Sampler(temperature).sample(np.array([[0, broken]], np.float32), [0], [0])


def test_an_empty_batch_has_no_tokens():
    assert Sampler(1.0).sample(np.empty((0, 5), np.float32), [], []).shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0 or more, not -0.1"),
        ({"temperature": float("nan")}, "temperature must be 0 or more, not nan"),
        ({"temperature": float("inf")}, "temperature must be 0 or more, not inf"),
        ({"top_k": -1}, "top-k must be 0 or more, not -1"),
        ({"top_p": 0.0}, "top-p must be above 0 and at most 1, not 0"),
        ({"top_p": 1.01}, "top-p must be above 0 and at most 1, not 1.01"),
        ({"top_p": float("nan")}, "top-p must be above 0 and at most 1, not nan"),
        ({"seed": -1}, "seed must be 0 to 2^64 - 1, not -1"),
        ({"seed": 2**64}, f"seed must be 0 to 2^64 - 1, not {2**64}"),
    ],
)
def test_values_out_of_range_are_refused_with_a_hint(options, message):
    with pytest.raises(UsageError) as refused:
        Sampler(**options)
    assert refused.value.message == message
    assert refused.value.hint
