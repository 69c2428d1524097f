"""What a run on the engine takes of this machine's memory."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kvplan.arch.model import Model
from kvplan.errors import UsageError
from kvplan.plan.requests import Request
from kvplan.plan.run import RunPrediction
from kvplan.storage import KvFormat
from kvplan.units import gib


def run_bytes(ran: Model, requests: Sequence[Request], kv: KvFormat, plan: RunPrediction) -> int:
    """Return what a run holds: weights, caches and logits.

    A second cache, of float32, tells what storage costs.
    """
    caches = plan.cache_allocated_bytes.number
    caches += 4 * plan.cache_live_bytes.number if kv.name != "fp32" else 0
    return plan.weights_bytes.number + caches + logits_bytes(ran, requests)


def logits_bytes(ran: Model, requests: Sequence[Request]) -> int:
    """Return what logits take: of every token read again at once, and of those added, twice."""
    tokens = sum(request.prompt_tokens + 3 * request.output_tokens for request in requests)
    return 4 * ran.vocab_size * tokens


def require_memory(what: str, needed: int, hint: str) -> None:
    """Raise UsageError where a run takes more than half of this machine's memory."""
    if not fits_memory(needed):
        raise UsageError(
            f"{what} takes {gib(needed)} GiB, more than half of this machine's memory", hint=hint
        )


def fits_memory(needed: int) -> bool:
    """Whether half of this machine's memory is enough, or cannot be known."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return True
    return 2 * needed <= memory
