"""What a step means for users: first token, tokens a second, a closed loop, other runtimes, cost."""

from __future__ import annotations

from kvplan.hardware.runtime_fits import RuntimeFit
from kvplan.plan.roofline import Roofline
from kvplan.plan.roofline_figures import equal_part, tokens_over_time
from kvplan.plan.roofline_steps import Asked, Told, rate, tokens
from kvplan.plan.runtime_step import decode_s, prefill_s
from kvplan.plan.serving import steady_state, time_to_first_token, usd_per_million_tokens
from kvplan.results import Facts, Quantity, computed, fact
from kvplan.units import Unit, short_count


def serving_sections(roofline: Roofline, asked: Asked, one: Told) -> tuple[Facts, ...]:
    """Return what a server that runs these steps gives its users."""
    closed, own = _closed_loop(roofline, asked, one), _runtime(roofline, asked, one)
    return (_serving(roofline, asked, one), *closed, *own)


def _serving(roofline: Roofline, asked: Asked, one: Told) -> Facts:
    first = time_to_first_token(roofline, asked.context, asked.cached)
    gpus = roofline.deployment.parallelism.gpus
    rated = rate(one)
    prompt = f"first token, prompt of {short_count(asked.context)}, at least"
    figures = [
        _seconds("ttft_bound_s", first.bound_s, prompt),
        _seconds("ttft_estimate_s", first.estimate_s, "and about"),
        _each("tokens_per_s_per_gpu", rated, fact("gpus", gpus, "of the deployment", Unit.GPUS), "GPU"),
    ]
    if asked.decoding:
        batch = fact("batch", one.batch, "asked for", Unit.REQUESTS)
        figures.append(_each("tokens_per_s_per_request", rated, batch, "request"))
    if asked.usd_per_hour is not None:
        figures.append(_cost(asked.usd_per_hour, gpus, rated))
    return Facts("serving", "Serving", tuple(figures))


def _closed_loop(roofline: Roofline, asked: Asked, one: Told) -> tuple[Facts, ...]:
    """Return what requests settle to that replace each other, prompts of new ones read between tokens."""
    if asked.output is None:
        return ()
    state = steady_state(roofline, one.batch, asked.context, asked.output)
    note = "passes that read prompts of new requests are in it: kvplan.plan.serving, docs/timing.md"
    each, a_second = state.each_token, Unit.TOKENS_PER_SECOND

    def told(name: str, value: object, unit: Unit, label: str) -> Quantity:
        assert isinstance(value, int | float)
        return Quantity(name, float(value), unit, label, note=note)

    whole = told("tokens_per_s", state.tokens_per_s, a_second, "tokens/s of all requests")
    figures = [
        told("tpot_bound_s", each.bound_s, Unit.SECONDS, "each token after the first, at least"),
        told("tpot_estimate_s", each.estimate_s, Unit.SECONDS, "and about"),
        whole,
        told("tokens_per_s_per_gpu", state.tokens_per_s_and_gpu, a_second, "tokens/s of each GPU"),
        told(
            "tokens_per_s_per_request", state.tokens_per_s_and_request, a_second, "tokens/s of each request"
        ),
    ]
    if asked.usd_per_hour is not None:
        figures.append(_cost(asked.usd_per_hour, roofline.deployment.parallelism.gpus, whole))
    prompt, output = short_count(asked.context), short_count(asked.output)
    title = f"Closed loop of {one.batch:,}: prompts of {prompt}, outputs of {output}"
    return (Facts("closed_loop", title, tuple(figures)),)


def _runtime(roofline: Roofline, asked: Asked, one: Told) -> tuple[Facts, ...]:
    """Return the times that a runtime with kernels of its own is expected to take."""
    fit = asked.runtime
    if fit is None:
        return ()
    prompts = roofline.prefill(one.batch, asked.context, asked.cached)
    reading = _expected("prefill_estimate_s", prefill_s(roofline, fit, *prompts), fit, "reading the prompts")
    figures = [reading]
    if asked.decoding:
        step = decode_s(roofline, fit, one.batch, asked.context)
        figures.insert(0, _expected("decode_step_estimate_s", step, fit, "a decode step"))
        rate = computed("tokens_per_s", tokens_over_time, tokens(one), figures[0], label="tokens/s")
        figures.insert(1, rate)
    error = fact("median_error", fit.median_error, fit.source, Unit.SHARE, "median error of decode")
    return (Facts("runtime", f"With {fit.runtime.value}", (*figures, error)),)


def _expected(name: str, seconds: object, fit: RuntimeFit, label: str) -> Quantity:
    assert isinstance(seconds, int | float)
    return fact(name, float(seconds), fit.source, Unit.SECONDS, label)


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
