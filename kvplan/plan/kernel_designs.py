"""Published split-KV decode kernels, one for each generation of accelerators."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.hardware.device import Device
from kvplan.units import KIB


@dataclass(frozen=True, slots=True)
class KernelDesign:
    """How a decode attention kernel uses one generation of accelerators.

    Args:
        vendor: as in an accelerator's file.
        capabilities: compute capabilities it runs on; one that ends in a point stands for all behind it.
        instruction: the matrix instruction, for 16-bit elements; other widths have as many rows.
        mma_rows: rows of queries one instruction multiplies.
        most_rows: most rows of queries one thread block takes.
        stages: tiles of keys and values that are in shared memory at once.
        most_blocks_per_sm: thread blocks whose registers fit on an SM.
        reserved_bytes: shared memory the driver takes for each thread block.
        instruction_source: where the rows of the instruction are from.
        source: where the rest is from.
    """

    vendor: str
    capabilities: tuple[str, ...]
    instruction: str
    mma_rows: int
    most_rows: int
    stages: int
    most_blocks_per_sm: int
    reserved_bytes: int
    instruction_source: str
    source: str

    def runs_on(self, device: Device) -> bool:
        """Whether this is the design for an accelerator."""
        return device.vendor == self.vendor and any(
            device.compute_capability == known
            or (known.endswith(".") and device.compute_capability.startswith(known))
            for known in self.capabilities
        )


_PTX = "PTX ISA, docs.nvidia.com/cuda/parallel-thread-execution"
_FLASH = "github.com/Dao-AILab/flash-attention"
RESERVED_SOURCE = (
    "docs.nvidia.com/cuda/ampere-tuning-guide and hopper-tuning-guide, Unified Shared Memory: from compute "
    "capability 8.0 on CUDA reserves 1 KiB for each thread block"
)
_MFMA = "AMD matrix cores, gpuopen.com/learn/amd-lab-notes/amd-lab-notes-matrix-cores-readme"

DESIGNS: tuple[KernelDesign, ...] = (
    KernelDesign(
        "nvidia",
        ("7.5",),
        "mma.sync m16n8k8",
        mma_rows=16,
        most_rows=64,
        stages=1,
        most_blocks_per_sm=2,
        reserved_bytes=0,
        instruction_source=f"{_PTX}: mma.m16n8k8",
        source="github.com/flashinfer-ai/flashinfer: 64 rows in FA2DetermineCtaTileQ, 2 thread blocks per SM",
    ),
    KernelDesign(
        "nvidia",
        ("8.", "12."),
        "mma.sync m16n8k16",
        mma_rows=16,
        most_rows=64,
        stages=1,
        most_blocks_per_sm=2,
        reserved_bytes=KIB,
        instruction_source=f"{_PTX}: mma.m16n8k16",
        source=f"FlashAttention-2, {_FLASH}: csrc/flash_attn/src/flash_fwd_launch_template.h, flash_api.cpp",
    ),
    KernelDesign(
        "nvidia",
        ("9.0",),
        "wgmma m64nNk16",
        mma_rows=64,
        most_rows=64,
        stages=2,
        most_blocks_per_sm=1,
        reserved_bytes=KIB,
        instruction_source=f"{_PTX}: wgmma.mma_async m64nNk16",
        source=f"FlashAttention-3, {_FLASH}: hopper/tile_size.h, heuristics.h; arXiv 2407.08608",
    ),
    KernelDesign(
        "nvidia",
        ("10.",),
        "tcgen05.mma, M = 128",
        mma_rows=128,
        most_rows=128,
        stages=2,
        most_blocks_per_sm=1,
        reserved_bytes=KIB,
        instruction_source=f"{_PTX}: tcgen05.mma by one SM, M = 128 (64 is there too)",
        source=f"FlashAttention-4, {_FLASH}: flash_attn/cute/flash_fwd_sm100.py",
    ),
    KernelDesign(
        "amd",
        ("gfx90a", "gfx942", "gfx950"),
        "v_mfma_f32_16x16x16",
        mma_rows=16,
        most_rows=64,
        stages=1,
        most_blocks_per_sm=2,
        reserved_bytes=0,
        instruction_source=_MFMA,
        source="github.com/ROCm/composable_kernel: example/ck_tile/01_fmha; stages: kvplan, LDS is small",
    ),
)


def kernel_design(device: Device) -> KernelDesign | None:
    """Return the design for an accelerator; ``None`` where none is known, which is never guessed."""
    return next((design for design in DESIGNS if design.runs_on(device)), None)
