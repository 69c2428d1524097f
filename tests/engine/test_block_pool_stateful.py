"""Whatever is asked of a pool, in whatever order, it answers as a plain dictionary of its blocks would."""

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

from kvplan.engine.block_pool import AlreadyPublished, BlockPool, DoubleFree, NotAllocated, OutOfBlocks

BLOCKS = 11
KEYS = [bytes([number]) * 16 for number in range(9)]

places = st.integers(0, 1 << 16)
keys = st.sampled_from(KEYS)
ids = st.integers(-1, BLOCKS)


class Shadow:
    """Blocks as the pool's documentation tells of them, with no thought of speed."""

    def __init__(self):
        self.owners = dict.fromkeys(range(BLOCKS), 0)
        self.content = dict.fromkeys(range(BLOCKS))
        self.freed = []  # free blocks with known content, least recently freed first

    def free_blocks(self):
        return [block for block in self.owners if self.owners[block] == 0]

    def unknown(self):
        return [block for block in self.free_blocks() if self.content[block] is None]

    def holder(self, key):
        return next((block for block in self.content if self.content[block] == key), None)

    def run(self, length, taken):
        """The lowest run of unknown blocks not yet taken."""
        left = set(self.unknown()) - set(taken)
        for start in range(BLOCKS):
            if left.issuperset(range(start, start + length)):
                return list(range(start, start + length))
        return None

    def choose(self, count):
        """The blocks an allocation takes, ascending."""
        known = max(0, count - len(self.unknown()))
        taken, length = [], count - known
        while len(taken) < count - known:
            if len(taken) + length <= count - known and (found := self.run(length, taken)):
                taken += found
            else:
                length = (length + 1) // 2
        return sorted(taken + self.freed[:known])

    def allocate(self, count):
        chosen = self.choose(count)
        for block in chosen:
            self.owners[block] = 1
            self.content[block] = None
        self.freed = [block for block in self.freed if block not in chosen]
        return chosen

    def share(self, block):
        self.owners[block] += 1
        self.freed = [each for each in self.freed if each != block]

    def free(self, blocks):
        for block in blocks:
            self.owners[block] -= 1
        dead = [block for block in dict.fromkeys(blocks) if self.owners[block] == 0]
        self.freed += [block for block in reversed(dead) if self.content[block] is not None]


class PoolMachine(RuleBasedStateMachine):
    """Sequences that grow, fork, share what is known and end, on a pool and on its shadow."""

    def __init__(self):
        super().__init__()
        self.pool = BlockPool(BLOCKS)
        self.shadow = Shadow()
        self.sequences = []

    def pick(self, place):
        return self.sequences[place % len(self.sequences)]

    @rule(count=st.integers(0, 5))
    def start(self, count):
        self.sequences.append(self.take(count))

    @precondition(lambda self: self.sequences)
    @rule(place=places, count=st.integers(1, 2))
    def grow(self, place, count):
        self.pick(place).extend(self.take(count))

    def take(self, count):
        free = len(self.shadow.free_blocks())
        if count <= free:
            taken = self.pool.allocate(count)
            assert taken == self.shadow.allocate(count)
            return taken
        with pytest.raises(OutOfBlocks) as error:
            self.pool.allocate(count)
        assert (error.value.needed, error.value.free) == (count, free)
        return []

    @precondition(lambda self: self.sequences)
    @rule(place=places)
    def fork(self, place):
        sequence = self.pick(place)
        for block in sequence:
            self.pool.share(block)
            self.shadow.share(block)
        self.sequences.append(list(sequence))

    @precondition(lambda self: self.sequences)
    @rule(place=places, keep=st.integers(0, 3))
    def free(self, place, keep):
        sequence = self.pick(place)
        self.shadow.free(sequence[keep:])
        self.pool.free(sequence[keep:])
        del sequence[keep:]
        self.sequences = [each for each in self.sequences if each]

    @precondition(lambda self: self.sequences)
    @rule(place=places, other=places, times=st.integers(1, 5))
    def free_too_often(self, place, other, times):
        sequence, block = self.pick(place), other % BLOCKS
        named = sequence + [block] * times
        if named.count(block) > self.shadow.owners[block]:
            with pytest.raises(DoubleFree) as error:
                self.pool.free(named)
            assert error.value.block == block

    @precondition(lambda self: any(self.sequences))
    @rule(place=places, key=keys)
    def publish(self, place, key):
        owned = [block for sequence in self.sequences for block in sequence]
        block = owned[place % len(owned)]
        if self.shadow.content[block] not in (None, key):
            with pytest.raises(AlreadyPublished):
                self.pool.publish(block, key)
            return
        self.pool.publish(block, key)
        if self.shadow.holder(key) is None:
            self.shadow.content[block] = key

    @precondition(lambda self: self.sequences)
    @rule(place=places)
    def finish(self, place):
        """A sequence makes known what it can, and ends."""
        sequence = self.pick(place)
        unused = [key for key in KEYS if self.shadow.holder(key) is None]
        private = [block for block in sequence if self.shadow.content[block] is None]
        for block, key in zip(private, unused, strict=False):
            self.pool.publish(block, key)
            self.shadow.content[block] = key
        self.free(place, 0)

    @rule(key=keys, count=st.integers(0, 4))
    def hit(self, key, count):
        """A request finds its first block and takes the others right after."""
        block = self.pool.lookup(key)
        if block is not None:
            self.pool.share(block)
            self.shadow.share(block)
            rest = self.take(count)
            assert block not in rest
            assert self.pool.lookup(key) == block
            self.sequences.append([block, *rest])

    @rule(block=ids)
    def forget(self, block):
        known = self.shadow.owners.get(block) or self.shadow.content.get(block) is not None
        if not known:
            with pytest.raises(NotAllocated):
                self.pool.forget(block)
            return
        self.pool.forget(block)
        self.shadow.content[block] = None
        self.shadow.freed = [each for each in self.shadow.freed if each != block]

    @rule(block=ids, key=keys)
    def use_one_nobody_owns(self, block, key):
        if not self.shadow.owners.get(block):
            with pytest.raises(DoubleFree):
                self.pool.free([block])
            with pytest.raises(NotAllocated):
                self.pool.publish(block, key)
            if self.shadow.content.get(block) is None:
                with pytest.raises(NotAllocated):
                    self.pool.share(block)

    @invariant()
    def owners_are_the_sequences(self):
        named = [block for sequence in self.sequences for block in sequence]
        for block in range(BLOCKS):
            assert self.pool.ref_count(block) == self.shadow.owners[block] == named.count(block)

    @invariant()
    def counts_add_up(self):
        free = self.shadow.free_blocks()
        assert self.pool.num_blocks == BLOCKS == self.pool.num_free + self.pool.num_used
        assert self.pool.num_free == len(free)
        assert self.pool.num_cached == len(free) - len(self.shadow.unknown()) == len(self.shadow.freed)

    @invariant()
    def a_key_leads_to_the_block_that_holds_it(self):
        for key in KEYS:
            assert self.pool.lookup(key) == self.shadow.holder(key)

    def teardown(self):
        """Free everything, then take it all: each block comes once."""
        for sequence in self.sequences:
            self.pool.free(sequence)
        assert self.pool.num_free == BLOCKS
        assert self.pool.allocate(BLOCKS) == list(range(BLOCKS))


def test_the_pool_answers_as_its_shadow_does():
    run_state_machine_as_test(
        PoolMachine,
        settings=settings(max_examples=150, stateful_step_count=50, derandomize=True, deadline=None),
    )
