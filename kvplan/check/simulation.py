"""A model planned and run, scaled down or whole: every figure of the plan beside what the engine counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kvplan.arch.model import Model
from kvplan.arch.scale_down import scaled_down
from kvplan.check.continuation import Continuation
from kvplan.check.measurement import Measurement, Progress, measure
from kvplan.check.scenario import Scenario
from kvplan.engine import generation as engine
from kvplan.engine.random_weights import random_weights
from kvplan.plan.requests import Request
from kvplan.plan.run import ENGINE_DTYPE, RunPrediction, predict_run
from kvplan.plan.run_work import RunWork, run_work
from kvplan.results import Quantity, fact

# Cached decoding must give the logits of reading the sequence again to this share of the largest one.
LOGIT_TOLERANCE = 1e-4

COUNTED = "counted by the engine where its arrays are touched"


@dataclass(frozen=True, slots=True)
class Check:
    """A figure of the plan beside the engine's; they agree when they are equal to the last unit.

    Where ``at_most``, what is predicted is a bound: they agree when the measured one is within it.
    """

    label: str
    predicted: Quantity
    measured: Quantity
    at_most: bool = False

    @property
    def name(self) -> str:
        """The figure's name."""
        return self.predicted.name

    @property
    def agree(self) -> bool:
        """Whether the measured figure is the predicted one, or within it where that is a bound."""
        predicted, measured = self.predicted.value, self.measured.value
        if self.at_most:
            assert isinstance(predicted, float)
            assert isinstance(measured, float)
            return measured <= predicted
        return predicted == measured


@dataclass(frozen=True, slots=True)
class Simulation:
    """A plan, its run, and their figures side by side.

    Args:
        model: what was asked for.
        ran: what ran: the model scaled down, or all of it in float32.
        scenario: how it ran.
        prediction, measurement: the plan of the run, and what was counted.
        checks, layer_checks: both side by side; of each layer live and allocated bytes.
        continuation: the text that was read and written, where it was one.
    """

    model: Model
    ran: Model
    scenario: Scenario
    prediction: RunPrediction
    measurement: Measurement
    checks: tuple[Check, ...]
    layer_checks: tuple[tuple[Check, Check], ...]
    continuation: Continuation | None = None

    @property
    def agree(self) -> bool:
        """Whether every figure agrees."""
        return not self.disagreeing

    @property
    def disagreeing(self) -> tuple[Check, ...]:
        """The figures that differ."""
        layers = (check for pair in self.layer_checks for check in pair)
        return tuple(check for check in (*self.checks, *layers) if not check.agree)


def simulate(
    model: Model,
    scenario: Scenario,
    on_step: Progress,
    *,
    layers: int | None = None,
    hidden_size: int | None = None,
) -> Simulation:
    """Scale a model down, run it on weights and prompts drawn from the scenario's seed, and compare.

    Raises:
        UsageError: the scenario cannot be run on this model.
    """
    ran = scaled_down(model, layers=layers, hidden_size=hidden_size)
    weights, requests = random_weights(ran, scenario.seed), drawn_requests(ran, scenario)
    measurement = measure(ran, weights, requests, scenario, on_step)
    return beside_plan(model, ran, scenario, measurement)


def drawn_requests(model: Model, scenario: Scenario) -> list[engine.Request]:
    """Return requests whose prompts are drawn from the scenario's seed."""
    generator = np.random.default_rng([scenario.seed, 1])
    return [
        engine.Request(generator.integers(0, model.vocab_size, length), scenario.new_tokens)
        for length in scenario.prompt_tokens
    ]


def beside_plan(model: Model, ran: Model, scenario: Scenario, measurement: Measurement) -> Simulation:
    """Plan exactly the requests that were run, and compare.

    Raises:
        UsageError: the scenario cannot be run on this model.
    """
    added = [len(tokens) for tokens in measurement.tokens]
    requests = [Request(*lengths) for lengths in zip(scenario.prompt_tokens, added, strict=True)]
    prediction = predict_run(ran, requests, scenario.kv, scenario.allocation, scenario.chunk_tokens)
    steps = run_work(ran, requests, scenario.kv, scenario.allocation, scenario.chunk_tokens, ENGINE_DTYPE)
    return Simulation(
        model,
        ran,
        scenario,
        prediction,
        measurement,
        _checks(prediction, steps, measurement),
        _layer_checks(prediction, measurement),
    )


def _measured(like: Quantity, value: int | float) -> Quantity:
    return fact("measured", value, COUNTED, like.unit)


def _check(label: str, predicted: Quantity, value: int | float) -> Check:
    return Check(label, predicted, _measured(predicted, value))


def _checks(plan: RunPrediction, steps: RunWork, run: Measurement) -> tuple[Check, ...]:
    """Return the figures of the whole run, those of the plan beside those of the engine."""
    live, allocated = (sum(getattr(b, kind) for b in run.layers) for kind in ("live", "allocated"))
    checks = [
        _check("weights", plan.weights_bytes, run.weights_bytes),
        _check("cache live", plan.cache_live_bytes, live),
        _check("cache allocated", plan.cache_allocated_bytes, allocated),
    ]
    if plan.cache_blocks is not None:
        checks.append(_check("cache blocks", plan.cache_blocks, run.blocks))
    for word, work, counted in (("prefill", plan.prefill, run.prefill), ("decode", plan.decode, run.decode)):
        checks += [
            _check(f"{word} matmul", work.matmul_flops, counted.matmul_flops),
            _check(f"{word} attention", work.attention_flops, counted.attention_flops),
            _check(f"{word} cache read", work.cache_read_bytes, counted.cache_read_bytes),
            _check(f"{word} cache written", work.cache_written_bytes, counted.cache_written_bytes),
        ]
    checks += _step_checks(steps, run)
    if plan.decode_intensity.value is not None:
        intensity = run.decode.attention_flops / run.decode.cache_read_bytes
        checks.append(_check("decode attention intensity", plan.decode_intensity, intensity))
    tolerance = fact("cached_logit_error", LOGIT_TOLERANCE, "kvplan: float32 arithmetic in another order")
    error = _measured(tolerance, run.errors.cached)
    checks.append(Check("cached against recomputed logits", tolerance, error, at_most=True))
    return tuple(checks)


def _step_checks(steps: RunWork, run: Measurement) -> tuple[Check, ...]:
    """Return what the operators of every step add up to, as the roofline reckons, beside what was counted."""
    both = (run.prefill, run.decode)
    return (
        _check("roofline matmul", steps.matmul_flops, sum(c.matmul_flops for c in both)),
        _check("roofline attention", steps.attention_flops, sum(c.attention_flops for c in both)),
        _check("roofline cache read", steps.kv_read_bytes, sum(c.cache_read_bytes for c in both)),
        _check("roofline cache written", steps.kv_write_bytes, sum(c.cache_written_bytes for c in both)),
    )


def _layer_checks(plan: RunPrediction, run: Measurement) -> tuple[tuple[Check, Check], ...]:
    """Return each layer's live and allocated cache bytes."""
    return tuple(
        (_check("live", live, counted.live), _check("allocated", allocated, counted.allocated))
        for (live, allocated), counted in zip(plan.layers, run.layers, strict=True)
    )
