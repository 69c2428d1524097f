"""Links between accelerators, and to their hosts."""

from dataclasses import replace

import pytest

from kvplan.hardware.device import Interconnect
from kvplan.hardware.link import host_bytes_per_s, link_bytes_per_s


@pytest.mark.parametrize(
    ("name", "link", "host"),
    [
        ("h100-sxm", 450e9, 64e9),
        ("a100-sxm-80gb", 300e9, 32e9),
        ("l40s", 32e9, 32e9),
        ("rtx5090", 64e9, 64e9),
        ("t4", 16e9, 16e9),
        ("gh200-96", 450e9, 64e9),
        ("gaudi3", 600e9, 64e9),
        ("tpu-v5e", 180e9, None),
    ],
)
def test_one_way_rates(name, link, host, gpu):
    device = gpu(name)
    assert link_bytes_per_s(device) == pytest.approx(link, rel=0.02)
    assert host_bytes_per_s(device) == (pytest.approx(host, rel=0.02) if host else None)


@pytest.mark.parametrize(
    ("pcie", "expected"),
    [
        ("Gen3 x16", 16e9),
        ("Gen4 x8", 16e9),
        ("Gen5 x16 (no NVLink)", 64e9),
        ("Gen6 x16", 128e9),
        ("chip to chip, and Gen5 x4", 16e9),
        ("", None),
        ("Gen2 x16", None),
        ("Gen5", None),
        ("Gen4 x160", None),
        ("gen4 x16", None),
    ],
)
def test_the_hosts_bus_as_datasheets_write_it(pcie, expected, gpu):
    device = replace(gpu("t4"), interconnect=Interconnect(None, pcie))
    assert host_bytes_per_s(device) == expected
    assert link_bytes_per_s(device) == expected


def test_a_link_of_its_own_comes_first(gpu):
    device = replace(gpu("t4"), interconnect=Interconnect(25.0, "Gen5 x16"))
    assert link_bytes_per_s(device) == 25e9
    assert host_bytes_per_s(device) == 64e9


def test_every_accelerator_can_reach_the_next_one(gpu_name, gpu):
    rate = link_bytes_per_s(gpu(gpu_name))
    assert rate is not None
    assert 10e9 < rate < 2e12
