"""The sentence that decides: does it fit, by how much, and if not, what would."""

from __future__ import annotations

from dataclasses import replace

from kvplan.errors import UsageError
from kvplan.plan.capacity import Capacity, plan_capacity
from kvplan.plan.deployment import Parallelism
from kvplan.results import Verdict
from kvplan.units import gib, short_count

_LARGER_GROUPS = (2, 4, 8, 16, 32, 64)


def verdict(capacity: Capacity, context: int | None, batch: int) -> Verdict:
    """Say whether ``batch`` requests of ``context`` tokens fit, and what one more would need.

    Without a context it is how long a context that many requests can have.
    """
    if context is None:
        longest = capacity.max_context(batch)
        if longest and not capacity.most_loaded.shortfall.number:
            return Verdict(True, _longest_sentence(capacity, longest, batch))
        context = 1
    if context > capacity.deployment.max_tokens:
        return Verdict(False, f"Does not fit: {_limit_sentence(capacity, context)}")
    loaded = capacity.most_loaded
    if loaded.shortfall.number:
        spent = loaded.weights.number + loaded.activations.number + loaded.overhead.number
        short = gib(loaded.shortfall.number)
        text = (
            f"Does not fit: weights, activations and overhead take {gib(spent)} GiB of the "
            f"{gib(loaded.total.number)} GiB planned on each GPU, {short} GiB too much."
        )
        return Verdict(False, text + _remedy(capacity, context, batch))
    if not capacity.fits(batch, context):
        return Verdict(False, _too_many(capacity, context, batch) + _remedy(capacity, context, batch))
    return Verdict(True, _fits_sentence(capacity, context))


def _fits_sentence(capacity: Capacity, context: int) -> str:
    most = capacity.max_batch(context)
    more = gib(_bytes_short(capacity, most + 1, context))
    next_one = f"the {_ordinal(most + 1)} needs {more} GiB more{_where(capacity)}"
    return f"Fits. {_requests(most)} of {short_count(context)}; {next_one}."


def _longest_sentence(capacity: Capacity, longest: int, batch: int) -> str:
    held = f"Fits. {_requests(batch)} of up to {longest:,} tokens"
    if longest == capacity.deployment.max_tokens:
        return f"{held}, the longest allowed."
    more = gib(_bytes_short(capacity, batch, longest + 1))
    return f"{held}; one token more needs {more} GiB more{_where(capacity)}."


def _too_many(capacity: Capacity, context: int, batch: int) -> str:
    short = gib(_bytes_short(capacity, batch, context))
    most = capacity.max_batch(context)
    asked = f"{_requests(batch)} of {short_count(context)}"
    if most:
        return f"Does not fit: {asked} need {short} GiB more{_where(capacity)}; {most:,} would fit."
    longest = capacity.max_context(1)
    instead = f"the longest for one request is {longest:,} tokens" if longest else "no context does"
    return f"Does not fit: one request of {short_count(context)} needs {short} GiB more of cache; {instead}."


def _limit_sentence(capacity: Capacity, context: int) -> str:
    limit = capacity.deployment.max_tokens
    if limit == capacity.model.max_position_embeddings:
        whose = f"{capacity.model.name} was made for (max_position_embeddings)"
    else:
        whose = "--max-length allows"
    return f"{context:,} tokens are more than the {limit:,} that {whose}."


def _remedy(capacity: Capacity, context: int, batch: int) -> str:
    """Return the smallest larger tensor-parallel group that holds what was asked, as a sentence."""
    now = capacity.deployment.parallelism
    for tensor in _LARGER_GROUPS:
        if tensor <= now.tensor:
            continue
        larger = _with_larger_group(now, tensor)
        try:
            tried = plan_capacity(capacity.model, replace(capacity.deployment, parallelism=larger))
        except UsageError:
            continue
        if tried.fits(batch, context):
            experts = f" --ep {larger.expert}" if larger.expert > 1 else ""
            return f" It fits on {larger.gpus} of these GPUs (--gpus {larger.gpus} --tp {tensor}{experts})."
    return ""


def _with_larger_group(now: Parallelism, tensor: int) -> Parallelism:
    """Return a larger tensor-parallel group; where experts are shared, all of its ranks share them."""
    larger = replace(now, tensor=tensor, expert=1)
    return replace(larger, expert=larger.gpus_per_stage) if now.expert > 1 else larger


def _where(capacity: Capacity) -> str:
    return " on each GPU" if capacity.deployment.parallelism.gpus_per_replica > 1 else ""


def _bytes_short(capacity: Capacity, batch: int, context: int) -> int:
    """Return the most bytes missing on any GPU for this many requests."""
    requests = capacity.replica_batch(batch)
    return max(m.needed_bytes(requests, context) - m.pool.number for m in capacity.stages)


def _requests(count: int) -> str:
    return f"{count:,} request{'' if count == 1 else 's'}"


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
