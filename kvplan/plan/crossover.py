"""Where one thing overtakes another as the batch grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kvplan.hardware.device import Device
from kvplan.hardware.peak import peak_flops_per_s
from kvplan.plan.roofline import Part, Roofline
from kvplan.plan.search import largest
from kvplan.units import GB

# Past this many requests an answer would help nobody.
LARGEST_BATCH = 1 << 20


def compute_bound_batch(roofline: Roofline, name: str, context: int, new_tokens: int = 1) -> int | None:
    """Return the smallest batch at which multiplying takes an operator as long as moving, if there is one.

    At full rates: its weights and cache over the bandwidth against its operations over the dense peak.
    """
    alone = replace(roofline, operators=tuple(pair for pair in roofline.operators if pair[0].name == name))

    def compute_bound(batch: int) -> bool:
        (timed,) = alone.timed(roofline.decode(batch, context, new_tokens))
        return all(_compute_bound(part, roofline.deployment.device) for part in timed.parts)

    return _first(compute_bound)


def ridge_flops_per_byte(device: Device, formats: Sequence[str]) -> float:
    """Return the operations a device can do for each byte it reads, in the best of these formats it has."""
    return peak_flops_per_s(device, formats) / (device.memory.bandwidth_gb_per_s * GB)


def _compute_bound(part: Part, device: Device) -> bool:
    ridge = ridge_flops_per_byte(device, part.operator.format.multiplied_in)
    return bool(part.work.flops >= ridge * part.work.memory_bytes)


def kv_overtakes_weights(roofline: Roofline, context: int, new_tokens: int = 1) -> int | None:
    """Return the smallest batch at which a step reads more cache than weights, if there is one."""

    def overtaken(batch: int) -> bool:
        work = roofline.work(roofline.decode(batch, context, new_tokens))
        return bool(work.kv_read_bytes > work.weight_bytes)

    return _first(overtaken)


def _first(holds: Callable[[int], bool]) -> int | None:
    """Return the smallest batch that holds, where every larger one does too; ``None`` where none does."""
    last = largest(lambda batch: not holds(batch), LARGEST_BATCH)
    return last + 1 if last < LARGEST_BATCH else None
