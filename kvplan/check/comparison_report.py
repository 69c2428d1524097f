"""The answer of ``kvplan compare``: what each option buys and costs, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from kvplan.allocation import Contiguous
from kvplan.arch.entry import Latent
from kvplan.check.advice import LEAST_GAIN, Advice, Compared, advise, condition, gain, quoted_price
from kvplan.check.comparison import Comparison
from kvplan.check.measured_price import MeasuredPrice, MeasuredPrices
from kvplan.hardware.peak import peak_format
from kvplan.plan.capacity_report import deployment_facts
from kvplan.plan.comparison import SHORTEST, Outcome
from kvplan.plan.setup import Setup
from kvplan.plan.time_notes import time_notes
from kvplan.results import Column, Facts, Quantity, Report, Scalar, Scale, Shown, Table, Verdict, fact
from kvplan.storage import SIXTEEN_BIT
from kvplan.units import Unit, short_count

if TYPE_CHECKING:
    from kvplan.check.price import EngineError

_Figure = Callable[[Outcome], Scalar]


def comparison_report(comparison: Comparison, inputs: tuple[tuple[str, Scalar | list[int]], ...]) -> Report:
    """Return the whole answer."""
    rows = (comparison.baseline, *comparison.options)
    columns = _columns(comparison, rows)
    advice = advise(comparison.baseline, comparison.options)
    return Report(
        command="compare",
        heading=_heading(comparison),
        sections=(
            deployment_facts(comparison.setup.deployment),
            Facts("baseline", "Baseline", tuple(column.cells[0] for column in columns), Shown.NOT),
            _options(comparison, columns),
            _quality(comparison.prices),
            *_not_applied(comparison),
            _what_to_change(advice),
        ),
        verdict=_verdict(comparison, advice),
        notes=_notes(comparison),
        inputs=inputs,
    )


def _what_to_change(advice: Sequence[Advice]) -> Facts:
    found = tuple(
        Quantity(one.option.tried.name, one.text, label=f"{rank}.")
        for rank, one in enumerate(advice, start=1)
    )
    return Facts("advice", "What to change", found, Shown.LINES if found else Shown.NOT)


def _heading(comparison: Comparison) -> str:
    setup = comparison.setup
    d, load = setup.deployment, setup.load
    gpus = f"{d.parallelism.gpus} x {d.device.label}"
    asked = f"{load.batch:,} request{'' if load.batch == 1 else 's'} of {short_count(load.context)}"
    return f"{setup.model.name}  {d.weights.name} weights, {d.kv.name} KV   on {gpus}: {asked}"


# ------------------------------------------------------------------ the table


def _options(comparison: Comparison, columns: tuple[Column, ...]) -> Table:
    rows = (comparison.baseline, *comparison.options)
    title = "Each option against the baseline"
    hidden = tuple(index for index, row in enumerate(rows) if row.tried.outcome is None)
    labels = tuple(row.tried.label for row in rows)
    return Table("options", title, columns, labels=labels, hidden=hidden, repeated=(0,))


def _columns(comparison: Comparison, rows: Sequence[Compared]) -> tuple[Column, ...]:
    return (
        Column("name", "option", tuple(fact("name", row.tried.name, row.tried.label) for row in rows)),
        _words("applies", tuple(row.tried.outcome is not None for row in rows)),
        _words("reason", tuple(row.tried.reason or None for row in rows)),
        *_memory_columns(comparison, rows),
        *_time_columns(rows),
        Column("gain", "gain\nper GPU", tuple(_gain(comparison.baseline, row) for row in rows)),
        _column("arithmetic_intensity", "FLOP\nper B", Unit.FLOPS_PER_BYTE, _intensity, rows, 12),
        _column("kv_share", "", Unit.SHARE, lambda o: o.kv_share, rows),
        _column("limit", "limit", Unit.NONE, lambda o: o.limit.value, rows, 9),
        *_quoted_columns(rows),
        *_random_columns(rows),
    )


def _memory_columns(comparison: Comparison, rows: Sequence[Compared]) -> tuple[Column, ...]:
    load, per_token = comparison.setup.load, Unit.BYTES_PER_TOKEN
    requests, context = f"requests\nof {short_count(load.context)}", f"context\nat batch {load.batch:,}"
    return (
        _column("kv_bytes_per_token", "KV B\nper token", per_token, lambda o: o.kv_bytes_per_token, rows, 7),
        _column("gpu_kv_bytes_per_token", "", per_token, lambda o: o.gpu_kv_bytes_per_token, rows),
        _column("max_batch", requests, Unit.REQUESTS, lambda o: o.max_batch, rows),
        _column("max_context_tokens", context, Unit.TOKENS, lambda o: o.max_context, rows, 8),
        _column("mixed_requests", "requests\nmixed", Unit.REQUESTS, lambda o: o.mixed_requests, rows, 13),
        _column("cache_live_share", "cache\nlive", Unit.SHARE, lambda o: o.live_share, rows, 14),
        _column("activation_bytes", "prefill\npeak", Unit.BYTES, lambda o: o.activation_bytes, rows, 15),
    )


def _time_columns(rows: Sequence[Compared]) -> tuple[Column, ...]:
    ms, seconds, rate = Scale.MILLISECONDS, Unit.SECONDS, Unit.TOKENS_PER_SECOND
    return (
        _column("ttft_bound_s", "", seconds, lambda o: float(o.first_token.bound_s), rows),
        _column("ttft_estimate_s", "first\ntoken", seconds, _first_token_s, rows, 6, ms),
        _column("decode_step_bound_s", "", seconds, lambda o: float(o.step.bound_s), rows),
        _column("decode_step_estimate_s", "step", seconds, lambda o: float(o.step.estimate_s), rows, 4, ms),
        _column("tokens_per_step", "", Unit.TOKENS, lambda o: o.tokens_per_step, rows),
        _column("rated_batch", "", Unit.REQUESTS, lambda o: o.batch, rows),
        _column("tokens_per_s", "tokens/s", rate, lambda o: o.tokens_per_s or None, rows, 5),
        _column("full_tokens_per_s", "tokens/s\nwhen full", rate, _full_rate, rows, 3),
    )


def _first_token_s(outcome: Outcome) -> float:
    return float(outcome.first_token.estimate_s)


def _full_rate(outcome: Outcome) -> float | None:
    return outcome.full_tokens_per_s or None


def _intensity(outcome: Outcome) -> float:
    return outcome.arithmetic_intensity


def _column(
    name: str,
    label: str,
    unit: Unit,
    figure: _Figure,
    rows: Sequence[Compared],
    priority: int = 0,
    scale: Scale | None = None,
) -> Column:
    """Return a figure of every option; one without a label is for machines."""
    outcomes = (row.tried.outcome for row in rows)
    cells = tuple(Quantity(name, figure(outcome) if outcome else None, unit) for outcome in outcomes)
    return Column(name, label, cells, priority, bool(label), scale)


def _words(name: str, values: tuple[Scalar, ...]) -> Column:
    return Column(name, "", tuple(Quantity(name, value) for value in values), shown=False)


def _gain(baseline: Compared, row: Compared) -> Quantity:
    """Return how many times the baseline's rate a full machine has, for each GPU."""
    note = "tokens/s when full, for each GPU, against the baseline's"
    return Quantity("gain", gain(baseline, row), Unit.TIMES, note=note)


def _quoted_columns(rows: Sequence[Compared]) -> tuple[Column, ...]:
    """Return what KV formats cost a real model, as one object of JSON."""

    def cells(name: str, figure: Callable[[MeasuredPrice], float], unit: Unit) -> tuple[Quantity, ...]:
        return tuple(Quantity(f"kv_price.{name}", figure(row.kv) if row.kv else None, unit) for row in rows)

    change = cells("perplexity_change", lambda price: price.perplexity_change, Unit.CHANGE)
    low = cells("perplexity_change_low", lambda price: price.low, Unit.CHANGE)
    high = cells("perplexity_change_high", lambda price: price.high, Unit.CHANGE)
    divergence = cells("kl_divergence", lambda price: price.kl_divergence, Unit.NATS_PER_TOKEN)
    same = cells("same_top1", lambda price: price.same_top1, Unit.SHARE)
    why = tuple(Quantity("kv_price.note", row.unquoted or None) for row in rows)
    known = any(row.kv for row in rows)
    return (
        Column("kv_price.perplexity_change", "perplexity\nby KV", change, 1, known),
        Column("kv_price.perplexity_change_low", "", low, shown=False),
        Column("kv_price.perplexity_change_high", "", high, shown=False),
        Column("kv_price.kl_divergence", "", divergence, shown=False),
        Column("kv_price.same_top1", "same top-1\nby KV", same, 11, known),
        Column("kv_price.note", "", why, shown=False),
    )


def _random_columns(rows: Sequence[Compared]) -> tuple[Column, ...]:
    """Return what weights and other models cost with random weights, as one object of JSON."""

    def cells(name: str, figure: Callable[[EngineError], float | None]) -> tuple[Quantity, ...]:
        values = (figure(row.error) if row.error else None for row in rows)
        return tuple(Quantity(f"random_error.{name}", value, Unit.SHARE) for value in values)

    attention = cells("attention_error", lambda error: error.attention_error)
    logits = cells("logit_error", lambda error: error.logit_error)
    same = cells("same_greedy", lambda error: error.same_greedy)
    notes = (row.error.note if row.error else row.unmeasured or None for row in rows)
    known = any(row.error for row in rows)
    return (
        Column("random_error.attention_error", "", attention, shown=False),
        Column("random_error.logit_error", "logits off\nrandom", logits, 2, known),
        Column("random_error.same_greedy", "same greedy\nrandom", same, 10, known),
        Column(
            "random_error.note", "", tuple(Quantity("random_error.note", note) for note in notes), shown=False
        ),
    )


def _quality(prices: MeasuredPrices) -> Facts:
    """Return where the prices that are quoted come from, for machines: a note tells a reader."""
    found = (
        Quantity("model", prices.model),
        Quantity("text", prices.text),
        Quantity("tokens", prices.tokens, Unit.TOKENS),
        Quantity("context", prices.context, Unit.TOKENS),
        Quantity("when", prices.when),
        Quantity("date", prices.date),
        Quantity("command", prices.command),
    )
    return Facts("quality", "Where prices of KV come from", found, Shown.NOT)


def _not_applied(comparison: Comparison) -> tuple[Facts, ...]:
    """Return the options that do not apply, each with the reason."""
    found = tuple(
        Quantity(row.tried.name, row.tried.reason, label=row.tried.label)
        for row in comparison.options
        if row.tried.outcome is None
    )
    return (Facts("not_applied", "Does not apply", found),) if found else ()


# ------------------------------------------------------------------ words


def _verdict(comparison: Comparison, advice: Sequence[Advice]) -> Verdict:
    most, asked = _outcome(comparison.baseline).max_batch, comparison.setup.load.batch
    one, requests = asked == 1, _requests(comparison.setup)
    if most >= asked:
        said = f"{requests} fit{'s' if one else ''}: up to {most:,} do{'es' if most == 1 else ''}."
    else:
        said = f"{requests} do{'es' if one else ''} not fit: {f'{most:,}' if most else 'not one'} would."
    return Verdict(most >= asked, f"{said} {_best(comparison, advice)}")


def _best(comparison: Comparison, advice: Sequence[Advice]) -> str:
    """Return the sentence about the best option."""
    first = advice[0].option if advice else None
    times = gain(comparison.baseline, first) if first else None
    if first is None or (times is not None and times < LEAST_GAIN):
        return _none_is_faster(comparison, advice)
    worth = [f"x{times:.2f} tokens/s for each GPU"] if times is not None else []
    worth += [condition(first)] if condition(first) else []
    worth += [quoted_price(first.kv)] if first.kv and first.kv != comparison.baseline.kv else []
    behind = f" ({', '.join(worth)})" if worth else ""
    return f"Most worth trying: {first.tried.label}{behind}."


def _none_is_faster(comparison: Comparison, advice: Sequence[Advice]) -> str:
    """Return the sentence that says so, where no option that keeps the model is worth its name."""
    more = f"{LEAST_GAIN - 1:.0%} more tokens/s for each GPU"
    faster = [one for one in comparison.options if (gain(comparison.baseline, one) or 0) >= LEAST_GAIN]
    if any(change.kind.what_if for one in faster for change in one.tried.changes):
        return f"Without another model, no option here makes {more}."
    behind = "; what helps otherwise is above" if advice else ""
    return f"No option here makes {more}{behind}."


def _requests(setup: Setup) -> str:
    batch = setup.load.batch
    return f"{batch:,} request{'' if batch == 1 else 's'} of {short_count(setup.load.context)}"


# ------------------------------------------------------------------ notes


def _notes(comparison: Comparison) -> tuple[str, ...]:
    rows = [row for row in (comparison.baseline, *comparison.options) if row.tried.outcome is not None]
    return (
        *_notes_of_figures(comparison.setup, rows),
        *_notes_of_prices(comparison, rows),
        *_notes_of_ranks(comparison.baseline, rows),
        *_notes_of_units(rows),
        *time_notes(comparison.setup.model, [_setup(row).deployment for row in rows]),
    )


def _notes_of_figures(setup: Setup, rows: Sequence[Compared]) -> Iterator[str]:
    load = setup.load
    shortest = short_count(max(1, load.context // SHORTEST))
    yield (
        f"step: a decode step of {_requests(setup)}; first token: of one prompt as long, alone; full: as "
        "many of these requests as fit; tokens/s: of decode steps alone, without the prompts of new requests"
    )
    yield (
        f"mixed: requests of {shortest} to {short_count(load.context)} tokens, each octave as likely; live: "
        "of the cache they are given, the share that holds a token in view"
    )
    if any(0 < _outcome(row).batch < load.batch for row in rows):
        yield f"where fewer than {_requests(setup)} fit, the step is still of all, tokens/s of what fits"
    if any(isinstance(_setup(row).deployment.allocation, Contiguous) for row in rows):
        longest = setup.deployment.max_tokens
        yield f"a contiguous cache takes room for {longest:,} tokens with each request (--max-length)"
    if any(_setup(row).load.speculation is not None for row in rows):
        yield "speculation guesses with the head and one more decoder layer, in memory and caching as others"


def _notes_of_prices(comparison: Comparison, rows: Sequence[Compared]) -> Iterator[str]:
    if any(row.kv for row in rows):
        yield quoted_from(comparison.prices)
        if any(isinstance(slot.entry, Latent) for slot in comparison.setup.model.stored_slots()):
            name = comparison.setup.model.name
            yield f"{name} caches latents: their price may be far from that of keys and values"
    if any(row.error for row in rows):
        yield (
            "random: what other weights, or another model, cost with random weights, this model scaled down "
            "and a float32 cache: trained weights have outliers, which cost more, and surer choices, which "
            "change less often"
        )
    now = _setup(comparison.baseline).deployment
    if any(row.error and _setup(row).deployment.weights != now.weights for row in rows):
        yield "weights are rounded to nearest for that; calibration, as in AWQ or GPTQ, costs less"
    both = [row.tried.label for row in rows if row.error and _setup(row).deployment.kv != now.kv]
    if both:
        said = "perplexity is of the KV alone, random of the rest alone; both together cost more"
        yield f"{'; '.join(both)}: {said}"
    for why, labels in _reasons(rows).items():
        yield f"{'prices' if len(labels) == len(rows) else '; '.join(labels)}: {why}"


def quoted_from(prices: MeasuredPrices) -> str:
    """Return where the prices that are quoted come from, in words."""
    stored = {"append": "stored in the format as they came", "prefill": "stored in it after the prompt"}
    return (
        f"perplexity by KV: how far the format raises it on {prices.model}, against a float32 cache: "
        f"{prices.tokens:,} tokens of {prices.text} behind contexts of {short_count(prices.context)}, "
        f"{stored[prices.when]}, measured on {prices.date} by {prices.command}; other models pay more or "
        "less (--quality FILE)"
    )


def _reasons(rows: Sequence[Compared]) -> dict[str, list[str]]:
    """Return why prices are not known, each with the options it is so of."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for why in dict.fromkeys((row.unquoted, row.unmeasured)):
            if why:
                found.setdefault(why, []).append(row.tried.label)
    return found


def _notes_of_ranks(baseline: Compared, rows: Sequence[Compared]) -> Iterator[str]:
    """Tell of other models that spare a GPU less than they spare all: ranks repeat what they cannot cut."""
    now = _outcome(baseline)
    for row in rows:
        then, another = _outcome(row), any(change.kind.what_if for change in row.tried.changes)
        whole = then.kv_bytes_per_token * now.gpu_kv_bytes_per_token
        if another and then.gpu_kv_bytes_per_token * now.kv_bytes_per_token > whole:
            yield (
                f"{row.tried.label}: {then.gpu_kv_bytes_per_token:,} B per token on each GPU, where the "
                f"baseline has {now.gpu_kv_bytes_per_token:,}: tensor-parallel ranks repeat what they "
                "cannot cut"
            )


def _notes_of_units(rows: Sequence[Compared]) -> Iterator[str]:
    """Tell of formats of fewer bits that the accelerator has no matrix unit for."""
    said = {}
    for row in rows:
        deployment = _setup(row).deployment
        for stored, what in ((deployment.weights, "weights"), (deployment.kv, "KV")):
            run_in = peak_format(deployment.device, stored.multiplied_in)
            if stored.multiplied_in[0] not in (run_in, *SIXTEEN_BIT):
                lacks = f"{deployment.device.name} has no {stored.multiplied_in[0]} unit"
                said[f"{stored.name} {what}"] = f"{lacks}, so bounds are of its {run_in} one"
    yield from (f"{stored_as}: {how}" for stored_as, how in said.items())


def _outcome(compared: Compared) -> Outcome:
    assert compared.tried.outcome is not None
    return compared.tried.outcome


def _setup(compared: Compared) -> Setup:
    assert compared.tried.setup is not None
    return compared.tried.setup
