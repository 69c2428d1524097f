"""Runs of tiles: in whatever way ids are cut, slices of an arena give back just these tiles, in order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvplan.engine.tile_runs import Run, batches, runs_of

IDS = st.lists(st.integers(0, 30), max_size=40)
STRETCHES = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=8)


def walked(runs):
    arena = np.arange(40)
    return [int(tile) for run in runs for tile in arena[run.tiles]]


@given(IDS)
def test_runs_walk_any_ids(ids):
    runs = runs_of(np.array(ids, np.int64))
    assert walked(runs) == ids
    assert sum(run.length for run in runs) == len(ids)


@given(STRETCHES)
def test_consecutive_ids_are_never_cut(stretches):
    ids = [first + step for first, length in stretches for step in range(length)]
    runs = runs_of(np.array(ids, np.int64))
    assert walked(runs) == ids
    assert len(runs) <= len(stretches)


def test_two_neighbours_are_one_run_whichever_comes_first():
    assert runs_of(np.array([7, 3, 5, 5, 9, 10, 11])) == [Run(7, 2, -4), Run(5, 1), Run(5, 1), Run(9, 3)]


@given(STRETCHES, st.integers(1, 7))
def test_batches_are_full_but_the_last(stretches, limit):
    runs = [Run(first, length) for first, length in stretches]
    cut = list(batches(runs, limit))
    assert [tile for batch in cut for tile in walked(batch)] == walked(runs)
    sizes = [sum(run.length for run in batch) for batch in cut]
    assert all(size == limit for size in sizes[:-1])
    assert all(0 < size <= limit for size in sizes)


@given(st.integers(15, 24), st.integers(-3, 3).filter(bool), st.integers(1, 6))
def test_a_part_is_some_of_the_tiles(first, step, length):
    run = Run(first, length, step)
    every = walked([run])
    for begin in range(length):
        for count in range(1, length - begin + 1):
            assert walked([run.part(begin, count)]) == every[begin : begin + count]
