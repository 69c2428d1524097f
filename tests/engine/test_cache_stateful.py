"""Whatever is asked of a cache, in whatever order, every layer shows what a list of tokens says it must.

A fake model stores vectors that name the layer, the position and everything before it, so a block of another
sequence, of another prefix or of another time is told from the right one.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.attention import Attention
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.engine.block_pool import OutOfBlocks
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.kv_tiles import KVTiles
from kvplan.engine.row_tiles import RowTiles
from kvplan.engine.state_store import StateStore
from kvplan.engine.step import view_of
from kvplan.engine.token_group import Growth
from kvplan.errors import UsageError
from kvplan.storage import kv_format

SEQUENCES = 4
LONGEST = 40
FULL = Attention(1, 1, 4)
WINDOW = replace(FULL, sliding_window=6)
NARROW = replace(FULL, sliding_window=1)
SINKS = replace(FULL, sliding_window=5, sink_tokens=3)
CHUNKS = replace(FULL, attention_chunk_size=7)
LATENT = LatentAttention(1, 4, 4, 4, 4)
STATE = GatedDeltaNet(1, 1, 2, 2, 2)
MIXED = [FULL, WINDOW, SINKS, CHUNKS, NARROW]
CASES = {
    "every kind of window, blocks of 4": (MIXED, Paged(4), None),
    "every kind of window, blocks of 3, few": (MIXED, Paged(3), 17),
    "two windows, blocks of 1, few": ([WINDOW, SINKS], Paged(1), 20),
    "windows alone, blocks of 4, few": ([WINDOW, CHUNKS], Paged(4), 9),
    "latents and full, blocks of 3, few": ([LATENT, FULL], Paged(3), 19),
    "latents beside a window, blocks of 4": ([LATENT, WINDOW], Paged(4), None),
    "states beside a window, blocks of 4, few": ([STATE, WINDOW], Paged(4), 11),
    "every kind of window, contiguous": (MIXED, Contiguous(LONGEST), None),
    "latents and states, contiguous": ([LATENT, STATE, SINKS], Contiguous(LONGEST), None),
}


def model_of(mixers):
    return Model("fake", "a test", "fp32", 8, 97, 512, tuple(Layer(mixer, MLP(8)) for mixer in mixers))


def content(layer, tokens):
    """What a layer stores of each token (tokens, 4): it depends on every token before, as real keys do."""
    rows, mixed = [], 1
    for position, token in enumerate(tokens):
        mixed = (mixed * 31 + token + 7) % 65521
        rows.append([layer + 1, position, token, mixed])
    return np.array(rows, np.float32).reshape(-1, 4)


def in_view(mixer, length):
    """Positions the last token of a sequence sees, by the definition of each kind of layer."""
    last = length - 1
    window, sinks = getattr(mixer, "sliding_window", None), getattr(mixer, "sink_tokens", 0)
    chunk = getattr(mixer, "attention_chunk_size", None)
    return [
        k
        for k in range(length)
        if (window is None or k > last - window or k < sinks)
        and (chunk is None or k // chunk == last // chunk)
    ]


class CacheMachine(RuleBasedStateMachine):
    """Sequences that come, grow, fork, shrink, are swapped out and end, on a cache and on lists of tokens."""

    mixers, allocation, blocks = MIXED, Paged(4), None

    def __init__(self):
        super().__init__()
        self.cache = self.new_cache()
        self.tokens = {}
        self.saved = []

    def new_cache(self):
        model = model_of(self.mixers)
        return Cache(model, kv_format("fp32"), self.allocation, LONGEST, SEQUENCES, self.blocks)

    def pick(self, place):
        return sorted(self.tokens)[place % len(self.tokens)]

    def refused_for_room(self):
        """A cache that was given as many blocks as all its sequences need never runs out of them."""
        assert self.blocks is not None

    # ---------------------------------------------------------------- what is stored

    def store(self, step, batch, layers):
        """Write the new tokens of a step as a model would, reading what it reads on the way."""
        for layer in layers:
            whole = [content(layer, [*self.tokens[sequence], *new]) for sequence, new in batch]
            fresh = np.concatenate([rows[-len(new) :] for rows, (_, new) in zip(whole, batch, strict=True)])
            if isinstance(self.cache._stores[layer], StateStore):
                states = step.states(layer)
                for slot, rows in zip(step.slots, whole, strict=True):
                    states.recurrent[slot] = rows[-1]
                    states.conv[slot] = rows[-1, 3]
                continue
            if isinstance(self.cache._stores[layer], KVTiles):
                for index, (sequence, _) in enumerate(batch):
                    self.check_views(layer, step.before(layer, index), self.tokens[sequence])
                step.write(layer, fresh[:, None], -fresh[:, None], Counter())
            else:
                step.write_rows(layer, (fresh, -fresh), Counter())
            for index, (sequence, new) in enumerate(batch):
                if isinstance(self.cache._stores[layer], KVTiles):
                    self.check_views(layer, step.after(layer, index), [*self.tokens[sequence], *new])

    def check_views(self, layer, views, tokens):
        found = []
        for view in views:
            slots = np.arange(view.start, view.stop)
            positions = slots + view.first_position if view.positions is None else view.positions[slots]
            size = view.tiles.block_tokens
            keys, values = view.tiles.read(view.blocks[slots // size], slots % size)
            np.testing.assert_array_equal(keys[:, 0], content(layer, tokens)[positions])
            np.testing.assert_array_equal(values, -keys)
            found += positions.tolist()
        assert sorted(found) == in_view(self.mixers[layer], len(tokens))

    @invariant()
    def every_layer_shows_what_it_must(self):
        for sequence, tokens in self.tokens.items():
            assert self.cache.length(sequence) == len(tokens)
            for layer, store in enumerate(self.cache._stores):
                if isinstance(store, StateStore):
                    slot = self.cache._sequences.find(sequence).slot
                    last = content(layer, tokens)[-1] if tokens else np.zeros(4, np.float32)
                    np.testing.assert_array_equal(store.recurrent[slot], last)
                    assert (store.conv[slot] == last[3]).all()
                elif isinstance(store, RowTiles):
                    self.check_latents(layer, store, sequence, tokens)
                else:
                    views = self.views(layer, sequence, len(tokens))
                    self.check_views(layer, views, tokens)

    def views(self, layer, sequence, length):
        still = [Growth(sequence, length, length)]
        (placed,) = self.cache._layers[layer].group.views(still, after=True)
        return [view_of(self.cache._stores[layer], *run) for run in placed]

    def check_latents(self, layer, store, sequence, tokens):
        still = [Growth(sequence, len(tokens), len(tokens))]
        (placed,) = self.cache._layers[layer].group.views(still, after=True)
        if tokens:
            ((span, blocks),) = placed
            assert (span.start, span.stop) == (0, len(tokens))
            latents, rope_keys = store.rows(blocks, span.stop)
            np.testing.assert_array_equal(latents, content(layer, tokens))
            np.testing.assert_array_equal(rope_keys, -latents)

    @invariant()
    def every_block_is_free_or_owned(self):
        for group in self.cache._groups:
            owners = {}
            for sequence in self.tokens:
                for block in group.tables[sequence].blocks.values():
                    owners[block] = owners.get(block, 0) + 1
            assert {block: group.pool.ref_count(block) for block in owners} == owners
            assert group.pool.num_free + len(owners) == group.pool.num_blocks
            assert set(group.tables) == set(self.tokens)

    # ---------------------------------------------------------------- what can be asked

    @precondition(lambda self: len(self.tokens) < SEQUENCES)
    @rule(prompt=st.lists(st.integers(0, 2), max_size=20), place=st.integers(0, 99), kept=st.integers(0, 40))
    def add(self, prompt, place, kept):
        """Begin with some tokens of another sequence, so that prefixes are often known."""
        if self.tokens:
            prompt = (self.tokens[self.pick(place)][:kept] + prompt)[:LONGEST]
        sequence = self.cache.add(prompt)
        known = self.cache.length(sequence)
        assert known <= max(0, len(prompt) - 1)
        self.tokens[sequence] = prompt[:known]

    @precondition(lambda self: self.tokens)
    @rule(
        grown=st.lists(
            st.tuples(st.integers(0, 99), st.lists(st.integers(0, 2), min_size=1, max_size=9)),
            min_size=1,
            max_size=4,
        )
    )
    def step(self, grown):
        """A batch of chunks of prompts and of single tokens."""
        batch = self.batch(grown)
        if batch and (step := self.begun(batch)) is not None:
            self.store(step, batch, range(len(self.mixers)))
            self.cache.finish([(sequence, np.array(new)) for sequence, new in batch])
            self.grow(batch)

    def batch(self, grown):
        chosen = {self.pick(place): new for place, new in grown}
        return [(s, new) for s, new in chosen.items() if len(self.tokens[s]) + len(new) <= LONGEST]

    def begun(self, batch):
        free = self.cache.free_blocks
        try:
            return self.cache.begin([(sequence, np.array(new)) for sequence, new in batch])
        except OutOfBlocks:
            self.refused_for_room()
            assert self.cache.free_blocks == free
            return None

    def grow(self, batch):
        for sequence, new in batch:
            self.tokens[sequence] = [*self.tokens[sequence], *new]

    @precondition(lambda self: self.tokens)
    @rule(place=st.integers(0, 99), count=st.integers(1, 12), token=st.integers(0, 2))
    def decode(self, place, count, token):
        """Single tokens of all sequences, one after another."""
        for number in range(count):
            self.step([(place + other, [(token + number) % 3]) for other in range(len(self.tokens))])
            self.every_layer_shows_what_it_must()

    @precondition(lambda self: 0 < len(self.tokens) < SEQUENCES)
    @rule(place=st.integers(0, 99))
    def fork(self, place):
        sequence = self.pick(place)
        try:
            child = self.cache.fork(sequence)
        except OutOfBlocks:
            self.refused_for_room()
            return
        self.tokens[child] = self.tokens[sequence]

    @precondition(lambda self: self.tokens)
    @rule(place=st.integers(0, 99), count=st.integers(1, 9))
    def trim(self, place, count):
        sequence = self.pick(place)
        tokens = self.tokens[sequence]
        shorter = len(tokens) - count
        try:
            self.cache.trim(sequence, count)
        except UsageError as refusal:
            self.check_refused_trim(str(refusal), sequence, shorter)
            return
        self.tokens[sequence] = tokens[:shorter]

    def check_refused_trim(self, words, sequence, shorter):
        """It shows something again that is out of view, or there is a state, or there are too few."""
        length = len(self.tokens[sequence])
        again = any(
            not set(in_view(mixer, shorter)) <= set(in_view(mixer, length))
            for mixer in self.mixers
            if shorter > 0
        )
        assert {
            "cannot trim": shorter < 0,
            "a recurrent": STATE in self.mixers,
            "a window ha": again,
        }[words[:11]]

    @precondition(lambda self: self.tokens)
    @rule(place=st.integers(0, 99))
    def free(self, place):
        sequence = self.pick(place)
        self.cache.free(sequence)
        del self.tokens[sequence]

    @precondition(lambda self: self.tokens)
    @rule(place=st.integers(0, 99), leave=st.booleans())
    def swap_out(self, place, leave):
        sequence = self.pick(place)
        self.saved.append((self.cache.snapshot(sequence), self.tokens[sequence]))
        if leave:
            self.free(place)

    @precondition(lambda self: self.saved and len(self.tokens) < SEQUENCES)
    @rule(place=st.integers(0, 99))
    def swap_in(self, place):
        snapshot, tokens = self.saved[place % len(self.saved)]
        try:
            sequence = self.cache.restore(snapshot)
        except OutOfBlocks:
            self.refused_for_room()
            return
        self.tokens[sequence] = tokens

    @precondition(lambda self: self.tokens)
    @rule(
        grown=st.lists(
            st.tuples(st.integers(0, 99), st.lists(st.integers(0, 2), min_size=1, max_size=9)),
            min_size=1,
            max_size=3,
        ),
        layers=st.integers(0, 3),
    )
    def fail(self, grown, layers):
        """A step that stops in a layer: its sequences can be freed, and nobody else notices."""
        batch = self.batch(grown)
        if not batch or (step := self.begun(batch)) is None:
            return
        self.store(step, batch, range(min(layers, len(self.mixers) - 1)))
        for sequence, _ in batch:
            for use in (self.cache.fork, self.cache.snapshot, lambda s: self.cache.trim(s, 1)):
                with pytest.raises(UsageError, match="was not finished"):
                    use(sequence)
            with pytest.raises(UsageError, match="was not finished"):
                self.cache.begin([(sequence, np.array([1]))])
        for sequence, _ in batch:
            self.cache.free(sequence)
            del self.tokens[sequence]

    def teardown(self):
        for sequence in list(self.tokens):
            self.cache.free(sequence)
        for group in self.cache._groups:
            assert group.pool.num_free == group.pool.num_blocks
        assert len({self.cache.add() for _ in range(SEQUENCES)}) == SEQUENCES


@pytest.mark.parametrize("case", CASES)
def test_a_cache_shows_what_lists_of_tokens_would(case):
    mixers, allocation, blocks = CASES[case]
    machine = type("Machine", (CacheMachine,), {"mixers": mixers, "allocation": allocation, "blocks": blocks})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=30))
