"""A simulation as a report: the plan beside the run, how fast it ran, and whether the plan holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import floor, isfinite
from statistics import median

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.attention import Attention
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.model import Model
from kvplan.check.scenario import Scenario
from kvplan.check.simulation import COUNTED, Check, Simulation
from kvplan.check.speed import Speed
from kvplan.engine.generation import StepRecord
from kvplan.results import Column, Facts, Quantity, Report, Scalar, Shown, Table, Verdict, fact
from kvplan.specs.catalog import Found, digest
from kvplan.specs.layer_pattern import kind_names
from kvplan.units import Unit

EQUAL = "equal to the last unit"
MEASURED = "measured on this machine"
# Labels of the figures whose own are too long for a table, or say nothing without their sentence.
LABELS = {"decode_intensity_flops_per_byte": "decode intensity", "cached_logit_error": "logit error, at most"}
# More requests than this are told by the shortest and the longest.
MOST_LENGTHS = 8
BOUND = (
    "what was counted, at the rates measured: products, then attention, the slower of reading and multiplying"
)


def simulation_report(simulation: Simulation, speed: Speed, file: Found) -> Report:
    """Return the answer of ``kvplan simulate MODEL``."""
    return Report(
        command="simulate",
        heading=_heading(simulation),
        sections=(
            _answer(simulation, speed),
            _scaled_model(simulation.scaled),
            _checks(simulation),
            _layers(simulation),
            _logits(simulation),
            _speed(speed),
            _steps(simulation, speed),
            *simulation.prediction.details(),
        ),
        verdict=_verdict(simulation),
        notes=_notes(simulation),
        inputs=(
            ("model_file", file.label),
            ("model_sha256", digest(file.path)),
            *_inputs(simulation.scenario),
            ("kv", simulation.scenario.kv.name),
        ),
    )


def all_report(simulations: Sequence[Simulation]) -> Report:
    """Return the answer of ``kvplan simulate --all``: a line for each model."""
    agreeing, count = sum(simulation.agree for simulation in simulations), len(simulations)
    each = f"{_requests(simulations[0].scenario)}, on each model"
    return Report(
        command="simulate",
        heading=f"{_count(count, 'model')}, each scaled down, with random weights\n{each}",
        sections=(
            Facts("", "", (fact("agree", agreeing == count, "every model"),), Shown.NOT),
            Table("models", "The plan against the run", _model_columns(simulations), units=True),
        ),
        verdict=Verdict(agreeing == count, _all_verdict(simulations), "agree"),
        notes=(_LOGIT_NOTE,),
        inputs=_inputs(simulations[0].scenario),
    )


def _model_columns(simulations: Sequence[Simulation]) -> tuple[Column, ...]:
    def column(label: str, figure: Callable[[Simulation], Quantity], priority: int = 0) -> Column:
        cells = tuple(figure(simulation) for simulation in simulations)
        return Column(cells[0].name, label, cells, priority)

    columns = (
        column("model", lambda s: fact("model", s.model.name, s.model.source)),
        column("layers", lambda s: fact("layers", len(s.scaled.layers), s.scaled.source), 3),
        column("KV", lambda s: fact("kv", s.scenario.kv.name, "--kv, or the model's dtype"), 2),
        column("figures", lambda s: fact("figures", len(_named(s)), "compared"), 1),
        column("differ", lambda s: fact("differing", len(_differing(s)), EQUAL)),
        column("logit error", lambda s: _finite("cached_logit_error", s.measurement.errors.cached), 1),
        column("agree", lambda s: fact("agree", s.agree, "every figure agrees")),
    )
    names = tuple(fact("differing_figures", ", ".join(_differing(s)), EQUAL) for s in simulations)
    return (*columns, Column("differing_figures", "differing figures", names, shown=False))


def _all_verdict(simulations: Sequence[Simulation]) -> str:
    broken = [simulation for simulation in simulations if not simulation.agree]
    if not broken:
        figures = sum(len(_named(simulation)) for simulation in simulations)
        return f"The plan holds: all {figures:,} figures of {_count(len(simulations), 'model')} agree."
    first = broken[0]
    return (
        f"The plan does not hold for {len(broken)} of {_count(len(simulations), 'model')}. "
        f"{first.model.name}: {_differences(first)}."
    )


def _finite(name: str, value: float, unit: Unit = Unit.NONE) -> Quantity:
    """Return a figure counted by the engine; there is none where the engine made no number of it."""
    return fact(name, value if isfinite(value) else None, COUNTED, unit)


def _tokens_per_s(speed: Speed) -> Quantity:
    return fact("tokens_per_s", speed.tokens_per_s, MEASURED, Unit.TOKENS_PER_SECOND)


def _heading(simulation: Simulation) -> str:
    """Return what was run, in three lines."""
    scaled, scenario = simulation.scaled, simulation.scenario
    size = f"{_count(len(scaled.layers), 'layer')} x {scaled.hidden_size:,} hidden"
    match scenario.allocation:
        case Paged(block_tokens=tokens):
            kept = f"in blocks of {_count(tokens, 'token')}"
        case Contiguous(max_tokens=tokens):
            kept = f"in one piece of {_count(tokens, 'token')} a request"
    return (
        f"{simulation.model.name} scaled down to {size}, with random weights\n"
        f"{_heads(scaled)}, {scenario.kv.name} KV {kept}\n"
        f"{_requests(scenario)}"
    )


def _requests(scenario: Scenario) -> str:
    lengths = scenario.prompt_tokens
    if len(lengths) > MOST_LENGTHS:
        told = f"{min(lengths):,} to {max(lengths):,}"
    else:
        told = " / ".join(f"{length:,}" for length in lengths)
    added = f"{_count(scenario.new_tokens, 'token')} added{' to each' if len(lengths) > 1 else ''}"
    return f"{_count(len(lengths), 'request')} of {told} token{'s' if told != '1' else ''}, {added}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _heads(model: Model) -> str:
    """Return the heads of a model's first attention layer in words, or of its first recurrent one."""
    mixers = [layer.mixer for layer in model.layers]
    for mixer in sorted(mixers, key=lambda mixer: isinstance(mixer, GatedDeltaNet)):
        match mixer:
            case Attention(num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=dim):
                return f"{_count(heads, 'query head')}, {_count(kv_heads, 'KV head')} of {dim}"
            case LatentAttention(num_attention_heads=heads, kv_lora_rank=rank):
                return f"{_count(heads, 'query head')} over latents of {rank}"
            case GatedDeltaNet(linear_num_value_heads=heads, linear_value_head_dim=dim):
                return f"{_count(heads, 'recurrent head')} of {dim}"
    raise AssertionError("a model has layers")


def _answer(simulation: Simulation, speed: Speed) -> Facts:
    share = speed.fraction_of_bound
    return Facts(
        "",
        "",
        (
            fact("agree", simulation.agree, "every figure agrees"),
            _tokens_per_s(speed),
            fact("step_time_fraction_of_bound", share, MEASURED, Unit.SHARE),
        ),
        Shown.NOT,
    )


def _scaled_model(model: Model) -> Facts:
    return Facts(
        "scaled_model",
        "Scaled model",
        (
            fact("name", model.name, model.source),
            fact("layers", len(model.layers), model.source, Unit.LAYERS),
            fact("hidden_size", model.hidden_size, model.source),
            fact("vocab_size", model.vocab_size, model.source),
            fact("heads", _heads(model), model.source),
        ),
        Shown.NOT,
    )


def _checks(simulation: Simulation) -> Table:
    checks = simulation.checks
    units = tuple(fact("unit", c.predicted.unit.value, c.label) for c in checks)
    measured = tuple(_measured(c, "measured") for c in checks)
    return Table(
        "checks",
        "The plan against the run",
        (
            Column("name", "figure", tuple(fact("name", c.name, c.label) for c in checks)),
            Column("predicted", "predicted", tuple(replace(c.predicted, name="predicted") for c in checks)),
            Column("measured", "measured", measured),
            Column("unit", "unit", units, shown=False),
            Column("agree", "agree", tuple(fact("agree", c.agree, _agreement(c)) for c in checks)),
        ),
        units=True,
        labels=tuple(_label(c) for c in checks),
    )


def _label(check: Check) -> str:
    return LABELS.get(check.name, check.label)


def _agreement(check: Check) -> str:
    return "measured is at most predicted" if check.at_most else EQUAL


def _measured(check: Check, name: str) -> Quantity:
    """Return a check's measured figure; there is none where the engine made no number of it."""
    value = check.measured.value
    finite = not isinstance(value, float) or isfinite(value)
    return replace(check.measured, name=name, value=value if finite else None)


def _layers(simulation: Simulation) -> Table:
    scaled, pairs = simulation.scaled, simulation.layer_checks
    kinds = kind_names(scaled.layers)
    numbers = tuple(fact("layer", n, "from the first") for n in range(len(scaled.layers)))
    named = tuple(fact("kind", kinds[layer], scaled.source) for layer in scaled.layers)
    agree = tuple(fact("agree", a.agree and b.agree, EQUAL) for a, b in pairs)
    return Table(
        "layers",
        "The cache of each layer when the run has ended",
        (
            Column("layer", "layer", numbers),
            Column("kind", "kind", named, 3),
            *_beside("live_bytes", "live", [live for live, _ in pairs], (0, 0)),
            *_beside("allocated_bytes", "allocated", [allocated for _, allocated in pairs], (1, 2)),
            Column("agree", "agree", agree, 4),
        ),
        units=True,
    )


def _beside(
    name: str, label: str, checks: Sequence[Check], priorities: tuple[int, int]
) -> tuple[Column, Column]:
    predicted, measured = f"{name}_predicted", f"{name}_measured"
    plan = tuple(replace(c.predicted, name=predicted) for c in checks)
    run = tuple(_measured(c, measured) for c in checks)
    return (
        Column(predicted, f"{label}\npredicted", plan, priorities[0]),
        Column(measured, f"{label}\nmeasured", run, priorities[1]),
    )


def _logits(simulation: Simulation) -> Facts:
    errors, kv = simulation.measurement.errors, simulation.scenario.kv.name
    return Facts(
        "kv_cost",
        f"What {kv} KV costs",
        (
            _finite("logits_error_share", errors.stored, Unit.SHARE),
            _finite("greedy_tokens_same_share", errors.same_greedy, Unit.SHARE),
        ),
        Shown.NOT,
    )


def _speed(speed: Speed) -> Facts:
    """Return how fast the run was, beside the least time this machine could have taken for it."""
    machine, steps = speed.machine, speed.steps
    word = "decode" if speed.decoding else "prefill"
    read, rate = f"reading {machine.read_bytes:,} bytes again and again", machine.read_bytes_per_s
    product, flops = "float32 product of 1,024 x 1,024 matrices", machine.sgemm_flops_per_s
    bound, step = median(speed.bound_s(s) for s in steps), median(s.seconds for s in steps)
    title = (
        f"Speed here, not in the verdict: {speed.tokens_per_s:,.0f} tokens/s in {word}, "
        f"{_percent(speed.fraction_of_bound)} of the roofline"
    )
    return Facts(
        "speed",
        title,
        (
            fact("read_bytes_per_s", rate, read, Unit.BYTES_PER_SECOND, "reads memory at"),
            fact("sgemm_flops_per_s", flops, product, Unit.FLOPS_PER_SECOND, "multiplies matrices at"),
            fact("step_bound_s", bound, BOUND, Unit.SECONDS, f"{word} step, at least"),
            fact("step_s", step, MEASURED, Unit.SECONDS, f"{word} step, measured"),
        ),
        Shown.LINES,
    )


def _percent(share: float) -> str:
    """Return a share in percent: whole from 10 up, to a tenth below; rounded down, so 99.96% is not all."""
    percent = 100 * share
    return f"{floor(percent)}%" if percent >= 10 else f"{floor(10 * percent) / 10}%"


def _steps(simulation: Simulation, speed: Speed) -> Table:
    steps = simulation.measurement.steps
    columns: tuple[tuple[str, Unit, Callable[[StepRecord], Scalar]], ...] = (
        ("phase", Unit.NONE, lambda step: step.phase.value),
        ("requests", Unit.REQUESTS, lambda step: step.requests),
        ("new_tokens", Unit.TOKENS, lambda step: step.new_tokens),
        ("cached_tokens", Unit.TOKENS, lambda step: step.cached_tokens),
        ("seconds", Unit.SECONDS, lambda step: step.seconds),
        ("bound_seconds", Unit.SECONDS, speed.bound_s),
    )
    numbers = tuple(fact("step", number, "in the order they ran") for number in range(len(steps)))
    return Table(
        "steps",
        "Steps",
        (
            Column("step", "step", numbers),
            *(
                Column(name, name, tuple(fact(name, of(step), MEASURED, unit) for step in steps))
                for name, unit, of in columns
            ),
        ),
        Shown.NOT,
    )


def _verdict(simulation: Simulation) -> Verdict:
    count = len(_named(simulation))
    if simulation.agree:
        text = f"The plan holds: {count} of {count} figures agree."
    else:
        text = f"The plan does not hold: {_differences(simulation)}."
    return Verdict(simulation.agree, text, "agree")


def _differences(simulation: Simulation) -> str:
    """Return how many figures differ, the first with its numbers and the next by name."""
    named, differing = _named(simulation), _differing(simulation)
    (name, check), *others = differing.items()
    predicted, measured = (f"{q.value:,}" for q in (check.predicted, check.measured))
    unit = f" {check.predicted.unit.value}".rstrip()
    told = [f"{name} ({predicted}{unit} predicted, {measured} measured)", *(other for other, _ in others[:3])]
    if len(others) > 3:
        told.append(f"{len(others) - 3} more")
    verb = "differs" if len(differing) == 1 else "differ"
    return f"{len(differing)} of {len(named)} figures {verb}: {', '.join(told)}"


def _named(simulation: Simulation) -> dict[str, Check]:
    """Return every check by its name; those of layers say which."""
    layers = enumerate(simulation.layer_checks)
    return {check.name: check for check in simulation.checks} | {
        f"layers.{number}.{check.label}_bytes": check for number, pair in layers for check in pair
    }


def _differing(simulation: Simulation) -> dict[str, Check]:
    return {name: check for name, check in _named(simulation).items() if not check.agree}


_LOGIT_NOTE = (
    "logit error: decoding from a float32 cache against reading each sequence again at once, as a share of "
    "the largest logit"
)


def _notes(simulation: Simulation) -> tuple[str, ...]:
    model, errors = simulation.model, simulation.measurement.errors
    found = [_LOGIT_NOTE]
    kv = simulation.scenario.kv.name
    if kv != "fp32":
        off = f"{100 * errors.stored:.2g}% (root mean square)"
        found.append(
            f"with {kv} KV the logits of these random weights are off by {off}, and "
            f"{_percent(errors.same_greedy)} of the greedy tokens stay the same; of trained weights this "
            "says nothing"
        )
    if model.vision is not None:
        found.append("the vision tower is left out: the engine reads text")
    return tuple(found)


def _inputs(scenario: Scenario) -> tuple[tuple[str, Scalar | list[int]], ...]:
    allocation = scenario.allocation
    if isinstance(allocation, Paged):
        kept, room = "paged", ("block_tokens", allocation.block_tokens)
    else:
        kept, room = "contiguous", ("max_tokens", allocation.max_tokens)
    return (
        ("prompt_tokens", list(scenario.prompt_tokens)),
        ("new_tokens", scenario.new_tokens),
        ("chunk_tokens", scenario.chunk_tokens),
        ("seed", scenario.seed),
        ("cache", kept),
        room,
    )
