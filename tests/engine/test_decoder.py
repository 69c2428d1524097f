"""A request gives the same tokens however its cache is kept, cut, shared, swapped out or batched."""

import warnings

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters
from kvplan.engine.block_pool import OutOfBlocks
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder, Logits
from kvplan.engine.random_weights import random_weights
from kvplan.storage import kv_format

FP32 = kv_format("fp32")
ALLOCATIONS = [Paged(1), Paged(4), Paged(7), Paged(64), Contiguous(128), Contiguous(512)]
CLOSE = 2e-5


def close(found, expected):
    return np.abs(found - expected).max() <= CLOSE * np.abs(expected).max()


def uncached(runner, tokens):
    """Logits behind a sequence that is read at once into an empty cache."""
    cache = runner.cache(FP32, Paged(512))
    return runner.feed(cache, (cache.add(), tokens))[0]


def uncached_greedy(runner, tokens, count):
    """The next tokens, every one from reading the whole sequence again."""
    tokens = list(tokens)
    for _ in range(count):
        tokens.append(int(uncached(runner, tokens).argmax()))
    return tokens[-count:]


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=str)
def test_cached_tokens_are_uncached_tokens(runner, allocation, prompt):
    tokens = prompt(21)
    cache = runner.cache(FP32, allocation)
    sequence = cache.add()
    found, last = runner.greedy(cache, sequence, runner.feed(cache, (sequence, tokens))[0], 24)
    assert found == uncached_greedy(runner, tokens, 24)
    assert close(last, uncached(runner, [*tokens, *found]))


@pytest.mark.parametrize("chunk", [1, 3, 8, 19])
@pytest.mark.parametrize("allocation", [Paged(4), Contiguous(128)], ids=str)
def test_a_prompt_in_pieces_is_the_prompt(runner, chunk, allocation, prompt):
    tokens = prompt(45)
    cache = runner.cache(FP32, allocation)
    sequence = cache.add()
    for start in range(0, 45, chunk):
        logits = runner.feed(cache, (sequence, tokens[start : start + chunk]))
    assert close(logits[0], uncached(runner, tokens))
    found, _ = runner.greedy(cache, sequence, logits[0], 12)
    assert found == uncached_greedy(runner, tokens, 12)


@pytest.mark.parametrize("allocation", [Paged(4), Contiguous(128)], ids=str)
def test_others_in_the_batch_change_nothing(runner, allocation, prompt):
    """Prompts of three lengths and a decode step in one batch, then decode together."""
    cache = runner.cache(FP32, allocation)
    prompts = [prompt(5), prompt(30), prompt(17)]
    first = cache.add()
    logits = [runner.feed(cache, (first, prompts[0]))[0]]
    begun = [int(logits[0].argmax())]
    rest = [cache.add(), cache.add()]
    mixed = runner.feed(cache, (first, begun), *zip(rest, prompts[1:], strict=True))
    assert all(close(row, uncached(runner, p)) for row, p in zip(mixed[1:], prompts[1:], strict=True))
    grown, sequences = [[*begun], [], []], [first, *rest]
    for _ in range(14):
        for row, tokens in zip(mixed, grown, strict=True):
            tokens.append(int(row.argmax()))
        steps = [(s, tokens[-1:]) for s, tokens in zip(sequences, grown, strict=True)]
        mixed = runner.feed(cache, *steps, decode=True)
    for tokens, read in zip(grown, prompts, strict=True):
        assert tokens == uncached_greedy(runner, read, len(tokens))


def test_a_step_gives_logits_of_every_token_if_asked(runner, prompt):
    cache = runner.cache(FP32, Paged(4))
    batch = [(cache.add(), prompt(9)), (cache.add(), prompt(4))]
    rows = runner.decoder.forward(cache, batch, Counter(), logits=Logits.EVERY)
    expected = [uncached(runner, tokens[: n + 1]) for _, tokens in batch for n in range(len(tokens))]
    assert len(rows) == 13
    assert all(close(row, logits) for row, logits in zip(rows, expected, strict=True))


def test_a_gate_far_below_zero_is_no_cause_for_a_warning():
    """exp overflows in the sigmoid of the gate, which is right."""
    layer = Layer(Attention(4, 2, 16, rope_parameters=RopeParameters(10_000.0)), MLP(48))
    model = Model("steep", "a test", "fp32", 32, 97, 64, (layer,))
    weights = random_weights(model, 0)
    weights["layers.0.mlp.gate_proj.weight"] *= np.float32(1e4)
    cache = Cache(model, FP32, Paged(4), 64, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Decoder(model, weights, 64).forward(cache, [(cache.add(), np.arange(9))], Counter())
    assert np.isfinite(found).all()


@pytest.mark.parametrize("allocation", [Paged(4), Contiguous(128)], ids=str)
def test_a_fork_goes_its_own_way(runner, allocation, prompt):
    tokens = prompt(22)
    cache = runner.cache(FP32, allocation)
    parent = cache.add()
    logits = runner.feed(cache, (parent, tokens))[0]
    child = cache.fork(parent)
    detour = [5, 6, 7]
    strayed = runner.feed(cache, (child, detour))[0]
    found, _ = runner.greedy(cache, parent, logits, 12)
    assert found == uncached_greedy(runner, tokens, 12)
    found, _ = runner.greedy(cache, child, strayed, 12)
    assert found == uncached_greedy(runner, [*tokens, *detour], 12)
    cache.free(parent)
    again, _ = runner.greedy(cache, child, runner.feed(cache, (child, [1]))[0], 3)
    assert again == uncached_greedy(runner, [*tokens, *detour, *found, 1], 3)


@pytest.mark.parametrize("allocation", [Paged(4), Contiguous(128)], ids=str)
def test_a_request_goes_on_after_being_swapped_out(runner, allocation, prompt):
    tokens = prompt(22)
    cache = runner.cache(FP32, allocation, sequences=2)
    sequence = cache.add()
    found, logits = runner.greedy(cache, sequence, runner.feed(cache, (sequence, tokens))[0], 5)
    saved = cache.snapshot(sequence)
    cache.free(sequence)
    others = [cache.add(), cache.add()]
    runner.feed(cache, *((other, prompt(40, seed)) for seed, other in enumerate(others)))
    cache.free(others[0])
    more, _ = runner.greedy(cache, cache.restore(saved), logits, 10)
    assert found + more == uncached_greedy(runner, tokens, 15)


def test_a_request_goes_on_after_being_dropped_and_read_again(runner, prompt):
    tokens = prompt(22)
    cache = runner.cache(FP32, Paged(4))
    sequence = cache.add()
    found, _ = runner.greedy(cache, sequence, runner.feed(cache, (sequence, tokens))[0], 5)
    cache.free(sequence)
    whole = np.array([*tokens, *found])
    sequence = cache.add(whole)
    logits = runner.feed(cache, (sequence, whole[cache.length(sequence) :]))[0]
    more, _ = runner.greedy(cache, sequence, logits, 10)
    assert found + more == uncached_greedy(runner, tokens, 15)


def test_a_known_prefix_is_not_read_again(runner, prompt):
    """28 of 30 tokens are whole blocks; a state is not kept for them, nor what waits to be compressed."""
    tokens = prompt(30)
    cache = runner.cache(FP32, Paged(4))
    first = cache.add(tokens)
    assert cache.length(first) == 0
    runner.feed(cache, (first, tokens))
    second = cache.add(tokens)
    known = 0 if runner.model.name in ("compressed", "shared block", "delta") else 28
    assert cache.length(second) == known
    logits = runner.feed(cache, (second, tokens[known:]))[0]
    assert close(logits, uncached(runner, tokens))
    found, _ = runner.greedy(cache, second, logits, 12)
    assert found == uncached_greedy(runner, tokens, 12)


def test_a_prefix_is_known_after_its_request_ended_until_its_blocks_are_needed(runner_of, prompt):
    runner, tokens = runner_of("gqa"), prompt(30)
    cache = runner.cache(FP32, Paged(4), blocks=16)
    first = cache.add(tokens)
    runner.feed(cache, (first, tokens))
    cache.free(first)
    second = cache.add(tokens)
    assert cache.length(second) == 28
    cache.free(second)
    other = cache.add()
    runner.feed(cache, (other, prompt(62, seed=9)))
    cache.free(other)
    assert cache.length(cache.add(tokens)) == 0


def test_a_block_that_is_written_again_is_no_longer_known_as_what_it_was(runner_of, prompt):
    """A trimmed fork rewrites a complete block once its parent is gone: the old prefix must not find it."""
    runner, tokens = runner_of("gqa"), prompt(9)
    cache = runner.cache(FP32, Paged(4))
    parent = cache.add()
    runner.feed(cache, (parent, tokens[:8]))
    child = cache.fork(parent)
    cache.trim(child, 2)
    cache.free(parent)
    other = [(int(tokens[6]) + 1) % 97, 5]
    runner.feed(cache, (child, other))
    found = cache.add(tokens)
    assert cache.length(found) == 4
    assert cache.length(cache.add([*tokens[:6], *other, 1])) == 8
    assert close(runner.feed(cache, (found, tokens[4:]))[0], uncached(runner, tokens))


def test_a_prefix_is_told_from_another_by_every_token(runner_of, prompt):
    runner, tokens = runner_of("gqa"), prompt(30)
    cache = runner.cache(FP32, Paged(4))
    runner.feed(cache, (cache.add(), tokens))
    for changed, known in [(0, 0), (7, 4), (15, 12), (29, 28)]:
        other = tokens.copy()
        other[changed] = (other[changed] + 1) % 97
        assert cache.length(cache.add(other)) == known


@pytest.mark.parametrize("allocation", [Paged(4), Contiguous(128)], ids=str)
def test_a_trimmed_request_is_as_it_was(runner, allocation, prompt):
    tokens = prompt(7)
    cache = runner.cache(FP32, allocation)
    sequence = cache.add()
    runner.feed(cache, (sequence, tokens))
    runner.feed(cache, (sequence, [1]))
    if runner.model.name in ("compressed", "shared block", "delta"):
        with pytest.raises(Exception, match="recurrent state cannot be trimmed"):
            cache.trim(sequence, 2)
        return
    cache.trim(sequence, 2)
    assert cache.length(sequence) == 6
    found, _ = runner.greedy(cache, sequence, runner.feed(cache, (sequence, tokens[6:]))[0], 9)
    assert found == uncached_greedy(runner, tokens, 9)


def test_a_window_that_moved_on_cannot_be_trimmed(runner_of, prompt):
    runner = runner_of("windows")
    for allocation in (Paged(4), Contiguous(128)):
        cache = runner.cache(FP32, allocation)
        sequence = cache.add()
        runner.feed(cache, (sequence, prompt(40)))
        with pytest.raises(Exception, match="a window has moved on"):
            cache.trim(sequence, 20)
        assert cache.length(sequence) == 40
    # Single steps first: what was let go of at the longest length stays gone after a trim.
    cache = runner.cache(FP32, Paged(1))
    sequence = cache.add()
    runner.feed(cache, (sequence, prompt(40)))
    with pytest.raises(Exception, match="a window has moved on"):
        cache.trim(sequence, 1)


def test_a_full_pool_refuses_a_step_and_changes_nothing(runner_of, prompt):
    runner = runner_of("gqa")
    cache = runner.cache(FP32, Paged(4), blocks=8)
    first, second = cache.add(), cache.add()
    tokens = prompt(20)
    logits = runner.feed(cache, (first, tokens))[0]
    free = cache.free_blocks
    with pytest.raises(OutOfBlocks):
        runner.feed(cache, (first, [1]), (second, prompt(16)))
    assert cache.free_blocks == free == (3,)
    assert (cache.length(first), cache.length(second)) == (20, 0)
    found, _ = runner.greedy(cache, first, logits, 10)
    assert found == uncached_greedy(runner, tokens, 10)


def test_everything_freed_is_free_again(runner, prompt):
    cache = runner.cache(FP32, Paged(4), sequences=3)
    free = cache.free_blocks
    for seed in range(5):
        sequences = [cache.add(prompt(20, seed)) for _ in range(2)]
        for sequence in sequences:
            runner.feed(cache, (sequence, prompt(20, seed)[cache.length(sequence) :]))
        sequences.append(cache.fork(sequences[0]))
        runner.feed(cache, *((sequence, [3]) for sequence in sequences))
        for sequence in sequences:
            cache.free(sequence)
        assert cache.free_blocks == free


def test_what_cannot_be_done_is_refused_in_a_sentence(runner_of, prompt):
    runner = runner_of("gqa")
    cache = runner.cache(FP32, Paged(4), sequences=1)
    sequence = cache.add()
    for act, words in [
        (lambda: cache.add(), "the cache holds 1 sequences, as many as it is for"),
        (lambda: cache.length(7), "there is no sequence 7 in the cache"),
        (lambda: cache.trim(sequence, 1), "cannot trim 1 of 0 tokens"),
        (lambda: runner.feed(cache, (sequence, [])), "at least one new token"),
        (lambda: runner.feed(cache, (sequence, [1]), (sequence, [2])), "in the batch twice"),
        (lambda: runner.feed(cache, (sequence, prompt(513))), "513 tokens are more than the 512"),
    ]:
        with pytest.raises(Exception, match=words):
            act()
    cache.free(sequence)
    with pytest.raises(Exception, match="there is no sequence"):
        cache.free(sequence)
