"""The answer of ``kvplan compare``: its columns, its notes and its last sentence."""

from dataclasses import replace

import pytest

from kvplan.check.advice import Compared
from kvplan.check.comparison import compare
from kvplan.check.comparison_report import comparison_report
from kvplan.check.price import EngineError
from kvplan.plan.change import parse_changes
from kvplan.plan.setup import Load, Setup
from kvplan.report.export import render_json, to_dict
from kvplan.report.rows import shown_rows
from kvplan.report.table import render_table
from kvplan.report.terminal import Terminal

ERROR = EngineError(0.25, 0.125, 0.5, 128, "a note")


@pytest.fixture
def compared(plan):
    """A function from changes and a setup to options beside it; nothing is measured."""

    def make(*texts, model="llama-3.1-8b", batch=16, context=8192, what_if=True, **options):
        capacity = plan(model, **options)
        setup = Setup(capacity.model, capacity.deployment, Load(batch, context))
        changes = [parse_changes(text) for text in texts]
        return compare(setup, changes, lambda _: None, what_if=what_if, measured=False)

    return make


@pytest.fixture
def reported(compared):
    return lambda *texts, **options: comparison_report(compared(*texts, **options), (("asked", 1),))


def with_errors(comparison, *errors):
    """The comparison with prices; where there is none, the reason."""
    rows = [
        Compared(row.tried, None, error) if isinstance(error, str) else Compared(row.tried, error)
        for row, error in zip((comparison.baseline, *comparison.options), errors, strict=True)
    ]
    return replace(comparison, baseline=rows[0], options=tuple(rows[1:]))


def notes(report, start):
    return [note for note in report.notes if note.startswith(start)]


# ------------------------------------------------------------------ JSON

KEYS = (
    "name applies reason kv_bytes_per_token gpu_kv_bytes_per_token max_batch max_context_tokens "
    "mixed_requests cache_live_share activation_bytes ttft_bound_s ttft_estimate_s decode_step_bound_s "
    "decode_step_estimate_s tokens_per_step rated_batch tokens_per_s full_tokens_per_s gain "
    "arithmetic_intensity kv_share limit engine_error"
).split()


def test_machines_get_the_baseline_once(reported):
    data = to_dict(reported("kv=fp8", "tp=3"))
    assert [row["name"] for row in data["options"]] == ["kv=fp8", "tp=3"]
    assert data["baseline"]["name"] == "baseline"
    assert list(data["baseline"]) == list(data["options"][0]) == KEYS
    assert list(data["baseline"]["engine_error"]) == ["attention_error", "logit_error", "same_greedy", "note"]


def test_an_option_that_does_not_apply_has_its_reason_and_nothing_else(reported):
    (row,) = to_dict(reported("tp=3"))["options"]
    assert (row["name"], row["applies"]) == ("tp=3", False)
    assert row["reason"] == "tensor parallel 3 does not divide the model's 32 query heads"
    rest = {
        key: value for key, value in row.items() if key not in ("name", "applies", "reason", "engine_error")
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
    ]


def test_errors_have_columns_once_one_is_measured(compared):
    report = comparison_report(with_errors(compared("kv=fp8", "mla"), ERROR, ERROR, "no weights"), ())
    labels = [column.label for column in report.section("options").shown_columns()]
    assert labels[-3:] == ["attention\nerror", "logit\nerror", "same\ngreedy"]
    assert rows_of(report)["KV fp8"][-3:] == ("25", "12.5", "50")
    assert rows_of(report)["latent attention of rank 512"][-3:] == ("-", "-", "-")


def test_what_matters_most_is_left_out_last(reported):
    columns = reported("kv=fp8").section("options").shown_columns()
    kept = sorted(columns, key=lambda column: column.priority)
    assert {column.key for column in kept[:3]} == {"name", "max_batch", "gain"}
    assert [column.key for column in kept[3:7]] == [
        "full_tokens_per_s",
        "decode_step_estimate_s",
        "tokens_per_s",
        "ttft_estimate_s",
    ]
    dropped = [column.priority for column in columns if column.priority]
    assert len(dropped) == len(set(dropped))


def test_eighty_columns_hold_whole_numbers(compared):
    comparison = compared("kv=fp8", "weights=fp8,kv=fp8,tp=2", "spec=4@70%", "tp=3")
    report = comparison_report(with_errors(comparison, ERROR, ERROR, ERROR, ERROR, "no"), ())
    lines = render_table(report, Terminal(80)).splitlines()
    assert max(map(len, lines)) <= 80
    (head,) = [line.split() for line in lines if line.startswith("  option")]
    assert head == ["option", "of", "8k", "step", "(ms)", "when", "full", "per", "GPU"]
    (row,) = [line.split() for line in lines if line.startswith("  KV fp8 ")]
    found = comparison.options[0].tried.outcome
    times = (
        comparison.options[0].tried.outcome.full_tokens_per_s
        / comparison.baseline.tried.outcome.full_tokens_per_s
    )
    step = f"{1e3 * found.step.estimate_s:.2f}"
    assert row == [
        "KV",
        "fp8",
        f"{found.max_batch}",
        step,
        f"{found.full_tokens_per_s:,.0f}",
        f"x{times:.2f}",
    ]
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
    assert verdict.text.endswith(" tokens/s for each GPU).")


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
    assert notes(report, "errors: not measured: --no-measure")
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
    assert not notes(reported("mla", model="llama-3.3-70b", gpu="h200-sxm"), "latent")
    options = {"model": "llama-3.3-70b", "tensor": 4}
    for text in ("kv_heads=4", "kv=fp8", "tp=16", "window=4k", "spec=4@70%"):
        assert not any("repeat" in note for note in reported(text, **options).notes)
    assert not any("repeat" in note for note in reported("spec=4@70%", "kv_heads=4", pipeline=2).notes)


def test_prices_are_told_with_what_they_are_not(compared):
    comparison = compared("kv=fp8", "weights=int4", "mla", "kv_heads=1", "tp=3")
    report = comparison_report(with_errors(comparison, ERROR, ERROR, ERROR, "no", "no", "never"), ())
    assert notes(report, "errors are of this model scaled down with random weights")
    assert notes(report, "weights are rounded to nearest")
    assert "latent attention of rank 512, 1 KV head: no" in report.notes
    assert not any("never" in note for note in report.notes)
    kv_only = comparison_report(with_errors(compared("kv=fp8"), ERROR, ERROR), ())
    assert not notes(kv_only, "weights are rounded")
    assert not notes(kv_only, "errors: ")
