"""Constants of one's own card for its kvplan file, fitted to what was measured. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from prediction import Plan
from report import TimeRow

from kvplan.errors import UsageError
from kvplan.hardware.efficiency import Kernel, KernelFit, kernel_fit
from kvplan.hardware.peak import peak_flops_per_s
from kvplan.storage import SIXTEEN_BIT
from kvplan.units import GB

Times = npt.NDArray[np.float64]
MICRO = 1e-6
FEWEST_ROWS = 4
POINTS, ROUNDS = 17, 12


def efficiency_yaml(
    plan: Plan, products: Sequence[TimeRow], attention: Sequence[TimeRow], source: str
) -> str:
    """Return the ``efficiency:`` block of the card's file.

    Raises:
        UsageError: too few times were measured to fit three constants to.
    """
    found = (
        kernel_constants(plan, Kernel.GEMM, products, source),
        kernel_constants(plan, Kernel.DECODE_ATTENTION, attention, source),
    )
    return "\n".join(["efficiency:", *(_entry(one) for one in found)])


def kernel_constants(plan: Plan, kernel: Kernel, rows: Sequence[TimeRow], source: str) -> KernelFit:
    """Fit ``launch + max(bytes / (memory share x bandwidth), FLOPs / (compute share x peak))`` to times.

    Where no time is bound by arithmetic, as in decode attention, the compute share kvplan already has stays.
    The error is of the very rows that were fitted: of others it is larger.

    Raises:
        UsageError: there are too few times.
    """
    if len(rows) < FEWEST_ROWS:
        raise UsageError(
            f"{len(rows)} times of {kernel.value} are too few to fit: {FEWEST_ROWS} are needed",
            hint="more --batches, --contexts or --rows",
        )
    bandwidth = plan.device.memory.bandwidth_gb_per_s * GB
    peak = peak_flops_per_s(plan.device, SIXTEEN_BIT)
    memory_s = np.array([row.predicted.moved_bytes for row in rows]) / bandwidth
    compute_s = np.array([row.predicted.flops for row in rows]) / peak
    measured_s = np.array([row.measured_s for row in rows])
    known = kernel_fit(plan.device.efficiency, kernel, plan.model.dtype).compute_share
    arithmetic_binds = bool((compute_s > memory_s).sum() >= 2)
    shares = (0.02, 1.0) if arithmetic_binds else (known, known)
    constants = fitted(memory_s, compute_s, measured_s, shares)
    launch_us = max(0.1, round(constants[0] / MICRO, 1))
    memory_share, compute_share = (round(float(share), 2) for share in constants[1:])
    times = time_s(launch_us * MICRO, memory_share, compute_share, memory_s, compute_s)
    errors = np.abs(times / measured_s - 1)
    return KernelFit(
        kernel,
        "bf16",
        launch_us,
        memory_share,
        compute_share,
        source,
        _rounded_error(np.median(errors)),
        p90_error=_rounded_error(np.quantile(errors, 0.9)),
    )


def _rounded_error(error: np.floating[Any]) -> float:
    """Return an error in thousandths; a file holds none below that."""
    return max(0.001, round(float(error), 3))


def time_s(
    launch_s: float, memory_share: float, compute_share: float, memory_s: Times, compute_s: Times
) -> Times:
    """Return what calls take that would take these times at the datasheet's rates."""
    return launch_s + np.maximum(memory_s / memory_share, compute_s / compute_share)


def fitted(
    memory_s: Times, compute_s: Times, measured_s: Times, compute_shares: tuple[float, float]
) -> tuple[float, float, float]:
    """Return the launch time and the two shares with the least mean of ``|log(time / measured)|``.

    A grid over their logarithms, narrowed around the best point again and again: no outlier can pull it away,
    and it starts from everything that is possible.
    """
    least = float(measured_s.min())
    ranges = [(least / 1e3, least), (0.02, 1.0), compute_shares]
    best = (np.inf, (0.0, 0.0, 0.0))
    for _ in range(ROUNDS):
        axes = [np.geomspace(low, high, POINTS) if low < high else np.array([low]) for low, high in ranges]
        for launch, memory, compute in itertools.product(*axes):
            times = time_s(launch, memory, compute, memory_s, compute_s)
            loss = float(np.abs(np.log(times / measured_s)).mean())
            best = min(best, (loss, (float(launch), float(memory), float(compute))))
        ranges = [_narrowed(span, at) for span, at in zip(ranges, best[1], strict=True)]
    return best[1]


def _narrowed(span: tuple[float, float], at: float) -> tuple[float, float]:
    """Return half a range around a point, on a logarithmic scale, not past the range's ends."""
    low, high = span
    half = (high / low) ** 0.25
    return max(low, at / half), min(high, at * half)


def _entry(fit: KernelFit) -> str:
    return (
        f"  - {{kernel: {fit.kernel.value}, format: {fit.format}, launch_us: {fit.launch_us:g}, "
        f"memory_share: {fit.memory_share:g}, compute_share: {fit.compute_share:g}, peak: {fit.peak.value},\n"
        f"     median_error: {fit.median_error:g}, p90_error: {fit.p90_error:g},\n"
        f'     source: "{fit.source}"}}'
    )
