"""The laws of an operator's times on an accelerator: peaks as its datasheet says, shares as measured."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.errors import UsageError
from kvplan.hardware.device import Device
from kvplan.hardware.efficiency import (
    GLUE_PER_LAYER,
    HOST_PER_STEP,
    FixedTime,
    Kernel,
    KernelFit,
    Peak,
    all_reduce_fit,
    kernel_fit,
)
from kvplan.hardware.link import link_bytes_per_s
from kvplan.hardware.peak import has_peak, peak_flops_per_s, peak_format
from kvplan.plan.law import Law, Of, law
from kvplan.plan.operator import Collective, Glue, Operator
from kvplan.plan.operator_formulas import memory_bytes, moved_bytes
from kvplan.plan.step_time import Timing
from kvplan.plan.time_formulas import (
    launching_s,
    moving_s,
    multiplying_s,
    ramped_flops,
    ring_s,
    roofline_s,
    sending_bound_s,
    sending_s,
)
from kvplan.results import Quantity, fact
from kvplan.storage import SIXTEEN_BIT
from kvplan.units import GB, Unit

_NONE = fact("bytes", 0, "none", Unit.BYTES)
# The number formats a rate is of, the fastest first; one without bf16 multiplies in fp16.
_FORMATS = {
    Peak.BF16: SIXTEEN_BIT,
    Peak.FP8: ("fp8",),
    Peak.FP4: ("fp4",),
    Peak.INT8: ("int8",),
}


@dataclass(frozen=True, slots=True)
class Clock:
    """Tells how long operators take on one accelerator and its links."""

    device: Device

    def timing(self, operator: Operator) -> Timing:
        """Return the laws of an operator's times, all its layers together.

        Raises:
            UsageError: the accelerator has no matrix unit for it, or no link is known.
        """
        match operator.runs_as:
            case Kernel():
                return self._kernel(operator.runs_as, operator)
            case Glue():
                return self._glue(operator.runs_as, operator)
            case Collective():
                return self._exchange(operator.runs_as, operator)

    def _kernel(self, kernel: Kernel, operator: Operator) -> Timing:
        flops, best = _flops(operator), operator.format.multiplied_in
        # Where a format was not measured, another's kernels stand in: those at a rate that it multiplies in.
        # Single precision was not at all: its kernels are taken to reach the same shares of its own rate.
        rates = tuple(peak for peak in self._peaks() if {*_FORMATS[peak]} & {*best})
        fit = kernel_fit(self.device.efficiency, kernel, operator.format.name, rates or self._peaks())
        used = _FORMATS[fit.peak] if rates else best
        worked = flops
        if fit.ramp_tokens:
            ramp = fact("ramp_tokens", fit.ramp_tokens, fit.source, Unit.TOKENS)
            worked = law("flops", ramped_flops, flops, ramp, Of.CONTEXT, Of.NEW_TOKENS)
        return Timing(
            bound=law("bound_s", roofline_s, _memory(operator), self._bandwidth, flops, self._peak(best)),
            memory=self._moving(operator, fit),
            compute=law("compute_s", multiplying_s, worked, _share("compute_share", fit), self._peak(used)),
            launch=_launches(operator.calls, fit.launch_us, fit.source),
        )

    def _peaks(self) -> tuple[Peak, ...]:
        """Return the rates that constants of kernels can be shares of on this accelerator."""
        return tuple(peak for peak, formats in _FORMATS.items() if has_peak(self.device, formats))

    def _peak(self, formats: tuple[str, ...]) -> Quantity:
        rate, unit = peak_flops_per_s(self.device, formats), peak_format(self.device, formats)
        return fact("flops_per_s", rate, f"dense {unit} peak: {self._source}", Unit.FLOPS_PER_SECOND)

    def _glue(self, glue: Glue, operator: Operator) -> Timing:
        if glue is Glue.HOST:
            return Timing(launch=_passing(operator.calls, HOST_PER_STEP))
        fit = kernel_fit(self.device.efficiency, Kernel.GEMM, "bf16", self._peaks())
        bound = law("bound_s", roofline_s, _memory(operator), self._bandwidth, _NOTHING, _ONE)
        launch = _passing(operator.calls, GLUE_PER_LAYER) if glue is Glue.LAYER else None
        return Timing(bound=bound, memory=self._moving(operator, fit), launch=launch)

    def _exchange(self, kind: Collective, operator: Operator) -> Timing:
        assert operator.collective_bytes is not None
        rate, sent = self._link(), operator.collective_bytes
        over_pcie = self.device.interconnect.link_gb_per_s_per_direction is None
        fit = all_reduce_fit(self.device.all_reduce, operator.ranks, over_pcie=over_pcie)
        share = fact("link_share", fit.link_share, fit.source)
        ranks = fact("ranks", operator.ranks, "GPUs that take part")
        network = (
            law("network_s", ring_s, sent, ranks, share, rate)
            if kind in (Collective.ALL_REDUCE, Collective.CONTEXT_ALL_REDUCE)
            else law("network_s", sending_s, sent, share, rate)
        )
        # Only a sum over ranks needs all its bytes: others can be sent in fewer bits, to fewer ranks, or not.
        needed = kind is Collective.ALL_REDUCE
        return Timing(
            bound=law("bound_s", sending_bound_s, sent, rate) if needed else None,
            network=network,
            launch=_launches(operator.calls, fit.launch_us, fit.source),
        )

    def _moving(self, operator: Operator, fit: KernelFit) -> Law:
        activations = operator.activation_bytes or _NONE
        moved = law("moved_bytes", moved_bytes, *_stored(operator), activations)
        return law("memory_s", moving_s, moved, _share("memory_share", fit), self._bandwidth)

    def _link(self) -> Quantity:
        rate = link_bytes_per_s(self.device)
        if rate is None:
            raise UsageError(
                f"no link of {self.device.name} to other GPUs is known: exchanges cannot be timed",
                hint="link_gb_per_s_per_direction in its file",
            )
        return fact("link_bytes_per_s", rate, self._source, Unit.BYTES_PER_SECOND)

    @property
    def _bandwidth(self) -> Quantity:
        rate = self.device.memory.bandwidth_gb_per_s * GB
        return fact("bytes_per_s", rate, self._source, Unit.BYTES_PER_SECOND)

    @property
    def _source(self) -> str:
        return self.device.source


_NOTHING = fact("flops", 0, "no products", Unit.FLOPS)
_ONE = fact("flops_per_s", 1.0, "no products", Unit.FLOPS_PER_SECOND)


def _flops(operator: Operator) -> Law:
    found = operator.matmul_flops or operator.attention_flops
    assert found is not None
    return found


def _memory(operator: Operator) -> Law:
    weights, *cache = _stored(operator)
    return law("memory_bytes", memory_bytes, operator.least_weight_bytes or weights, *cache)


def _stored(operator: Operator) -> tuple[Law | Quantity, ...]:
    parts = (operator.weight_bytes, operator.kv_read_bytes, operator.kv_write_bytes)
    return tuple(part or _NONE for part in parts)


def _share(name: str, fit: KernelFit) -> Quantity:
    return fact(name, getattr(fit, name), fit.source)


def _passing(calls: int, fixed: FixedTime) -> Law:
    return _launches(calls, fixed.time_us, f"{fixed.what}: {fixed.source}")


def _launches(calls: int, launch_us: float, source: str) -> Law:
    times = fact("calls", calls, "how often a step runs it")
    return law("launch_s", launching_s, times, fact("launch_us", launch_us, source))
