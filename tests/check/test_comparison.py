"""Options beside a baseline: what is measured, how often, and what is said where it is not."""

from dataclasses import replace

import pytest

from kvplan.check import comparison
from kvplan.check.advice import Compared
from kvplan.check.comparison import compare
from kvplan.check.price import EngineError, PriceVariant
from kvplan.errors import UsageError
from kvplan.plan.change import parse_changes
from kvplan.plan.comparison import outcome
from kvplan.plan.setup import Load, Setup
from kvplan.storage import kv_format, weight_format


@pytest.fixture
def setup_of(plan):
    def make(model="llama-3.1-8b", **options):
        capacity = plan(model, **options)
        return Setup(capacity.model, capacity.deployment, Load(16, 1024))

    return make


@pytest.fixture
def asked(monkeypatch):
    """The variants a bench was asked for, in order; prices tell them apart, and int4 weights have none."""
    variants = []

    class Bench:
        def __init__(self, model):
            if model.name == "gpt2":
                raise UsageError("gpt2 is not measured today")

        def price(self, variant):
            variants.append(variant)
            if variant.weights == weight_format("int4"):
                raise UsageError("not measured: no int4 here")
            return EngineError(0.5, len(variants) / 100, 0.9, 128, f"price {len(variants)}")

    monkeypatch.setattr(comparison, "PriceBench", Bench)
    return variants


def run(setup, *texts, what_if=False, measured=True, on_step=lambda _: None):
    options = [parse_changes(text) for text in texts]
    return compare(setup, options, on_step, what_if=what_if, measured=measured)


def priced(found):
    return [row.error.logit_error if row.error else row.unpriced for row in (found.baseline, *found.options)]


def test_options_stand_in_their_order_beside_the_baseline(setup_of, asked):
    setup = setup_of()
    found = run(setup, "tp=2", "kv=fp8", "tp=3")
    assert found.setup == setup
    assert found.baseline.tried.outcome == outcome(setup)
    assert [row.tried.name for row in found.options] == ["tp=2", "kv=fp8", "tp=3"]
    assert [row.tried.outcome is None for row in found.options] == [False, False, True]


def test_what_computes_alike_is_measured_once(setup_of, asked):
    found = run(setup_of(), "chunk=2k", "kv=fp8", "tp=2", "prefix=50%", "spec=4@70%", "kv=fp8,tp=2")
    assert priced(found) == [0.01, 0.01, 0.02, 0.01, 0.01, 0.01, 0.02]
    bf16 = weight_format("bf16")
    assert asked == [PriceVariant(kv_format("bf16"), bf16, None), PriceVariant(kv_format("fp8"), bf16, None)]


def test_the_model_is_part_of_what_is_measured_only_where_it_changes(setup_of, asked):
    setup = setup_of()
    run(setup, "window=512", "window=512,kv=fp8", "weights=fp8", what_if=True)
    models = [variant.model for variant in asked]
    assert [model is None for model in models] == [True, False, False, True]
    assert {layer.mixer.sliding_window for layer in models[1].layers} == {512}
    assert asked[3].weights == weight_format("fp8")


def test_what_has_no_price_says_why(setup_of, asked):
    found = run(setup_of(), "weights=int4", "tp=3", "kv=fp8", "mla")
    assert priced(found) == [
        0.01,
        "not measured: no int4 here",
        "tensor parallel 3 does not divide the model's 32 query heads",
        0.03,
        "another model, that would have to be trained (--what-if)",
    ]


def test_a_model_that_cannot_be_measured_is_planned(setup_of, asked):
    found = run(setup_of("gpt2"), "kv=fp8")
    assert priced(found) == ["gpt2 is not measured today"] * 2
    assert found.options[0].tried.outcome is not None
    assert asked == []


def test_nothing_is_measured_where_that_is_not_asked_for(setup_of, monkeypatch):
    monkeypatch.setattr(comparison, "PriceBench", None)
    found = run(setup_of(), "kv=fp8", measured=False)
    assert priced(found) == ["not measured: --no-measure"] * 2


def test_every_measurement_is_announced(setup_of, asked):
    said = []
    run(setup_of(), "kv=fp8", "tp=3", on_step=said.append)
    assert said == ["running the model scaled down", "measuring baseline", "measuring KV fp8"]


def test_a_baseline_that_cannot_be_planned_is_refused(setup_of, asked):
    setup = setup_of()
    cut = replace(setup.deployment.parallelism, tensor=3)
    with pytest.raises(UsageError, match="tensor parallel 3 does not divide the model's 32 query heads"):
        run(replace(setup, deployment=replace(setup.deployment, parallelism=cut)), "kv=fp8")


def test_prices_of_a_real_model(setup_of):
    found = run(setup_of("smollm2-135m"), "kv=fp8", "kv=int4", "kv_heads=1", "alloc=contiguous", what_if=True)
    plain, fp8, int4, fewer, contiguous = (found.baseline, *found.options)
    assert plain.error == contiguous.error
    assert 0 < plain.error.logit_error < fp8.error.logit_error < int4.error.logit_error < 1
    assert isinstance(fewer, Compared)
    assert (fewer.error, fewer.unpriced) == (
        None,
        "not measured: the changed model needs other weights, trained for it",
    )
