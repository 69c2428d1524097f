"""Memory bandwidth: a copy on the device, and a sum that only reads."""

from __future__ import annotations

from functools import partial

import torch
from prediction import Plan
from report import TimeRow, Topic
from stopwatch import Stopwatch, copies

from kvplan.units import GB, GIB, gib


def measure(stopwatch: Stopwatch, plan: Plan, buffer_bytes: int = GIB) -> Topic:
    """Measure both over buffers of this size, or of what defeats the cache if that is more."""
    size = max(buffer_bytes, stopwatch.rotated_bytes)
    elements = size // 4
    sources = [torch.randn(elements, device=stopwatch.device) for _ in range(copies(stopwatch, size))]
    target = torch.empty_like(sources[0])
    copied = stopwatch.time([partial(target.copy_, source) for source in sources])
    read = stopwatch.time([partial(torch.sum, source) for source in sources])
    rows = []
    for name, moved, timing in (("copy", 8 * elements, copied), ("sum", 4 * elements, read)):
        rate = f"{moved / timing.seconds / GB:,.0f} GB/s"
        rows.append(TimeRow((name, rate), timing.seconds, plan.transfer(moved), timing.how))
    bandwidth = plan.device.memory.bandwidth_gb_per_s
    return Topic(
        "Memory bandwidth",
        f"{gib(size)} GiB of float32, twice that for a copy, which reads and writes. "
        f"The datasheet says {bandwidth:,.0f} GB/s.",
        ("what", "rate"),
        rows,
    )
