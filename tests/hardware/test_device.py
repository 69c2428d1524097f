"""The accelerator's own checks."""

import pytest

from kvplan.hardware.device import DensePeaks, Device, Interconnect, Memory


def device(memory):
    return Device("x", "X", "nvidia", "x", "a datasheet", memory, DensePeaks(), Interconnect(), "high")


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
