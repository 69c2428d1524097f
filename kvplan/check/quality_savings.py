"""What cache formats save, and what that buys: bytes of a token, and requests at once on an accelerator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.arch.model import Model
from kvplan.check.quality_formats import ALLOCATION, CacheFormat
from kvplan.formula import formula
from kvplan.hardware.device import Device
from kvplan.plan.capacity import Capacity, plan_capacity
from kvplan.plan.capacity_figures import most_requests
from kvplan.plan.deploy import deploy
from kvplan.results import Quantity, computed, fact
from kvplan.storage import kv_format
from kvplan.units import Count, Unit, ceil_div


@formula(Unit.BYTES_PER_TOKEN, "the cache of a request over its tokens, rounded up")
def cache_bytes_of_a_token(live_bytes: Count, tokens: int) -> Count:
    """Bytes of cache for each token of a request, whether the token is still in it or not."""
    return ceil_div(live_bytes, tokens)


@formula(Unit.TIMES, "bytes in bf16, every token kept, over bytes in the format")
def times_fewer(bf16_bytes: int, stored_bytes: int) -> float:
    """How many times fewer bytes a format takes."""
    return bf16_bytes / stored_bytes


@dataclass(frozen=True, slots=True)
class Savings:
    """What one format saves.

    Args:
        kv_bytes_per_token: of a request as long as those that were measured.
        saved: how many times fewer that is than in bf16 with every token kept.
        max_batch: requests at once, each as long as the model allows.
    """

    kv_bytes_per_token: Quantity
    saved: Quantity
    max_batch: Quantity


def savings(model: Model, device: Device, formats: Sequence[CacheFormat], tokens: int) -> tuple[Savings, ...]:
    """Return what each format saves.

    Args:
        model: whose cache it is.
        device: one accelerator that serves it; weights are as released.
        formats: which the model can take.
        tokens: of a request whose bytes are told.

    Raises:
        UsageError: the model cannot be planned on it.
    """
    plain = _bytes_of_a_token(_capacity(model, device, CacheFormat(kv_format("bf16"))), tokens)
    found = []
    for one in formats:
        capacity = _capacity(model, device, one)
        stored = _bytes_of_a_token(capacity, tokens)
        longest = most_requests(capacity, capacity.deployment.max_tokens, "max_batch")
        found.append(Savings(stored, computed("saved", times_fewer, plain, stored), longest))
    return tuple(found)


def _capacity(model: Model, device: Device, one: CacheFormat) -> Capacity:
    return plan_capacity(one.of(model), deploy(model, device, kv=one.kv, allocation=ALLOCATION))


def _bytes_of_a_token(capacity: Capacity, tokens: int) -> Quantity:
    cached = capacity.whole_cache.live("live_bytes", tokens)
    of = fact("tokens", tokens, "of a request as measured", Unit.TOKENS)
    return computed("kv_bytes_per_token", cache_bytes_of_a_token, cached, of)
