"""How near its roofline each kind of kernel really runs: constants fitted to published measurements.

A kernel takes ``launch_us + max(bytes / (memory_share x bandwidth), FLOPs / (compute_share x peak))``;
prefill attention's FLOPs count ``1 + ramp_tokens / prompt`` times. Where an accelerator was not measured,
constants fitted over all that were stand in; where a format was not, the one whose kernels are nearest.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum

from kvplan.checks import FieldError, require_amounts, require_text
from kvplan.errors import UsageError, unknown
from kvplan.storage import WEIGHT_FORMATS


class Kernel(Enum):
    """A kind of kernel; the value is its name in an accelerator file."""

    GEMM = "gemm"
    DECODE_ATTENTION = "decode_attention"
    PREFILL_ATTENTION = "prefill_attention"
    LATENT_ATTENTION = "latent_attention"
    EXPERTS = "experts"


class Peak(Enum):
    """A matrix rate of a datasheet; the value is its name in an accelerator file."""

    BF16 = "bf16"
    FP8 = "fp8"
    FP4 = "fp4"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class KernelFit:
    """Constants of one kind of kernel over one number format.

    Args:
        kernel: the kind.
        format: what its weights, or its cache, are stored in: bf16 (any 16-bit format), fp8, int4...
        launch_us: what one call takes however little it does, inside a captured graph.
        memory_share: of the datasheet's bandwidth that it reaches.
        compute_share: of the datasheet's dense peak that it reaches.
        median_error: of the fit against measurements it was not made from; absent where unknown.
        source: the measurements.
        ramp_tokens: prefill attention works as if each prompt were so many tokens longer.
        peak: the dense peak that compute_share is a share of: what the kernel multiplies in.
        p90_error: nine in ten of those measurements are nearer; absent where unknown.
    """

    kernel: Kernel
    format: str
    launch_us: float
    memory_share: float
    compute_share: float
    source: str
    median_error: float | None = None
    ramp_tokens: float = 0.0
    peak: Peak = Peak.BF16
    p90_error: float | None = None

    def __post_init__(self) -> None:
        require_text(self, "format", "source")
        require_amounts(self, "launch_us", "memory_share", "compute_share", "median_error", "p90_error")
        for name in ("memory_share", "compute_share"):
            if getattr(self, name) > 1:
                raise FieldError(((name,), f"must be at most 1, not {getattr(self, name):g}"))
        if self.ramp_tokens < 0:
            raise FieldError((("ramp_tokens",), f"must not be negative, not {self.ramp_tokens:g}"))


_PACKAGE = "aiconfigurator-core 0.12.0 (PyPI; NVIDIA, Apache-2.0)"
_POOLED = f"{_PACKAGE}, all GPUs measured: python benchmarks/refit_efficiency.py WHEEL --yaml"

# What an accelerator that nobody measured is taken to do. Errors are of generations left out of the fit, one
# at a time.
UNIVERSAL: tuple[KernelFit, ...] = (
    KernelFit(Kernel.GEMM, "bf16", 4.5, 0.83, 0.76, _POOLED, 0.112, peak=Peak.BF16, p90_error=0.23),
    KernelFit(Kernel.GEMM, "fp8", 8.7, 0.81, 0.56, _POOLED, 0.151, peak=Peak.FP8, p90_error=0.34),
    KernelFit(Kernel.GEMM, "fp8-block", 9.4, 0.89, 0.6, _POOLED, 0.094, peak=Peak.FP8, p90_error=0.3),
    KernelFit(Kernel.GEMM, "nvfp4", 13, 0.79, 0.52, _POOLED, 0.352, peak=Peak.FP4, p90_error=0.76),
    KernelFit(
        Kernel.DECODE_ATTENTION, "bf16", 11, 0.87, 0.13, _POOLED, 0.118, peak=Peak.BF16, p90_error=0.27
    ),
    KernelFit(Kernel.DECODE_ATTENTION, "fp8", 11, 0.87, 0.11, _POOLED, 0.127, peak=Peak.BF16, p90_error=0.24),
    KernelFit(
        Kernel.PREFILL_ATTENTION,
        "bf16",
        27,
        0.47,
        0.61,
        _POOLED,
        0.135,
        ramp_tokens=270,
        peak=Peak.BF16,
        p90_error=0.37,
    ),
    KernelFit(
        Kernel.PREFILL_ATTENTION,
        "fp8",
        27,
        0.37,
        0.4,
        _POOLED,
        0.134,
        ramp_tokens=820,
        peak=Peak.FP8,
        p90_error=0.39,
    ),
    KernelFit(Kernel.LATENT_ATTENTION, "bf16", 21, 0.8, 0.64, _POOLED, 0.187, peak=Peak.BF16, p90_error=0.29),
    KernelFit(Kernel.LATENT_ATTENTION, "fp8", 22, 0.85, 0.38, _POOLED, 0.186, peak=Peak.FP8, p90_error=0.33),
    KernelFit(Kernel.EXPERTS, "bf16", 41, 0.85, 0.33, _POOLED, 0.15, peak=Peak.BF16, p90_error=0.52),
    KernelFit(Kernel.EXPERTS, "fp8", 49, 0.84, 0.31, _POOLED, 0.146, peak=Peak.FP8, p90_error=0.59),
    KernelFit(Kernel.EXPERTS, "fp8-block", 45, 0.81, 0.27, _POOLED, 0.166, peak=Peak.FP8, p90_error=0.52),
    KernelFit(Kernel.EXPERTS, "nvfp4", 44, 0.85, 0.27, _POOLED, 0.234, peak=Peak.FP4, p90_error=0.86),
    KernelFit(Kernel.EXPERTS, "mxfp4", 62, 0.73, 0.4, _POOLED, 0.254, peak=Peak.BF16, p90_error=0.59),
    KernelFit(Kernel.EXPERTS, "int4", 129, 0.82, 0.31, _POOLED, 0.28, peak=Peak.BF16, p90_error=0.76),
)

# Measured on A100 alone, by TensorRT-LLM 1.0; errors are of its own rows. Elsewhere these launches are taken
# to be as much longer than those of 16-bit products as they are there.
A100_ALONE: tuple[KernelFit, ...] = (
    KernelFit(Kernel.GEMM, "int8", 19, 0.89, 0.71, _POOLED, 0.149, peak=Peak.INT8, p90_error=0.34),
    KernelFit(Kernel.GEMM, "w8a16", 23, 0.9, 0.81, _POOLED, 0.067, peak=Peak.BF16, p90_error=0.3),
    KernelFit(Kernel.GEMM, "int4", 29, 1, 0.78, _POOLED, 0.073, peak=Peak.BF16, p90_error=0.33),
)
A100_SIXTEEN_BIT_LAUNCH_US = 8.5


@dataclass(frozen=True, slots=True)
class StandIn:
    """What stands in for a format that was not measured, or that a device cannot multiply in.

    Args:
        format: the name of a weight or cache format.
        others: formats whose kernels are nearest, the nearest first.
        why: what they share.
    """

    format: str
    others: tuple[str, ...]
    why: str


_UNPACKED = ("w8a16", "bf16")
_FOUR_BITS = ("int4", "w8a16", "bf16")
_GROUPED_INT8 = tuple(f.name for f in WEIGHT_FORMATS if f.name.startswith(("int8-gptq", "int8-sym")))
_GROUPED_INT4_NAMES = ("int4-awq", "int4-gptq-", "int4-sym", "int4-asym", "int4-kimi")
_GROUPED_INT4 = tuple(f.name for f in WEIGHT_FORMATS if f.name.startswith(_GROUPED_INT4_NAMES))
_GGUF = (
    *("q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"),
    *("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_xs"),
)
WEIGHT_STAND_INS: tuple[StandIn, ...] = (
    StandIn("bf16", (), "measured"),
    StandIn("fp16", ("bf16",), "the same bytes and the same rate"),
    StandIn("fp32", ("bf16",), "the same kind of kernel; its bytes and its rate are the caller's"),
    StandIn("fp8", _UNPACKED, "without an FP8 rate it is unpacked to 16 bits"),
    StandIn("fp8-block", ("fp8", *_UNPACKED), "FP8 with more scales"),
    StandIn("fp8-row", ("fp8", *_UNPACKED), "FP8 with a scale for each row"),
    StandIn("fp8-static", ("fp8", *_UNPACKED), "FP8 with a scale of its inputs"),
    StandIn("mxfp8", ("fp8", *_UNPACKED), "FP8 with more scales"),
    StandIn("int8", ("fp8", *_UNPACKED), "both operands in a byte, quantised on the way in"),
    StandIn("int8-tensor", ("fp8", *_UNPACKED), "int8 with fewer scales"),
    *(StandIn(name, _UNPACKED, "8-bit integers in groups, multiplied in 16 bits") for name in _GROUPED_INT8),
    StandIn("w8a16", ("bf16",), "8-bit weights, multiplied in 16 bits"),
    StandIn("int4", ("w8a16", "bf16"), "4-bit weights, multiplied in 16 bits"),
    StandIn("int4-gptq", _FOUR_BITS, "int4 in another order"),
    *(StandIn(name, _FOUR_BITS, "int4 in other groups, or another order") for name in _GROUPED_INT4),
    *(
        StandIn(name, _FOUR_BITS, "4-bit weights, unpacked by table")
        for name in ("nf4", "nf4-double", "fp4", "fp4-double")
    ),
    StandIn("mxfp4", _FOUR_BITS, "4-bit weights, unpacked by shift"),
    StandIn("nvfp4", _FOUR_BITS, "without an FP4 rate it is unpacked to 16 bits"),
    StandIn("nvfp4-static", _FOUR_BITS, "without an FP4 rate it is unpacked to 16 bits"),
    StandIn("nvfp4-a16", _FOUR_BITS, "4-bit weights, multiplied in 16 bits"),
    StandIn("mxfp4-a16", _FOUR_BITS, "4-bit weights, unpacked by shift"),
    StandIn(
        "q8_0", _UNPACKED, "8-bit weights, multiplied in 16 bits; llama.cpp's own kernels are not measured"
    ),
    *(
        StandIn(name, _FOUR_BITS, "packed weights, multiplied in 16 bits; llama.cpp's own are not measured")
        for name in _GGUF
    ),
)
CACHE_STAND_INS: tuple[StandIn, ...] = (
    StandIn("bf16", (), "measured"),
    StandIn("fp16", ("bf16",), "the same bytes and the same rate"),
    StandIn("fp32", ("bf16",), "the same kind of kernel; its bytes are the caller's"),
    StandIn("fp8", ("bf16",), "without an FP8 rate it is unpacked to 16 bits"),
    StandIn("int8", ("fp8", "bf16"), "a byte an element, unpacked on the way in"),
    StandIn("int4", ("fp8", "bf16"), "packed, unpacked on the way in"),
    StandIn("int2", ("fp8", "bf16"), "packed, unpacked on the way in"),
    StandIn("int8-kivi", ("fp8", "bf16"), "a byte an element, unpacked on the way in"),
    StandIn("int4-kivi", ("fp8", "bf16"), "packed, unpacked on the way in"),
    StandIn("int2-kivi", ("fp8", "bf16"), "packed, unpacked on the way in"),
)


# Caches that are unpacked on the way in, as one of FP8 is, and were not measured.
PACKED_CACHES = ("int8", "int4", "int2", "int8-kivi", "int4-kivi", "int2-kivi")


def kernel_fit(
    fits: tuple[KernelFit, ...], kernel: Kernel, format: str, peaks: Collection[Peak] = tuple(Peak)
) -> KernelFit:
    """Return a kernel's constants over a format: a device's own, else pooled, else those of a stand-in.

    Args:
        fits: the device's own.
        kernel: the kind of kernel.
        format: a weight format of :mod:`kvplan.storage` for products, a KV format for attention.
        peaks: the rates the device has; constants that are a share of another do not apply to it.

    Raises:
        UsageError: the format is not one that a weight, or a cache, is stored in.
    """
    products = kernel in (Kernel.GEMM, Kernel.EXPERTS)
    stand_ins = WEIGHT_STAND_INS if products else CACHE_STAND_INS
    others = [entry.others for entry in stand_ins if entry.format == format]
    if not others:
        known = [entry.format for entry in stand_ins]
        raise unknown("weight format" if products else "KV format", format, known)
    for name in (format, *others[0]):
        for found in (*fits, *UNIVERSAL, *A100_ALONE):
            if (found.kernel, found.format) == (kernel, name) and found.peak in peaks:
                fit = _like_its_own(_in_proportion(found, fits) if found in A100_ALONE else found, fits)
                return fit if products else _no_nearer_than_bytes(fit, format, fits)
    raise UsageError(
        f"this accelerator has no known 16-bit rate, so there is no estimate of {kernel.value} over {format}",
        hint="give its bf16_tflops or fp16_tflops in the accelerator file",
    )


def _like_its_own(fit: KernelFit, fits: tuple[KernelFit, ...]) -> KernelFit:
    """Return constants that move bytes no better than the device's own 16-bit kernel does, if known."""
    own = [known for known in fits if (known.kernel, known.format) == (fit.kernel, "bf16")]
    if fit in fits or not own:
        return fit
    return replace(fit, memory_share=min(fit.memory_share, own[0].memory_share))


def _no_nearer_than_bytes(fit: KernelFit, format: str, fits: tuple[KernelFit, ...]) -> KernelFit:
    """Return constants over a packed cache that move bytes no better than the device's FP8 kernel does."""
    own = [known for known in fits if (known.kernel, known.format) == (fit.kernel, "fp8")]
    if not own or format not in PACKED_CACHES:
        return fit
    return replace(fit, memory_share=min(fit.memory_share, own[0].memory_share))


def _in_proportion(fit: KernelFit, fits: tuple[KernelFit, ...]) -> KernelFit:
    """Return constants of A100 with the launch that a device with these own ones is taken to have."""
    own = kernel_fit(fits, Kernel.GEMM, "bf16").launch_us
    return replace(fit, launch_us=fit.launch_us * own / A100_SIXTEEN_BIT_LAUNCH_US)


@dataclass(frozen=True, slots=True)
class AllReduceFit:
    """Constants of an all-reduce over one number of ranks, in a captured graph.

    A rank takes ``launch_us + 2 (ranks - 1) / ranks x bytes / (link_share x link)``, as around a ring.

    Args:
        ranks: how many take part.
        launch_us: what one call takes however little it sends.
        link_share: of the link in one direction, PCIe where there is no other, that the ring would reach; a
            switch that adds up on the way can pass 1.
        source: the measurements.
        median_error: of the fit against measurements it was not made from; absent where unknown.
    """

    ranks: int
    launch_us: float
    link_share: float
    source: str
    median_error: float | None = None

    def __post_init__(self) -> None:
        require_text(self, "source")
        require_amounts(self, "launch_us", "link_share", "median_error")
        if self.ranks < 2:
            raise FieldError((("ranks",), f"must be at least 2, not {self.ranks}"))


# H100 to GB300 and A100 over NVLink; L40S and RTX PRO 6000 over PCIe, where no more than two should share.
UNIVERSAL_ALL_REDUCE: tuple[AllReduceFit, ...] = (
    AllReduceFit(2, 3.8, 0.6, _POOLED, 0.093),
    AllReduceFit(4, 4.4, 0.67, _POOLED, 0.111),
    AllReduceFit(8, 4.8, 0.72, _POOLED, 0.13),
)
UNIVERSAL_PCIE_ALL_REDUCE: tuple[AllReduceFit, ...] = (
    AllReduceFit(2, 5.2, 0.63, _POOLED, 0.053),
    AllReduceFit(4, 12, 0.16, _POOLED, 0.127),
    AllReduceFit(8, 22, 0.07, _POOLED, 0.202),
)


def all_reduce_fit(fits: tuple[AllReduceFit, ...], ranks: int, *, over_pcie: bool = False) -> AllReduceFit:
    """Return the constants for the nearest number of ranks at or above: a device's own, or else pooled.

    Beyond the largest number measured, the largest stands in; it knows nothing of a link between boxes.

    Raises:
        UsageError: fewer than two ranks have nothing to add up.
    """
    if ranks < 2:
        raise UsageError(f"an all-reduce takes at least 2 ranks, not {ranks}")
    pooled = UNIVERSAL_PCIE_ALL_REDUCE if over_pcie else UNIVERSAL_ALL_REDUCE
    for known in (fits, pooled):
        enough = [found for found in known if found.ranks >= ranks]
        if enough:
            return min(enough, key=lambda found: found.ranks)
    return max((*fits, *pooled), key=lambda found: found.ranks)


@dataclass(frozen=True, slots=True)
class FixedTime:
    """Time that passes however little is computed.

    Args:
        time_us: how long.
        what: what passes it.
        source: where the figure is from.
    """

    time_us: float
    what: str
    source: str


_ASSUMED = (
    "assumed, not fitted. An earlier composite estimate with this figure missed 935 serving points of "
    f"Llama-3.1-8B and 70B and Qwen3-32B on H100, H200 and B200 by 11% at the median: {_PACKAGE}, end to end"
)
GLUE_PER_LAYER = FixedTime(
    12.0, "a layer's norms, rotations, activations and residual sums, in a captured graph", _ASSUMED
)
HOST_PER_STEP = FixedTime(300.0, "the host's work between steps, with CUDA graphs", _ASSUMED)
