"""What a cache does when sequences share, shrink, move and fail: each case by hand.

A fake model stores keys that name the layer, the position and everything before it.
"""

from dataclasses import replace

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.attention import Attention
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.engine.block_pool import BlockPool, OutOfBlocks, block_key
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder, Logits
from kvplan.engine.kv_tiles import KVTiles
from kvplan.engine.random_weights import random_weights
from kvplan.errors import UsageError
from kvplan.storage import kv_format

FP32 = kv_format("fp32")
FULL = Attention(1, 1, 4)
LATENT = LatentAttention(1, 4, 4, 4, 4)
STATE = GatedDeltaNet(1, 1, 2, 2, 2)


def window(tokens, sinks=0):
    return replace(FULL, sliding_window=tokens, sink_tokens=sinks)


def cache_of(*mixers, allocation=None, longest=64, sequences=4, blocks=None, kv=FP32, name="fake"):
    model = Model(name, "a test", "fp32", 8, 97, 512, tuple(Layer(mixer, MLP(8)) for mixer in mixers))
    return Cache(model, kv, allocation or Paged(4), longest, sequences, blocks)


def content(layer, tokens):
    rows, mixed = [], 1
    for position, token in enumerate(tokens):
        mixed = (mixed * 31 + token + 7) % 65521
        rows.append([layer + 1, position, token, mixed])
    return np.array(rows, np.float32).reshape(-1, 4)


class Fake:
    """A cache of attention layers, and the tokens every sequence has."""

    def __init__(self, *mixers, **options):
        self.cache = cache_of(*mixers, **options)
        self.layers = range(len(mixers))
        self.tokens = {}

    def add(self, prompt=()):
        sequence = self.cache.add(prompt)
        self.tokens[sequence] = list(prompt)[: self.cache.length(sequence)]
        return sequence

    def begin(self, *batch):
        given = [(sequence, np.array(new)) for sequence, new in batch]
        step = self.cache.begin(given)
        for sequence, new in batch:
            self.tokens[sequence] = [*self.tokens[sequence], *new]
        return step, given

    def write(self, step, layer, batch):
        rows = [content(layer, self.tokens[sequence])[-len(new) :] for sequence, new in batch]
        fresh = np.concatenate(rows)[:, None]
        step.write(layer, fresh, -fresh, Counter())

    def feed(self, *batch):
        step, given = self.begin(*batch)
        for layer in self.layers:
            self.write(step, layer, batch)
        self.cache.finish(given)

    def prompt(self, tokens):
        """A sequence that has read what the cache did not know of these tokens."""
        sequence = self.add(tokens)
        self.feed((sequence, tokens[len(self.tokens[sequence]) :]))
        return sequence

    def fork(self, sequence):
        child = self.cache.fork(sequence)
        self.tokens[child] = self.tokens[sequence]
        return child

    def trim(self, sequence, count):
        self.cache.trim(sequence, count)
        self.tokens[sequence] = self.tokens[sequence][:-count]

    def restore(self, snapshot, tokens):
        sequence = self.cache.restore(snapshot)
        self.tokens[sequence] = tokens
        return sequence

    def check(self, *sequences):
        """Every layer of these sequences shows its keys, the newest token's last among them.

        A step of one more token is begun on a snapshot in a cache of its own, to see through its views.
        """
        for sequence in sequences:
            copy = Fake.__new__(Fake)
            copy.cache, copy.layers, copy.tokens = self.twin(), self.layers, {}
            twin = copy.restore(self.cache.snapshot(sequence), self.tokens[sequence])
            step, _ = copy.begin((twin, [1]))
            for layer in self.layers:
                self.check_views(step.before(layer, 0), content(layer, self.tokens[sequence]))

    def check_views(self, views, expected):
        for view in views:
            slots = np.arange(view.start, view.stop)
            positions = slots + view.first_position if view.positions is None else view.positions[slots]
            size = view.tiles.block_tokens
            keys, values = view.tiles.read(view.blocks[slots // size], slots % size)
            np.testing.assert_array_equal(keys[:, 0], expected[positions])
            np.testing.assert_array_equal(values, -keys)
        assert any(len(expected) - 1 in _positions(view) for view in views)

    def twin(self):
        raise NotImplementedError


def _positions(view):
    slots = np.arange(view.start, view.stop)
    return slots + view.first_position if view.positions is None else view.positions[slots]


def fake(*mixers, **options):
    made = Fake(*mixers, **options)
    made.twin = lambda: cache_of(*mixers, **options | {"sequences": 1, "blocks": None})
    return made


# ------------------------------------------------------------------ forks and trims


def test_two_forks_that_write_into_one_block_take_one_copy():
    """The second to write is then the block's only owner: a pool for two sequences is enough for two."""
    run = fake(FULL, longest=4, sequences=2)
    parent = run.add()
    run.feed((parent, [1, 2]))
    child = run.fork(parent)
    assert run.cache.free_blocks == (1,)
    run.feed((parent, [3]), (child, [4]))
    assert run.cache.free_blocks == (0,)
    run.check(parent, child)


def test_forks_whose_windows_move_together_free_what_they_share():
    """One block each at a time: both let go of the shared one, so both find room."""
    run = fake(window(1), allocation=Paged(1), sequences=2)
    parent = run.add()
    run.feed((parent, [1, 2]))
    child = run.fork(parent)
    for token in range(6):
        run.feed((parent, [token]), (child, [token + 7]))
        assert run.cache.free_blocks == (0,)
        run.check(parent, child)


def test_a_fork_keeps_what_its_parents_window_leaves_behind():
    run = fake(FULL, window(6), window(5, sinks=3))
    parent = run.prompt([*range(10)])
    child = run.fork(parent)
    for token in range(20, 32):
        run.feed((parent, [token]))
        run.check(child)
    run.feed((child, [50]))
    run.check(parent, child)
    run.cache.free(parent)
    for token in range(60, 70):
        run.feed((child, [token]))
        run.check(child)


def test_a_trimmed_sequence_forked_and_written_leaves_each_its_own():
    run = fake(FULL, window(8))
    first = run.prompt([*range(7)])
    run.trim(first, 2)
    second = run.fork(first)
    run.feed((first, [40, 41]), (second, [50]))
    third = run.fork(second)
    run.feed((third, [60, 61, 62]), (first, [42]))
    run.check(first, second, third)
    for sequence in (second, first, third):
        run.cache.free(sequence)
    assert run.cache.free_blocks == (64, 12)


def test_a_sequence_begun_from_known_blocks_is_trimmed_as_far_as_it_has_tokens():
    """A window of 8 over blocks of 4: at 12 tokens it begins with two blocks, and shows 3 at 11."""
    run = fake(window(8), longest=64)
    run.prompt([*range(13)])
    second = run.add([*range(13)])
    assert run.cache.length(second) == 12
    with pytest.raises(UsageError, match="a window has moved on"):
        run.trim(second, 1)
    run.feed((second, [77]))
    run.trim(second, 1)
    run.check(second)
    with pytest.raises(UsageError, match="a window has moved on"):
        run.trim(second, 1)


def test_what_a_window_left_before_a_trim_is_not_taken_again():
    """Block 1 went at 17 tokens. Back at 14 no token goes there, and nobody finds it as what it was."""
    run = fake(window(6))
    tokens = [*range(17)]
    first = run.prompt(tokens)
    run.trim(first, 3)
    run.feed((first, [14]))
    assert run.cache.held_blocks(first) == 2
    saved = run.cache.snapshot(first)
    run.cache.free(first)
    again = fake(window(6))
    restored = again.restore(saved, tokens[:15])
    again.feed((restored, [15]))
    found = again.add(tokens[:9])
    assert again.cache.length(found) == 0
    again.check(restored)


def test_a_sequence_trimmed_to_nothing_begins_anew():
    for allocation in (Paged(4), Contiguous(64)):
        run = fake(FULL, window(6), allocation=allocation)
        sequence = run.prompt([*range(20)])
        run.trim(sequence, 20)
        run.feed((sequence, [5, 6, 7]))
        run.trim(sequence, 1)
        run.feed((sequence, [*range(9)]))
        run.check(sequence)


# ------------------------------------------------------------------ known prefixes


def test_prompts_published_twice_are_known_once_and_freed_twice():
    run = fake(FULL, window(6))
    tokens = [*range(9)]
    first, second = run.add(tokens), run.add(tokens)
    run.feed((first, tokens), (second, tokens))
    third = run.add(tokens)
    assert run.cache.length(third) == 8
    run.cache.free(first)
    fourth = run.add(tokens)
    assert run.cache.length(fourth) == 8
    run.feed((third, [8]), (fourth, [50]))
    run.check(second, third, fourth)
    for sequence in (second, third, fourth):
        run.cache.free(sequence)
    # 16 blocks for each of four sequences, and three for a window of six.
    assert run.cache.free_blocks == (64, 12)


def test_a_fork_and_its_parent_are_each_known_by_their_own_tokens():
    run = fake(FULL)
    tokens = [*range(6)]
    parent = run.prompt(tokens)
    child = run.fork(parent)
    run.feed((child, [50, 51, 52, 53, 54, 55]))
    run.feed((parent, [6, 7, 8, 9, 10, 11]))
    child_tokens, parent_tokens = run.tokens[child], run.tokens[parent]
    crossed = [*child_tokens[:8], *parent_tokens[8:]]
    for prompt, known in [(parent_tokens, 12), (child_tokens, 12), (crossed, 8)]:
        found = run.add([*prompt, 1])
        assert run.cache.length(found) == known
        run.feed((found, [*prompt, 1][known:]))
        run.check(found)
        run.cache.free(found)


def test_a_prefix_is_as_long_as_every_layer_still_has_it():
    """Twelve blocks of the window's pool: an other sequence takes those freed first, the oldest of all."""
    run = fake(FULL, window(6))
    tokens = [*range(30)]
    sequence = run.add(tokens)
    for token in tokens:
        run.feed((sequence, [token]))
    run.cache.free(sequence)
    assert [run.cache.length(run.add(tokens[:count])) for count in (30, 21, 9)] == [28, 20, 8]
    for sequence in [*run.tokens][1:]:
        run.cache.free(sequence)
    others = [run.prompt([90 - number] * 12) for number in range(3)]
    run.check(*others)
    known = [(count, run.cache._groups[1].pool.lookup(key) is not None) for count, key in keys_of(tokens)]
    assert [count for count, there in known if not there]
    found = run.add(tokens)
    expected = longest_covered(dict(known), 28, 6, 4)
    assert run.cache.length(found) == expected
    run.cache.free(others[0])
    run.feed((found, tokens[expected:]))
    run.check(found)


def keys_of(tokens):
    key = None
    for index in range((len(tokens) - 1) // 4):
        key = block_key(key, tokens[4 * index : 4 * index + 4])
        yield index, key


def longest_covered(known, longest, width, size):
    """The longest run of whole blocks whose last ``width`` tokens are in known blocks."""
    for length in range(longest, 0, -size):
        if all(known[position // size] for position in range(max(0, length - width), length)):
            return length
    return 0


def test_under_eviction_pressure_a_hit_is_what_was_stored():
    """Nine blocks for prompts of five: every other prompt evicts what the last one published."""
    run = fake(FULL, blocks=9, sequences=2)
    prompts = [[number] * 3 + [*range(16)] for number in range(4)]
    for turn in range(12):
        tokens = prompts[turn * turn % 4]
        sequence = run.prompt(tokens)
        run.feed((sequence, [turn]))
        run.check(sequence)
        run.cache.free(sequence)
    assert run.cache.free_blocks == (9,)


def test_a_prompt_is_never_known_whole():
    for length, known in [(0, 0), (1, 0), (4, 0), (5, 4), (8, 4), (9, 8)]:
        run = fake(FULL)
        run.prompt([*range(20)])
        assert run.cache.length(run.add([*range(length)])) == known


def test_blocks_beside_a_state_are_never_known():
    """Nobody could begin with them: a state is not kept for every prefix."""
    cache, tokens = cache_of(STATE, FULL), np.arange(9)
    sequence = cache.add(tokens)
    cache.finish(begun(cache, [(sequence, tokens)]))
    assert cache.length(cache.add(tokens)) == 0
    cache.free(sequence)
    assert cache._groups[0].pool.num_cached == 0


def test_a_step_that_is_not_finished_makes_nothing_known():
    run = fake(FULL)
    tokens = [*range(9)]
    run.begin((run.add(tokens), tokens))
    assert run.cache.length(run.add(tokens)) == 0


# ------------------------------------------------------------------ swapped out


@pytest.mark.parametrize("allocation", [Paged(4), Contiguous(64)], ids=str)
def test_a_turned_window_goes_on_in_another_cache(allocation):
    run, other = (
        fake(FULL, window(6), window(5, sinks=3), allocation=allocation, sequences=n) for n in (2, 3)
    )
    sequence = run.prompt([*range(23)])
    other.prompt([*range(50, 61)])
    moved = other.restore(run.cache.snapshot(sequence), run.tokens[sequence])
    for token in range(10):
        other.feed((moved, [token]))
        other.check(moved)
    run.check(sequence)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({"allocation": Contiguous(64)}, "allocation = blocks of 4 tokens, the cache has room for 64 tokens"),
        ({"allocation": Paged(8)}, "allocation = blocks of 4 tokens, the cache has blocks of 8 tokens"),
        ({"kv": kv_format("bf16")}, "kv = fp32, the cache has bf16"),
        ({"name": "other"}, "model = fake, the cache has other"),
        ({"mixers": (FULL, window(7))}, "layers = .*, the cache has"),
        ({"mixers": (FULL,)}, "layers = .*, the cache has"),
        ({"longest": 20}, "23 tokens are more than the 20 this cache is for"),
        ({"sequences": 0, "blocks": 9}, "the cache holds 0 sequences, as many as it is for"),
    ],
)
def test_a_sequence_of_another_cache_is_refused_and_nothing_is_changed(there, words):
    run = fake(FULL, window(6))
    saved = run.cache.snapshot(run.prompt([*range(23)]))
    options = {"mixers": (FULL, window(6)), **there}
    other = cache_of(*options.pop("mixers"), **options)
    free = other.free_blocks
    with pytest.raises(UsageError, match=words):
        other.restore(saved)
    assert other.free_blocks == free


def test_a_sequence_that_finds_no_room_changes_nothing():
    run = fake(FULL)
    saved = run.cache.snapshot(run.prompt([*range(23)]))
    other = cache_of(FULL, blocks=5, sequences=1)
    with pytest.raises(OutOfBlocks, match="6 needed, 5 free"):
        other.restore(saved)
    assert other.free_blocks == (5,)
    other.add()


@pytest.mark.parametrize("mixer", [FULL, LATENT, STATE], ids=lambda mixer: type(mixer).__name__)
def test_damaged_arrays_are_refused_and_nothing_is_changed(mixer):
    cache = cache_of(mixer, sequences=2)
    sequence = cache.add()
    if mixer is not STATE:
        cache.finish(begun(cache, [(sequence, np.arange(6))]))
    saved = cache.snapshot(sequence)
    (arrays,) = saved.layers
    name = next(name for name, array in arrays.items() if array.size)
    damaged = [
        {},
        {**arrays, "more": np.zeros(1)},
        {**arrays, name: arrays[name][:0]},
        {**arrays, name: arrays[name].astype(np.float64)},
    ]
    free = cache.free_blocks
    for layers in [*((arrays,) for arrays in damaged), (), (arrays, arrays)]:
        with pytest.raises(UsageError, match="this sequence is damaged"):
            cache.restore(replace(saved, layers=layers))
    assert cache.free_blocks == free
    cache.restore(saved)


def begun(cache, batch):
    cache.begin(batch)
    return batch


def test_damaged_tables_are_refused_and_nothing_is_changed():
    run = fake(FULL, window(6))
    sequence = run.prompt([*range(11)])
    saved = run.cache.snapshot(sequence)
    assert saved.blocks == ((0, 1, 2), (0, 1, 2))
    free = run.cache.free_blocks
    for blocks in [
        ((0, 1, 2),),
        ((0, 1, 2), (0, 1, 2), ()),
        ((0, 1), (0, 1, 2)),
        ((0, 1, 1), (0, 1, 2)),
        ((0, 1, 2, 2), (0, 1, 2)),
        ((0, 1, 2, 3), (0, 1, 2)),
        ((0, 1, 2), (0, 1)),
    ]:
        with pytest.raises(UsageError, match="its blocks are not those of its length"):
            run.cache.restore(replace(saved, blocks=blocks))
    assert run.cache.free_blocks == free


def test_a_restored_sequence_makes_its_blocks_known_and_shares_none():
    run = fake(FULL)
    tokens = [*range(9)]
    first = run.prompt(tokens)
    saved = run.cache.snapshot(first)
    second = run.restore(saved, tokens)
    assert run.cache.free_blocks == (64 - 6,)
    run.feed((second, [9, 10, 11]))
    run.cache.free(first)
    third = run.add([*tokens, 9, 10, 11, 12])
    assert run.cache.length(third) == 12
    run.feed((third, [12]), (second, [12]))
    run.check(second, third)
    assert saved.tokens.tolist() == tokens


def test_what_was_let_go_of_before_is_gone_after_a_swap_too():
    run = fake(window(6), allocation=Paged(1))
    sequence = run.prompt([*range(20)])
    run.feed((sequence, [1]))
    saved = run.cache.snapshot(sequence)
    run.cache.free(sequence)
    with pytest.raises(UsageError, match="a window has moved on"):
        run.cache.trim(run.cache.restore(saved), 1)


# ------------------------------------------------------------------ steps that fail


def test_a_step_that_fails_in_a_layer_harms_nobody_else():
    """The second of two layers refuses a key: its sequences can be freed, their blocks are not known."""
    run = fake(FULL, window(6))
    tokens = [*range(9)]
    other, failing = run.prompt([*range(20, 29)]), run.add(tokens)
    batch = [(failing, tokens), (other, [5])]
    victim = run.fork(other)
    step, _ = run.begin(*batch)
    run.write(step, 0, batch)
    bad = np.full((10, 1, 4), np.nan, np.float32)
    with pytest.raises(ValueError, match="NaN"):
        step.write(1, bad, bad, Counter())
    for use in (
        run.cache.fork,
        run.cache.snapshot,
        lambda sequence: run.cache.trim(sequence, 1),
        lambda sequence: run.cache.begin([(victim, np.array([1])), (sequence, np.array([1]))]),
    ):
        for sequence in (failing, other):
            with pytest.raises(UsageError, match=f"sequence {sequence} is in a step that was not finished"):
                use(sequence)
    run.cache.free(failing)
    run.cache.free(other)
    assert run.cache.length(run.add(tokens)) == 0
    run.feed((victim, [6, 7, 8]))
    run.check(victim)


def test_a_decoder_whose_keys_are_not_finite_leaves_the_cache_usable(runner_of, prompt):
    """A weight that is infinite in the second layer only; the first stored its keys already."""
    runner = runner_of("gqa")
    weights = random_weights(runner.model, 3)
    weights["layers.1.input_layernorm.weight"][:] = np.inf
    broken = Decoder(runner.model, weights, 512)
    cache = runner.cache(FP32, Paged(4))
    free, failing = cache.free_blocks, cache.add()
    with pytest.raises(ValueError, match="NaN"), np.errstate(all="ignore"):
        broken.forward(cache, [(failing, prompt(9))], Counter())
    cache.free(failing)
    assert cache.free_blocks == free
    sequence = cache.add(prompt(9))
    assert cache.length(sequence) == 0
    assert np.isfinite(runner.feed(cache, (sequence, prompt(9)))).all()


@pytest.mark.parametrize("token", [-1, 97, 10**9])
@pytest.mark.parametrize("kind", ["gqa", "mqa"])
def test_a_token_that_is_none_is_refused_and_nothing_is_changed(kind, token, runner_of):
    """A negative one would else be looked up from the end of the table."""
    runner = runner_of(kind)
    cache = runner.cache(FP32, Paged(4))
    sequence = cache.add()
    with pytest.raises(UsageError, match="tokens are numbered 0 to 96"):
        runner.feed(cache, (sequence, [3, token, 5]))
    assert cache.length(sequence) == 0
    assert runner.feed(cache, (sequence, [0, 96])).shape == (1, 97)


def test_a_sequence_longer_than_the_decoder_has_positions_is_refused(runner_of):
    runner = runner_of("mqa")
    cache = Cache(runner.model, FP32, Paged(4), 600, 1)
    sequence = cache.add()
    with pytest.raises(UsageError, match="513 tokens are more than the 512 this decoder is for"):
        runner.decoder.forward(cache, [(sequence, np.ones(513, int))], Counter(), logits=Logits.NONE)
    assert cache.length(sequence) == 0


def test_fewer_learned_positions_than_tokens_are_refused(runner_of):
    with pytest.raises(UsageError, match="513 tokens are more than the 512 positions of mha"):
        Decoder(runner_of("mha").model, {}, 513)


# ------------------------------------------------------------------ limits


def test_a_contiguous_cache_is_as_long_as_its_room():
    cache = cache_of(FULL, window(6), allocation=Contiguous(16), longest=64)
    sequence = cache.add()
    with pytest.raises(UsageError, match="17 tokens are more than the 16 this cache is for"):
        cache.begin([(sequence, np.arange(17))])
    assert cache.length(sequence) == 0
    cache.begin([(sequence, np.arange(16))])
    assert cache_of(FULL, allocation=Contiguous(64), longest=16).max_tokens == 16


def test_a_ring_with_room_for_fewer_tokens_than_its_sinks_keeps_all():
    for sinks in (12, 16, 20):
        run = fake(window(4, sinks), allocation=Contiguous(16))
        with np.errstate(all="raise"):
            run.check(run.prompt([*range(15)]))


def test_a_decode_step_adds_one_token():
    cache = cache_of(FULL)
    first, second = cache.add(), cache.add()
    with pytest.raises(UsageError, match="a decode step adds one token"):
        cache.begin([(first, np.array([1])), (second, np.array([1, 2]))], decode=True)
    assert (cache.length(first), cache.length(second)) == (0, 0)


def test_a_prompt_that_is_no_list_of_numbers_takes_no_slot():
    cache = cache_of(FULL, sequences=1)
    with pytest.raises(ValueError, match="invalid literal"):
        cache.add(["a"])
    cache.add()


def test_ids_are_never_used_again():
    cache = cache_of(FULL)
    first = cache.add()
    cache.free(first)
    second = cache.add()
    third = cache.fork(second)
    fourth = cache.restore(cache.snapshot(third))
    assert len({first, second, third, fourth}) == 4
    for use in (cache.free, cache.length, cache.fork, cache.snapshot, lambda s: cache.trim(s, 0)):
        with pytest.raises(UsageError, match=f"there is no sequence {first} in the cache"):
            use(first)
    for use in (cache.begin, cache.finish):
        with pytest.raises(UsageError, match=f"there is no sequence {first} in the cache"):
            use([(first, np.array([1]))])


def test_a_state_begins_at_zero_and_moves_whole():
    cache = cache_of(STATE, sequences=2)
    first = cache.add()
    step = cache.begin([(first, np.array([1]))])
    step.states(0).conv[step.slots[0]] = 5
    step.states(0).recurrent[step.slots[0]] = 7
    cache.finish([(first, np.array([1]))])
    second = cache.fork(first)
    saved = cache.snapshot(second)
    cache.free(first)
    third = cache.add()
    assert [(array == 0).all() for array in cache.snapshot(third).layers[0].values()] == [True, True]
    assert [np.unique(array).tolist() for array in saved.layers[0].values()] == [[5], [7]]
    cache.free(third)
    moved = cache.snapshot(cache.restore(saved)).layers[0]
    assert [np.unique(array).tolist() for array in moved.values()] == [[5], [7]]
    assert cache.live_nbytes(0, second) == cache.allocated_nbytes(0, second) == 4 * (6 * 2 + 4)


def test_bytes_of_a_cache_by_hand():
    """Keys and values of one head of 4 float32 are 32 bytes a token; latents of 4 and 4 are as many."""
    cache = cache_of(FULL, window(6), LATENT, sequences=2)
    sequence = cache.add()
    cache.finish(begun(cache, [(sequence, np.arange(10))]))
    live = [cache.live_nbytes(layer, sequence) for layer in range(3)]
    allocated = [cache.allocated_nbytes(layer, sequence) for layer in range(3)]
    assert live == [320, 192, 320]
    # Full layers hold three blocks of four; so does a window of six, which can touch three.
    assert allocated == [384, 384, 384]
    assert cache.held_blocks(sequence) == 6
    # 32 blocks for two sequences of 64, and 6 for their windows.
    assert cache.nbytes == 128 * (32 + 6 + 32)
    assert cache.free_blocks == (29, 3)


def test_a_long_prompts_fork_and_prefix_touch_blocks_not_bytes(monkeypatch):
    """32,768 tokens: a fork copies no vector, and a prefix is looked up once for each block and table."""
    cache = cache_of(FULL, window(1024), allocation=Paged(16), longest=33_000, sequences=3)
    tokens = np.arange(32_768) % 97
    sequence = cache.add()
    cache.finish(begun(cache, [(sequence, tokens)]))
    copied, looked_up = [], []
    monkeypatch.setattr(KVTiles, "copy_block", lambda *args: copied.append(args))
    original = BlockPool.lookup
    monkeypatch.setattr(BlockPool, "lookup", lambda pool, key: looked_up.append(key) or original(pool, key))
    free = cache.free_blocks
    child = cache.fork(sequence)
    assert (copied, cache.free_blocks) == ([], free)
    cache.begin([(child, np.array([1]))])
    assert len(copied) == 0
    other = tokens.copy()
    other[16_000] += 1
    assert cache.length(cache.add(other)) == 0
    assert len(looked_up) == 2 * 2047
