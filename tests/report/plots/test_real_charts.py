"""Charts of real plans as pictures: every word inside and on no other, for models of many kinds."""

from dataclasses import replace

import pytest

from kvplan.allocation import Paged
from kvplan.check.charts.compare import compare_chart
from kvplan.check.charts.simulation import simulation_chart
from kvplan.check.comparison import compare
from kvplan.check.measured_price import MeasuredPrice, MeasuredPrices
from kvplan.check.scenario import Scenario, mixed_lengths
from kvplan.check.simulation import simulate
from kvplan.plan.change import parse_changes
from kvplan.plan.charts.frontier import frontier_chart
from kvplan.plan.charts.growth import growth_chart
from kvplan.plan.charts.heat_map import heat_map_chart
from kvplan.plan.charts.memory import memory_chart
from kvplan.plan.charts.roofline import roofline_chart
from kvplan.plan.charts.step_time import step_time_chart
from kvplan.plan.charts.words import Named
from kvplan.plan.roofline import plan_roofline
from kvplan.plan.setup import Load, Setup
from kvplan.report.plots.draw import draw
from kvplan.report.plots.theme import THEMES
from kvplan.storage import kv_format

# Dense, experts and latents on 8 GPUs, windows, one with 1,024 positions, one that does not fit, recurrent
# layers, and one request only.
PLANS = {
    "llama-3.1-8b": ("h100-sxm", {}),
    "deepseek-v3": ("h200-sxm", {"tensor": 8}),
    "gpt-oss-120b": ("h100-sxm", {}),
    "mistral-7b-v0.1": ("rtx4090", {}),
    "gpt2": ("t4", {}),
    "llama-3.1-70b": ("rtx4090", {}),
    "qwen3-next-80b-a3b": ("h200-sxm", {"tensor": 2}),
    "qwen2.5-14b": ("rtx5090", {}),
    "mamba-1.4b": ("rtx4090", {}),
    "jamba-v0.1": ("h200-sxm", {"tensor": 2}),
    "deepseek-v4-flash": ("h200-sxm", {"tensor": 8}),
}
OPTIONS = (
    "kv=fp8",
    "kv=int8",
    "kv=int4",
    "kv=int4-kivi",
    "weights=fp8",
    "weights=int4",
    "tp=2",
    "weights=fp8,kv=fp8",
)
KINDS = ("growth", "frontier", "memory", "step-time", "heat-map", "roofline", "compare", "simulate")


def several(plan, model):
    gpu, options = PLANS[model]
    formats = {
        "as planned": {},
        "KV fp8": {"kv": "fp8"},
        "KV int4": {"kv": "int4"},
        "weights fp8": {"weights": "fp8"},
    }
    return [Named(name, plan(model, gpu, **options, **changed)) for name, changed in formats.items()]


# Of a model with as long a name as the one whose prices come with kvplan.
NO_PRICES = MeasuredPrices(
    "SmolLM2-135M-Instruct",
    "a book",
    5110,
    512,
    "append",
    "2026-01-02",
    "kvplan quality model --text book.txt",
    (),
)


def compared(capacity):
    setup = Setup(capacity.model, capacity.deployment, Load(16, min(8192, capacity.deployment.max_tokens)))
    changes = [parse_changes(text) for text in OPTIONS]
    return compare(setup, changes, lambda _: None, prices=NO_PRICES, what_if=False, measured=False)


def comparison_of(capacity):
    """Options with invented prices, near each other where their formats are."""

    def priced(row, change):
        price = MeasuredPrice("a format", NO_PRICES.model, change, change, change, 0.001, 0.9)
        return replace(row, kv=price, unquoted="", unmeasured="")

    found = compared(capacity)
    options = tuple(priced(row, 0.002 * 1.7**index) for index, row in enumerate(found.options))
    return replace(found, baseline=priced(found.baseline, 0.001), options=options)


def chart_of(kind, model, plan):
    plans = several(plan, model)
    capacity = plans[0].of
    context = min(4096, capacity.deployment.max_tokens)
    most = capacity.max_batch(context)
    match kind:
        case "growth":
            return growth_chart(plans[:3])
        case "frontier":
            return frontier_chart(plans, 32768)
        case "memory":
            return memory_chart(plans)
        case "compare":
            return compare_chart(comparison_of(capacity))
        case "simulate":
            lengths = mixed_lengths(3, 40, 0)
            run = Scenario(lengths, 6, 32, 0, kv_format("bf16"), Paged(16))
            return simulation_chart(simulate(capacity.model, run, lambda _: None))
    roofline = plan_roofline(capacity.model, capacity.deployment)
    if kind == "heat-map":
        return heat_map_chart(capacity, roofline)
    if kind == "roofline":
        return roofline_chart(roofline, 8, context, most)
    return step_time_chart(roofline, 8, context, most, capacity.max_context(8))


@pytest.mark.parametrize("model", PLANS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_word_is_inside_and_on_no_other(kind, model, plan, crowded):
    chart = chart_of(kind, model, plan)
    assert chart.kind == kind
    for theme in THEMES.values():
        assert crowded(draw(chart, theme)) == []


def test_many_models_on_many_accelerators_can_be_read(plan, crowded):
    models = [
        Named(model, plan(model)) for model in ("llama-3.1-8b", "mistral-7b-v0.1", "qwen3-8b", "gemma-3-12b")
    ]
    cards = [
        Named(gpu, plan("llama-3.1-8b", gpu)) for gpu in ("t4", "rtx4090", "l40s", "h100-sxm", "b200-sxm")
    ]
    for chart in (
        growth_chart(models, cards),
        growth_chart(models),
        frontier_chart(cards, 8192),
        memory_chart(cards),
    ):
        assert crowded(draw(chart)) == []


def test_options_without_prices_can_be_read(plan, crowded):
    assert crowded(draw(compare_chart(compared(plan("llama-3.1-8b"))))) == []
