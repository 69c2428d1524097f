"""The accelerator's own checks."""

import pytest

from kvplan.hardware.device import DensePeaks, Device, Interconnect, Memory
from kvplan.hardware.efficiency import AllReduceFit, Kernel, KernelFit


def device(memory, **more):
    return Device(
        "x", "X", "nvidia", "x", "a datasheet", memory, DensePeaks(), Interconnect(), "high", **more
    )


def test_memory_is_the_drivers_or_else_as_sold():
    assert device(Memory("HBM3", 80, 3_350, 81_559)).memory_bytes == 85_520_809_984
    assert device(Memory("HBM3", 80, 3_350)).memory_bytes == 80_000_000_000


@pytest.mark.parametrize("driver_mib", [0, -1, 1_000_000, 81_559 * 1_024])
def test_a_reading_that_does_not_go_with_the_box_is_refused(driver_mib):
    with pytest.raises(ValueError, match=r"driver_mib .* does not go with 80 GB as sold"):
        Memory("HBM3", 80, 3_350, driver_mib)


@pytest.mark.parametrize(("sold_gb", "bandwidth"), [(0, 1), (80, 0), (80, -1)])
def test_sizes_are_positive(sold_gb, bandwidth):
    with pytest.raises(ValueError, match=r"must be at least 1|must be above 0"):
        Memory("HBM3", sold_gb, bandwidth)


def test_a_kernel_over_a_format_has_one_fit():
    fits = [KernelFit(Kernel.GEMM, name, 4.0, 0.8, 0.7, "a test") for name in ("bf16", "fp8", "bf16")]
    with pytest.raises(ValueError, match=r"efficiency\.2 gemm over bf16 is there twice"):
        device(Memory("HBM3", 80, 3_350), efficiency=tuple(fits))
    assert device(Memory("HBM3", 80, 3_350), efficiency=tuple(fits[:2])).efficiency == tuple(fits[:2])


def test_a_number_of_ranks_has_one_fit():
    fits = tuple(AllReduceFit(ranks, 4.0, 0.7, "a test") for ranks in (2, 4, 4))
    with pytest.raises(ValueError, match=r"all_reduce\.2 4 ranks is there twice"):
        device(Memory("HBM3", 80, 3_350), all_reduce=fits)
