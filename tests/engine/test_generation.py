"""Running requests to their ends: what each adds, in which steps, and what is told of them."""

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.check.measurement import Replay
from kvplan.engine.block_pool import OutOfBlocks
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Logits
from kvplan.engine.generation import Phase, Request, generate
from kvplan.engine.sampling import Sampler
from kvplan.errors import UsageError
from kvplan.storage import kv_format

FP32 = kv_format("fp32")


def run(runner, requests, chooser=None, chunk=8, cache=None, **options):
    cache = cache or runner.cache(FP32, options.pop("allocation", Paged(4)))
    return generate(runner.decoder, cache, requests, chooser or Sampler(), chunk, **options)


def uncached_greedy(runner, tokens, count):
    """The next tokens, every one from reading the whole sequence again."""
    tokens = list(tokens)
    for _ in range(count):
        cache = runner.cache(FP32, Paged(512))
        tokens.append(int(runner.feed(cache, (cache.add(), tokens))[0].argmax()))
    return tokens[-count:]


class Scripted:
    """Gives each request its tokens in order, and notes what it was asked."""

    def __init__(self, *scripts):
        self.scripts, self.asked = scripts, []

    def sample(self, logits, request_ids, steps):
        assert len(logits) == len(request_ids) == len(steps)
        self.asked.append(list(zip(request_ids, steps, strict=True)))
        return np.array([self.scripts[r][s] for r, s in zip(request_ids, steps, strict=True)])


def test_every_request_adds_what_reading_it_again_would(runner, prompt):
    requests = [Request(prompt(length), new) for length, new in [(3, 6), (19, 1), (8, 9), (1, 4)]]
    found = run(runner, requests, chunk=5)
    expected = [uncached_greedy(runner, each.prompt, each.max_new_tokens) for each in requests]
    assert found.tokens == expected


def test_a_stop_token_ends_one_request_and_the_others_go_on(runner_of, prompt):
    runner = runner_of("gqa")
    script = Scripted([1, 2, 7, 9, 9], [7, 9], [3, 4, 5, 6, 8])
    cache = runner.cache(FP32, Paged(4))
    requests = [Request(prompt(n), 5, frozenset({7, 50})) for n in (6, 9, 5)]
    found = run(runner, requests, script, cache=cache)
    assert found.tokens == [[1, 2, 7], [7], [3, 4, 5, 6, 8]]
    assert script.asked == [
        [(0, 0)],
        [(1, 0)],
        [(2, 0)],
        [(0, 1), (2, 1)],
        [(0, 2), (2, 2)],
        [(2, 3)],
        [(2, 4)],
    ]
    # The last token of each is never stored.
    assert [cache.length(sequence) for sequence in found.sequences] == [6 + 2, 9, 5 + 4]


def test_one_new_token_needs_no_decode_step(runner_of, prompt):
    runner = runner_of("windows")
    found = run(runner, [Request(prompt(7), 1), Request(prompt(20), 1)], chunk=64)
    assert [step.phase for step in found.steps] == [Phase.PREFILL, Phase.PREFILL]
    assert [len(tokens) for tokens in found.tokens] == [1, 1]


@pytest.mark.parametrize("chunk", [1, 2, 7, 20, 21, 64])
def test_prompts_are_read_in_chunks(chunk, runner_of, prompt):
    runner, length = runner_of("gqa"), 20
    found = run(runner, [Request(prompt(length), 3)], chunk=chunk)
    prefill = [step for step in found.steps if step.phase is Phase.PREFILL]
    sizes = [min(chunk, length - start) for start in range(0, length, chunk)]
    assert [step.new_tokens for step in prefill] == sizes
    assert [step.cached_tokens for step in prefill] == [sum(sizes[:n]) for n in range(len(sizes))]
    assert found.tokens == run(runner, [Request(prompt(length), 3)], chunk=64).tokens


def test_records_add_up_to_the_run(runner_of, prompt):
    runner, seen = runner_of("windows"), []
    requests = [Request(prompt(length), new) for length, new in [(9, 4), (17, 2), (3, 6)]]
    found = run(runner, requests, chunk=6, on_step=seen.append)
    assert seen == found.steps
    by_phase = {phase: [step for step in seen if step.phase is phase] for phase in Phase}
    assert sum(step.new_tokens for step in by_phase[Phase.PREFILL]) == 9 + 17 + 3
    assert {step.requests for step in by_phase[Phase.PREFILL]} == {1}
    decoding = [(step.requests, step.new_tokens, step.cached_tokens) for step in by_phase[Phase.DECODE]]
    assert decoding == [
        (3, 3, 29),
        (2, 2, 10 + 4),
        (2, 2, 11 + 5),
        (1, 1, 6),
        (1, 1, 7),
    ]
    assert all(step.seconds > 0 for step in seen)
    assert [step.phase for step in seen] == [Phase.PREFILL] * 6 + [Phase.DECODE] * 5


def test_what_steps_count_is_what_one_counter_would(runner_of, prompt):
    """The same steps by hand, all counted together."""
    runner, whole = runner_of("windows"), Counter()
    tokens = prompt(10)
    found = run(runner, [Request(tokens, 3)], chunk=6)
    cache = runner.cache(FP32, Paged(4))
    sequence, forward = cache.add(), runner.decoder.forward
    forward(cache, [(sequence, tokens[:6])], whole, logits=Logits.NONE)
    forward(cache, [(sequence, tokens[6:])], whole)
    for token in found.tokens[0][:2]:
        forward(cache, [(sequence, np.array([token]))], whole, decode=True)
    total = Counter()
    for step in found.steps:
        total.add(step.counted)
    assert total == whole
    assert total.matmul_flops > 0


def test_logits_are_kept_where_they_are_asked_for(runner_of, prompt):
    runner = runner_of("gqa")
    requests = [Request(prompt(9), 3), Request(prompt(4), 1)]
    found = run(runner, requests, keep_logits=True)
    for tokens, logits in zip(found.tokens, found.logits, strict=True):
        assert [row.shape for row in logits] == [(97,)] * len(tokens)
        assert [int(row.argmax()) for row in logits] == tokens
    assert run(runner, requests).logits == [[], []]


def test_every_token_is_told_when_it_is_chosen(runner_of, prompt):
    """Behind the step that makes it: the first of a request comes from its prompt."""
    told = []
    requests = [Request(prompt(n), new) for n, new in [(9, 3), (4, 2)]]
    found = run(
        runner_of("gqa"),
        requests,
        chunk=5,
        on_step=lambda step: told.append(step.phase),
        on_token=lambda index, token: told.append((index, token)),
    )
    (a, b, c), (d, e) = found.tokens
    read, decode = Phase.PREFILL, Phase.DECODE
    assert told == [read, read, (0, a), read, (1, d), decode, (0, b), (1, e), decode, (0, c)]


def test_a_replay_chooses_what_was_chosen(runner_of, prompt):
    runner = runner_of("gqa")
    requests = [Request(prompt(9), 4), Request(prompt(4), 2)]
    drawn = run(runner, requests, Sampler(1.5, seed=2))
    assert drawn.tokens != run(runner, requests).tokens
    again = run(runner, requests, Replay(drawn.tokens), allocation=Contiguous(64))
    assert again.tokens == drawn.tokens


def test_what_a_request_draws_depends_on_no_other(runner, prompt):
    """Alone as number 0, and beside others that come and go, in another cache and in other chunks."""
    first = Request(prompt(9), 8)
    alone = run(runner, [first], Sampler(0.9, seed=5))
    others = [Request(prompt(length), new) for length, new in [(3, 2), (17, 12)]]
    beside = run(runner, [first, *others], Sampler(0.9, seed=5), chunk=4, allocation=Contiguous(64))
    assert beside.tokens[0] == alone.tokens[0]
    assert run(runner, [first], Sampler(0.9, seed=6)).tokens != alone.tokens


def test_a_known_prefix_is_shared_unless_it_is_not_wanted(runner_of, prompt):
    """Of 20 equal tokens, 16 are whole blocks of 4 with a token behind them."""
    runner, tokens = runner_of("gqa"), prompt(20)
    requests = [Request(tokens, 3), Request(tokens, 3)]
    shared, read_again = run(runner, requests), run(runner, requests, share_prefixes=False)
    assert shared.tokens == read_again.tokens
    assert [step.new_tokens for step in shared.steps if step.phase is Phase.PREFILL] == [8, 8, 4, 4]
    assert [step.new_tokens for step in read_again.steps if step.phase is Phase.PREFILL] == [8, 8, 4] * 2


@pytest.mark.parametrize(
    ("request_", "chunk", "words"),
    [
        (Request(np.empty(0, np.int64), 1), 8, "a prompt of at least one token"),
        (Request(np.array([1]), 0), 8, "one token to add"),
        (Request(np.array([1]), 1), 0, "at least one token at a time, not 0"),
        (Request(np.array([1]), 1), -1, "at least one token at a time, not -1"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(request_, chunk, words, runner_of, prompt):
    runner = runner_of("gqa")
    cache, seen = runner.cache(FP32, Paged(4)), []
    with pytest.raises(UsageError, match=words):
        run(runner, [Request(prompt(5), 2), request_], chunk=chunk, cache=cache, on_step=seen.append)
    assert seen == []
    assert cache.add() == 0


def test_a_run_that_finds_no_room_leaves_nothing_behind(runner_of, prompt):
    """Two prompts of three fit. A sequence that was there before stays."""
    runner = runner_of("gqa")
    cache = runner.cache(FP32, Paged(4), blocks=10)
    other = cache.add()
    runner.feed(cache, (other, prompt(3)))
    with pytest.raises(OutOfBlocks):
        run(runner, [Request(prompt(16, n), 2) for n in range(3)], cache=cache)
    assert cache.free_blocks == (9,)
    assert cache.length(other) == 3


def test_a_run_that_is_interrupted_leaves_nothing_behind(runner_of, prompt):
    runner = runner_of("gqa")
    cache = runner.cache(FP32, Paged(4))
    free = cache.free_blocks

    def interrupt(step):
        if step.phase is Phase.DECODE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(runner, [Request(prompt(9), 4)], cache=cache, on_step=interrupt)
    assert cache.free_blocks == free


def test_no_requests_are_no_steps(runner_of):
    found = run(runner_of("gqa"), [])
    assert (found.tokens, found.steps, found.sequences) == ([], [], [])
