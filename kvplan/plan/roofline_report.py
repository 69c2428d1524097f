"""The answer of ``kvplan roofline``: where the time of a step goes, and what would change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.arch.work import Step
from kvplan.hardware.link import GPUS_OF_A_BOX
from kvplan.hardware.peak import peak_flops_per_s
from kvplan.plan.capacity import Capacity
from kvplan.plan.capacity_report import deployment_facts
from kvplan.plan.crossover import compute_bound_batch, kv_overtakes_weights
from kvplan.plan.roofline import Roofline, Timed
from kvplan.plan.roofline_figures import (
    AMOUNTS,
    amount,
    arithmetic_intensity,
    bound_s,
    equal_part,
    estimate_s,
    flops,
    memory_bytes,
    over_all,
    ridge,
    share_of,
    tokens_over_time,
)
from kvplan.plan.serving import (
    ESTIMATE_MEDIAN_ERROR,
    ESTIMATE_P90_ERROR,
    steady_state,
    time_to_first_token,
    usd_per_million_tokens,
)
from kvplan.plan.step_time import Limit, Times
from kvplan.plan.verdict import verdict
from kvplan.results import (
    Column,
    Facts,
    Quantity,
    Report,
    Scalar,
    Scale,
    Shown,
    Table,
    Verdict,
    computed,
    fact,
)
from kvplan.units import GB, Unit, short_count

_WORK_COLUMNS = ("weight_bytes", "kv_read_bytes", "kv_write_bytes", "activation_bytes", "collective_bytes")


@dataclass(frozen=True, slots=True)
class Asked:
    """The steps to tell of.

    Args:
        decoding: decode steps; else the reading of whole prompts.
        batches: requests at once; the verdict is about the last.
        context: tokens in the cache before a decode step, or tokens of each prompt.
        new_tokens: tokens a decode step adds to each request: more than one verifies speculated ones.
        cached: tokens of each prompt that a shared prefix has in the cache already.
        usd_per_hour: price of one GPU; ``None`` where no cost is asked for.
        output: tokens each request makes, where a closed loop of such requests is asked for.
    """

    decoding: bool
    batches: tuple[int, ...]
    context: int
    new_tokens: int = 1
    cached: int = 0
    usd_per_hour: float | None = None
    output: int | None = None


@dataclass(frozen=True, slots=True)
class _Told:
    """One batch's step, or its prompts, as operators with their times."""

    batch: int
    operators: tuple[Timed, ...]
    times: Times
    tokens: int


def roofline_report(
    roofline: Roofline,
    capacity: Capacity,
    asked: Asked,
    inputs: tuple[tuple[str, Scalar | list[int]], ...],
    more: Sequence[Table | Facts] = (),
    more_notes: Sequence[str] = (),
) -> Report:
    """Return the whole answer; ``more`` sections and notes stand behind the others."""
    told = [_tell(roofline, asked, batch) for batch in asked.batches]
    return Report(
        command="roofline",
        heading=_heading(roofline),
        sections=(
            _operators(roofline, asked, told),
            _steps(asked, told),
            _total(asked, told[-1]),
            _crossovers(roofline, asked),
            _serving(roofline, asked, told[-1]),
            *_closed_loop(roofline, asked, told[-1]),
            deployment_facts(roofline.deployment),
            *more,
        ),
        verdict=_verdict(capacity, asked, told[-1]),
        notes=(*_notes(roofline, asked), *more_notes),
        inputs=inputs,
    )


def _tell(roofline: Roofline, asked: Asked, batch: int) -> _Told:
    steps: tuple[tuple[Step, int], ...]
    if asked.decoding:
        steps = (roofline.decode(batch, asked.context, asked.new_tokens),)
        times, tokens = roofline.times(*steps), batch * asked.new_tokens
    else:
        steps = roofline.prefill(batch, asked.context, asked.cached)
        times, tokens = (
            roofline.prefill_times(batch, asked.context, asked.cached),
            batch * (asked.context - asked.cached),
        )
    return _Told(batch, roofline.timed(*steps), times, tokens)


def _heading(roofline: Roofline) -> str:
    d = roofline.deployment
    gpus = f"{d.parallelism.gpus} x {d.device.label}"
    return f"{roofline.model.name}  {d.weights.name} weights, {d.kv.name} KV   on {gpus}"


# ------------------------------------------------------------------ operators


def _operators(roofline: Roofline, asked: Asked, told: Sequence[_Told]) -> Table:
    rows = [(one, timed) for one in told for timed in one.operators]
    done = [flops(timed) for _, timed in rows]
    moved = [memory_bytes(timed) for _, timed in rows]
    batch = tuple(fact("batch", one.batch, "asked for", Unit.REQUESTS) for one, _ in rows)
    columns = [
        Column("name", "operator", tuple(fact("name", timed.name, timed.label) for _, timed in rows)),
        Column("batch", "batch", batch, shown=len(told) > 1),
        Column("flops", "", tuple(done), priority=3, scale=Scale.GFLOP),
        Column("memory_bytes", "", tuple(moved), priority=3, scale=Scale.MB),
    ]
    for name in _WORK_COLUMNS:
        cells = tuple(amount(timed, name) for _, timed in rows)
        columns.append(Column(name, "", cells, shown=False))
    intensities = tuple(arithmetic_intensity(*pair) for pair in zip(done, moved, strict=True))
    limits = tuple(_limited(timed.times) for _, timed in rows)
    columns += [
        Column("arithmetic_intensity", "FLOP/B", intensities, priority=2),
        Column("limit", "limit", limits),
        Column("bound_s", "bound", tuple(bound_s(timed) for _, timed in rows), scale=Scale.MILLISECONDS),
        Column(
            "estimate_s", "estimate", tuple(estimate_s(timed) for _, timed in rows), scale=Scale.MILLISECONDS
        ),
        Column("share", "share", tuple(_share(one, timed) for one, timed in rows), priority=1),
    ]
    if asked.decoding:
        columns.append(_compute_bound(roofline, asked, rows))
    labels = tuple(timed.label for _, timed in rows)
    return Table("operators", _title(asked), tuple(columns), labels=labels, named_by=2)


def _title(asked: Asked) -> str:
    batch = f"batch {asked.batches[0]:,}" if len(asked.batches) == 1 else "by batch"
    if not asked.decoding:
        cached = f", {asked.cached:,} of them cached" if asked.cached else ""
        return f"Prefill, {batch}, prompts of {asked.context:,} tokens{cached}"
    added = f", {asked.new_tokens:,} tokens each" if asked.new_tokens > 1 else ""
    return f"Decode step, {batch}, {asked.context:,} tokens cached{added}"


def _share(one: _Told, timed: Timed) -> Quantity:
    whole = sum(float(other.times.estimate_s) for other in one.operators)
    own = fact("estimate_s", float(timed.times.estimate_s), "this operator", Unit.SECONDS)
    return computed("share", share_of, own, fact("all_estimate_s", whole, "all operators", Unit.SECONDS))


def _limited(times: Times) -> Quantity:
    limit = times.limit.value if float(times.estimate_s) else None
    return fact("limit", limit, "what most of the estimate is")


def _compute_bound(roofline: Roofline, asked: Asked, rows: Sequence[tuple[_Told, Timed]]) -> Column:
    """Return the batch at which each operator turns compute-bound; none where no batch does it."""
    found = {
        timed.name: compute_bound_batch(roofline, timed.name, asked.context, asked.new_tokens)
        for _, timed in rows
        if any(part.operator.matmul_flops or part.operator.attention_flops for part in timed.parts)
    }
    note = "the smallest batch whose operations take as long as its bytes, at full rates"
    cells = tuple(
        Quantity("compute_bound_batch", found.get(timed.name), Unit.REQUESTS, note=note) for _, timed in rows
    )
    return Column("compute_bound_batch", "compute-bound\nfrom batch", cells, priority=4)


# ------------------------------------------------------------------ steps


def _steps(asked: Asked, told: Sequence[_Told]) -> Table:
    totals = [_sums(one) for one in told]

    def column(name: str, label: str, priority: int = 0, scale: Scale | None = None) -> Column:
        return Column(name, label, tuple(row[name] for row in totals), priority, scale=scale)

    columns = (
        Column("batch", "batch", tuple(fact("batch", one.batch, "asked for") for one in told)),
        column("flops", "", 3, Scale.GFLOP),
        column("weight_bytes", "weights", 2, Scale.MB),
        column("kv_read_bytes", "KV read", 1, Scale.MB),
        column("arithmetic_intensity", "FLOP/B", 1),
        Column("limit", "limit", tuple(_limited(one.times) for one in told)),
        column("bound_s", "bound", 0, Scale.MILLISECONDS),
        column("estimate_s", "estimate", 0, Scale.MILLISECONDS),
        Column("tokens_per_s", "tokens/s", tuple(_rate(one) for one in told)),
    )
    return Table("steps", "The whole step" if asked.decoding else "The whole prefill", columns)


def _sums(one: _Told) -> dict[str, Quantity]:
    """Return every figure summed over the operators, by name."""
    found = {name: over_all(name, tuple(amount(t, name) for t in one.operators)) for name in AMOUNTS}
    found["flops"] = over_all("flops", tuple(flops(t) for t in one.operators))
    moved = over_all("memory_bytes", tuple(memory_bytes(t) for t in one.operators))
    found["arithmetic_intensity"] = arithmetic_intensity(found["flops"], moved)
    found["bound_s"] = _pipelined(one, "bound_s", tuple(bound_s(t) for t in one.operators))
    found["estimate_s"] = _pipelined(one, "estimate_s", tuple(estimate_s(t) for t in one.operators))
    return found


def _pipelined(one: _Told, name: str, parts: tuple[Quantity, ...]) -> Quantity:
    """Return a time summed over operators, or what is left of it where pipeline stages work at once."""
    whole, value = over_all(name, parts), float(getattr(one.times, name))
    if abs(whole.amount - value) <= 1e-12 * value:
        return whole
    note = "pipeline stages work on several chunks at once"
    return Quantity(name, value, Unit.SECONDS, inputs=(whole,), note=note)


def _rate(one: _Told) -> Quantity:
    tokens = fact("tokens", one.tokens, "new tokens of all requests", Unit.TOKENS)
    return computed("tokens_per_s", tokens_over_time, tokens, _whole_estimate(one))


def _whole_estimate(one: _Told) -> Quantity:
    return fact("estimate_s", float(one.times.estimate_s), "the estimate of all of it", Unit.SECONDS)


def _total(asked: Asked, one: _Told) -> Facts:
    sums = _sums(one)
    batch = fact("batch", one.batch, "asked for", Unit.REQUESTS)
    context = fact("context_tokens", asked.context, "asked for", Unit.TOKENS)
    figures = (batch, context, *sums.values(), _limited(one.times), _rate(one))
    return Facts("total", "Total", figures, Shown.NOT)


# ------------------------------------------------------------------ what would change it


def _crossovers(roofline: Roofline, asked: Asked) -> Facts:
    found = _ridge(roofline)
    if not asked.decoding:
        return Facts("crossovers", "Where the limit changes", (found,))
    batch = kv_overtakes_weights(roofline, asked.context, asked.new_tokens)
    overtakes = Quantity(
        "kv_overtakes_weights_batch",
        batch,
        Unit.REQUESTS,
        "KV read passes weights read from",
        note="the smallest batch whose step reads more cache than weights",
    )
    return Facts("crossovers", "Where the limit changes", (found, overtakes))


def _ridge(roofline: Roofline) -> Quantity:
    device, formats = roofline.deployment.device, roofline.deployment.weights.multiplied_in
    peak, bandwidth = peak_flops_per_s(device, formats), device.memory.bandwidth_gb_per_s * GB
    return computed(
        "ridge_flops_per_byte",
        ridge,
        fact("flops_per_s", peak, device.source, Unit.FLOPS_PER_SECOND),
        fact("bytes_per_s", bandwidth, device.source, Unit.BYTES_PER_SECOND),
        label="ridge: dense peak over bandwidth",
    )


def _serving(roofline: Roofline, asked: Asked, one: _Told) -> Facts:
    first = time_to_first_token(roofline, asked.context, asked.cached)
    gpus = roofline.deployment.parallelism.gpus
    rate = _rate(one)
    prompt = f"first token of a {short_count(asked.context)} prompt, at least"
    figures = [
        _seconds("ttft_bound_s", first.bound_s, prompt),
        _seconds("ttft_estimate_s", first.estimate_s, "and about"),
        _each("tokens_per_s_per_gpu", rate, fact("gpus", gpus, "of the deployment", Unit.GPUS), "GPU"),
    ]
    if asked.decoding:
        batch = fact("batch", one.batch, "asked for", Unit.REQUESTS)
        figures.append(_each("tokens_per_s_per_request", rate, batch, "request"))
    if asked.usd_per_hour is not None:
        figures.append(_cost(asked.usd_per_hour, gpus, rate))
    return Facts("serving", "Serving", tuple(figures))


def _closed_loop(roofline: Roofline, asked: Asked, one: _Told) -> tuple[Facts, ...]:
    """Return what requests settle to that replace each other, prompts of new ones read between tokens."""
    if asked.output is None:
        return ()
    state = steady_state(roofline, one.batch, asked.context, asked.output)
    note = "passes that read prompts of new requests are in it: kvplan.plan.serving, docs/timing.md"
    each, rate = state.each_token, Unit.TOKENS_PER_SECOND

    def told(name: str, value: object, unit: Unit, label: str) -> Quantity:
        assert isinstance(value, int | float)
        return Quantity(name, float(value), unit, label, note=note)

    whole = told("tokens_per_s", state.tokens_per_s, rate, "tokens/s of all requests")
    figures = [
        told("tpot_bound_s", each.bound_s, Unit.SECONDS, "each token after the first, at least"),
        told("tpot_estimate_s", each.estimate_s, Unit.SECONDS, "and about"),
        whole,
        told("tokens_per_s_per_gpu", state.tokens_per_s_and_gpu, rate, "tokens/s of each GPU"),
        told("tokens_per_s_per_request", state.tokens_per_s_and_request, rate, "tokens/s of each request"),
    ]
    if asked.usd_per_hour is not None:
        figures.append(_cost(asked.usd_per_hour, roofline.deployment.parallelism.gpus, whole))
    prompt, output = short_count(asked.context), short_count(asked.output)
    title = f"Closed loop of {one.batch:,} requests, prompts of {prompt}, {output} tokens each"
    return (Facts("closed_loop", title, tuple(figures)),)


def _each(name: str, rate: Quantity, count: Quantity, what: str) -> Quantity:
    return computed(name, equal_part, rate, count, label=f"tokens/s of each {what}")


def _cost(usd_per_hour: float, gpus: int, rate: Quantity) -> Quantity:
    return computed(
        "usd_per_million_tokens",
        usd_per_million_tokens,
        fact("usd_per_gpu_hour", usd_per_hour, "--price"),
        fact("gpus", gpus, "of the deployment", Unit.GPUS),
        rate,
        label="US dollars for a million tokens",
    )


def _seconds(name: str, value: object, label: str) -> Quantity:
    assert isinstance(value, int | float)
    note = "the time of a prompt alone: --phase prefill --batch 1 says where it goes"
    return Quantity(name, float(value), Unit.SECONDS, label, note=note)


# ------------------------------------------------------------------ words


def _verdict(capacity: Capacity, asked: Asked, one: _Told) -> Verdict:
    # The step's own tokens are stored too; a context of just the limit is what was asked for.
    limit = capacity.deployment.max_tokens
    held = max(asked.context, min(asked.context + asked.new_tokens * asked.decoding, limit))
    if not capacity.fits(one.batch, held):
        return verdict(capacity, held, one.batch)
    times = one.times
    what = "a step" if asked.decoding else "to read the prompts"
    rate = one.tokens / float(times.estimate_s)
    said = (
        f"{_LIMITED[times.limit]} at batch {one.batch:,}: {_ms(times.bound_s)} {what} at least, "
        f"about {_ms(times.estimate_s)} ({rate:,.0f} tokens/s)."
    )
    return Verdict(True, said + _largest_reader(one))


_LIMITED = {
    Limit.MEMORY: "Memory-bound",
    Limit.COMPUTE: "Compute-bound",
    Limit.LATENCY: "Bound by launches",
    Limit.NETWORK: "Network-bound",
}


def _largest_reader(one: _Told) -> str:
    """Return what most of the time goes to, as a sentence."""
    top = max(one.operators, key=lambda timed: float(timed.times.estimate_s))
    share = float(top.times.estimate_s) / sum(float(t.times.estimate_s) for t in one.operators)
    return f" {share:.0%} of that goes to: {top.label}."


def _ms(seconds: object) -> str:
    assert isinstance(seconds, int | float)
    value = 1e3 * float(seconds)
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _notes(roofline: Roofline, asked: Asked) -> tuple[str, ...]:
    sums = ", sums over ranks once over the link" if roofline.deployment.parallelism.tensor > 1 else ""
    found = [f"bound: weights and cache at full bandwidth, operations at the dense peak{sums}, nothing else"]
    if asked.new_tokens > 1:
        found.append("tokens/s and cost count every token that is verified, as if every guess were right")
    found.append(
        f"estimate: with measured constants of kernels; off by {ESTIMATE_MEDIAN_ERROR:.0%} in the middle and "
        f"{ESTIMATE_P90_ERROR:.0%} in one of ten public serving measurements (docs/accuracy.md)"
    )
    if not roofline.deployment.device.efficiency:
        found.append(f"no kernel of {roofline.deployment.device.name} was measured: constants of other GPUs")
    cut = roofline.deployment.parallelism
    if cut.pipeline > 1:
        found.append("each of the pipeline's stages works on its own part of the batch")
    if cut.gpus_that_talk > GPUS_OF_A_BOX:
        found.append(
            f"exchanges of {cut.gpus_that_talk:,} GPUs are timed as if all shared the links of one box"
        )
    return tuple(found)
