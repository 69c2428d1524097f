"""The card that is measured, and whether it is the one that kvplan was asked about."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kvplan.errors import UsageError
from kvplan.hardware.device import Device
from kvplan.units import GIB, MIB, gib

# Variants of one chip that run at other rates: the card's name and the file's both have the word, or neither.
VARIANTS = frozenset({"pcie", "nvl", "ada", "server", "laptop", "super"})
NEAR = 0.03
# A context takes a few hundred MiB: what is in use beyond this before we begin is somebody else's.
LARGEST_CONTEXT_BYTES = 2 * GIB


@dataclass(frozen=True, slots=True)
class Card:
    """What the driver and torch say of the card.

    Args:
        name: the driver's name.
        memory_bytes: total memory as torch sees it.
        l2_bytes: last-level cache.
        used_bytes: in use before anything was measured, by this process's context and by other processes.
        facts: what else a reader of the tables wants to know, each with its name.
    """

    name: str
    memory_bytes: int
    l2_bytes: int
    used_bytes: int
    facts: tuple[tuple[str, str], ...]


def require_same(device: Device, card: Card) -> None:
    """Raise UsageError where the card is not the one that a kvplan file describes."""
    found = differences(device, card)
    if found:
        raise UsageError(
            f"this card is not {device.name}: {'; '.join(found)}",
            hint="--gpu with the card's own file (kvplan gpus list), or --force to compare anyway",
        )


def differences(device: Device, card: Card) -> list[str]:
    """Return a clause for each thing that a card and a kvplan file disagree on."""
    found = []
    words = re.findall(r"[a-z0-9]+", card.name.lower())
    parts = device.name.split("-")
    joined = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    if parts[0] not in joined or VARIANTS & set(parts) != VARIANTS & set(words):
        found.append(f"the driver calls it {card.name!r}")
    if not _near(device, card.memory_bytes):
        told = (
            f"{device.memory.torch_gib:g} GiB"
            if device.memory.torch_gib
            else f"{gib(device.memory_bytes)} GiB"
        )
        found.append(f"torch sees {gib(card.memory_bytes)} GiB of memory, its file says {told}")
    return found


def require_idle(card: Card) -> None:
    """Raise UsageError where other processes have memory of the card, and so may run on it."""
    if card.used_bytes > LARGEST_CONTEXT_BYTES:
        raise UsageError(
            f"{gib(card.used_bytes)} GiB of the card are in use before anything is measured: it is not idle",
            hint="an idle card, or --force: times may be too long, and memory is counted as ours",
        )


def _near(device: Device, memory_bytes: int) -> bool:
    """Whether torch's total goes with the file's: its own reading, else up to a tenth below the driver's."""
    if device.memory.torch_gib is not None:
        return abs(memory_bytes / (device.memory.torch_gib * GIB) - 1) < NEAR
    return 0.9 < memory_bytes / device.memory_bytes < 1 + NEAR


def read_card(device: Device) -> Card:
    """Return the card torch's current CUDA device is.

    Raises:
        UsageError: torch sees none.
    """
    import torch

    if not torch.cuda.is_available():
        raise UsageError(
            "torch sees no GPU here",
            hint="a torch build for your card, or --device cpu --smoke to try the script",
        )
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    free, total = torch.cuda.mem_get_info()
    seen = getattr(properties, "L2_cache_size", 0)
    # The larger of the two: a file's last-level cache may lie behind the one torch reports.
    l2_bytes = max(seen, int((device.l2_mb or 0) * MIB))
    if not l2_bytes:
        raise UsageError(
            "the size of the card's L2 cache is not known", hint="l2_mb in the file that --gpu names"
        )
    return Card(
        properties.name,
        properties.total_memory,
        l2_bytes,
        total - free,
        _driver_facts(str(getattr(properties, "uuid", ""))),
    )


def _driver_facts(uuid: str) -> tuple[tuple[str, str], ...]:
    """Return what nvidia-smi says of this card; where there is no nvidia-smi, that."""
    import subprocess

    asked = "driver_version,clocks.max.sm,clocks.max.mem,power.limit,mig.mode.current"
    which = ["-i", f"GPU-{uuid}"] if uuid else []
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader", *which]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return (("driver", "nvidia-smi does not answer: driver and clocks not known"),)
    values = [value.strip() for value in answer.splitlines()[0].split(",")]
    names = (
        "driver",
        "highest SM clock",
        "highest memory clock",
        "power limit",
        "MIG",
    )
    return tuple(zip(names, values, strict=True))
