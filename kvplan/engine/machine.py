"""What this machine can do at most: how fast it reads memory, and how fast it multiplies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from kvplan.engine.one_thread import one_blas_thread

_READ_TIMES = 5
_SGEMM_SIZE = 1024
_SGEMM_TIMES = 4
_LARGEST_READ = 96 << 20
_SMALLEST_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine's measured roofline.

    Args:
        read_bytes_per_s: one thread reading ``read_bytes`` again and again.
        read_bytes: the size it was measured on; small ones stay in the processor's cache.
        sgemm_flops_per_s: float32 products of large matrices.
    """

    read_bytes_per_s: float
    read_bytes: int
    sgemm_flops_per_s: float

    def bound_s(self, flops: int, read: int) -> float:
        """Return the least time for so many operations and so many bytes read: whichever takes longer."""
        return max(flops / self.sgemm_flops_per_s, read / self.read_bytes_per_s)


def measure_machine(working_set_bytes: int) -> Machine:
    """Measure one thread of this machine, as the engine runs on one; in well under a second.

    Reading is measured on as many bytes as one step touches: what fits the processor's cache is read
    faster than memory, and a bound must be one.
    """
    size = min(max(working_set_bytes, _SMALLEST_READ), _LARGEST_READ)
    with one_blas_thread():
        return _measured(size)


def _measured(size: int) -> Machine:
    data = np.ones(size // 4, np.float32)
    rate = data.nbytes / _fastest(lambda: data.max(), _READ_TIMES)
    left = np.ones((_SGEMM_SIZE, _SGEMM_SIZE), np.float32)
    out = np.empty_like(left)
    multiplied = 2 * _SGEMM_SIZE**3 / _fastest(lambda: np.matmul(left, left, out=out), _SGEMM_TIMES)
    return Machine(rate, size, multiplied)


def _fastest(run: Callable[[], object], times: int) -> float:
    """Return the seconds of the fastest of several runs: the least disturbed one."""
    seconds = []
    for _ in range(times + 1):
        began = perf_counter()
        run()
        seconds.append(perf_counter() - began)
    return min(seconds)
