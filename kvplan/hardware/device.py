"""One accelerator: facts from its datasheet and its driver, each file with its source.

Peaks are DENSE: vendor sheets often headline twice as much, "with sparsity".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvplan.checks import FieldError, require_amounts, require_name, require_sizes, require_text
from kvplan.hardware.efficiency import AllReduceFit, KernelFit
from kvplan.units import GB, GIB, MIB


@dataclass(frozen=True, slots=True)
class Memory:
    """Device memory.

    Args:
        type: HBM3, GDDR6...
        sold_gb: decimal gigabytes on the box.
        bandwidth_gb_per_s: peak read bandwidth, decimal.
        driver_mib: MiB the driver reports (nvidia-smi, rocm-smi); absent when no reading is known.
        driver_source: where that reading is from.
        torch_gib: GiB torch.cuda.get_device_properties reports; a little less than the driver's.
    """

    type: str
    sold_gb: int
    bandwidth_gb_per_s: float
    driver_mib: int | None = None
    driver_source: str = ""
    torch_gib: float | None = None

    def __post_init__(self) -> None:
        require_text(self, "type")
        require_sizes(self, "sold_gb")
        require_amounts(self, "bandwidth_gb_per_s")
        self._require_near("driver_mib", self.driver_mib, MIB)
        self._require_near("torch_gib", self.torch_gib, GIB)

    def _require_near(self, name: str, reading: float | None, unit: int) -> None:
        """Raise FieldError where a reading cannot be of the memory that is sold: a wrong digit or unit."""
        sold = self.sold_gb * GB
        if reading is not None and not 0.8 * sold < reading * unit < 1.2 * sold:
            raise FieldError(((name,), f"{reading} does not go with {self.sold_gb} GB as sold"))


@dataclass(frozen=True, slots=True)
class DensePeaks:
    """Peak matrix rates in TFLOP/s without structured sparsity (INT8 in TOPS); absent where there is none."""

    fp32_tflops: float | None = None
    tf32_tflops: float | None = None
    fp16_tflops: float | None = None
    bf16_tflops: float | None = None
    fp8_tflops: float | None = None
    fp4_tflops: float | None = None
    int8_tops: float | None = None

    def __post_init__(self) -> None:
        require_amounts(self, *self.__slots__)


@dataclass(frozen=True, slots=True)
class Interconnect:
    """Links to other devices and to the host; ``link`` is NVLink, xGMI, ICI or RoCE."""

    link_gb_per_s_per_direction: float | None = None
    pcie: str = ""

    def __post_init__(self) -> None:
        require_amounts(self, "link_gb_per_s_per_direction")


@dataclass(frozen=True, slots=True)
class HourlyPrice:
    """The range of on-demand prices seen, and where."""

    low_usd: float
    high_usd: float
    source: str

    def __post_init__(self) -> None:
        require_text(self, "source")
        require_amounts(self, "low_usd", "high_usd")
        if self.high_usd < self.low_usd:
            raise FieldError((("high_usd",), f"{self.high_usd:g} is less than low_usd, {self.low_usd:g}"))


@dataclass(frozen=True, slots=True)
class Device:
    """Everything known of one accelerator.

    Args:
        name: the name in the catalog.
        label: the vendor's name.
        vendor: nvidia, amd, google or intel.
        architecture: the vendor's name of the generation.
        source: the datasheet.
        memory: size and bandwidth.
        peak_dense: matrix rates.
        interconnect: links.
        confidence: high (undisputed datasheet value) or medium (one source, or rounded differently).
        compute_capability: NVIDIA's version of the instruction set.
        sm_count: streaming multiprocessors, or the vendor's like.
        shared_memory_per_sm_kib: on-chip memory a thread block can use.
        l2_mb: last-level cache.
        tdp_w: board power.
        price_per_hour: on-demand price.
        notes: what a reader of the datasheet should know.
        evidence: what else agrees.
        efficiency: how near its roofline each kind of kernel was measured to run, if it was.
        all_reduce: how fast several were measured to add up, an entry for each number of ranks.
    """

    name: str
    label: str
    vendor: str
    architecture: str
    source: str
    memory: Memory
    peak_dense: DensePeaks
    interconnect: Interconnect
    confidence: Literal["high", "medium"]
    compute_capability: str = ""
    sm_count: int | None = None
    shared_memory_per_sm_kib: int | None = None
    l2_mb: float | None = None
    tdp_w: int | None = None
    price_per_hour: HourlyPrice | None = None
    notes: str = ""
    evidence: tuple[str, ...] = ()
    efficiency: tuple[KernelFit, ...] = ()
    all_reduce: tuple[AllReduceFit, ...] = ()

    def __post_init__(self) -> None:
        require_name(self.name)
        require_text(self, "label", "vendor", "architecture", "source")
        require_sizes(self, "sm_count", "shared_memory_per_sm_kib", "tdp_w")
        require_amounts(self, "l2_mb")
        _require_distinct("efficiency", [f"{fit.kernel.value} over {fit.format}" for fit in self.efficiency])
        _require_distinct("all_reduce", [f"{fit.ranks} ranks" for fit in self.all_reduce])

    @property
    def memory_bytes(self) -> int:
        """Bytes the driver reports; where no reading is known, the decimal GB it is sold with."""
        if self.memory.driver_mib is None:
            return self.memory.sold_gb * GB
        return self.memory.driver_mib * MIB


def _require_distinct(name: str, keys: list[str]) -> None:
    """Raise FieldError at the first key that is there twice."""
    for index, key in enumerate(keys):
        if key in keys[:index]:
            raise FieldError(((name, index), f"{key} is there twice"))
