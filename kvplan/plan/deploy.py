"""A deployment from what people say of one: every value has a usual one, and names stand for storage."""

from __future__ import annotations

from kvplan.allocation import Allocation, Contiguous, Paged
from kvplan.arch.model import Model
from kvplan.checks import require_whole
from kvplan.errors import UsageError, unknown
from kvplan.hardware.device import Device
from kvplan.plan.deployment import Deployment, Parallelism, parallelism
from kvplan.storage import (
    KvFormat,
    StateLayout,
    WeightStorage,
    kv_format,
    state_layout,
    weight_format,
)

ALLOCATIONS = ("paged", "contiguous")
LARGEST_DEGREE = 1 << 16
LARGEST_CHUNK = 1 << 24
LARGEST_BLOCK = 1 << 16
LARGEST_LENGTH = 1 << 31
LARGEST_SPECULATION = 1024
LARGEST_OVERHEAD = 1 << 60


def deploy(
    model: Model,
    device: Device,
    *,
    gpus: int | None = None,
    tp: int | None = None,
    pp: int | None = None,
    dp: int | None = None,
    ep: int | None = None,
    cp: int | None = None,
    weights: WeightStorage | str | None = None,
    kv: KvFormat | str | None = None,
    state: StateLayout | str = "transformers",
    allocation: Allocation | str = "paged",
    block_size: int = 16,
    max_length: int | None = None,
    chunk: int = 8_192,
    memory_utilization: float = 0.9,
    overhead_bytes: int | None = None,
    speculative_tokens: int = 0,
) -> Deployment:
    """Return how a model is deployed on accelerators of one kind.

    Args:
        model: what is deployed.
        device: the accelerator.
        gpus: how many; those that the degrees leave are tensor parallel.
        tp, pp, dp, ep, cp: tensor, pipeline, data, expert and context parallel degrees.
        weights: storage of weights, or its name; as released if absent.
        kv: storage of keys and values, or its name; what the released files ask for if absent, else the
            model's dtype.
        state: storage of recurrent states and index keys, or its name.
        allocation: ``paged``, ``contiguous`` up to ``max_length``, or an allocation.
        block_size: tokens in a block of the paged cache.
        max_length: longest context allowed, in tokens; the model's own limit if absent. It may pass that
            limit, as rotary positions can be stretched; learned ones end where their table does.
        chunk: tokens of the largest prefill step.
        memory_utilization: share of each GPU's memory to plan with.
        overhead_bytes: the runtime's own memory on each GPU; typical figures if absent.
        speculative_tokens: guessed tokens a step checks: recurrent state is kept behind each.

    Raises:
        UsageError: a value cannot be, or does not go with the model or another value.
    """
    longest = _longest_context(model, max_length)
    if overhead_bytes is not None:
        overhead_bytes = require_whole("overhead_bytes", overhead_bytes, LARGEST_OVERHEAD, least=0)
    guessed = require_whole("speculative_tokens", speculative_tokens, LARGEST_SPECULATION, least=0)
    layout = state_layout(state) if isinstance(state, str) else state
    return Deployment(
        device=device,
        parallelism=_parallelism(gpus=gpus, tp=tp, pp=pp, dp=dp, ep=ep, cp=cp),
        weights=_weights(model, weights),
        kv=kv if isinstance(kv, KvFormat) else kv_format(kv or model.kv_format or model.dtype),
        state=layout.speculating(guessed or layout.speculative_tokens),
        allocation=_allocation(allocation, block_size, longest),
        max_tokens=longest,
        utilization_bp=_ten_thousandths(memory_utilization),
        chunk_tokens=require_whole("chunk", chunk, LARGEST_CHUNK),
        overhead_bytes=overhead_bytes,
    )


def _parallelism(**degrees: int | None) -> Parallelism:
    """Return the parallelism of ``gpus`` and the degrees; those that are ``None`` are completed."""
    given = {
        name: None if degree is None else require_whole(name, degree, LARGEST_DEGREE)
        for name, degree in degrees.items()
    }
    return parallelism(given["gpus"], given["tp"], given["pp"], given["dp"], given["ep"], given["cp"])


def _weights(model: Model, weights: WeightStorage | str | None) -> WeightStorage:
    if weights is None:
        return model.as_released()
    return weight_format(weights) if isinstance(weights, str) else weights


def _longest_context(model: Model, asked: int | None) -> int:
    if asked is None:
        return model.max_position_embeddings
    longest = require_whole("max_length", asked, LARGEST_LENGTH)
    if model.learned_positions and longest > model.learned_positions:
        learned = f"{model.learned_positions:,} positions {model.name} has learned"
        raise UsageError(f"--max-length: {longest:,} is more than the {learned}")
    return longest


def _allocation(how: Allocation | str, block_size: int, longest: int) -> Allocation:
    if not isinstance(how, str):
        return how
    if how not in ALLOCATIONS:
        raise unknown("allocation", how, ALLOCATIONS)
    block_tokens = require_whole("block_size", block_size, LARGEST_BLOCK)
    return Paged(block_tokens) if how == "paged" else Contiguous(longest)


def _ten_thousandths(share: float) -> int:
    """Return a share above 0 and up to 1 in ten-thousandths, which it must be whole in."""
    if isinstance(share, int | float) and 0 < share <= 1:
        parts = round(10_000 * share)
        if parts and abs(10_000 * share - parts) < 1e-6:
            return parts
    raise UsageError(
        f"memory_utilization: {str(share)[:40]!r} is no share above 0 and up to 1, of four decimals at most"
    )
