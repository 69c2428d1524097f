"""The answer of ``kvplan roofline``: totals, shares, derivations, and the sentence at its end."""

from dataclasses import replace

import pytest

from kvplan.allocation import Paged
from kvplan.plan.capacity import plan_capacity
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.plan.roofline import plan_roofline
from kvplan.plan.roofline_report import roofline_report
from kvplan.plan.roofline_steps import Asked
from kvplan.report.export import to_dict
from kvplan.storage import kv_format, state_layout, weight_format

# What issue 4 promises of every operator; the total has the same amounts.
PROMISED = (
    *("name", "flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes", "activation_bytes"),
    *("collective_bytes", "arithmetic_intensity", "limit", "bound_s", "estimate_s"),
)
SUMMED = [name for name in PROMISED if name not in ("name", "arithmetic_intensity", "limit")]
DECODE = Asked(True, (1, 8, 64), 4_096)
CASES = {
    "llama": ("llama-3.1-8b", "h100-sxm", {}, DECODE),
    "llama int8": ("llama-3.1-8b", "l40s", {"weights": "int8", "kv": "int8"}, Asked(True, (3,), 1_000, 5)),
    "gemma-3 packed": ("gemma-3-27b", "rtx4090", {"weights": "q4_k"}, Asked(True, (2,), 3_000)),
    "kivi": ("llama-3.2-3b", "h100-sxm", {"kv": "int4-kivi"}, Asked(True, (9,), 1_001)),
    "mixtral": ("mixtral-8x7b", "h100-sxm", {"cut": Parallelism(4)}, Asked(True, (5,), 777)),
    "mixtral prompts": (
        *("mixtral-8x7b", "h100-sxm", {"cut": Parallelism(4)}),
        Asked(False, (1, 3), 20_000, cached=1_000, usd_per_hour=2.5),
    ),
    "deepseek": (
        *("deepseek-v3", "h200-sxm", {"cut": Parallelism(data=8, expert=8), "weights": "fp8-block"}),
        Asked(True, (256,), 2_000, usd_per_hour=4.0),
    ),
    "deepseek prompts": (
        *("deepseek-v3", "h200-sxm", {"cut": Parallelism(8, expert=8), "weights": "fp8-block"}),
        Asked(False, (2,), 9_000),
    ),
    "qwen3-next": ("qwen3-next-80b-a3b", "h200-sxm", {"cut": Parallelism(2)}, Asked(True, (4,), 50_000)),
    "stages": ("llama-3.1-70b", "h100-sxm", {"cut": Parallelism(2, 3)}, Asked(True, (7,), 2_000)),
    "stages with prompts": (
        *("llama-3.1-70b", "h100-sxm", {"cut": Parallelism(2, 3)}),
        Asked(False, (7,), 9_000),
    ),
    "tokens shared": ("gemma-3-27b", "h100-sxm", {"cut": Parallelism(context=2)}, Asked(True, (2,), 9_001)),
    "gpt2": ("gpt2", "t4", {}, Asked(False, (5,), 700)),
    "mi300x": ("falcon-40b", "mi300x", {"cut": Parallelism(2), "kv": "fp8"}, Asked(True, (2,), 500)),
}


@pytest.fixture(scope="session")
def told(bundled, gpu):
    """A function from a case to its report; the same one each time, as nothing in it changes."""
    found = {}

    def of(case, asked=None):
        if (case, asked) not in found:
            name, device, options, usual = CASES[case]
            model = bundled(name)
            deployment = Deployment(
                device=gpu(device),
                parallelism=options.get("cut", Parallelism()),
                weights=weight_format(options.get("weights", "bf16")),
                kv=kv_format(options.get("kv", "bf16")),
                state=state_layout("transformers"),
                allocation=Paged(64),
                max_tokens=model.max_position_embeddings,
            )
            timed, capacity = plan_roofline(model, deployment), plan_capacity(model, deployment)
            found[case, asked] = roofline_report(timed, capacity, asked or usual, ())
        return found[case, asked]

    return of


cases = pytest.mark.parametrize("case", CASES)


def evaluate(text):
    """Evaluate a formula's printed text with nothing but the functions a reader would expect."""
    return eval(
        text, {"__builtins__": {}}, {"minimum": min, "maximum": max, "ceil_div": lambda a, b: -(-a // b)}
    )


# ------------------------------------------------------------------ derivations


@cases
def test_every_figure_says_where_it_comes_from(case, told, walk):
    for name, figure in told(case).figures():
        for below in walk(figure):
            assert below.formula or below.parts or below.note or below.source, (name, below.name)


@cases
def test_parts_sum_to_their_figure(case, told, walk):
    for name, figure in told(case).figures():
        for below in walk(figure):
            if below.parts:
                parts = [part.amount for part in below.parts]
                assert sum(parts) == below.amount, (name, below.name)
                assert len({part.unit for part in below.parts} | {below.unit}) == 1, (name, below.name)


@cases
def test_printed_formulas_evaluate_to_the_value(case, told, walk):
    checked = set()
    for _, figure in told(case).figures():
        for below in walk(figure):
            if below.formula is None:
                continue
            inputs = {
                name: quantity.amount
                for name, quantity in zip(below.formula.parameters, below.inputs, strict=True)
            }
            key = (below.formula.name, tuple(inputs.values()), below.amount)
            if key not in checked:
                checked.add(key)
                assert evaluate(below.formula.substituted(inputs)) == below.amount, below.formula.expression()
    assert len(checked) > 40


@cases
def test_inputs_are_named_as_the_formula_names_them_or_by_what_they_are(case, told, walk):
    """A figure's inputs all have a name and a unit that prints."""
    for _, figure in told(case).figures():
        for below in walk(figure):
            assert below.name
            assert isinstance(below.unit.value, str)


# ------------------------------------------------------------------ sums


def rows_of(report, batch):
    return [row for row in to_dict(report)["operators"] if row["batch"] == batch]


@cases
def test_json_has_what_is_promised(case, told):
    data = to_dict(told(case))
    for row in data["operators"]:
        assert not set(PROMISED) - row.keys()
        for name in SUMMED:
            assert isinstance(row[name], int | float), name
            assert row[name] >= 0, name
        assert row["limit"] in ("memory", "compute", "latency", "network")
        assert row["bound_s"] <= row["estimate_s"]
    assert not set(PROMISED) - {"name"} - data["total"].keys()
    names = [(row["name"], row["batch"]) for row in data["operators"]]
    assert len({*names}) == len(names)


@cases
def test_the_total_is_the_sum_of_the_last_batchs_operators(case, told):
    data = to_dict(told(case))
    total = data["total"]
    rows = rows_of(told(case), total["batch"])
    piped = case == "stages with prompts"
    for name in SUMMED:
        if not (piped and name.endswith("_s")):
            assert total[name] == pytest.approx(sum(row[name] for row in rows), rel=1e-12), name
    if piped:
        assert total["bound_s"] < sum(row["bound_s"] for row in rows)
    moved = total["weight_bytes"] + total["kv_read_bytes"] + total["kv_write_bytes"]
    assert total["arithmetic_intensity"] == pytest.approx(total["flops"] / moved, rel=1e-12)
    assert total["flops"] == total["matmul_flops"] + total["attention_flops"]


@cases
def test_intensity_is_operations_for_a_byte_of_memory(case, told):
    for row in to_dict(told(case))["operators"]:
        moved = row["weight_bytes"] + row["kv_read_bytes"] + row["kv_write_bytes"]
        assert row["memory_bytes"] == moved
        if row["flops"] and moved:
            assert row["arithmetic_intensity"] == pytest.approx(row["flops"] / moved, rel=1e-12)
        else:
            assert row["arithmetic_intensity"] is None


@cases
def test_shares_are_of_their_own_batch(case, told):
    report = told(case)
    for step in to_dict(report)["steps"]:
        rows = rows_of(report, step["batch"])
        whole = sum(row["estimate_s"] for row in rows)
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        for row in rows:
            assert row["share"] == pytest.approx(row["estimate_s"] / whole, rel=1e-9)
        if case != "stages with prompts":
            assert step["estimate_s"] == pytest.approx(whole, rel=1e-12)
        for name in ("flops", "weight_bytes", "kv_read_bytes"):
            assert step[name] == pytest.approx(sum(row[name] for row in rows), rel=1e-12)


def test_the_last_batch_is_the_total(told):
    data = to_dict(told("llama"))
    assert data["total"]["batch"] == 64
    last = data["steps"][-1]
    assert {name: data["total"][name] for name in last} == last


# ------------------------------------------------------------------ by hand


def test_a_row_of_llama_by_hand(told):
    (row,) = (row for row in rows_of(told("llama"), 8) if row["name"] == "o_proj")
    assert row["flops"] == 2 * 8 * 32 * 4_096**2
    assert row["weight_bytes"] == 2 * 32 * 4_096**2
    assert row["arithmetic_intensity"] == 8
    assert row["bound_s"] == pytest.approx(2 * 32 * 4_096**2 / 3.35e12, rel=1e-12)
    assert row["compute_bound_batch"] == 296
    (attention,) = (row for row in rows_of(told("llama"), 8) if row["name"] == "attention")
    assert attention["arithmetic_intensity"] == 4
    assert attention["compute_bound_batch"] is None


def test_where_the_limit_changes(told):
    found = to_dict(told("llama"))["crossovers"]
    assert found == {
        "ridge_flops_per_byte": pytest.approx(295.343, abs=0.001),
        "kv_overtakes_weights_batch": 28,
    }
    assert list(to_dict(told("mixtral prompts"))["crossovers"]) == ["ridge_flops_per_byte"]


def test_rates_of_tokens(told):
    data = to_dict(told("deepseek"))
    rate = 256 / data["total"]["estimate_s"]
    assert data["total"]["tokens_per_s"] == pytest.approx(rate, rel=1e-12)
    assert data["steps"][-1]["tokens_per_s"] == pytest.approx(rate, rel=1e-12)
    serving = data["serving"]
    assert serving["tokens_per_s_per_gpu"] == pytest.approx(rate / 8, rel=1e-12)
    assert serving["tokens_per_s_per_request"] == pytest.approx(rate / 256, rel=1e-12)
    # 8 GPUs at 4 dollars an hour make rate x 3,600 tokens
    assert serving["usd_per_million_tokens"] == pytest.approx(32 / (rate * 3_600) * 1e6, rel=1e-12)


def test_every_token_that_is_verified_counts(told):
    """Three requests, five tokens each."""
    data = to_dict(told("llama int8"))
    assert data["total"]["tokens_per_s"] == pytest.approx(15 / data["total"]["estimate_s"], rel=1e-12)
    assert data["serving"]["tokens_per_s_per_request"] == pytest.approx(
        5 / data["total"]["estimate_s"], rel=1e-12
    )


def test_prompts_count_the_tokens_they_really_pass(told):
    data = to_dict(told("mixtral prompts"))
    rate = 3 * 19_000 / data["total"]["estimate_s"]
    assert data["total"]["tokens_per_s"] == pytest.approx(rate, rel=1e-12)
    assert data["serving"]["usd_per_million_tokens"] == pytest.approx(10 / (rate * 3_600) * 1e6, rel=1e-12)
    assert "tokens_per_s_per_request" not in data["serving"]


def test_no_price_no_cost(told):
    assert "usd_per_million_tokens" not in to_dict(told("llama"))["serving"]


def test_the_first_token_takes_a_prompt_alone(told):
    alone = to_dict(told("mixtral prompts", Asked(False, (1,), 20_000, cached=1_000)))
    several = to_dict(told("mixtral prompts"))
    for name in ("bound_s", "estimate_s"):
        assert several["serving"][f"ttft_{name}"] == pytest.approx(alone["total"][name], rel=1e-12)
    assert several["total"]["estimate_s"] > 2 * alone["total"]["estimate_s"]


# ------------------------------------------------------------------ words


def test_the_verdict_is_of_the_last_batch(told):
    report = told("llama")
    total = to_dict(report)["total"]
    rate = 64 / total["estimate_s"]
    assert report.verdict.yes
    assert report.verdict.text == (
        f"Memory-bound at batch 64: {1e3 * total['bound_s']:.3g} ms a step at least, "
        f"about {1e3 * total['estimate_s']:.3g} ms ({rate:,.0f} tokens/s). 64% of that goes to: attention."
    )
    (attention,) = (row for row in rows_of(report, 64) if row["name"] == "attention")
    assert attention["share"] == pytest.approx(0.64, abs=0.005)


def test_what_does_not_fit_is_said(told):
    """One H100 holds 59 GB of cache: 64 requests of 8,192 tokens are 68.7 GB."""
    report = told("llama", replace(DECODE, context=8_192))
    assert not report.verdict.yes
    assert report.verdict.text.startswith("Does not fit")
    assert told("llama", replace(DECODE, context=8_192, batches=(64, 8))).verdict.yes


def test_a_step_at_the_models_limit_is_no_longer_than_asked(told):
    """131,072 tokens are as long as Llama-3.1 gets."""
    assert told("llama", Asked(True, (1,), 131_072)).verdict.yes
    assert not told("llama", Asked(True, (1,), 131_073)).verdict.yes


@pytest.mark.parametrize(
    ("case", "asked", "title"),
    [
        ("llama", DECODE, "Decode step, by batch, 4,096 tokens cached"),
        ("llama", Asked(True, (8,), 4_096), "Decode step, batch 8, 4,096 tokens cached"),
        ("llama", Asked(True, (8,), 100, 5), "Decode step, batch 8, 100 tokens cached, 5 tokens each"),
        ("llama", Asked(False, (1_000,), 100), "Prefill, batch 1,000, prompts of 100 tokens"),
        (
            *("llama", Asked(False, (1,), 5_000, cached=4_000)),
            "Prefill, batch 1, prompts of 5,000 tokens, 4,000 of them cached",
        ),
    ],
)
def test_titles(case, asked, title, told):
    assert told(case, asked).section("operators").title == title


def test_assumptions_are_said(told):
    def notes(case):
        return " | ".join(told(case).notes)

    assert "docs/accuracy.md" in notes("llama")
    assert "stages" in notes("stages")
    assert "no kernel of mi300x was measured" in notes("mi300x")
    assert "no kernel" not in notes("llama")
    assert "one box" not in notes("deepseek")


def test_exchanges_beyond_one_box_are_said(bundled, gpu):
    model = bundled("deepseek-v3")
    deployment = Deployment(
        *(gpu("h200-sxm"), Parallelism(data=16, expert=16), weight_format("fp8-block"), kv_format("bf16")),
        *(state_layout("transformers"), Paged(64), 4_096),
    )
    timed, capacity = plan_roofline(model, deployment), plan_capacity(model, deployment)
    report = roofline_report(timed, capacity, Asked(True, (16,), 100), ())
    assert any("exchanges of 16 GPUs are timed as if all shared" in note for note in report.notes)
