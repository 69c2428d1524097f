"""The whole answer: every figure explains itself, parts sum, and printed formulas evaluate to their value."""

from dataclasses import replace

import pytest

from kvplan.plan.capacity import plan_capacity
from kvplan.plan.capacity_report import capacity_report
from kvplan.plan.deployment import Parallelism
from kvplan.results import Facts

REPORTS = {
    "llama": ("llama-3.1-8b", "h100-sxm", {}),
    "gemma-2 int8": ("gemma-2-9b", "rtx4090", {"kv": "int8", "weights": "q4_k"}),
    "gemma-3 with its tower": ("gemma-3-27b", "h100-sxm", {"tensor": 2, "weights": "int4-gptq"}),
    "gpt-oss released": ("gpt-oss-20b", "rtx5090", {}),
    "deepseek released": ("deepseek-v3", "h200-sxm", {"tensor": 8}),
    "deepseek pipeline": ("deepseek-v3", "b300-sxm", {"pipeline": 4, "kv": "fp8"}),
    "uneven stages": ("gemma-3-27b", "h100-sxm", {"pipeline": 3}),
    "qwen3-next": ("qwen3-next-80b-a3b", "h200-sxm", {"tensor": 2, "state": "vllm", "data": 2}),
    "gpt2 contiguous": ("gpt2", "l4", {"contiguous": True, "weights": "fp32"}),
    "mistral": ("mistral-7b-v0.1", "mi300x", {"block": 128, "kv": "int4"}),
    "too small": ("llama-3.1-70b", "rtx4090", {}),
    "no driver reading": ("llama-3.1-8b", "gaudi3", {"weights": "nvfp4"}),
    "experts shared": ("deepseek-v3", "h200-sxm", {"cut": Parallelism(data=8, expert=8)}),
    "tokens shared": ("gemma-3-27b", "h100-sxm", {"cut": Parallelism(pipeline=2, context=3)}),
    "tokens and a contiguous cache": ("yi-34b", "h100-sxm", {"cut": Parallelism(context=2), "contiguous": 1}),
    "tokens and states": ("qwen3-next-80b-a3b", "h200-sxm", {"cut": Parallelism(2, expert=4, context=2)}),
    "falcon": ("falcon-40b", "a100-sxm-80gb", {"tensor": 4, "overhead": 12_345}),
}


def report_of(plan, case, contexts=(1, 4_096, 8_193, 1 << 20), batches=(1, 7, 64)):
    name, device, options = REPORTS[case]
    capacity = plan(name, device, **{key: value for key, value in options.items() if key != "cut"})
    if "cut" in options:
        deployment = replace(capacity.deployment, parallelism=options["cut"])
        capacity = plan_capacity(capacity.model, deployment)
    return capacity, capacity_report(
        capacity, contexts, batches, decide_context=4_096, decide_batch=1, inputs=()
    )


def evaluate(text):
    """Evaluate a formula's printed text with nothing but the functions a reader would expect."""
    names = {
        "ceil_div": lambda count, divisor: -(-count // divisor),
        "minimum": min,
        "maximum": max,
        "max": max,
        "min": min,
    }
    return eval(text, {"__builtins__": {}}, names)


@pytest.mark.parametrize("case", REPORTS)
def test_every_figure_says_where_it_comes_from(case, plan, walk):
    for name, figure in report_of(plan, case)[1].figures():
        for below in walk(figure):
            assert below.formula or below.parts or below.note or below.source, (name, below.name)


@pytest.mark.parametrize("case", REPORTS)
def test_parts_sum_exactly(case, plan, walk):
    for name, figure in report_of(plan, case)[1].figures():
        for below in walk(figure):
            if below.parts:
                assert sum(part.number for part in below.parts) == below.number, (name, below.name)


@pytest.mark.parametrize("case", REPORTS)
def test_printed_formulas_evaluate_to_the_value(case, plan, walk):
    checked = set()
    for _, figure in report_of(plan, case)[1].figures():
        for below in walk(figure):
            if below.formula is None:
                continue
            inputs = {
                name: quantity.number
                for name, quantity in zip(below.formula.parameters, below.inputs, strict=True)
            }
            key = (below.formula.name, tuple(inputs.values()), below.number)
            if key in checked:
                continue
            checked.add(key)
            assert evaluate(below.formula.substituted(inputs)) == below.number, below.formula.expression()
    assert len(checked) > 20


@pytest.mark.parametrize("case", REPORTS)
def test_where_the_memory_goes_sums_to_the_total(case, plan):
    memory = {q.name: q.number for q in report_of(plan, case)[1].section("memory").quantities}
    spent = memory["weights_bytes"] + memory["activation_bytes"] + memory["overhead_bytes"]
    assert spent + memory["kv_pool_bytes"] - memory.get("shortfall_bytes", 0) == memory["total_bytes"]


@pytest.mark.parametrize("case", REPORTS)
def test_what_the_search_tried_is_shown(case, plan):
    """The number found is beside the bytes it needs; the next one's bytes pass the pool."""
    _, report = report_of(plan, case)
    for key, value in (("max_batch", "batch"), ("max_context", "context_tokens")):
        for row in report.section(key).rows():
            (found,) = (q for q in row[1:] if q.name == value)
            *tried, pool, limit = found.inputs
            assert len(tried) == (2 if found.number else 1)
            assert tried[0].number <= pool.number or not found.number
            stopped_by_length = limit.number in (found.number, row[0].number) or row[0].number > limit.number
            assert tried[-1].number > pool.number or stopped_by_length or not pool.number


def figures(report, key):
    section = report.section(key)
    assert isinstance(section, Facts)
    return {q.name: q.value for q in section.quantities}


def test_contract_of_a_plain_plan(plan):
    _, report = report_of(plan, "llama")
    assert figures(report, "model") == {
        "name": "llama-3.1-8b",
        "params_total": 8_030_261_248,
        "params_active": 8_030_261_248,
    }
    assert figures(report, "gpu") == {"name": "h100-sxm", "count": 1, "memory_bytes": 85_520_809_984}
    assert figures(report, "kv") == {
        "bytes_per_token": 131_072,
        "bytes_per_token_per_gpu": 131_072,
        "state_bytes_per_sequence": 0,
        "block_tokens": 16,
        "pool_blocks": 28_227,  # 59,196,930,457 / 2,097,152 = 28,227.3
        "pool_tokens": 451_632,
    }
    rows = [{q.name: q.value for q in row} for row in report.section("growth").rows()]
    assert rows[2] == {
        "context_tokens": 8_193,
        "kv_live_bytes": 8_193 * 131_072,
        "kv_allocated_bytes": 8_208 * 131_072,
        "fits": True,
        "max_batch": 55,
    }
    assert rows[3]["fits"] is False
    assert rows[3]["max_batch"] == 0


def test_figures_of_many_gpus_are_the_most_loaded_ones(plan):
    _, report = report_of(plan, "qwen3-next")
    assert figures(report, "gpu")["count"] == 4
    kv = figures(report, "kv")
    assert (kv["bytes_per_token"], kv["bytes_per_token_per_gpu"]) == (24_576, 12_288)
    assert kv["state_bytes_per_sequence"] == 39_518_208
    _, report = report_of(plan, "deepseek pipeline")
    assert figures(report, "kv")["bytes_per_token_per_gpu"] == 16 * 576


def test_assumptions_are_said(plan):
    assert report_of(plan, "llama", contexts=(4_096,))[1].notes == ()
    notes = report_of(plan, "no driver reading")[1].notes
    assert "no driver reading is known for gaudi3: planned on the 128 GB it is sold with" in notes
    (state, *_) = report_of(plan, "qwen3-next")[1].notes
    assert state.startswith("recurrent state as vllm stores it: ")
    (fullest,) = report_of(plan, "deepseek pipeline", contexts=(4_096,))[1].notes
    assert "tp 1 x pp 4 x dp 1" in fullest
    assert "stage 3 of 4" in fullest


COUNTED = "the vision tower is counted in the weights"


def notes_of(capacity):
    report = capacity_report(capacity, (1_024,), (1,), decide_context=1_024, decide_batch=1, inputs=())
    return report.notes


def test_what_is_counted_of_encoders_is_said(plan):
    """Its weights; that tensor parallelism leaves it whole; that no file describes it; that it is missing."""
    alone, shared = plan("gemma-3-4b", "h100-sxm"), plan("gemma-3-4b", "h100-sxm", tensor=2)
    assert notes_of(alone) == (f"{COUNTED}; images take tokens like text",)
    whole = "whole on each GPU (vLLM's --mm-encoder-tp-mode data)"
    assert f"{COUNTED}, {whole}; images take tokens like text" in notes_of(shared)
    (tower,) = alone.model.towers
    assumed = replace(alone.model, towers=(replace(tower, assumed=True),))
    said = "the vision tower is of the class's own sizes: the model's file does not describe it"
    assert said in notes_of(plan_capacity(assumed, alone.deployment))
    missing = replace(alone.model, towers=(), missing_towers=("vision_tower", "audio_tower"))
    assert notes_of(plan_capacity(missing, alone.deployment)) == (
        "the vision tower and the audio tower are not counted: their weights come on top",
    )
