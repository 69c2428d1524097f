"""One BLAS thread while the engine runs.

The engine's products are small and skinny: OpenBLAS runs them on one thread whatever it is told, and larger
ones in a pool of spinning threads that a busy neighbour slows down by a factor of ten and more.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    """Find the libraries once: NumPy is loaded by now, and stays."""
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[object]:
    """Return a block in which NumPy's products use one thread; what was set before comes back after it."""
    limited: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limited
