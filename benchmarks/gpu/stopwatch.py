"""Time calls on a GPU, or on the CPU for a trial of the scripts.

On a GPU the calls are captured in one CUDA graph and replayed between two events: no Python, no launch from
the host and no allocation is inside the time. Streams, library handles and algorithms are warmed up before
the capture. Before each replay a buffer larger than the L2 cache is written; within a replay, callers hand in
calls on so many copies of their buffers that none is still cached when its turn comes again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, Protocol

import torch

Call = Callable[[], Any]
REPEATS = 25
WARM_UPS = 3
# Copies are used in turn. A cache that replaces lines at random still holds a share h = exp(-(1 - h) n) of
# buffers n times its size when they come round: 20% at 2 times, 2% at 4, 0.03% at 8.
ROTATED_CACHES = 8


@dataclass(frozen=True, slots=True)
class Timing:
    """The median time of one call, and whether it ran in a captured graph."""

    seconds: float
    how: str


class Stopwatch(Protocol):
    """What measures."""

    @property
    def device(self) -> torch.device:
        """Where the calls run."""
        ...

    @property
    def rotated_bytes(self) -> int:
        """How large all copies of a buffer together should be, for none to be cached when it is used."""
        ...

    def time(self, calls: Sequence[Call], before: Call = lambda: None) -> Timing:
        """Return the median time of one of these calls, run one after another.

        ``before`` runs, unmeasured, before each time all of them do.
        """
        ...


def copies(stopwatch: Stopwatch, buffer_bytes: int) -> int:
    """Return how many copies of a buffer are to be used in turn."""
    return max(2, -(-stopwatch.rotated_bytes // buffer_bytes))


@dataclass(frozen=True, slots=True)
class CudaStopwatch:
    """Times with CUDA events."""

    l2_bytes: int

    @property
    def device(self) -> torch.device:
        """The current GPU."""
        return torch.device("cuda", torch.cuda.current_device())

    @property
    def rotated_bytes(self) -> int:
        """Several times the cache."""
        return ROTATED_CACHES * self.l2_bytes

    def time(self, calls: Sequence[Call], before: Call = lambda: None) -> Timing:
        """Return the median time of one call, captured where it can be."""

        run_all = in_turn(calls)
        graph = captured(run_all, before)
        run = run_all if graph is None else graph.replay
        flushed = torch.empty(2 * self.l2_bytes, dtype=torch.uint8, device=self.device)
        events = []
        for repeat in range(WARM_UPS + REPEATS):
            before()
            # While the GPU writes this, the host queues what follows: the events see no launch.
            flushed.fill_(repeat)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            events.append((start, end))
        torch.cuda.synchronize()
        milliseconds = median(start.elapsed_time(end) for start, end in events[WARM_UPS:])
        how = "eager: not capturable, launches included" if graph is None else "graph"
        return Timing(milliseconds * 1e-3 / len(calls), how)


def in_turn(calls: Sequence[Call]) -> Call:
    """Return a call that makes all of these, one after another."""

    def run() -> None:
        for call in calls:
            call()

    return run


def captured(run: Call, before: Call = lambda: None) -> torch.cuda.CUDAGraph | None:
    """Return a call as a graph, after a few runs of it; ``None`` where it cannot be captured."""
    _warm_up(run, before)
    return _capture(run)


def _warm_up(run: Call, before: Call) -> None:
    """Run a few times on a side stream, as a capture needs: handles, workspaces and choices of algorithm."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            before()
            run()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()


def _capture(run: Call) -> torch.cuda.CUDAGraph | None:
    """Return the calls as a graph; ``None`` where one of them cannot be captured."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        print(f"not captured in a graph: {str(error).splitlines()[0]}", flush=True)
        torch.cuda.synchronize()
        return None
    return graph


@dataclass(frozen=True, slots=True)
class CpuStopwatch:
    """Times with the clock on the wall: enough to see that the scripts run."""

    repeats: int = 3

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def rotated_bytes(self) -> int:
        """Little: nothing is learnt from these times."""
        return 1 << 20

    def time(self, calls: Sequence[Call], before: Call = lambda: None) -> Timing:
        """Return the median time of one call."""
        seconds = []
        for _ in range(1 + self.repeats):
            before()
            start = perf_counter()
            for call in calls:
                call()
            seconds.append((perf_counter() - start) / len(calls))
        return Timing(median(seconds[1:]), "CPU")


def release() -> None:
    """Give back what no longer has an owner, graphs' private pools included."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
