"""Tiles that can be walked as one strided view, because their ids are evenly spaced."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Run(NamedTuple):
    """Tiles ``first``, ``first + step`` and so on, ``length`` of them."""

    first: int
    length: int
    step: int = 1

    @property
    def tiles(self) -> slice:
        """The tiles as a slice of an arena."""
        stop = self.first + self.length * self.step
        return slice(self.first, stop if stop >= 0 else None, self.step)

    def part(self, begin: int, count: int) -> Run:
        """Return ``count`` tiles of the run from its tile ``begin`` on."""
        return Run(self.first + begin * self.step, count, self.step)


def runs_of(tiles: NDArray[np.int64]) -> list[Run]:
    """Return the runs that make up these tiles, in order.

    Consecutive tiles are one run; of what is left over, any two neighbours are evenly spaced.
    """
    ids = tiles.tolist()
    if not ids:
        return []
    if ids == list(range(ids[0], ids[0] + len(ids))):
        return [Run(ids[0], len(ids))]
    starts = [0, *(np.flatnonzero(np.diff(tiles) != 1) + 1).tolist(), len(ids)]
    runs: list[Run] = []
    for begin, end in pairwise(starts):
        run = Run(ids[begin], end - begin)
        last = runs[-1] if runs else None
        if last is not None and last.length == run.length == 1 and last.first != run.first:
            runs[-1] = Run(last.first, 2, run.first - last.first)
        else:
            runs.append(run)
    return runs


def batches(runs: list[Run], limit: int) -> Iterator[list[Run]]:
    """Cut runs into lists of at most ``limit`` tiles."""
    batch: list[Run] = []
    room = limit
    for whole in runs:
        run = whole
        while run.length >= room:
            yield [*batch, run.part(0, room)]
            run, batch, room = run.part(room, run.length - room), [], limit
        if run.length:
            batch.append(run)
            room -= run.length
    if batch:
        yield batch
