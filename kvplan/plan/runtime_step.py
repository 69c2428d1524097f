"""A step of a runtime with kernels of its own, by the constants of :mod:`kvplan.hardware.runtime_fits`.

A model cut into pipeline stages is walked stage after stage: one request keeps one accelerator busy.
"""

from __future__ import annotations

from kvplan.arch.work import Step
from kvplan.errors import UsageError
from kvplan.formula import formula
from kvplan.hardware.device import Device
from kvplan.hardware.peak import peak_flops_per_s
from kvplan.hardware.runtime_fits import RuntimeFit
from kvplan.plan.roofline import Roofline
from kvplan.storage import EIGHT_BIT_INTEGER
from kvplan.units import GB, Amount, Unit

_MICRO = 1e-6


@formula(Unit.SECONDS, "weights and cache one after the other, behind what every layer takes anyway")
def runtime_decode_s(
    layers: int,
    layer_s: float,
    weight_bytes: Amount,
    weight_bytes_per_s: float,
    cache_bytes: Amount,
    cache_bytes_per_s: float,
) -> Amount:
    """Seconds of a decode step."""
    return layers * layer_s + weight_bytes / weight_bytes_per_s + cache_bytes / cache_bytes_per_s


@formula(Unit.SECONDS, "products and attention one after the other")
def runtime_prefill_s(
    matmul_flops: Amount,
    matmul_flops_per_s: float,
    attention_flops: Amount,
    attention_flops_per_s: float,
) -> Amount:
    """Seconds of reading a prompt."""
    return matmul_flops / matmul_flops_per_s + attention_flops / attention_flops_per_s


@formula(Unit.BYTES, "two operations for every element that a query head reads")
def bytes_read_by_heads(attention_flops: Amount, kv_bits: int) -> Amount:
    """Bytes of keys and values, where every query head reads them by itself."""
    return attention_flops / 2 * kv_bits / 8


def decode_s(
    roofline: Roofline, fit: RuntimeFit, batch: Amount, context: Amount, weight_bytes: Amount | None = None
) -> Amount:
    """Return the seconds that a decode step is expected to take.

    Args:
        roofline: the model under its deployment.
        fit: the runtime's constants.
        batch: requests.
        context: tokens that each has cached.
        weight_bytes: that the step reads, where a file is a mixture of formats; else as its format has it.

    Raises:
        UsageError: the accelerator's multiprocessors are not known.
    """
    device, work = roofline.deployment.device, roofline.work(roofline.decode(batch, context))
    bandwidth = device.memory.bandwidth_gb_per_s * GB
    heads = bytes_read_by_heads(work.attention_flops, roofline.deployment.kv.bits)
    return runtime_decode_s(
        layers=sum(run.count for run in roofline.model.text_runs()),
        layer_s=fit.layer_us * _MICRO,
        weight_bytes=work.weight_bytes if weight_bytes is None else weight_bytes,
        weight_bytes_per_s=min(fit.memory_share * bandwidth, _unpacked_bytes_per_s(device, fit)),
        cache_bytes=heads if fit.reads_per_head else work.kv_read_bytes,
        cache_bytes_per_s=fit.cache_share * bandwidth,
    )


def prefill_s(roofline: Roofline, fit: RuntimeFit, *steps: tuple[Step, int]) -> Amount:
    """Return the seconds that the steps of a prompt are expected to take."""
    work = roofline.work(*steps)
    peak = peak_flops_per_s(roofline.deployment.device, EIGHT_BIT_INTEGER)
    return runtime_prefill_s(
        work.matmul_flops, fit.compute_share * peak, work.attention_flops, fit.attention_share * peak
    )


def _unpacked_bytes_per_s(device: Device, fit: RuntimeFit) -> float:
    if device.sm_count is None:
        raise UsageError(
            f"the multiprocessors of {device.name} are not known: {fit.runtime.value} cannot be timed",
            hint="sm_count in its file",
        )
    return fit.multiprocessor_gb_per_s * GB * device.sm_count
