"""A step's tokens, and work that adds and scales."""

import numpy as np

from kvplan.arch.work import NO_WORK, Step, Work, decode_step, prefill_step

ONE = Work(1, 20, 300, 4_000, 50_000, 600_000, 7_000_000)
OTHER = Work(9, 80, 700, 6_000, 50_000, 400_000, 3_000_000)


def test_a_decode_step_makes_the_logits_of_every_token_it_adds():
    plain, guessed = decode_step(8, 4_096), decode_step(8, 4_096, 5)
    assert (plain.tokens, plain.logit_rows, plain.absorbed) == (8, 8, True)
    assert (guessed.tokens, guessed.logit_rows, guessed.context) == (40, 40, 4_096)


def test_a_prompt_makes_logits_once_and_a_chunk_before_its_last_makes_none():
    whole, chunk = prefill_step(3, 1_000), prefill_step(3, 256, 512, last=False)
    assert (whole.tokens, whole.logit_rows, whole.context, whole.absorbed) == (3_000, 3, 0, False)
    assert (chunk.tokens, chunk.logit_rows, chunk.context, chunk.absorbed) == (768, 0, 512, False)


def test_the_fullest_of_the_ranks_that_share_tokens_counts():
    assert Step(2, 10, 0, token_ranks=4).tokens == 2 * 3
    assert Step(2, 8, 0, token_ranks=4).tokens == 2 * 2
    assert Step(2, 1, 0, token_ranks=4).tokens == 2


def test_steps_of_arrays_broadcast():
    step = decode_step(np.array([[1], [2]]), np.array([10, 20, 30]), 3)
    assert step.tokens.tolist() == [[3], [6]]


def test_work_adds_and_scales_field_by_field():
    both = ONE + OTHER
    assert both == Work(10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    assert ONE.times(3) == Work(3, 60, 900, 12_000, 150_000, 1_800_000, 21_000_000)
    assert ONE + NO_WORK == ONE
    assert ONE.times(0) == NO_WORK


def test_operations_are_of_weights_and_of_attention():
    assert ONE.flops == 21


def test_memory_is_weights_and_cache_but_neither_activations_nor_what_is_sent():
    assert ONE.memory_bytes == 300 + 4_000 + 50_000
