"""What a setup can hold and how fast it is: the figures that options are compared by."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.model import SlotRun
from kvplan.arch.prediction_layer import standing_alone
from kvplan.errors import UsageError
from kvplan.formula import formula
from kvplan.hardware.link import host_bytes_per_s
from kvplan.plan.cache import CacheRun
from kvplan.plan.capacity import Capacity, plan_capacity
from kvplan.plan.change import Change
from kvplan.plan.lengths import LengthDistribution, requests_held, waste
from kvplan.plan.memory import StageMemory
from kvplan.plan.roofline import Roofline, plan_roofline
from kvplan.plan.search import largest
from kvplan.plan.serving import time_to_first_token
from kvplan.plan.setup import Setup, Speculation
from kvplan.plan.step_time import Limit, Times
from kvplan.units import LARGEST_COUNT, Unit

# Short requests beside long ones: the shortest is this share of the longest.
SHORTEST = 16


@formula(Unit.TOKENS, "a guess counts only if all before it are right: arXiv 2211.17192, equation 1")
def accepted_tokens(draft_tokens: int, acceptance: float) -> float:
    """Tokens a verified step is expected to add to a request, its own one included."""
    return (1 - acceptance ** (draft_tokens + 1)) / (1 - acceptance)


@formula(Unit.SECONDS, "the host's bus and the GPU's memory are read at once")
def overlapped_s(step_s: float, host_bytes: float, host_bytes_per_s: float) -> float:
    """Time of a step that also reads cache from the host."""
    return max(step_s, host_bytes / host_bytes_per_s)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of one setup.

    Args:
        kv_bytes_per_token: what a token adds to the cache while every layer grows, each byte once.
        gpu_kv_bytes_per_token: the same on the GPU that caches most, what every rank repeats included.
        max_context: longest context of the batch; 0 for none.
        max_batch: most requests of the context; 0 for none.
        mixed_requests: requests of mixed lengths up to the context that fit on average; ``None`` where they
            share a prefix or the host keeps a share of them.
        live_share: of the cache they are given, the share that holds a token in view.
        activation_bytes: peak of a prefill step on the fullest GPU.
        first_token: time to the first token of a prompt of the context.
        step: time of a decode step of the batch.
        tokens_per_step: tokens a step adds to each request.
        batch: requests its rate is told for: those asked for, or as many as fit; 0 for none.
        tokens_per_s: expected rate of that batch; 0 for none.
        full_tokens_per_s: expected rate of as many requests as fit; 0 for none.
        kv_share: of the bytes a step reads, the share that is cache.
        arithmetic_intensity: operations of a step for each byte of weights and cache.
    """

    kv_bytes_per_token: int
    gpu_kv_bytes_per_token: int
    max_context: int
    max_batch: int
    mixed_requests: int | None
    live_share: float
    activation_bytes: int
    first_token: Times
    step: Times
    tokens_per_step: float
    batch: int
    tokens_per_s: float
    full_tokens_per_s: float
    kv_share: float
    arithmetic_intensity: float

    @property
    def limit(self) -> Limit:
        """What most of a step is spent on."""
        return self.step.limit


@dataclass(frozen=True, slots=True)
class Tried:
    """An option and what came of it, or why it does not apply.

    Args:
        changes: what it changes; none for the baseline.
        setup: the setup with them; ``None`` where they do not apply.
        outcome: its figures; ``None`` where they do not apply.
        reason: why not; empty where they do.
    """

    changes: tuple[Change, ...]
    setup: Setup | None
    outcome: Outcome | None
    reason: str = ""

    @property
    def name(self) -> str:
        """How the option is typed: ``weights=fp8,kv=fp8``."""
        return ",".join(change.name for change in self.changes) or "baseline"

    @property
    def label(self) -> str:
        """What a person reads."""
        return ", ".join(change.label for change in self.changes) or "baseline"


def try_changes(setup: Setup, changes: tuple[Change, ...], *, what_if: bool) -> Tried:
    """Return what comes of changes, applied in their order.

    Without ``what_if`` those that make another model do not apply.
    """
    try:
        changed = setup
        for change in changes:
            changed = change.applied(changed)
        if any(change.kind.what_if for change in changes) and not what_if:
            raise UsageError("another model, that would have to be trained (--what-if)")
        return Tried(changes, changed, outcome(changed))
    except UsageError as error:
        return Tried(changes, None, None, error.message)


def outcome(setup: Setup) -> Outcome:
    """Return the figures of a setup.

    Raises:
        UsageError: the model cannot be cut or packed that way, or a rate of the accelerator is not known.
    """
    capacity, roofline = _capacity(setup), plan_roofline(setup.model, setup.deployment)
    load = setup.load
    most = _max_batch(setup, capacity, load.context)
    batch = min(load.batch, most)
    lengths = LengthDistribution.log_uniform(max(1, load.context // SHORTEST), load.context)
    step = roofline.decode(load.batch, load.context, load.new_tokens)
    work = roofline.work(step)
    wasted = waste(capacity.whole_cache, setup.deployment.allocation, lengths)
    return Outcome(
        kv_bytes_per_token=capacity.whole_cache.growth("bytes_per_token", "").number,
        gpu_kv_bytes_per_token=max(stage.cache.growth("", "").number for stage in capacity.stages),
        max_context=_max_context(setup, capacity, load.batch),
        max_batch=most,
        mixed_requests=_mixed_requests(setup, capacity, lengths),
        live_share=float(wasted.live_share),
        activation_bytes=max(stage.activations.number for stage in capacity.stages),
        first_token=time_to_first_token(roofline, load.context, setup.shared_tokens(load.context)),
        step=_step_times(setup, roofline, load.batch),
        tokens_per_step=tokens_per_step(load.speculation),
        batch=batch,
        tokens_per_s=_rate(setup, roofline, batch) if batch else 0.0,
        full_tokens_per_s=_rate(setup, roofline, most) if most else 0.0,
        kv_share=float(work.kv_read_bytes / (work.kv_read_bytes + work.weight_bytes)),
        arithmetic_intensity=float(work.flops / work.memory_bytes),
    )


def tokens_per_step(speculation: Speculation | None) -> float:
    """Return the tokens a step is expected to add to each request."""
    if speculation is None:
        return 1.0
    return accepted_tokens(speculation.draft_tokens, speculation.acceptance_percent / 100)


# ------------------------------------------------------------------ memory


def _capacity(setup: Setup) -> Capacity:
    """Return what the deployment holds; a layer that guesses is in memory, and caches, as the others."""
    model = setup.model
    if setup.load.speculation is not None:
        model = replace(model, layers=(*model.layers, model.layers[-1]))
    return plan_capacity(model, setup.deployment)


def _mixed_requests(setup: Setup, capacity: Capacity, lengths: LengthDistribution) -> int | None:
    if setup.load.shared_percent or setup.load.host_percent:
        return None
    return requests_held(capacity, lengths)


def _max_batch(setup: Setup, capacity: Capacity, context: int) -> int:
    return largest(lambda batch: _fits(setup, capacity, batch, context), LARGEST_COUNT)


def _max_context(setup: Setup, capacity: Capacity, batch: int) -> int:
    limit = setup.deployment.max_tokens
    return largest(lambda context: _fits(setup, capacity, batch, context), limit)


def _fits(setup: Setup, capacity: Capacity, batch: int, context: int) -> bool:
    """Whether requests fit, a prefix they share stored once and what the host keeps left out."""
    load = setup.load
    if not load.shared_percent and not load.host_percent:
        return capacity.fits(batch, context)
    if context > setup.deployment.max_tokens:
        return False
    requests = capacity.replica_batch(batch)
    for stage in capacity.stages:
        parts = zip(stage.stage.slot_runs(), stage.cache.runs, strict=True)
        needed = sum(_needed_bytes(setup, run, cached, requests, context) for run, cached in parts)
        if needed > stage.pool.number:
            return False
    return True


def _needed_bytes(setup: Setup, run: SlotRun, cached: CacheRun, requests: int, context: int) -> int:
    """Return the bytes equal layers need on one GPU: what is shared is stored once, the host's share not."""
    each = int(cached.allocated_bytes(context))
    if not setup.keeps_every_token(run.slot):
        return requests * each
    # An empty request is no part of a prefix: keys that wait for their group to fill are its own.
    once = int(cached.allocated_bytes(setup.shared_tokens(context))) - int(cached.allocated_bytes(0))
    whole = once + requests * (each - once)
    return -(-whole * (100 - setup.load.host_percent) // 100)


# ------------------------------------------------------------------ time


def _rate(setup: Setup, roofline: Roofline, batch: int) -> float:
    times = _step_times(setup, roofline, batch)
    return batch * tokens_per_step(setup.load.speculation) / float(times.estimate_s)


def _step_times(setup: Setup, roofline: Roofline, batch: int) -> Times:
    """Return the times of a decode step: guesses, their verification, and what is read from the host."""
    load = setup.load
    step = roofline.decode(batch, load.context, load.new_tokens)
    times = roofline.times(step)
    if load.speculation is not None:
        draft = _draft(setup)
        guess = draft.times(draft.decode(batch, load.context))
        times = times + guess.scaled(load.speculation.draft_tokens)
    if load.host_percent:
        times = _from_host(setup, times, batch)
    return times


def _draft(setup: Setup) -> Roofline:
    """Return what guesses a token: the last decoder layer and the head, on the GPUs of one stage."""
    one_stage = replace(setup.deployment, parallelism=replace(setup.deployment.parallelism, pipeline=1))
    return plan_roofline(replace(setup.model, layers=(standing_alone(setup.model.layers[-1]),)), one_stage)


def _from_host(setup: Setup, times: Times, batch: int) -> Times:
    """Return the times of a step that reads a share of its growing cache over the host's bus meanwhile."""
    rate, capacity = host_bytes_per_s(setup.deployment.device), _capacity(setup)
    assert rate is not None
    each = max(_growing_bytes(setup, stage) for stage in capacity.stages)
    read = capacity.replica_batch(batch) * each * setup.load.host_percent / 100
    bound = overlapped_s(float(times.bound_s), read, rate)
    waited = overlapped_s(float(times.estimate_s), read, rate) - float(times.estimate_s)
    return replace(times, bound_s=bound, network_s=times.network_s + waited)


def _growing_bytes(setup: Setup, stage: StageMemory) -> int:
    """Return what a request has in one GPU's layers that keep every token; each GPU has a bus of its own."""
    runs = zip(stage.stage.slot_runs(), stage.cache.runs, strict=True)
    growing = (cached for run, cached in runs if setup.keeps_every_token(run.slot))
    return sum(int(cached.live_bytes(setup.load.context)) for cached in growing)
