"""What indexers and routers chose, read again: held to where scores are equal but for rounding."""

import numpy as np

from kvplan.engine.choices import Choices

# The second to the fourth token of a sequence, each sees itself and those before it, two of them at most.
FIRST = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]], np.bool_)
AGAIN = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]], np.bool_)
NEAR = 1 + 1e-6


def remembered():
    """What indexer 2 chose in one run for the sequence in slot 5; others, and other sequences, chose more."""
    choices = Choices()
    assert choices.settle(2, 5, 1, np.zeros((3, 4)), FIRST) is FIRST
    choices.settle(2, 4, 1, np.zeros((3, 4)), ~FIRST)
    choices.settle(1, 5, 1, np.zeros((3, 4)), ~FIRST)
    return choices.of_sequence(5)


def test_a_choice_between_equal_scores_is_the_earlier_one():
    scores = np.array([[2.0, 1.0, 0.0, 0.0], [1.0, NEAR, 5.0, 0.0], [1.0, 1.0, 0.0, 9.0]])
    found = remembered().settle(2, 0, 1, scores, AGAIN)
    assert found.tolist() == FIRST.tolist()
    assert AGAIN[1].tolist() == [False, True, True, False], "what was given is not changed"


def test_a_choice_that_scores_tell_apart_stays():
    scores = np.array([[2.0, 1.0, 0.0, 0.0], [1.0, 1.1, 5.0, 0.0], [1.0, 1.0, 0.0, 9.0]])
    found = remembered().settle(2, 0, 1, scores, AGAIN)
    assert found.tolist() == [FIRST[0].tolist(), AGAIN[1].tolist(), FIRST[2].tolist()]


def test_a_choice_of_another_number_of_tokens_stays():
    more = AGAIN | FIRST
    found = remembered().settle(2, 0, 1, np.ones((3, 4)), more)
    assert found.tolist() == more.tolist()


def test_tokens_are_found_again_behind_others_and_longer_sequences():
    """The run again reads all four tokens at once, and one more."""
    scores, again = np.ones((5, 5)), np.eye(5, dtype=np.bool_)
    again[1:4, :4] |= AGAIN
    found = remembered().settle(2, 0, 0, scores, again)
    assert found[1:4, :4].tolist() == FIRST.tolist()
    assert found[0].tolist() == again[0].tolist()
    assert found[4].tolist() == again[4].tolist()


def test_an_indexer_that_chose_nothing_before_keeps_its_choice():
    found = remembered().settle(3, 0, 1, np.ones((3, 4)), AGAIN)
    assert found.tolist() == AGAIN.tolist()


def test_heads_that_choose_blocks_choose_for_themselves():
    """Of two heads' choices of two blocks of three, one is a matter of rounding."""
    choices = Choices()
    earlier = np.array([[[1, 1, 0], [1, 1, 0]]], np.bool_)
    choices.settle(2, 5, 40, np.zeros((1, 2, 3)), earlier)
    again = np.array([[[0, 1, 1], [0, 1, 1]]], np.bool_)
    scores = np.array([[[1.0, 9.0, NEAR], [1.0, 9.0, 2.0]]])
    found = choices.of_sequence(5).settle(2, 0, 40, scores, again)
    assert found.tolist() == [[[True, True, False], [False, True, True]]]


def test_chunks_read_one_by_one_are_found_again_in_a_sequence_read_at_once():
    """Experts of six tokens in chunks of 4, 1 and 1, while another sequence chose beside each."""
    choices, router = Choices(), ("a router", "experts")
    earlier = np.eye(6, dtype=np.bool_)
    for start, stop in ((0, 4), (4, 5), (5, 6)):
        choices.settle(router, 1, start, np.zeros((stop - start, 6)), earlier[start:stop])
        choices.settle(router, 0, start, np.zeros((stop - start, 6)), ~earlier[start:stop])
    again, scores = np.roll(earlier, 1, axis=1), np.ones((6, 6))
    scores[2, 3] = 1.01  # what token 2 chooses now is really better
    found = choices.of_sequence(1).settle(router, 0, 0, scores, again)
    assert found.argmax(axis=1).tolist() == [0, 1, 3, 3, 4, 5]
    others = choices.of_sequence(1).settle(("a router", "groups"), 0, 0, scores, again)
    assert others.tolist() == again.tolist()


def test_what_cannot_be_chosen_is_not_taken_over_and_says_nothing_of_rounding():
    """Experts of a closed group have scores of minus infinity."""
    choices, closed = Choices(), -np.inf
    earlier = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0]], np.bool_)
    choices.settle(2, 5, 0, np.zeros((3, 3)), earlier)
    again = np.array([[0, 1, 0], [0, 1, 0], [0, 1, 0]], np.bool_)
    scores = np.array([[closed, 1.0, 0.5], [0.5, 1.0, closed], [1.0, NEAR, closed]])
    found = choices.of_sequence(5).settle(2, 0, 0, scores, again)
    assert found.tolist() == [again[0].tolist(), again[1].tolist(), earlier[2].tolist()]
