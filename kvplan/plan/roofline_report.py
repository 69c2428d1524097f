"""The answer of ``kvplan roofline``: where the time of a step goes, and what would change it."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.arch.experts import Experts
from kvplan.hardware.device import Device
from kvplan.hardware.peak import peak_flops_per_s, peak_format
from kvplan.plan.cache_notes import cache_notes
from kvplan.plan.capacity import Capacity
from kvplan.plan.capacity_report import deployment_facts
from kvplan.plan.crossover import compute_bound_batch, kv_overtakes_weights
from kvplan.plan.roofline import Roofline, Timed
from kvplan.plan.roofline_figures import (
    AMOUNTS,
    amount,
    arithmetic_intensity,
    bound_s,
    estimate_s,
    flops,
    memory_bytes,
    over_all,
    ridge,
    share_of,
)
from kvplan.plan.roofline_serving import serving_sections
from kvplan.plan.roofline_steps import Asked, Told, rate, tell
from kvplan.plan.step_time import Limit, Times
from kvplan.plan.time_notes import time_notes
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
from kvplan.units import GB, Unit

_WORK_COLUMNS = ("weight_bytes", "kv_read_bytes", "kv_write_bytes", "activation_bytes", "collective_bytes")


def roofline_report(
    roofline: Roofline,
    capacity: Capacity,
    asked: Asked,
    inputs: tuple[tuple[str, Scalar | list[int]], ...],
    more: Sequence[Table | Facts] = (),
    more_notes: Sequence[str] = (),
) -> Report:
    """Return the whole answer; ``more`` sections and notes stand behind the others."""
    told = [tell(roofline, asked, batch) for batch in asked.batches]
    return Report(
        command="roofline",
        heading=_heading(roofline),
        sections=(
            _operators(roofline, asked, told),
            _steps(asked, told),
            _total(asked, told[-1]),
            _crossovers(roofline, asked),
            *serving_sections(roofline, asked, told[-1]),
            deployment_facts(roofline.deployment),
            *more,
        ),
        verdict=_verdict(capacity, asked, told[-1]),
        notes=(*_notes(roofline, asked), *more_notes),
        inputs=inputs,
    )


def _heading(roofline: Roofline) -> str:
    d = roofline.deployment
    gpus = f"{d.parallelism.gpus} x {d.device.label}"
    return f"{roofline.model.name}  {d.weights.name} weights, {d.kv.name} KV   on {gpus}"


# ------------------------------------------------------------------ operators


def _operators(roofline: Roofline, asked: Asked, told: Sequence[Told]) -> Table:
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


def _share(one: Told, timed: Timed) -> Quantity:
    whole = sum(float(other.times.estimate_s) for other in one.operators)
    own = fact("estimate_s", float(timed.times.estimate_s), "this operator", Unit.SECONDS)
    return computed("share", share_of, own, fact("all_estimate_s", whole, "all operators", Unit.SECONDS))


def _limited(times: Times) -> Quantity:
    limit = times.limit.value if float(times.estimate_s) else None
    return fact("limit", limit, "what most of the estimate is")


def _compute_bound(roofline: Roofline, asked: Asked, rows: Sequence[tuple[Told, Timed]]) -> Column:
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


def _steps(asked: Asked, told: Sequence[Told]) -> Table:
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
        Column("tokens_per_s", "tokens/s", tuple(rate(one) for one in told)),
    )
    return Table("steps", "The whole step" if asked.decoding else "The whole prefill", columns)


def _sums(one: Told) -> dict[str, Quantity]:
    """Return every figure summed over the operators, by name."""
    found = {name: over_all(name, tuple(amount(t, name) for t in one.operators)) for name in AMOUNTS}
    found["flops"] = over_all("flops", tuple(flops(t) for t in one.operators))
    moved = over_all("memory_bytes", tuple(memory_bytes(t) for t in one.operators))
    found["arithmetic_intensity"] = arithmetic_intensity(found["flops"], moved)
    found["bound_s"] = _pipelined(one, "bound_s", tuple(bound_s(t) for t in one.operators))
    found["estimate_s"] = step_estimate(one)
    return found


def step_estimate(one: Told) -> Quantity:
    """Return the expected time of a whole step, or of all prompts, as the sum over its operators."""
    return _pipelined(one, "estimate_s", tuple(estimate_s(timed) for timed in one.operators))


def _pipelined(one: Told, name: str, parts: tuple[Quantity, ...]) -> Quantity:
    """Return a time summed over operators, or what is left of it where pipeline stages work at once."""
    whole, value = over_all(name, parts), float(getattr(one.times, name))
    if abs(whole.amount - value) <= 1e-12 * value:
        return whole
    note = "pipeline stages work on several chunks at once"
    return Quantity(name, value, Unit.SECONDS, inputs=(whole,), note=note)


def _total(asked: Asked, one: Told) -> Facts:
    sums = _sums(one)
    batch = fact("batch", one.batch, "asked for", Unit.REQUESTS)
    context = fact("context_tokens", asked.context, "asked for", Unit.TOKENS)
    figures = (batch, context, *sums.values(), _limited(one.times), rate(one))
    return Facts("total", "Total", figures, Shown.NOT)


# ------------------------------------------------------------------ what would change it


def _crossovers(roofline: Roofline, asked: Asked) -> Facts:
    found = _ridges(roofline)
    if not asked.decoding:
        return Facts("crossovers", "Where the limit changes", found)
    batch = kv_overtakes_weights(roofline, asked.context, asked.new_tokens)
    overtakes = Quantity(
        "kv_overtakes_weights_batch",
        batch,
        Unit.REQUESTS,
        "KV read passes weights read from",
        note="the smallest batch whose step reads more cache than weights",
    )
    return Facts("crossovers", "Where the limit changes", (*found, overtakes))


def _ridges(roofline: Roofline) -> tuple[Quantity, ...]:
    """Return the ridge of the weights' products, and that of attention where it runs at another rate."""
    d = roofline.deployment
    weights = _ridge(d.device, d.weights.multiplied_in, "ridge_flops_per_byte", "ridge")
    name = "attention_ridge_flops_per_byte"
    attention = _ridge(d.device, d.kv.multiplied_in, name, "ridge of attention")
    return (weights,) if attention.value == weights.value else (weights, attention)


def _ridge(device: Device, formats: Sequence[str], name: str, label: str) -> Quantity:
    peak, bandwidth = peak_flops_per_s(device, formats), device.memory.bandwidth_gb_per_s * GB
    return computed(
        name,
        ridge,
        fact("flops_per_s", peak, device.source, Unit.FLOPS_PER_SECOND),
        fact("bytes_per_s", bandwidth, device.source, Unit.BYTES_PER_SECOND),
        label=f"{label}: dense {peak_format(device, formats)} peak over bandwidth",
    )


# ------------------------------------------------------------------ words


def _verdict(capacity: Capacity, asked: Asked, one: Told) -> Verdict:
    held = asked.held_tokens(capacity.deployment.max_tokens)
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


def _largest_reader(one: Told) -> str:
    """Return what most of the time goes to, as a sentence."""
    top = max(one.operators, key=lambda timed: float(timed.times.estimate_s))
    share = float(top.times.estimate_s) / sum(float(t.times.estimate_s) for t in one.operators)
    return f" {share:.0%} of that goes to: {top.label}."


def _ms(seconds: object) -> str:
    assert isinstance(seconds, int | float)
    value = 1e3 * float(seconds)
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _notes(roofline: Roofline, asked: Asked) -> tuple[str, ...]:
    sums = ", all-reduces once over the link" if roofline.deployment.parallelism.tensor > 1 else ""
    found = [f"bound: weights and cache at full bandwidth, operations at the dense peak{sums}, nothing else"]
    if any(isinstance(run.layer.mlp, Experts) for run in roofline.model.runs()):
        found.append("experts: bounds read those of one token only, MB and FLOP/B all that are expected")
    if not asked.decoding:
        found.append("MB and FLOP/B are of weights and cache; estimates and limits move activations too")
    if asked.new_tokens > 1:
        found.append("tokens/s and cost count every token that is verified, as if every guess were right")
    if roofline.deployment.parallelism.pipeline > 1:
        found.append("each of the pipeline's stages works on its own part of the batch")
    found += cache_notes(roofline.model, roofline.deployment)
    return (*found, *time_notes(roofline.model, [roofline.deployment]))
