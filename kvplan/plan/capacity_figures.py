"""Figures of what fits with their derivations: what is needed, what there is, what one more would need."""

from __future__ import annotations

from kvplan.formula import formula
from kvplan.plan.capacity import Capacity
from kvplan.plan.memory import StageMemory
from kvplan.results import Quantity, computed, fact
from kvplan.units import Count, Unit


@formula(Unit.BYTES, "requests x bytes allocated for each")
def requests_bytes(requests: Count, allocated_bytes: Count) -> Count:
    """Cache bytes of equal requests on one GPU."""
    return requests * allocated_bytes


@formula(Unit.REQUESTS, "requests spread evenly over the replicas, the fullest one decides")
def fullest_replica(requests: int, data_parallel: int) -> Count:
    """Requests of the fullest replica."""
    return -(-requests // data_parallel)


def fits(capacity: Capacity, batch: int, context: int) -> Quantity:
    """Return whether requests of a context fit."""
    stage = capacity.tightest(batch, context)
    asked = "one request fits" if batch == 1 else f"{batch:,} requests fit"
    return Quantity(
        "fits",
        capacity.fits(batch, context),
        label="fits",
        inputs=(_needed(capacity, stage, batch, context), stage.pool, _length_limit(capacity)),
        note=f"whether {asked} the pool of every GPU and the longest context allowed",
    )


def most_requests(capacity: Capacity, context: int, name: str) -> Quantity:
    """Return the most requests of a context that fit."""
    found = capacity.max_batch(context)
    stage = capacity.tightest(found + 1, context)
    tried = [_needed(capacity, stage, n, context) for n in (found, found + 1) if n]
    return Quantity(
        name,
        found,
        Unit.REQUESTS,
        "most requests",
        inputs=(*tried, stage.pool, _length_limit(capacity)),
        note=f"found by search: the most requests that fit{_on(stage)}; one more does not",
    )


def longest_context(capacity: Capacity, batch: int) -> Quantity:
    """Return the longest context that many requests can have."""
    found = capacity.max_context(batch)
    stage = capacity.tightest(batch, found + 1)
    tried = [_needed(capacity, stage, batch, c) for c in (found, found + 1) if c]
    return Quantity(
        "context_tokens",
        found,
        Unit.TOKENS,
        "longest context",
        inputs=(*tried, stage.pool, _length_limit(capacity)),
        note=f"found by search: the longest context that fits{_on(stage)}; one token more does not",
    )


def _on(memory: StageMemory) -> str:
    return f" stage {memory.stage.number} of {memory.stage.of}, the tightest" if memory.stage.of > 1 else ""


def _needed(capacity: Capacity, memory: StageMemory, batch: int, context: int) -> Quantity:
    """Return the bytes this many requests need on one GPU of a stage, explained."""
    replicas = fact("data_parallel", capacity.deployment.parallelism.data, "--dp")
    asked = fact("requests", batch, f"at {context:,} tokens each", Unit.REQUESTS)
    requests = computed("requests", fullest_replica, asked, replicas)
    allocated = memory.cache.allocated("allocated_bytes", context)
    return computed("needed_bytes", requests_bytes, requests, allocated)


def _length_limit(capacity: Capacity) -> Quantity:
    source = "--max-length, or max_position_embeddings of the model"
    return fact("max_length_tokens", capacity.deployment.max_tokens, source, Unit.TOKENS)
