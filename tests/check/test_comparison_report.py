"""The answer of ``kvplan compare``: its columns, its notes and its last sentence."""

from dataclasses import replace

import pytest

from kvplan.check.comparison import compare
from kvplan.check.comparison_report import comparison_report
from kvplan.check.measured_price import MeasuredPrice, MeasuredPrices
from kvplan.check.price import EngineError
from kvplan.plan.change import parse_changes
from kvplan.plan.setup import Load, Setup
from kvplan.report.export import render_json, to_dict
from kvplan.report.rows import shown_rows
from kvplan.report.table import render_table
from kvplan.report.terminal import Terminal

ERROR = EngineError(0.25, 0.125, 0.5, 128, "a note")
BF16 = MeasuredPrice("bf16", "Tiny-1B", 0.0, 0.0, 0.0, 0.0, 1.0)
FP8 = MeasuredPrice("fp8", "Tiny-1B", 0.004, 0.002, 0.006, 0.0005, 0.96)
PRICES = MeasuredPrices(
    "Tiny-1B", "a book", 5110, 512, "append", "2026-01-02", "kvplan quality tiny --text book.txt", (BF16, FP8)
)


@pytest.fixture
def compared(plan):
    """A function from changes and a setup to options beside it; bf16 and fp8 have prices, nothing is run."""

    def make(*texts, model="llama-3.1-8b", batch=16, context=8192, what_if=True, prices=PRICES, **options):
        capacity = plan(model, **options)
        setup = Setup(capacity.model, capacity.deployment, Load(batch, context))
        changes = [parse_changes(text) for text in texts]
        return compare(setup, changes, lambda _: None, prices=prices, what_if=what_if, measured=False)

    return make


@pytest.fixture
def reported(compared):
    return lambda *texts, **options: comparison_report(compared(*texts, **options), (("asked", 1),))


def with_errors(comparison, *errors):
    """The comparison with what was measured of its options; where it was not, the reason."""
    rows = [
        replace(row, error=None, unmeasured=error)
        if isinstance(error, str)
        else replace(row, error=error, unmeasured="")
        for row, error in zip(comparison.options, errors, strict=True)
    ]
    return replace(comparison, options=tuple(rows))


def notes(report, start):
    return [note for note in report.notes if note.startswith(start)]


# ------------------------------------------------------------------ JSON

KEYS = (
    "name applies reason kv_bytes_per_token gpu_kv_bytes_per_token max_batch max_context_tokens "
    "mixed_requests cache_live_share activation_bytes ttft_bound_s ttft_estimate_s decode_step_bound_s "
    "decode_step_estimate_s tokens_per_step rated_batch tokens_per_s full_tokens_per_s gain "
    "arithmetic_intensity kv_share limit kv_price random_error"
).split()


def test_machines_get_the_baseline_once(reported):
    data = to_dict(reported("kv=fp8", "tp=3"))
    assert [row["name"] for row in data["options"]] == ["kv=fp8", "tp=3"]
    assert data["baseline"]["name"] == "baseline"
    assert list(data["baseline"]) == list(data["options"][0]) == KEYS
    assert list(data["baseline"]["random_error"]) == ["attention_error", "logit_error", "same_greedy", "note"]


def test_a_quoted_price_is_one_object_and_says_where_it_is_from(reported):
    data = to_dict(reported("kv=fp8", "kv=int8"))
    assert data["options"][0]["kv_price"] == {
        "perplexity_change": 0.004,
        "perplexity_change_low": 0.002,
        "perplexity_change_high": 0.006,
        "kl_divergence": 0.0005,
        "same_top1": 0.96,
        "note": None,
    }
    assert data["baseline"]["kv_price"]["same_top1"] == 1.0
    *rest, why = data["options"][1]["kv_price"].values()
    assert set(rest) == {None}
    assert why.startswith("int8 KV was not measured on Tiny-1B: kvplan quality MODEL --text FILE --kv int8")
    assert data["quality"] == {
        "model": "Tiny-1B",
        "text": "a book",
        "tokens": 5110,
        "context": 512,
        "when": "append",
        "date": "2026-01-02",
        "command": "kvplan quality tiny --text book.txt",
    }


def test_what_was_run_is_another_object(compared):
    report = comparison_report(with_errors(compared("weights=int4", "mla"), ERROR, "no"), ())
    rows = to_dict(report)["options"]
    assert rows[0]["random_error"] == {
        "attention_error": 0.25,
        "logit_error": 0.125,
        "same_greedy": 0.5,
        "note": "a note",
    }
    assert list(rows[1]["random_error"].values()) == [None, None, None, "no"]
    assert set(to_dict(report)["baseline"]["random_error"].values()) == {None}, "nothing to measure"


def test_an_option_that_does_not_apply_has_its_reason_and_nothing_else(reported):
    (row,) = to_dict(reported("tp=3"))["options"]
    assert (row["name"], row["applies"]) == ("tp=3", False)
    assert row["reason"] == "tensor parallel 3 does not divide the model's 32 query heads"
    rest = {
        key: value
        for key, value in row.items()
        if key not in ("name", "applies", "reason", "kv_price", "random_error")
    }
    assert set(rest.values()) == {None}


def test_every_figure_is_the_options_own(compared):
    comparison = compared("kv=fp8")
    row = to_dict(comparison_report(comparison, ()))["options"][0]
    found = comparison.options[0].tried.outcome
    assert (row["applies"], row["reason"]) == (True, None)
    assert row["kv_bytes_per_token"] == row["gpu_kv_bytes_per_token"] == 65_536
    assert (row["max_batch"], row["max_context_tokens"]) == (found.max_batch, found.max_context)
    assert (row["mixed_requests"], row["cache_live_share"]) == (found.mixed_requests, found.live_share)
    assert row["activation_bytes"] == found.activation_bytes
    assert (row["ttft_bound_s"], row["ttft_estimate_s"]) == (
        found.first_token.bound_s,
        found.first_token.estimate_s,
    )
    assert (row["decode_step_bound_s"], row["decode_step_estimate_s"]) == (
        found.step.bound_s,
        found.step.estimate_s,
    )
    assert (row["tokens_per_step"], row["rated_batch"]) == (1.0, 16)
    assert (row["tokens_per_s"], row["full_tokens_per_s"]) == (found.tokens_per_s, found.full_tokens_per_s)
    assert (row["arithmetic_intensity"], row["kv_share"]) == (found.arithmetic_intensity, found.kv_share)
    assert row["limit"] == "memory"
    assert row["gain"] == found.full_tokens_per_s / comparison.baseline.tried.outcome.full_tokens_per_s


def test_nothing_is_infinite_where_nothing_fits(reported):
    data = to_dict(reported("tp=2", "kv=fp8", model="llama-3.1-70b"))
    render_json(data)  # refuses NaN and infinities
    assert (data["baseline"]["gain"], data["options"][0]["gain"]) == (None, None)
    assert (data["baseline"]["max_batch"], data["baseline"]["tokens_per_s"]) == (0, None)
    assert list(data["advice"]) == ["tp=2"]


# ------------------------------------------------------------------ the table


def rows_of(report):
    table = report.section("options")
    return {row[0]: row for row in shown_rows(table, table.shown_columns())}


def test_a_reader_sees_the_baseline_and_what_applies(reported):
    rows = rows_of(reported("kv=fp8", "tp=3"))
    assert list(rows) == ["baseline", "KV fp8"]
    assert rows["baseline"][1] == "131,072"
    assert rows["KV fp8"][1] == "65,536"


def test_heads_of_columns(reported):
    labels = [column.label for column in reported("kv=fp8", batch=1).section("options").shown_columns()]
    assert labels == [
        "option",
        "KV B\nper token",
        "requests\nof 8k",
        "context\nat batch 1",
        "requests\nmixed",
        "cache\nlive",
        "prefill\npeak",
        "first\ntoken",
        "step",
        "tokens/s",
        "tokens/s\nwhen full",
        "gain\nper GPU",
        "FLOP\nper B",
        "limit",
        "perplexity\nby KV",
        "same top-1\nby KV",
    ]


def test_errors_have_columns_once_one_is_measured(compared):
    comparison = compared("kv=fp8,weights=fp8", "mla", "kv=int8")
    report = comparison_report(with_errors(comparison, ERROR, "no weights", ""), ())
    labels = [column.label for column in report.section("options").shown_columns()]
    assert labels[-4:] == [
        "perplexity\nby KV",
        "same top-1\nby KV",
        "logits off\nrandom",
        "same greedy\nrandom",
    ]
    rows = rows_of(report)
    assert rows["baseline"][-4:] == ("0", "100", "-", "-")
    assert rows["KV fp8, weights fp8"][-4:] == ("+0.40", "96", "12.5", "50")
    assert rows["latent attention of rank 512"][-4:] == ("-",) * 4
    assert rows["KV int8"][-4:] == ("-",) * 4


def test_quotes_have_no_columns_where_none_is_known(compared):
    nothing = replace(PRICES, formats=(FP8,))
    table = comparison_report(compared("tp=2", prices=nothing), ()).section("options")
    assert [column.label for column in table.shown_columns()][-1] == "limit"


def test_what_matters_most_is_left_out_last(compared):
    comparison = compared("kv=fp8", "weights=fp8")
    columns = comparison_report(with_errors(comparison, "", ERROR), ()).section("options").shown_columns()
    kept = sorted(columns, key=lambda column: column.priority)
    assert {column.key for column in kept[:3]} == {"name", "max_batch", "gain"}
    assert [column.key for column in kept[3:9]] == [
        "kv_price.perplexity_change",
        "random_error.logit_error",
        "full_tokens_per_s",
        "decode_step_estimate_s",
        "tokens_per_s",
        "ttft_estimate_s",
    ]
    dropped = [column.priority for column in columns if column.priority]
    assert len(dropped) == len(set(dropped))


def test_eighty_columns_hold_whole_numbers(compared):
    comparison = compared("kv=fp8", "weights=fp8,kv=fp8,tp=2", "spec=4@70%", "tp=3")
    report = comparison_report(with_errors(comparison, "", ERROR, "", "no"), ())
    lines = render_table(report, Terminal(80)).splitlines()
    assert max(map(len, lines)) <= 80
    head = next(line for line in lines if line.startswith("  option"))
    assert head.split() == ["option", "of", "8k", "per", "GPU", "by", "KV", "(%)", "random", "(%)"]
    found = comparison.options[0].tried.outcome
    times = found.full_tokens_per_s / comparison.baseline.tried.outcome.full_tokens_per_s
    rows = [line.split() for line in lines if line.startswith(("  KV fp8 ", "  weights fp8, KV"))]
    assert rows[0] == ["KV", "fp8", f"{found.max_batch}", f"x{times:.2f}", "+0.40", "-"]
    assert rows[1][-2:] == ["+0.40", "12.5"]
    assert any("no room for" in line for line in lines)


def test_reasons_are_listed_for_readers(reported):
    facts = reported("kv=fp8", "tp=3", "kv=bf16").section("not_applied")
    assert [(q.label, q.value) for q in facts.quantities] == [
        ("TP 3", "tensor parallel 3 does not divide the model's 32 query heads"),
        ("KV bf16", "keys and values are bf16 already"),
    ]
    with pytest.raises(KeyError):
        reported("kv=fp8").section("not_applied")


def test_heading(reported):
    assert reported("kv=fp8", batch=1, tensor=2, weights="fp8").heading == (
        "llama-3.1-8b  fp8 weights, bf16 KV   on 2 x NVIDIA H100 SXM5 80GB: 1 request of 8k"
    )


# ------------------------------------------------------------------ the last sentence


def test_verdict_of_a_baseline_that_fits(reported):
    verdict = reported("kv=fp8").verdict
    assert verdict.yes
    assert verdict.text.startswith("16 requests of 8k fit: up to 55 do. Most worth trying: KV fp8 (x1.")
    assert verdict.text.endswith(" tokens/s for each GPU, perplexity +0.40% on Tiny-1B).")


def test_verdict_of_a_single_request(reported):
    said = reported("kv=bf16", batch=1, context=131_072).verdict.text
    assert said.startswith("1 request of 128k fits: up to 3 do. No option here makes 5% more tokens/s")


def test_verdict_of_a_baseline_that_does_not_fit(reported):
    verdict = reported("tp=2", model="llama-3.1-70b").verdict
    assert not verdict.yes
    assert verdict.text == "16 requests of 8k do not fit: not one would. Most worth trying: TP 2."
    some = reported("kv=bf16", batch=56).verdict
    assert (some.yes, some.text[:46]) == (False, "56 requests of 8k do not fit: 55 would. No opt")
    just = reported("kv=bf16", batch=55).verdict
    assert (just.yes, just.text[:35]) == (True, "55 requests of 8k fit: up to 55 do.")
    assert reported("kv=bf16", batch=1, model="llama-3.1-70b").verdict.text.startswith(
        "1 request of 8k does not"
    )


def test_an_option_that_only_answers_sooner_is_not_most_worth_trying(reported):
    report = reported("tp=8", tensor=4)
    (sentence,) = report.section("advice").quantities
    assert sentence.value.startswith("TP 8, on 8 GPUs instead of 4: ")
    said = "No option here makes 5% more tokens/s for each GPU; what helps otherwise is above."
    assert report.verdict.text.endswith(said)


def test_gpus_of_more_than_one_box_are_not_advised(reported):
    report = reported("tp=16", model="deepseek-v3", gpu="h200-sxm", tensor=8)
    assert report.section("advice").quantities == ()
    assert notes(report, "exchanges of 16 GPUs are timed as if all shared")


def test_a_faster_model_is_told_from_a_faster_option(reported):
    text = reported("window=4k", what_if=True).verdict.text
    assert text.endswith("Without another model, no option here makes 5% more tokens/s for each GPU.")


def test_an_assumption_is_said_with_the_best_option(reported):
    text = reported("spec=4@70%").verdict.text
    assert text.endswith(" tokens/s for each GPU, if 70% of guesses are right).")


def test_advice_is_numbered_and_named(reported):
    facts = reported("kv=fp8", "prefix=50%").section("advice")
    assert [(q.name, q.label) for q in facts.quantities] == [("kv=fp8", "1."), ("prefix=50%", "2.")]
    nothing = reported("kv=bf16")
    assert to_dict(nothing)["advice"] == {}
    assert "What to change" not in render_table(nothing, Terminal())
    assert "What to change" in render_table(reported("kv=fp8"), Terminal())


# ------------------------------------------------------------------ notes


def test_notes_that_every_answer_has(reported):
    report = reported("kv=fp8", batch=1)
    assert notes(report, "step: a decode step of 1 request of 8k; first token:")
    assert notes(report, "estimate: median error 11%, 90th percentile 31%, on public")
    assert notes(report, "mixed: requests of 512 to 8k tokens")
    assert notes(report, "perplexity by KV: ")
    assert len(report.notes) == 4


def test_notes_of_what_is_compared(reported):
    assert notes(reported("alloc=contiguous"), "a contiguous cache takes room for 131,072 tokens with each")
    assert notes(reported("alloc=contiguous"), "where fewer than 16 requests of 8k fit")
    assert not notes(reported("alloc=contiguous", batch=3), "where fewer")
    assert notes(reported("spec=4@70%"), "speculation guesses with the head and one more decoder layer")


def test_formats_without_a_matrix_unit_are_told(reported):
    assert notes(reported("weights=fp8", "kv=fp8", gpu="a100-sxm-80gb"), "fp8 ") == [
        "fp8 weights: a100-sxm-80gb has no fp8 unit, so bounds are of its bf16 one",
        "fp8 KV: a100-sxm-80gb has no fp8 unit, so bounds are of its bf16 one",
    ]
    assert not notes(reported("weights=fp8", "kv=fp8"), "fp8 ")
    # A T4 multiplies bf16 in fp16: as many bits.
    assert notes(
        reported("kv=int4", "weights=fp8", gpu="t4"), "fp8 weights: t4 has no fp8 unit, so bounds are"
    )
    assert not any("bf16 unit" in note for note in reported("kv=int4", "weights=fp8", gpu="t4").notes)


def test_what_ranks_repeat_is_told(reported):
    options = {"model": "llama-3.3-70b", "tensor": 8}
    end = "where the baseline has 40,960: tensor-parallel ranks repeat what they cannot cut"
    told = f"latent attention of rank 512: 92,160 B per token on each GPU, {end}"
    assert told in reported("mla", **options).notes
    assert f"1 KV head: 40,960 B per token on each GPU, {end}" in reported("kv_heads=1", **options).notes
    # Half as much on a GPU, where all of them together save three quarters.
    assert notes(reported("kv_heads=2", model="llama-3.3-70b", tensor=4), "2 KV heads: 40,960 B per token on")


def test_nothing_is_told_where_ranks_repeat_nothing(reported):
    whole = reported("mla", model="llama-3.3-70b", gpu="h200-sxm")
    assert not any("repeat" in note for note in whole.notes)
    options = {"model": "llama-3.3-70b", "tensor": 4}
    for text in ("kv_heads=4", "kv=fp8", "tp=16", "window=4k", "spec=4@70%"):
        assert not any("repeat" in note for note in reported(text, **options).notes)
    assert not any("repeat" in note for note in reported("spec=4@70%", "kv_heads=4", pipeline=2).notes)


def test_quotes_are_told_with_all_they_are_of(reported):
    assert notes(reported("kv=fp8"), "perplexity by KV: ") == [
        "perplexity by KV: how far the format raises it on Tiny-1B, against a float32 cache: 5,110 tokens of "
        "a book behind contexts of 512, stored in the format as they came, measured on 2026-01-02 by kvplan "
        "quality tiny --text book.txt; other models pay more or less (--quality FILE)"
    ]
    afterwards = reported("kv=fp8", prices=replace(PRICES, when="prefill"))
    assert (
        "contexts of 512, stored in it after the prompt, measured on"
        in notes(afterwards, "perplexity by KV")[0]
    )
    assert not notes(
        reported("kv=fp8", prices=replace(PRICES, formats=(BF16,), when="append"), kv="int8"), "perp"
    )


def test_latents_are_told_from_keys_and_values(reported):
    options = {"model": "deepseek-v3", "gpu": "h200-sxm", "tensor": 8}
    told = "deepseek-v3 caches latents: their price may be far from that of keys and values"
    assert told in reported("kv=fp8", **options).notes
    assert not any("latents" in note for note in reported("kv=fp8").notes)


def test_what_is_random_is_told_with_what_it_is_not(compared):
    comparison = compared("weights=fp8,kv=fp8", "weights=int4", "mla", "kv_heads=1", "tp=3", "kv=int8")
    report = comparison_report(with_errors(comparison, ERROR, ERROR, "no", "no", "never", ""), ())
    assert notes(report, "random: what other weights, or another model, cost with random weights")
    assert notes(report, "weights are rounded to nearest")
    both = "perplexity is of the KV alone, random of the rest alone; both together cost more"
    assert f"weights fp8, KV fp8: {both}" in report.notes
    assert "latent attention of rank 512; 1 KV head: no" in report.notes
    assert notes(report, "KV int8: int8 KV was not measured on Tiny-1B: kvplan quality")
    assert not any("never" in note for note in report.notes)


def test_nothing_random_is_told_where_nothing_was_run(compared):
    report = comparison_report(compared("kv=fp8"), ())
    assert not any("random" in note for note in report.notes)
    assert not notes(report, "weights are rounded")
    windows = comparison_report(with_errors(compared("window=4k"), ERROR), ())
    assert notes(windows, "random: ")
    assert not notes(windows, "weights are rounded")


def test_a_reason_that_holds_for_all_is_told_once(compared):
    report = comparison_report(compared("tp=2", prices=replace(PRICES, formats=(FP8,))), ())
    assert notes(report, "prices: bf16 KV was not measured on Tiny-1B")
