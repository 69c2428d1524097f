"""A simulation as a report: the plan beside the run, how fast it ran, and whether the plan holds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from kvplan.allocation import Paged
from kvplan.arch.tower import in_words
from kvplan.check.continuation import Continuation
from kvplan.check.scenario import Scenario
from kvplan.check.simulation import COUNTED, Simulation
from kvplan.check.simulation_tables import (
    MEASURED,
    checks_table,
    finite,
    layers_table,
    models_table,
    steps_table,
)
from kvplan.check.simulation_words import (
    all_verdict_in_words,
    counted,
    heading,
    heads_in_words,
    percent,
    requests_in_words,
    verdict_in_words,
)
from kvplan.check.speed import Speed
from kvplan.results import Facts, Report, Scalar, Shown, Verdict, fact
from kvplan.units import Unit

BOUND = (
    "what was counted, at the rates measured: products, then attention, the slower of reading and multiplying"
)
_LOGIT_NOTE = (
    "logit error: decoding from a float32 cache against reading each sequence again at once, as a share of "
    "the largest logit"
)


def simulation_report(
    simulation: Simulation, speed: Speed, files: tuple[tuple[str, Scalar | list[int]], ...]
) -> Report:
    """Return the answer of ``kvplan simulate MODEL``."""
    return Report(
        command="simulate",
        heading=heading(simulation),
        sections=(
            *_text(simulation),
            _answer(simulation, speed),
            _model(simulation),
            checks_table(simulation),
            layers_table(simulation),
            _logits(simulation),
            _speed(simulation, speed),
            steps_table(simulation, speed),
            *simulation.prediction.details(),
        ),
        verdict=Verdict(simulation.agree, verdict_in_words(simulation), "agree"),
        notes=_notes(simulation),
        inputs=(
            *files,
            *_inputs(simulation.scenario, drawn=simulation.continuation is None),
            ("kv", simulation.scenario.kv.name),
        ),
    )


def all_report(simulations: Sequence[Simulation]) -> Report:
    """Return the answer of ``kvplan simulate --all``: a line for each model."""
    agreeing, count = sum(simulation.agree for simulation in simulations), len(simulations)
    each = f"{requests_in_words(simulations[0].scenario)}, on each model"
    return Report(
        command="simulate",
        heading=f"{counted(count, 'model')}, each scaled down, with random weights\n{each}",
        sections=(
            Facts("", "", (fact("agree", agreeing == count, "every model"),), Shown.NOT),
            models_table(simulations),
        ),
        verdict=Verdict(agreeing == count, all_verdict_in_words(simulations), "agree"),
        notes=(_LOGIT_NOTE,),
        inputs=_inputs(simulations[0].scenario, drawn=True),
    )


def _text(simulation: Simulation) -> tuple[Facts, ...]:
    """Return the text that was read and written; a reader to whom it was told needs it no more."""
    continuation = simulation.continuation
    if continuation is None:
        return ()
    (tokens,) = simulation.measurement.tokens
    figures = (
        fact("read", continuation.read, "given"),
        fact("added", continuation.added, "the best token, again and again"),
        fact("added_tokens", len(tokens), COUNTED, Unit.TOKENS, "tokens added"),
        fact("stopped", continuation.stopped, "a stop token ends the text", label="ended by itself"),
    )
    shown = Shown.NOT if continuation.streamed else Shown.LINES
    return (Facts("text", "Text", figures, shown),)


def _answer(simulation: Simulation, speed: Speed) -> Facts:
    share = speed.fraction_of_bound
    return Facts(
        "",
        "",
        (
            fact("agree", simulation.agree, "every figure agrees"),
            fact("tokens_per_s", speed.tokens_per_s, MEASURED, Unit.TOKENS_PER_SECOND),
            fact("step_time_fraction_of_bound", share, MEASURED, Unit.SHARE),
        ),
        Shown.NOT,
    )


def _model(simulation: Simulation) -> Facts:
    model, scaled = simulation.ran, simulation.continuation is None
    return Facts(
        "scaled_model" if scaled else "model",
        "Scaled model" if scaled else "Model",
        (
            fact("name", model.name, model.source),
            fact("layers", len(model.layers), model.source, Unit.LAYERS),
            fact("hidden_size", model.hidden_size, model.source),
            fact("vocab_size", model.vocab_size, model.source),
            fact("heads", heads_in_words(model), model.source),
        ),
        Shown.NOT,
    )


def _logits(simulation: Simulation) -> Facts:
    errors, kv = simulation.measurement.errors, simulation.scenario.kv.name
    return Facts(
        "kv_cost",
        f"What {kv} KV costs",
        (
            finite("logits_error_share", errors.stored, Unit.SHARE),
            finite("greedy_tokens_same_share", errors.same_greedy, Unit.SHARE),
        ),
        Shown.NOT,
    )


def _speed(simulation: Simulation, speed: Speed) -> Facts:
    """Return how fast the run was, beside the least time this machine could have taken for it."""
    machine, steps = speed.machine, speed.steps
    word = "decode" if speed.decoding else "prefill"
    read, rate = f"reading {machine.read_bytes:,} bytes again and again", machine.read_bytes_per_s
    product, flops = "float32 product of 1,024 x 1,024 matrices", machine.sgemm_flops_per_s
    bound, step = median(speed.bound_s(s) for s in steps), median(s.seconds for s in steps)
    title = (
        f"Speed here, not in the verdict: {speed.tokens_per_s:,.0f} tokens/s in {word}, "
        f"{percent(speed.fraction_of_bound)} of the roofline"
    )
    first = fact("first_token_s", speed.first_token_s, MEASURED, Unit.SECONDS, "first token after")
    return Facts(
        "speed",
        title,
        (
            *(() if simulation.continuation is None else (first,)),
            fact("read_bytes_per_s", rate, read, Unit.BYTES_PER_SECOND, "reads memory at"),
            fact("sgemm_flops_per_s", flops, product, Unit.FLOPS_PER_SECOND, "multiplies matrices at"),
            fact("step_bound_s", bound, BOUND, Unit.SECONDS, f"{word} step, at least"),
            fact("step_s", step, MEASURED, Unit.SECONDS, f"{word} step, measured"),
        ),
        Shown.LINES,
    )


def _notes(simulation: Simulation) -> tuple[str, ...]:
    model = simulation.model
    found = [_LOGIT_NOTE]
    if simulation.scenario.kv.name != "fp32":
        found.append(_kv_note(simulation))
    if simulation.continuation is not None:
        found += _text_notes(simulation.continuation)
    if model.towers:
        towers = in_words([tower.name for tower in model.towers])
        found.append(f"{towers} left out: the engine reads text")
    if any(layer.images_only for layer in model.layers):
        found.append("cross-attention layers are passed by: the engine reads text")
    return tuple(found)


def _kv_note(simulation: Simulation) -> str:
    """Return what a format's rounding does to the logits of this run."""
    errors, kv = simulation.measurement.errors, simulation.scenario.kv.name
    off = f"{100 * errors.stored:.2g}% (root mean square)"
    same = f"{percent(errors.same_greedy)} of the greedy tokens stay the same"
    if simulation.continuation is None:
        weights, then = "of these random weights ", "of trained weights this says nothing"
    else:
        weights, then = "", "kvplan quality says what that costs over a text"
    return f"with {kv} KV the logits {weights}are off by {off}, and {same}; {then}"


def _text_notes(continuation: Continuation) -> tuple[str, ...]:
    beside = continuation.beside
    taken = "every token added is the best one, and no chat template is laid round the text"
    if beside.difference is None:
        return (taken, f"logits are not compared with transformers': {beside.told}")
    compared = f"the largest difference of a logit from {beside.told} in float32, over every token here"
    return (taken, f"off transformers: {compared}")


def _inputs(scenario: Scenario, *, drawn: bool) -> tuple[tuple[str, Scalar | list[int]], ...]:
    """Return how a run was asked for; its seed where weights and prompts were drawn from one."""
    allocation = scenario.allocation
    if isinstance(allocation, Paged):
        kept, room = "paged", ("block_tokens", allocation.block_tokens)
    else:
        kept, room = "contiguous", ("max_tokens", allocation.max_tokens)
    return (
        ("prompt_tokens", list(scenario.prompt_tokens)),
        ("new_tokens", scenario.new_tokens),
        ("chunk_tokens", scenario.chunk_tokens),
        *((("seed", scenario.seed),) if drawn else ()),
        ("cache", kept),
        room,
    )
