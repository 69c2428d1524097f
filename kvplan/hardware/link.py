"""How fast bytes reach other accelerators and the host."""

from __future__ import annotations

import re

from kvplan.hardware.device import Device
from kvplan.units import GB

# GPUs that usually share a switch; racks that share one have more. What joins boxes is not known here.
GPUS_OF_A_BOX = 8
# One direction of one lane: PCI-SIG's transfer rates, as vendors round them (Gen5 x16: 64 GB/s).
_LANE_GB_PER_S = {3: 1.0, 4: 2.0, 5: 4.0, 6: 8.0}
_GENERATION = re.compile(r"Gen([3-6]) x(\d{1,2})\b")


def link_bytes_per_s(device: Device) -> float | None:
    """Return what one accelerator sends the others in a second, one way: its own link, else the host's bus.

    ``None`` where neither is known.
    """
    link = device.interconnect.link_gb_per_s_per_direction
    return link * GB if link is not None else host_bytes_per_s(device)


def host_bytes_per_s(device: Device) -> float | None:
    """Return what passes between the accelerator and its host in a second, one way; ``None`` if unknown."""
    found = _GENERATION.search(device.interconnect.pcie)
    if found is None:
        return None
    generation, lanes = int(found[1]), int(found[2])
    return _LANE_GB_PER_S[generation] * lanes * GB
