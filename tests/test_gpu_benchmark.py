"""benchmarks/gpu: all that needs no torch, on made-up times.

The measuring runs in .ci/run, where torch is: ``python benchmarks/gpu/measure.py --device cpu --smoke``.
"""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from kvplan.errors import UsageError
from kvplan.hardware.efficiency import HOST_PER_STEP, Kernel
from kvplan.plan.roofline import plan_roofline
from kvplan.specs.catalog import Found, load_gpu
from kvplan.units import GIB

FOLDER = Path(__file__).parents[1] / "benchmarks" / "gpu"


def load(*names):
    """Import scripts that find each other because they are in one folder."""
    sys.path.insert(0, str(FOLDER))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(FOLDER))


card, cells, fit, measure, prediction, report, sizes = load(
    "card", "cells", "fit", "measure", "prediction", "report", "sizes"
)

PARAMETERS = 8_030_261_248  # Llama-3.1-8B's, as published
TABLE = 128_256 * 4_096  # its embedding
TOKEN_AND_LAYER_BYTES = 2 * 8 * 128 * 2  # a key and a value of 8 heads in 16 bits


@pytest.fixture
def plan(bundled, gpu):
    return prediction.Plan(bundled("llama-3.1-8b"), gpu("h100-sxm"))


def predicted(bound_s, estimate_s=1.0, moved_bytes=0.0, flops=0.0):
    return prediction.Predicted(bound_s, estimate_s, moved_bytes, moved_bytes, flops)


# ------------------------------------------------------------------ what kvplan says of each thing


def test_a_product_is_predicted_by_its_shape(plan):
    found = plan.product("qkv_proj", 8)
    assert found.memory_bytes == 6_144 * 4_096 * 2
    assert found.moved_bytes == 6_144 * 4_096 * 2 + 8 * (4_096 + 6_144) * 2
    assert found.flops == 2 * 8 * 6_144 * 4_096
    assert found.bound_s == pytest.approx(6_144 * 4_096 * 2 / 3.35e12)
    assert plan.product("qkv_proj", 4_096).bound_s == pytest.approx(2 * 4_096 * 6_144 * 4_096 / 989.4e12)


def test_the_shapes_measured_are_those_kvplan_plans(plan):
    products = {p.operator: (p.outputs, p.inputs) for p in sizes.llama_sizes(plan.model).products()}
    assert products == {
        "qkv_proj": (6_144, 4_096),
        "o_proj": (4_096, 4_096),
        "gate_up_proj": (28_672, 4_096),
        "down_proj": (4_096, 14_336),
        "lm_head": (128_256, 4_096),
    }
    for name, (outputs, inputs) in products.items():
        final_norm = 4_096 * 2 if name == "lm_head" else 0
        assert plan.product(name, 1).memory_bytes == outputs * inputs * 2 + final_norm
        assert plan.product(name, 1).flops == 2 * outputs * inputs


def test_attention_reads_the_context_and_the_new_token(plan):
    found = plan.attention(8, 1_023)
    assert found.memory_bytes == 8 * 1_024 * TOKEN_AND_LAYER_BYTES
    assert found.bound_s == pytest.approx(8 * 1_024 * TOKEN_AND_LAYER_BYTES / 3.35e12)


def test_a_decode_step_reads_all_weights_but_the_embedding_and_waits_for_no_host(plan):
    batch, context = 4, 1_000
    found = plan.decode_step(batch, context)
    weights = 2 * (PARAMETERS - TABLE) + batch * 4_096 * 2
    cached = 32 * batch * (context + 1 + 1) * TOKEN_AND_LAYER_BYTES  # read with the new one, and it written
    assert found.memory_bytes == weights + cached
    whole = plan_roofline(plan.model, plan._deployment(context, 1))
    with_host_s = whole.times(whole.decode(batch, context)).estimate_s
    assert with_host_s - found.estimate_s == pytest.approx(HOST_PER_STEP.time_us * 1e-6)
    assert found.bound_s < found.estimate_s


def test_a_copy_takes_its_bytes_at_the_datasheets_rate(plan):
    found = plan.transfer(2 * GIB)
    assert found.bound_s == pytest.approx(2 * GIB / 3.35e12)
    assert found.estimate_s > found.bound_s


def test_memory_is_planned_for_the_tokens_a_static_cache_holds(plan):
    found = plan.memory(32, 4_096, 8_192)
    assert found.weights_bytes == 2 * PARAMETERS
    assert found.cache_bytes == 32 * 32 * 4_097 * TOKEN_AND_LAYER_BYTES
    assert found.fits
    parts = found.weights_bytes + found.cache_bytes + found.activations_bytes + found.overhead_bytes
    assert found.all_bytes == parts


def test_pairs_that_do_not_fit_are_left_out_with_a_reason(plan):
    # 32 x 16,385 tokens x 128 KiB are 64.0 GiB beside 15 GiB of weights: more than 80 GB.
    fitting, left_out = cells.cells_that_fit(plan, (1, 32), (1_024, 16_384), 8_192)
    assert fitting == [(1, 1_024), (1, 16_384), (32, 1_024)]
    assert len(left_out) == 1
    assert left_out[0].startswith("batch 32, context 16k: kvplan says it does not fit (")


# ------------------------------------------------------------------ which models


def test_a_llamas_sizes(bundled):
    found = sizes.llama_sizes(bundled("llama-3.2-1b"))
    assert (found.hidden_size, found.layers, found.query_heads, found.kv_heads) == (2_048, 16, 32, 8)
    assert (found.head_dim, found.intermediate_size, found.vocab_size, found.tied) == (
        64,
        8_192,
        128_256,
        True,
    )
    assert sizes.llama_sizes(bundled("mistral-7b-v0.3")).rope_theta == 1_000_000.0


@pytest.mark.parametrize(
    "name", ["gemma-2-9b", "qwen2.5-7b", "qwen3-8b", "mixtral-8x7b", "deepseek-v3", "gpt2"]
)
def test_a_model_that_is_no_llama_is_refused(bundled, name):
    with pytest.raises(UsageError, match=f"{name} is not a Llama"):
        sizes.llama_sizes(bundled(name))


# ------------------------------------------------------------------ which card


@pytest.mark.parametrize(
    ("name", "driver_name", "torch_gib"),
    [
        ("h100-sxm", "NVIDIA H100 80GB HBM3", 79.11),
        ("h100-pcie", "NVIDIA H100 PCIe", 79.2),
        ("a100-sxm-80gb", "NVIDIA A100-SXM4-80GB", 79.25),
        ("a100-pcie-80gb", "NVIDIA A100 80GB PCIe", 79.25),
        ("rtx4090", "NVIDIA GeForce RTX 4090", 23.6),
        ("l40s", "NVIDIA L40S", 44.5),
        ("rtx6000-ada", "NVIDIA RTX 6000 Ada Generation", 47.4),
        ("t4", "Tesla T4", 14.6),
        ("mi300x", "AMD Instinct MI300X", 191.5),
    ],
)
def test_a_card_is_known_by_its_drivers_name(gpu, name, driver_name, torch_gib):
    assert card.differences(gpu(name), a_card(driver_name, torch_gib)) == []


@pytest.mark.parametrize(
    ("name", "driver_name", "torch_gib", "found"),
    [
        ("h100-pcie", "NVIDIA H100 80GB HBM3", 79.2, ["name"]),
        ("h100-sxm", "NVIDIA H100 PCIe", 79.2, ["name"]),
        ("l40", "NVIDIA L40S", 44.5, ["name"]),
        ("a10", "NVIDIA A10G", 22.2, ["name"]),
        ("h100-sxm", "NVIDIA H200", 139.8, ["name", "memory"]),
        ("a100-sxm-40gb", "NVIDIA A100-SXM4-80GB", 79.25, ["memory"]),
        ("h100-sxm", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9.5, ["memory"]),
    ],
)
def test_another_card_is_refused(gpu, name, driver_name, torch_gib, found):
    clauses = card.differences(gpu(name), a_card(driver_name, torch_gib))
    assert [("name" if "calls it" in clause else "memory") for clause in clauses] == found
    with pytest.raises(UsageError, match=f"this card is not {name}: "):
        card.require_same(gpu(name), a_card(driver_name, torch_gib))


def test_a_card_that_others_use_is_refused():
    card.require_idle(a_card("NVIDIA H100 80GB HBM3", 79.2, used_gib=0.6))
    with pytest.raises(UsageError, match=r"9\.00 GiB of the card are in use"):
        card.require_idle(a_card("NVIDIA H100 80GB HBM3", 79.2, used_gib=9))


def a_card(name, torch_gib, used_gib=0.5):
    return card.Card(name, int(torch_gib * GIB), 50 << 20, int(used_gib * GIB), ())


# ------------------------------------------------------------------ the tables


def test_a_row_shows_the_measured_beside_the_planned():
    row = report.TimeRow(("qkv_proj", "8"), 20e-6, predicted(15e-6, 19e-6), "graph")
    assert row.markdown() == "| qkv_proj | 8 | 20.0 us | 15.0 us | 19.0 us | 1.33x | -5% | graph |"


def test_a_beaten_bound_is_loud():
    slow = report.TimeRow(("1",), 2e-3, predicted(1e-3), "graph")
    fast = report.TimeRow(("8",), 0.9e-3, predicted(1e-3), "graph")
    topic = report.Topic("Decode step", "About.", ("batch",), [slow, fast])
    assert "**BEATS THE BOUND**" in fast.markdown()
    assert report.mistakes([topic]) == [
        "Decode step, 8: measured 900 us is below the bound of 1.00 ms",
    ]
    text = report.document("Title", [("date", "today")], [topic])
    assert text.splitlines()[0] == "# Title"
    assert text.count("BEATS THE BOUND") == 1
    assert "**1 IMPOSSIBLE FIGURES" in text


def test_without_mistakes_the_verdict_counts_the_times():
    row = report.TimeRow(("1",), 2e-3, predicted(1e-3), "graph")
    topic = report.Topic("Decode step", "About.", ("batch",), [row], ("batch 9: too large",))
    text = report.document("Title", [], [topic])
    assert "- left out: batch 9: too large" in text
    assert text.endswith("No measured time of 1 is below its bound; bytes that have to be equal are.\n")


def test_a_tables_lines_are_equally_wide():
    times = report.Topic("T", "A.", ("batch",), [report.TimeRow(("1",), 2.0, predicted(1.0), "graph")])
    memory = report.Topic("M", "A.", ("category",), [report.MemoryRow("weights", 10, 10, exact=True)])
    for topic in (times, memory):
        lines = [line for line in topic.markdown().splitlines() if line.startswith("|")]
        assert len(lines) == 3
        assert len({line.count("|") for line in lines}) == 1


def test_exact_bytes_must_be_equal_and_others_need_not():
    equal = report.MemoryRow("weights", 3 * GIB, 3 * GIB, exact=True)
    off = report.MemoryRow("weights", 3 * GIB, 3 * GIB + 1, exact=True)
    rest = report.MemoryRow("the rest", 2 * GIB, GIB)
    assert equal.markdown() == "| weights | 3.00 GiB | 3.00 GiB | equal to the byte |"
    assert "**NOT EQUAL: +1 B**" in off.markdown()
    assert rest.markdown() == "| the rest | 2.00 GiB | 1.00 GiB | -1.00 GiB (-50.0%) |"
    topic = report.Topic("Memory", "About.", ("category",), [equal, off, rest])
    assert report.mistakes([topic]) == ["Memory, weights: measured 3,221,225,472 B, planned 3,221,225,473 B"]


# ------------------------------------------------------------------ constants of one's own card


def made_up_rows(plan, launch_s, memory_share, compute_share):
    """Return times that follow the formula exactly, of products at five numbers of rows."""
    rows = []
    for product in sizes.llama_sizes(plan.model).products():
        for count in (1, 8, 64, 512, 4_096):
            said = plan.product(product.operator, count)
            memory_s = said.moved_bytes / (memory_share * 3.35e12)
            compute_s = said.flops / (compute_share * 989.4e12)
            rows.append(report.TimeRow((), launch_s + max(memory_s, compute_s), said, "graph"))
    return rows


def test_a_fit_finds_the_constants_that_made_the_times(plan):
    found = fit.kernel_constants(plan, Kernel.GEMM, made_up_rows(plan, 6e-6, 0.71, 0.64), "a test")
    assert found.launch_us == pytest.approx(6.0, abs=0.2)
    assert found.memory_share == pytest.approx(0.71, abs=0.01)
    assert found.compute_share == pytest.approx(0.64, abs=0.01)
    assert found.median_error < 0.01


def test_an_outlier_does_not_pull_a_fit_away(plan):
    rows = made_up_rows(plan, 6e-6, 0.71, 0.64)
    rows[3] = report.TimeRow((), 10 * rows[3].measured_s, rows[3].predicted, "graph")
    found = fit.kernel_constants(plan, Kernel.GEMM, rows, "a test")
    assert found.memory_share == pytest.approx(0.71, abs=0.02)
    assert found.compute_share == pytest.approx(0.64, abs=0.02)


def attention_rows(plan, launch_s, memory_share):
    rows = []
    for batch, context in ((1, 1_024), (8, 1_024), (8, 4_096), (1, 16_384), (32, 4_096)):
        said = plan.attention(batch, context)
        rows.append(report.TimeRow((), launch_s + said.moved_bytes / (memory_share * 3.35e12), said, "graph"))
    return rows


def test_what_no_time_tells_stays_as_it_was(plan, gpu):
    found = fit.kernel_constants(plan, Kernel.DECODE_ATTENTION, attention_rows(plan, 12e-6, 0.9), "a test")
    (known,) = (
        one
        for one in gpu("h100-sxm").efficiency
        if (one.kernel, one.format) == (Kernel.DECODE_ATTENTION, "bf16")
    )
    assert found.compute_share == known.compute_share
    assert found.launch_us == pytest.approx(12.0, abs=0.3)
    assert found.memory_share == pytest.approx(0.9, abs=0.01)


def test_a_fit_takes_more_than_three_times(plan):
    with pytest.raises(UsageError, match="3 times of gemm are too few"):
        fit.kernel_constants(plan, Kernel.GEMM, made_up_rows(plan, 6e-6, 0.7, 0.6)[:3], "a test")


def test_the_printed_block_goes_into_an_accelerator_file(plan, tmp_path):
    block = fit.efficiency_yaml(
        plan, made_up_rows(plan, 6e-6, 0.71, 0.64), attention_rows(plan, 12e-6, 0.9), "a test"
    )
    given = yaml.safe_load((FOLDER.parents[1] / "gpus" / "h100-sxm.yaml").read_text(encoding="utf-8"))
    given.pop("efficiency")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**given, "name": "mine"}) + block + "\n", encoding="utf-8")
    device = load_gpu(Found("mine.yaml", path))
    assert [one.kernel for one in device.efficiency] == [Kernel.GEMM, Kernel.DECODE_ATTENTION]
    mine = prediction.Plan(plan.model, device)
    bytes_s = 2 * 4_096 * 4_096 / (0.71 * 3.35e12)
    assert mine.product("o_proj", 1).estimate_s == pytest.approx(6e-6 + bytes_s, rel=0.05)


def test_the_formula_is_the_longer_part_after_the_launch():
    times = fit.time_s(1.0, 0.5, 0.25, np.array([2.0, 1.0]), np.array([0.5, 1.0]))
    assert times.tolist() == [5.0, 5.0]


# ------------------------------------------------------------------ the command


@pytest.fixture
def script(monkeypatch, capsys):
    """A function that runs the script with options and made-up measurements."""

    def run(*options, topics=()):
        monkeypatch.setattr(sys, "argv", ["measure.py", *options])
        monkeypatch.setattr(measure, "_machine_facts", lambda *_: [("date", "2026-11-21")])
        monkeypatch.setattr(measure, "_measured", lambda *_: (list(topics), ["efficiency:"]))
        status = measure.main()
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_the_table_is_printed_and_written(script, tmp_path):
    fine = report.Topic("Decode step", "A.", ("b",), [report.TimeRow(("1",), 2.0, predicted(1.0), "graph")])
    path = tmp_path / "table.md"
    status, out, _ = script("--device", "cpu", "--smoke", "-o", str(path), topics=[fine])
    assert status == 0
    assert out == path.read_text(encoding="utf-8")
    assert out.startswith("# A trial of the scripts: llama-3.1-8b scaled down, on the CPU.")
    assert out.endswith("```yaml\nefficiency:\n```\n")


def test_a_beaten_bound_fails_the_command(script):
    broken = report.Topic("Decode step", "A.", ("b",), [report.TimeRow(("1",), 0.5, predicted(1.0), "graph")])
    status, out, _ = script("--device", "cpu", "--smoke", topics=[broken])
    assert status == 1
    assert "IMPOSSIBLE" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "error: --gpu is missing: which card is this?"),
        (("--gpu", "h100-smx"), "error: no accelerator named 'h100-smx'. Did you mean"),
        (("--gpu", "h100-sxm", "--device", "cpu"), "error: the CPU has no plan to be compared with"),
        (("--smoke", "--device", "cpu", "--model", "gemma-2-9b"), "error: gemma-2-9b is not a Llama"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(script, options, message):
    status, out, err = script(*options)
    assert (status, out) == (2, "")
    assert err.startswith(message)


def test_counts_are_read_as_everywhere_in_kvplan():
    assert measure._counts("1, 8,4k") == (1, 8, 4_096)
    assert measure._counts("") == ()
    with pytest.raises(UsageError, match="'x' is not a count"):
        measure._counts("1,x")
