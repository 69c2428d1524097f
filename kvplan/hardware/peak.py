"""The matrix rate that products of a storage format can run at."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.errors import UsageError
from kvplan.hardware.device import Device

TERA = 10**12


def has_peak(device: Device, formats: Sequence[str]) -> bool:
    """Return whether the device has a matrix unit for one of these number formats."""
    return any(_rate(device, name) is not None for name in formats)


def peak_format(device: Device, formats: Sequence[str]) -> str:
    """Return the one of these number formats that the device multiplies fastest in; the first of equals.

    Blackwell Ultra has little left of its integer units: there 8-bit weights are faster in 16 bits.

    Raises:
        UsageError: it has a matrix unit for none of them.
    """
    known = {name: rate for name in formats if (rate := _rate(device, name)) is not None}
    if not known:
        raise UsageError(
            f"{device.name} has no matrix unit for {', '.join(formats)}: its speed cannot be told",
            hint="another GPU, or a peak in its file",
        )
    return max(known, key=lambda name: known[name])


def peak_flops_per_s(device: Device, formats: Sequence[str]) -> float:
    """Return the dense peak for products in the fastest of these formats, in FLOP/s.

    Raises:
        UsageError: it has none of them.
    """
    rate = _rate(device, peak_format(device, formats))
    assert rate is not None
    return rate * TERA


def _rate(device: Device, name: str) -> float | None:
    """Return a peak in 10^12 operations a second; ``None`` where there is no such unit."""
    rate: float | None = getattr(device.peak_dense, f"{name}_{'tops' if name == 'int8' else 'tflops'}")
    return rate
