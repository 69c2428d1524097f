"""The bound of a machine, and that it is measured on as many bytes as are asked for."""

import pytest

from kvplan.engine.machine import Machine, measure_machine


def test_the_bound_is_whichever_takes_longer():
    machine = Machine(read_bytes_per_s=10, read_bytes=1, sgemm_flops_per_s=100)
    assert machine.bound_s(flops=200, read=5) == 2
    assert machine.bound_s(flops=20, read=50) == 5
    assert machine.bound_s(flops=0, read=0) == 0


@pytest.mark.parametrize(("asked", "measured"), [(0, 1 << 20), (3 << 20, 3 << 20), (1 << 40, 96 << 20)])
def test_reading_is_measured_on_the_working_set_within_limits(asked, measured):
    machine = measure_machine(asked)
    assert machine.read_bytes == measured
    assert machine.read_bytes_per_s > 0
    assert machine.sgemm_flops_per_s > 0
