"""A run beside its plan: figures on the line or off it, and the cache after every step."""

from dataclasses import replace

import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.check.charts.simulation import simulation_chart
from kvplan.check.scenario import Scenario
from kvplan.check.simulation import simulate
from kvplan.storage import kv_format

RUN = Scenario((9, 40), 5, 16, 1, kv_format("fp32"), Paged(16))


@pytest.fixture
def run(bundled):
    """A function from a model's name and a scenario to the simulation of it."""
    return lambda model, scenario=RUN: simulate(bundled(model), scenario, lambda _: None)


def test_every_exact_figure_that_is_not_0_is_a_dot(run):
    simulation = run("llama-3.1-8b")
    dots = simulation_chart(simulation).panels[0].dots
    exact = [check for check in simulation.checks if not check.at_most and check.measured.value]
    assert [(dot.x, dot.y) for dot in dots] == [
        (check.predicted.value, check.measured.value) for check in exact
    ]
    assert all(dot.x == dot.y for dot in dots)
    assert len(dots) > 10


def test_the_title_counts_what_agrees(run):
    simulation = run("llama-3.1-8b")
    count = len(simulation.checks) + 2 * len(simulation.layer_checks)
    title = simulation_chart(simulation).title
    assert title == f"The plan holds: {count} of {count} figures agree, to the byte and the FLOP"


def test_what_differs_is_in_the_title_and_named_off_the_line(run):
    simulation = run("llama-3.1-8b")
    index = next(i for i, check in enumerate(simulation.checks) if check.name.startswith("roofline"))
    check = simulation.checks[index]
    wrong = replace(check, measured=replace(check.measured, value=check.measured.value + 7))
    checks = (*simulation.checks[:index], wrong, *simulation.checks[index + 1 :])
    chart = simulation_chart(replace(simulation, checks=checks))
    count = len(checks) + 2 * len(simulation.layer_checks)
    assert chart.title == f"1 of {count} figures differs: {check.label}"
    (dot,) = [dot for dot in chart.panels[0].dots if dot.x != dot.y]
    assert dot.name == check.label


@pytest.mark.parametrize(
    ("model", "scenario"),
    [
        ("llama-3.1-8b", RUN),
        ("gemma-2-9b", RUN),
        ("qwen3-next-80b-a3b", RUN),
        ("llama-3.1-8b", replace(RUN, allocation=Contiguous(64))),
    ],
)
def test_the_cache_is_drawn_after_every_step_and_ends_as_counted(run, model, scenario):
    simulation = run(model, scenario)
    panel = simulation_chart(simulation).panels[1]
    allocated, live = panel.lines
    # Prompts of 9 and 40 tokens, 16 at a time, and 4 steps of both: the last new token is never cached.
    assert allocated.x == live.x == tuple(range(1, 1 + 1 + 3 + 4))
    layers = simulation.measurement.layers
    assert allocated.y[-1] == sum(layer.allocated for layer in layers)
    assert live.y[-1] == sum(layer.live for layer in layers)
    assert all(low <= high for low, high in zip(live.y, allocated.y, strict=True))
    assert panel.limits[0].at == simulation.prediction.cache_allocated_bytes.number == allocated.y[-1]


def test_bytes_of_a_step_are_those_of_the_tokens_stored_by_then(run):
    simulation = run("llama-3.1-8b")
    allocated, live = simulation_chart(simulation).panels[1].lines
    scaled = simulation.ran
    attention = scaled.layers[0].mixer
    token = len(scaled.layers) * attention.num_key_value_heads * attention.head_dim * 2 * 4
    stored = [(9,), (9, 16), (9, 32), (9, 40), (10, 41), (11, 42), (12, 43), (13, 44)]
    assert live.y == tuple(token * sum(tokens) for tokens in stored)
    blocks = [sum(-(-one // 16) for one in tokens) for tokens in stored]
    assert allocated.y == tuple(token * 16 * count for count in blocks)


def test_what_is_reserved_is_a_limit_where_it_is_more(run):
    simulation = run("llama-3.1-8b")
    limits = {limit.name: limit.at for limit in simulation_chart(simulation).panels[1].limits}
    assert limits["reserved"] == simulation.measurement.cache_bytes >= limits["planned for the end"]
