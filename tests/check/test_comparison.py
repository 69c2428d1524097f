"""Options beside a baseline: what is quoted, what is measured and how often, and why neither is."""

from dataclasses import replace

import pytest

from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.check import price
from kvplan.check.comparison import compare
from kvplan.check.measured_price import MeasuredPrice, MeasuredPrices
from kvplan.check.price import EngineError
from kvplan.errors import UsageError
from kvplan.plan.change import parse_changes
from kvplan.plan.comparison import outcome
from kvplan.plan.setup import Load, Setup
from kvplan.storage import weight_format


def quoted(name, change):
    return MeasuredPrice(name, "a-model", change, change - 0.001, change + 0.001, 0.01, 0.9)


BF16, FP8 = quoted("bf16", 0.0), quoted("fp8", 0.25)
PRICES = MeasuredPrices("a-model", "a text", 511, 512, "append", "2026-01-02", "kvplan quality", (BF16, FP8))


@pytest.fixture
def setup_of(plan):
    def make(model="llama-3.1-8b", **options):
        capacity = plan(model, **options)
        return Setup(capacity.model, capacity.deployment, Load(16, 1024))

    return make


@pytest.fixture
def asked(monkeypatch):
    """What a bench was asked for, in order; errors tell that apart, and int4 weights have none."""
    found = []

    class Bench:
        def __init__(self, model):
            found.append(model.name)
            if model.name == "gpt2":
                raise UsageError("gpt2 is not measured today")

        def price(self, weights, model):
            found.append((weights and weights.name, model))
            if weights == weight_format("int4"):
                raise UsageError("not measured: no int4 here")
            return EngineError(0.5, len(found) / 100, 0.9, 128, f"price {len(found)}")

    monkeypatch.setattr(price, "PriceBench", Bench)
    return found


def run(setup, *texts, what_if=False, measured=True, on_step=lambda _: None):
    options = [parse_changes(text) for text in texts]
    return compare(setup, options, on_step, prices=PRICES, what_if=what_if, measured=measured)


def kv_prices(found):
    return [row.kv or row.unquoted for row in (found.baseline, *found.options)]


def errors(found):
    rows = (found.baseline, *found.options)
    return [row.error.logit_error if row.error else row.unmeasured or None for row in rows]


def test_options_stand_in_their_order_beside_the_baseline(setup_of, asked):
    setup = setup_of()
    found = run(setup, "tp=2", "kv=fp8", "tp=3")
    assert found.setup == setup
    assert found.baseline.tried.outcome == outcome(setup)
    assert [row.tried.name for row in found.options] == ["tp=2", "kv=fp8", "tp=3"]
    assert [row.tried.outcome is None for row in found.options] == [False, False, True]


# ------------------------------------------------------------------ quoted


def test_a_kv_format_has_the_price_quoted_and_is_not_run(setup_of, asked):
    found = run(setup_of(), "kv=fp8", "tp=2", "kv=fp8,tp=2", "prefix=50%")
    assert kv_prices(found) == [BF16, FP8, BF16, FP8, BF16]
    assert errors(found) == [None] * 5
    assert asked == [], "not even the reference"


def test_a_baseline_has_the_price_of_its_own_format(setup_of, asked):
    assert kv_prices(run(setup_of(kv="fp8"), "kv=bf16", "tp=2")) == [FP8, BF16, FP8]


def test_a_format_that_was_not_measured_says_how_to(setup_of, asked):
    found = run(setup_of(), "kv=int8")
    how = "kvplan quality MODEL --text FILE --kv int8 measures it"
    assert kv_prices(found) == [BF16, f"int8 KV was not measured on a-model: {how}"]
    assert errors(found) == [None, None]


def test_a_model_without_keys_and_values_has_no_price_of_them(setup_of, asked):
    layers = (Layer(GatedDeltaNet(2, 4, 16, 16, 4), MLP(48)),) * 2
    found = run(setup_of(Model("states", "a test", "bf16", 40, 97, 4096, layers)), "weights=fp8")
    assert kv_prices(found) == ["states caches no keys and values"] * 2


def test_vectors_of_another_model_have_no_price_and_tokens_in_view_change_none(setup_of, asked):
    found = run(setup_of(), "kv_heads=1", "mla", "window=512", "window=512,kv=fp8", what_if=True)
    other = "not measured: the changed model needs other weights, trained for it"
    assert kv_prices(found) == [BF16, other, other, BF16, FP8]


# ------------------------------------------------------------------ measured with random weights


def test_what_computes_alike_is_measured_once(setup_of, asked):
    found = run(setup_of(), "weights=fp8", "kv=fp8", "weights=fp8,kv=fp8", "weights=int8", "weights=fp8,tp=2")
    assert errors(found) == [None, 0.02, None, 0.02, 0.03, 0.02]
    assert kv_prices(found) == [BF16, BF16, FP8, FP8, BF16, BF16]
    assert asked == ["llama-3.1-8b", ("fp8", None), ("int8", None)]


def test_a_baseline_of_other_weights_than_released_is_measured_too(setup_of, asked):
    assert errors(run(setup_of(weights="fp8"), "kv=fp8", "weights=bf16")) == [0.02, 0.02, None]


def test_the_model_is_part_of_what_is_measured_only_where_it_changes(setup_of, asked):
    run(setup_of(), "window=512", "window=512,kv=fp8", "weights=fp8", "window=512,weights=fp8", what_if=True)
    assert [weights for weights, _ in asked[1:]] == [None, "fp8", "fp8"]
    models = [model for _, model in asked[1:]]
    assert [model is None for model in models] == [False, True, False]
    assert {layer.mixer.sliding_window for layer in models[0].layers} == {512}


def test_what_has_no_error_says_why(setup_of, asked):
    found = run(setup_of(), "weights=int4", "tp=3", "weights=fp8", "mla")
    cut = "tensor parallel 3 does not divide the model's 32 query heads"
    another = "another model, that would have to be trained (--what-if)"
    assert errors(found) == [None, "not measured: no int4 here", cut, 0.03, another]
    assert kv_prices(found) == [BF16, BF16, cut, BF16, another]


def test_a_model_that_cannot_be_measured_is_planned_and_tried_once(setup_of, asked):
    found = run(setup_of("gpt2"), "weights=int8", "kv=fp8", "weights=fp8")
    assert errors(found) == [None, "gpt2 is not measured today", None, "gpt2 is not measured today"]
    assert found.options[0].tried.outcome is not None
    assert asked == ["gpt2"]


def test_nothing_is_run_where_that_is_not_asked_for_and_prices_are_quoted(setup_of, asked):
    found = run(setup_of(), "kv=fp8", "weights=fp8", measured=False)
    assert errors(found) == [None, None, "not measured: --no-measure"]
    assert kv_prices(found) == [BF16, FP8, BF16]
    assert asked == []


def test_every_measurement_is_announced(setup_of, asked):
    said = []
    run(setup_of(), "kv=fp8", "weights=fp8", "tp=3", on_step=said.append)
    assert said == ["running the model scaled down", "measuring weights fp8"]


def test_a_baseline_that_cannot_be_planned_is_refused(setup_of, asked):
    setup = setup_of()
    cut = replace(setup.deployment.parallelism, tensor=3)
    with pytest.raises(UsageError, match="tensor parallel 3 does not divide the model's 32 query heads"):
        run(replace(setup, deployment=replace(setup.deployment, parallelism=cut)), "kv=fp8")


def test_errors_of_a_real_bench(setup_of):
    texts = ("weights=int8", "weights=int4", "kv_heads=1", "weights=int8,kv=fp8")
    int8, int4, fewer, both = run(setup_of("smollm2-135m"), *texts, what_if=True).options
    assert 0 < int8.error.logit_error < int4.error.logit_error < 1
    assert both.error == int8.error, "its cache is float32"
    assert (fewer.error, fewer.unmeasured) == (
        None,
        "not measured: the changed model needs other weights, trained for it",
    )
