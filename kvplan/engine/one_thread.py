"""One BLAS thread while the engine runs.

The engine's products are small and skinny: OpenBLAS runs them on one thread whatever it is told, and larger
ones in a pool of spinning threads that a busy neighbour slows down by a factor of ten and more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import LibController, ThreadpoolController


@cache
def _libraries() -> tuple[LibController, ...]:
    """Find the BLAS libraries once: NumPy is loaded by now, and stays."""
    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Use one thread for NumPy's products in a block; what was set before comes back after it.

    As threadpoolctl's own limit does, but for what it gathers to report: that takes 0.1 ms of every step.
    """
    found = [(library, library.get_num_threads()) for library in _libraries()]
    changed = [(library, threads) for library, threads in found if threads != 1]
    for library, _ in changed:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, threads in changed:
            library.set_num_threads(threads)
