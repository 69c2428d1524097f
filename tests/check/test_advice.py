"""What is advised, in which order and in which words: of figures made up for the purpose."""

from dataclasses import replace

import pytest

from kvplan.check.advice import (
    LARGEST_RISE,
    LEAST_GAIN,
    MOST_SENTENCES,
    Compared,
    advise,
    gain,
    quoted_price,
    rate_of_gpu,
)
from kvplan.check.change_words import SMALL_CHANGE
from kvplan.check.measured_price import MeasuredPrice
from kvplan.check.price import EngineError
from kvplan.plan.change import parse_changes
from kvplan.plan.comparison import Outcome, Tried
from kvplan.plan.setup import Load, Setup
from kvplan.plan.step_time import Times

BASELINE = Outcome(
    kv_bytes_per_token=1000,
    gpu_kv_bytes_per_token=1000,
    max_context=9000,
    max_batch=50,
    mixed_requests=100,
    live_share=0.9,
    activation_bytes=10,
    first_token=Times(memory_s=0.2),
    step=Times(memory_s=0.01),
    tokens_per_step=1.0,
    batch=16,
    tokens_per_s=1600.0,
    full_tokens_per_s=1000.0,
    kv_share=0.62,
    arithmetic_intensity=4.0,
)
EXACT = EngineError(0.001, 0.0005, 1.0, 128, "a note")
FREE = MeasuredPrice("bf16", "Tiny-1B", 0.0, 0.0, 0.0, 0.0, 1.0)


def priced(change, same_top1=1.0, low=None, high=None):
    """A format's price; without an interval, it is sure."""
    ends = (change if low is None else low, change if high is None else high)
    return MeasuredPrice("a format", "Tiny-1B", change, *ends, 0.001, same_top1)


@pytest.fixture
def option(plan):
    """A function from changes and figures that differ from the baseline's to an option beside it."""
    capacity = plan("llama-3.1-8b")
    start = Setup(capacity.model, capacity.deployment, Load(16, 8192))

    def make(text="", kv=None, error=None, *, batch=16, **figures):
        changes = parse_changes(text) if text else ()
        setup = replace(start, load=replace(start.load, batch=batch))
        for change in changes:
            setup = change.applied(setup)
        return Compared(Tried(changes, setup, replace(BASELINE, **figures)), kv, error=error)

    return make


def sentences(baseline, *options):
    return [one.text for one in advise(baseline, options)]


def advised(baseline, *options):
    return [one.option.tried.name for one in advise(baseline, options)]


# ------------------------------------------------------------------ rates


def test_a_rate_is_of_each_gpu(option):
    assert rate_of_gpu(option(full_tokens_per_s=1000.0)) == 1000
    assert rate_of_gpu(option("tp=4", full_tokens_per_s=1000.0)) == 250
    assert rate_of_gpu(Compared(Tried(parse_changes("tp=4"), None, None, "no"))) == 0
    assert gain(option(), option("tp=4", full_tokens_per_s=3000.0)) == 0.75
    assert gain(option(full_tokens_per_s=0.0), option("kv=fp8")) is None
    assert gain(option(), option("kv=fp8", full_tokens_per_s=0.0)) is None


# ------------------------------------------------------------------ words


def test_a_sentence_has_its_numbers(option):
    found = option(
        "kv=fp8",
        priced(0.0031, 0.977),
        step=Times(memory_s=0.0069),
        max_batch=101,
        full_tokens_per_s=1880.0,
        first_token=Times(memory_s=0.15),
    )
    assert sentences(option(kv=FREE), found) == [
        "KV fp8 (x1.88 tokens/s): 31% less time for a token at batch 16, 101 requests at once instead of 50 "
        "and the first token after 150 ms instead of 200 ms; decode at batch 16 reads 62% KV; perplexity "
        "+0.31% on Tiny-1B"
    ]


def test_weights_are_what_a_step_reads_beside_kv(option):
    found = option("weights=fp8", step=Times(memory_s=0.008), full_tokens_per_s=1200.0)
    assert sentences(option(), found) == [
        "Weights fp8 (x1.20 tokens/s): 20% less time for a token at batch 16; decode at batch 16 reads "
        "38% weights"
    ]


def test_what_it_takes_is_said(option):
    found = option("tp=2", max_batch=125, full_tokens_per_s=2400.0, step=Times(memory_s=0.0098))
    assert sentences(option(), found) == [
        "TP 2, on 2 GPUs instead of 1 (x1.20 tokens/s for each GPU): 125 requests at once instead of 50"
    ]


def test_what_gets_worse_is_said(option):
    found = option(
        "weights=int4",
        max_batch=40,
        step=Times(memory_s=0.0125),
        first_token=Times(memory_s=2.0),
        full_tokens_per_s=1500.0,
    )
    (text,) = sentences(option(), found)
    assert text.startswith(
        "Weights int4 (x1.50 tokens/s): 25% more time for a token at batch 16, 40 requests at once instead "
        "of 50 and the first token after 2 s instead of 200 ms"
    )


def test_a_step_of_several_tokens_is_shared_by_them(option):
    found = option("spec=4@70%", step=Times(memory_s=0.016), tokens_per_step=2.0, full_tokens_per_s=1250.0)
    assert sentences(option(), found) == [
        "Speculation, 4 guesses at 70% (x1.25 tokens/s): 20% less time for a token at batch 16; "
        "if 70% of guesses are right"
    ]


def test_what_has_to_be_so_is_said(option):
    found = option("prefix=50%,spec=2@60%", full_tokens_per_s=2000.0)
    assert sentences(option(), found) == [
        "Prefix caching, 50% shared, speculation, 2 guesses at 60% (x2.00 tokens/s); "
        "if 50% of each request is common to all and if 60% of guesses are right"
    ]


@pytest.mark.parametrize(("most", "said"), [(1, "1 request fits"), (12, "12 requests fit")])
def test_what_makes_it_fit(option, most, said):
    nothing = option(max_batch=0, batch=16, full_tokens_per_s=0.0, tokens_per_s=0.0)
    faster = {"step": Times(memory_s=0.001), "first_token": Times(memory_s=0.1)}
    found = option("weights=int4", max_batch=most, full_tokens_per_s=419.4, **faster)
    assert sentences(nothing, found) == [
        f"Weights int4 (419 tokens/s when full): {said}, where none does now"
    ]


def test_a_step_is_compared_only_where_both_hold_the_batch(option):
    faster = {"step": Times(memory_s=0.005), "full_tokens_per_s": 2000.0}
    assert "less time" in sentences(option(), option("kv=fp8", max_batch=16, **faster))[0]
    assert "less time" not in sentences(option(), option("kv=fp8", max_batch=15, **faster))[0]
    few = option(max_batch=15)
    (text,) = sentences(few, option("kv=fp8", max_batch=30, **faster))
    assert text == "KV fp8 (x2.00 tokens/s): 30 requests at once instead of 15"


def test_a_rate_that_stays_is_not_told(option):
    sooner = {"first_token": Times(memory_s=0.1)}
    told = "Prefix caching, 50% shared: the first token after 100 ms instead of 200 ms; if 50% of each "
    for rate in (960.0, 1000.0, 1040.0):
        (text,) = sentences(option(), option("prefix=50%", full_tokens_per_s=rate, **sooner))
        assert text == f"{told}request is common to all"
    (text,) = sentences(option(), option("prefix=50%", full_tokens_per_s=940.0, **sooner))
    assert text.startswith("Prefix caching, 50% shared (x0.94 tokens/s): the first token")


def test_a_price_is_told_where_it_is_not_the_baselines(option):
    fast = {"full_tokens_per_s": 2000.0}
    assert "perplexity" not in sentences(option(kv=FREE), option("prefix=50%", FREE, **fast))[0]
    assert "perplexity" not in sentences(option(kv=FREE), option("kv=fp8", None, **fast))[0]
    assert "perplexity" not in sentences(option(), option("weights=fp8", error=EXACT, **fast))[0]
    told = "; perplexity +0.40% on Tiny-1B"
    assert sentences(option(kv=FREE), option("kv=fp8", priced(0.004), **fast))[0].endswith(told)


def test_an_error_on_random_weights_is_called_that(option):
    fast = {"full_tokens_per_s": 2000.0}
    quarter = replace(EXACT, logit_error=0.052, same_greedy=0.92)
    (text,) = sentences(option(kv=FREE), option("weights=fp8", FREE, quarter, **fast))
    assert text.endswith("weights; random weights: logits off by 5.2%, 92% of greedy tokens the same")
    # A baseline of such weights has the error itself.
    (text,) = sentences(option("", FREE, quarter), option("prefix=50%", FREE, quarter, **fast))
    assert "random" not in text


def test_options_of_both_kinds_have_both_prices(option):
    found = option("weights=fp8,kv=fp8", priced(0.004), EXACT, full_tokens_per_s=2000.0)
    (text,) = sentences(option(kv=FREE), found)
    assert text.endswith(
        "; perplexity +0.40% on Tiny-1B; random weights: logits off by 0.05%, 100% of greedy tokens the same"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (0.0031, "+0.31%"),
        (-0.0041, "-0.41%"),
        (0.0, "+0.00%"),
        (-0.00004, "+0.00%"),
        (0.1686, "+17%"),
        (54.804, "+5,480%"),
    ],
)
def test_changes_are_told_in_percent(change, said):
    assert quoted_price(priced(change)) == f"perplexity {said} on Tiny-1B" + ", within its error" * (
        change == 0
    )


@pytest.mark.parametrize(
    ("low", "high", "within"), [(-0.01, 0.02, True), (0.0, 0.02, True), (0.0001, 0.02, False)]
)
def test_a_change_that_may_be_none_says_so(low, high, within):
    assert quoted_price(priced(0.003, low=low, high=high)).endswith(", within its error") == within


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0012345, "1.23 ms"),
        (0.0906, "90.6 ms"),
        (0.1886, "189 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (1.622, "1.62 s"),
        (99.96, "100 s"),
        (163.2, "163 s"),
        (999.7, "1,000 s"),
        (12_345.0, "12,345 s"),
    ],
)
def test_times_keep_their_digits(option, seconds, said):
    slow = option(first_token=Times(memory_s=2 * seconds))
    (text,) = sentences(slow, option("prefix=50%", first_token=Times(memory_s=seconds)))
    assert f"the first token after {said} instead of " in text


# ------------------------------------------------------------------ what is worth a sentence


def test_less_than_a_twentieth_is_not_worth_a_sentence(option):
    assert LEAST_GAIN == 1.05
    assert advised(option(), option("kv=fp8", full_tokens_per_s=1049.0)) == []
    assert advised(option(), option("kv=fp8", full_tokens_per_s=1051.0)) == ["kv=fp8"]
    assert advised(option(), option("prefix=50%", first_token=Times(memory_s=0.191))) == []
    assert advised(option(), option("prefix=50%", first_token=Times(memory_s=0.19))) == ["prefix=50%"]


def test_what_holds_no_request_is_not_advised(option):
    sooner = {"first_token": Times(memory_s=0.1)}
    nothing = {"max_batch": 0, "full_tokens_per_s": 0.0, "tokens_per_s": 0.0}
    assert advised(option(), option("weights=fp8", **sooner, **nothing)) == []
    assert advised(option(**nothing), option("weights=fp8", **sooner, **nothing)) == []


def test_another_model_is_not_advised(option):
    assert advised(option(), option("kv_heads=1", full_tokens_per_s=9000.0)) == []
    assert advised(option(), option("kv=fp8,mla", full_tokens_per_s=9000.0)) == []


def test_what_does_not_apply_is_not_advised(option):
    assert advised(option(), Compared(Tried(parse_changes("tp=4"), None, None, "no"))) == []


def test_tokens_that_change_with_the_weights_are_worth_nothing(option):
    half = replace(EXACT, same_greedy=0.5)
    assert advised(option(), option("weights=fp8", error=half, full_tokens_per_s=2000.0)) == []
    first = option("weights=fp8", error=half, full_tokens_per_s=3000.0)
    second = option("kv=fp8", full_tokens_per_s=1600.0)
    assert advised(option(), first, second) == ["kv=fp8", "weights=fp8"]
    # The baseline's own errors are not counted against an option.
    assert advised(option(error=half), option("kv=fp8", error=half, full_tokens_per_s=1051.0)) == ["kv=fp8"]


def test_tokens_that_change_with_the_kv_are_worth_nothing(option):
    half = priced(0.001, same_top1=0.5)
    assert advised(option(kv=FREE), option("kv=fp8", half, full_tokens_per_s=2000.0)) == []
    first = option("kv=fp8", half, full_tokens_per_s=3000.0)
    second = option("prefix=50%", FREE, full_tokens_per_s=1600.0)
    assert advised(option(kv=FREE), first, second) == ["prefix=50%", "kv=fp8"]
    assert advised(option(kv=half), option("prefix=50%", half, full_tokens_per_s=1051.0)) == ["prefix=50%"]
    # Of nothing that stays the same, no share can be told.
    nothing = priced(0.001, same_top1=0.0)
    assert advised(option(kv=nothing), option("kv=fp8", half, full_tokens_per_s=1051.0)) == ["kv=fp8"]


def test_both_kinds_of_change_count(option):
    half = replace(EXACT, same_greedy=0.7)
    both = option("weights=fp8,kv=fp8", priced(0.001, 0.7), half, full_tokens_per_s=2000.0)
    assert advised(option(kv=FREE), both) == [], "0.7 of 0.7 of 2000 is less than 1000"
    both = option("weights=fp8,kv=fp8", priced(0.001, 0.8), half, full_tokens_per_s=2000.0)
    assert advised(option(kv=FREE), both) == ["weights=fp8,kv=fp8"]


def test_kv_that_costs_more_than_a_little_comes_last(option):
    assert (SMALL_CHANGE, LARGEST_RISE) == (0.01, 0.05)
    fast, slow = {"full_tokens_per_s": 5000.0}, {"full_tokens_per_s": 1100.0}
    other = option("prefix=50%", FREE, **slow)
    assert advised(option(kv=FREE), option("kv=fp8", priced(0.0099), **fast), other)[0] == "kv=fp8"
    assert advised(option(kv=FREE), option("kv=fp8", priced(0.0101), **fast), other)[0] == "prefix=50%"
    # By the far end of its interval.
    unsure = priced(0.004, low=-0.002, high=0.0101)
    assert advised(option(kv=FREE), option("kv=fp8", unsure, **fast), other)[0] == "prefix=50%"
    # Against the baseline's own price.
    now = option(kv=priced(0.02))
    assert advised(now, option("kv=fp8", priced(0.0299), **fast), other)[0] == "kv=fp8"
    assert advised(now, option("kv=fp8", priced(0.0303), **fast), other)[0] == "prefix=50%"


def test_few_bits_that_cost_little_come_by_their_worth(option):
    found = option("kv=int4-kivi", priced(0.002), full_tokens_per_s=5000.0)
    other = option("prefix=50%", FREE, full_tokens_per_s=1100.0)
    assert advised(option(kv=FREE), other, found) == ["kv=int4-kivi", "prefix=50%"]


def test_kv_that_costs_as_much_as_a_smaller_model_is_not_advised(option):
    fast = {"full_tokens_per_s": 5000.0}
    assert advised(option(kv=FREE), option("kv=int4", priced(0.0499), **fast)) == ["kv=int4"]
    assert advised(option(kv=FREE), option("kv=int4", priced(0.0501), **fast)) == []
    both = option("weights=fp8,kv=int4", priced(0.0501), EXACT, **fast)
    assert advised(option(kv=FREE), both) == []


def test_the_best_comes_first_and_there_are_not_too_many(option):
    found = advised(
        option(),
        option("kv=fp8", full_tokens_per_s=1200.0),
        option("weights=fp8", full_tokens_per_s=1300.0),
        option("prefix=50%", full_tokens_per_s=1100.0),
        option("spec=4@70%", full_tokens_per_s=1400.0),
        option("chunk=2k", full_tokens_per_s=1060.0),
        option("tp=2", full_tokens_per_s=3000.0),
    )
    assert MOST_SENTENCES == 5
    assert found == ["tp=2", "spec=4@70%", "weights=fp8", "kv=fp8", "prefix=50%"]


@pytest.mark.parametrize("text", ["kv=int4", "kv=int4-kivi", "weights=int4", "weights=q4_k", "weights=q6_k"])
def test_fewer_than_8_bits_of_unknown_price_come_last(option, text):
    few = option(text, full_tokens_per_s=5000.0)
    for other in ("weights=q8_0", "prefix=50%", "weights=int8"):
        assert advised(option(), few, option(other, full_tokens_per_s=1100.0)) == [other, text]


def test_few_bits_of_the_baseline_itself_are_not_held_against_an_option(option):
    now = option()
    stored = replace(option("weights=int4").tried.setup, load=now.tried.setup.load)
    baseline = replace(now, tried=replace(now.tried, setup=stored))
    faster = option("prefix=50%", full_tokens_per_s=1500.0)
    faster = replace(faster, tried=replace(faster.tried, setup=replace(stored, load=faster.tried.setup.load)))
    slower = option("kv=fp8", full_tokens_per_s=1200.0)
    assert advised(baseline, slower, faster) == ["prefix=50%", "kv=fp8"]


def test_of_those_that_change_the_same_things_the_best_is_named(option):
    found = advised(
        option(),
        option("kv=fp8", full_tokens_per_s=1800.0),
        option("kv=int8", full_tokens_per_s=1700.0),
        option("kv=int4", full_tokens_per_s=3000.0),
        option("kv=int4-kivi", full_tokens_per_s=2900.0),
    )
    assert found == ["kv=fp8", "kv=int4"]


def test_what_is_worth_no_more_than_a_part_of_it_is_left_out(option):
    part, whole = option("tp=2", full_tokens_per_s=4000.0), option("kv=fp8,tp=2", full_tokens_per_s=3900.0)
    assert advised(option(), part, whole) == ["tp=2"]
    little = option("kv=fp8,tp=2", full_tokens_per_s=4100.0)
    assert advised(option(), part, little) == ["tp=2"], "2.5% is less than the estimate can tell"
    better = option("kv=fp8,tp=2", full_tokens_per_s=4300.0)
    assert advised(option(), part, better) == ["kv=fp8,tp=2", "tp=2"]
    # Not of its values: another degree is no part of it.
    other = option("tp=4", full_tokens_per_s=9000.0)
    assert advised(option(), other, better) == ["tp=4", "kv=fp8,tp=2"]


def test_where_nothing_fits_whatever_fits_is_advised_by_its_rate(option):
    nothing = option(max_batch=0, full_tokens_per_s=0.0, tokens_per_s=0.0)
    found = advised(
        nothing,
        option("offload=50%", full_tokens_per_s=10.0),
        option("tp=2", full_tokens_per_s=300.0),
        option("weights=fp8", full_tokens_per_s=200.0),
    )
    assert found == ["weights=fp8", "tp=2", "offload=50%"]
