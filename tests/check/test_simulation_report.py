"""The report of a simulation: what a reader is told, what a machine is, and both when the plan fails."""

import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.check.scenario import Scenario
from kvplan.check.simulation import simulate
from kvplan.check.simulation_report import all_report, simulation_report
from kvplan.check.speed import Speed
from kvplan.engine.generation import Phase
from kvplan.engine.machine import Machine
from kvplan.report.export import render_csv, render_json, render_markdown, render_plain, to_dict
from kvplan.report.table import render_table
from kvplan.report.terminal import Terminal
from kvplan.storage import kv_format

MACHINE = Machine(read_bytes_per_s=2e10, read_bytes=1 << 20, sgemm_flops_per_s=1e11)
FILES = (("model_file", "gemma.yaml"), ("model_sha256", "5" * 64))
SHORT = Scenario((9, 40), 3, 16, 0, kv_format("bf16"), Paged(16))


def run(model, scenario=SHORT, **scale):
    return simulate(model, scenario, lambda _: None, **{"hidden_size": 32, **scale})


def report_of(simulation):
    steps = simulation.measurement.steps
    decode = tuple(step for step in steps if step.phase is Phase.DECODE)
    return simulation_report(simulation, Speed(MACHINE, decode or steps, 0.25), FILES)


@pytest.fixture(scope="module")
def gemma(bundled):
    """Five layers with a window, then one without; a vision tower that is left out."""
    return run(bundled("gemma-3-4b"), layers=6)


def shown(simulation, width=None):
    return render_table(report_of(simulation), Terminal(width))


def off_by_one(check):
    return replace(check, predicted=replace(check.predicted, value=check.predicted.value + 1))


def broken(simulation, *names):
    """The simulation with these figures of its plan one too many."""
    checks = tuple(off_by_one(c) if c.name in names else c for c in simulation.checks)
    return replace(simulation, checks=checks)


# What a reader sees


def test_it_says_what_was_run(gemma):
    assert shown(gemma).splitlines()[:3] == [
        "gemma-3-4b scaled down to 6 layers x 32 hidden, with random weights",
        "8 query heads, 4 KV heads of 256, bf16 KV in blocks of 16 tokens",
        "2 requests of 9 / 40 tokens, 3 tokens added to each",
    ]


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("deepseek-v3", "8 query heads over latents of 512"),
        ("qwen3-next-80b-a3b", "a state of 69,632 elements a layer"),
        ("falcon-7b", "71 query heads, 1 KV head of 64"),
    ],
)
def test_one_of_everything_and_every_kind_of_head(name, heads, bundled):
    one = Scenario((1,), 1, 16, 0, kv_format("fp32"), Contiguous(64))
    lines = shown(run(bundled(name), one, layers=1)).splitlines()
    assert lines[0].endswith(" scaled down to 1 layer x 32 hidden, with random weights")
    assert lines[1] == f"{heads}, fp32 KV in one piece of 64 tokens a request"
    assert lines[2] == "1 request of 1 token, 1 token added"


def test_many_requests_are_told_by_the_shortest_and_the_longest(bundled):
    many = Scenario(tuple(range(2, 11)), 2, 16, 0, kv_format("bf16"), Paged(16))
    assert "9 requests of 2 to 10 tokens, 2 tokens added to each" in shown(
        run(bundled("gpt2"), many, layers=1)
    )


def test_equal_layers_are_one_line_for_a_reader_and_one_each_for_a_machine(gemma):
    lines = [line.split() for line in shown(gemma).splitlines()]
    assert [line[:2] for line in lines if line[1:2] in (["sliding_attention"], ["full_attention"])] == [
        ["0-4", "sliding_attention"],
        ["5", "full_attention"],
    ]
    rows = to_dict(report_of(gemma))["layers"]
    assert [row["layer"] for row in rows] == list(range(6))
    assert [row["kind"] for row in rows] == ["sliding_attention"] * 5 + ["full_attention"]
    assert sum(row["live_bytes_predicted"] for row in rows) == gemma.prediction.cache_live_bytes.number


def test_a_layer_that_differs_stands_by_itself(gemma):
    live, allocated = gemma.layer_checks[2]
    pairs = (*gemma.layer_checks[:2], (off_by_one(live), allocated), *gemma.layer_checks[3:])
    simulation = replace(gemma, layer_checks=pairs)
    text = shown(simulation)
    numbered = [line.split() for line in text.splitlines() if re.match(r" +\d(-\d)? +\w+_attention ", line)]
    assert [(line[0], line[-1]) for line in numbered] == [
        ("0-1", "yes"),
        ("2", "no"),
        ("3-4", "yes"),
        ("5", "yes"),
    ]
    wrong, right = live.predicted.value + 1, live.measured.value
    assert (
        f"The plan does not hold: 1 of 30 figures differs: layers.2.live_bytes "
        f"({wrong:,} B predicted, {right:,} measured).\n" in text
    )


@pytest.mark.parametrize("width", [None, 200, 80])
def test_predicted_and_measured_stand_beside_each_other(width, gemma):
    text = shown(gemma, width)
    if width:
        tables = text.partition("\nnote: ")[0]
        assert max(map(len, tables.splitlines())) <= width
    cache = text.partition("The cache of each layer")[2].partition("\n\n")[0]
    assert cache.count("predicted") == cache.count("measured") == 2
    assert cache.count("(B)") == 4


def enlarged(check, least):
    """The check of a run so much larger that its figure is at least this."""
    if isinstance(check.predicted.value, float):
        return check
    times = -(-least // check.predicted.value)
    predicted, measured = (replace(q, value=q.value * times) for q in (check.predicted, check.measured))
    return replace(check, predicted=predicted, measured=measured)


def test_a_run_of_usual_size_fits_80_columns_without_the_column_that_says_the_same(gemma):
    """Eleven digits in the checks, seven in the layers: both tables of ``kvplan simulate gemma-3-4b``."""
    usual = replace(
        gemma,
        checks=tuple(enlarged(c, 2 * 10**10 if "flops" in c.name else 1) for c in gemma.checks),
        layer_checks=tuple(tuple(enlarged(c, 2 * 10**6) for c in pair) for pair in gemma.layer_checks),
    )
    text = shown(usual, 80).partition("\nnote: ")[0]
    assert re.search(r"prefill matmul +\d\d,\d{3},\d{3},\d{3} FLOP ", text)
    assert re.search(r"\n    0-4   sliding_attention +(\d,\d{3},\d{3} *){4}\n", text)
    assert "\n  (no room for: agree)\n" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("width", [20, 40, 80, 200, None])
def test_no_number_of_the_proof_is_cut(width, gemma):
    text = shown(gemma, width)
    assert "…" not in text
    for check in gemma.checks[:-2]:
        cell = f"{check.measured.value:,} {check.measured.unit.value}"
        assert len(re.findall(rf"(?<![\d,]){cell}\b", text)) >= 2, check.name


def test_the_verdict_counts_every_figure(bundled):
    """A recurrent layer's live and allocated bytes are two figures, though they are one state."""
    simulation = run(bundled("qwen3-next-80b-a3b"))
    figures = len(simulation.checks) + 2 * len(simulation.ran.layers)
    verdict = report_of(simulation).verdict
    assert (verdict.yes, verdict.text) == (True, f"The plan holds: {figures} of {figures} figures agree.")


def test_a_plan_that_fails_names_the_figures(gemma):
    names = [
        "weights_bytes",
        "prefill_matmul_flops",
        "decode_matmul_flops",
        "cache_blocks",
        "cache_live_bytes",
    ]
    simulation = broken(gemma, *names)
    found = report_of(simulation)
    predicted = gemma.prediction.weights_bytes.number
    assert not found.verdict.yes
    assert found.verdict.text == (
        f"The plan does not hold: 5 of 30 figures differ: weights_bytes ({predicted + 1:,} B predicted, "
        f"{predicted:,} measured), cache_live_bytes, cache_blocks, prefill_matmul_flops, 1 more."
    )
    rows = [line for line in render_table(found, Terminal()).splitlines() if line.endswith(" no")]
    labels = ["weights", "cache live", "cache blocks", "prefill matmul", "decode matmul"]
    assert [row.strip().split("   ")[0] for row in rows] == labels


def test_speed_is_no_part_of_the_verdict(gemma):
    found = report_of(gemma)
    assert "tokens/s" not in found.verdict.text
    assert "roofline" not in found.verdict.text
    steps = [step for step in gemma.measurement.steps if step.phase is Phase.DECODE]
    rate = len(steps) * 2 / sum(step.seconds for step in steps)
    assert f"\nSpeed here, not in the verdict: {rate:,.0f} tokens/s in decode, " in shown(gemma)


@pytest.mark.parametrize(
    ("taken", "told"), [(1.0001, "99%"), (1.0, "100%"), (10.2, "9.8%"), (9.9, "10%"), (3000, "0.0%")]
)
def test_a_share_is_never_rounded_up(taken, told, gemma):
    """Steps that take so many times their least time."""
    step = next(step for step in gemma.measurement.steps if step.phase is Phase.DECODE)
    bound = Speed(MACHINE, (step,), 0.25).bound_s(step)
    speed = Speed(MACHINE, (replace(step, seconds=bound * taken),), 0.25)
    found = simulation_report(gemma, speed, FILES)
    assert f" in decode, {told} of the roofline\n" in render_table(found, Terminal())
    assert to_dict(found)["step_time_fraction_of_bound"] == pytest.approx(1 / taken)


def test_where_nothing_is_decoded_prefill_is_told(bundled):
    one = Scenario((5,), 1, 16, 0, kv_format("bf16"), Paged(16))
    text = shown(run(bundled("gpt2"), one, layers=1))
    assert " tokens/s in prefill, " in text
    assert "prefill step, measured" in text
    assert "decode intensity" not in text


def test_notes_say_what_was_left_out_and_what_storage_costs(gemma, bundled):
    notes = " ".join(report_of(gemma).notes)
    assert "vision tower is left out" in notes
    assert "with bf16 KV the logits of these random weights are off by " in notes
    exact = Scenario((5,), 2, 16, 0, kv_format("fp32"), Paged(16))
    (only,) = report_of(run(bundled("gpt2"), exact, layers=1)).notes
    assert only.startswith("logit error: ")


# What a machine reads


def refuse_constant(name):
    raise AssertionError(f"{name} in the JSON")


def test_the_formats_agree(gemma):
    """Each figure of the CSV and of the plain lines is the figure of the JSON, to the last digit."""
    found = report_of(gemma)
    data = json.loads(render_json(to_dict(found)), parse_constant=refuse_constant)
    rows = {row["figure"]: row["value"] for row in csv.DictReader(io.StringIO(render_csv(found)))}
    plain = dict(line.split(" ", 1) for line in render_plain(found).splitlines())
    for row in data["checks"]:
        for key in ("predicted", "measured"):
            name = f"checks.{row['name']}.{key}"
            assert float(rows[name]) == row[key] == float(plain[name].split()[0])
        assert rows[f"checks.{row['name']}.agree"] == "true"
    for row in data["steps"]:
        assert float(plain[f"steps.{row['step']}.seconds"].removesuffix(" s")) == row["seconds"]
    assert float(rows["tokens_per_s"]) == data["tokens_per_s"] == float(plain["tokens_per_s"].split()[0])
    assert float(rows["speed.step_s"]) == data["speed"]["step_s"]
    assert rows["agree"] == rows["verdict.agree"] == "true"
    assert plain["verdict"] == data["verdict"]["text"]


def test_markdown_has_a_cell_for_each_head_and_shows_what_the_table_shows(gemma):
    text = render_markdown(report_of(gemma))
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [2 + 18, 2 + 2, 2 + 4]
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert "| layer | kind | live predicted (B) | live measured (B) |" in text
    assert "| 0-4 | sliding_attention |" in text
    assert text.startswith(
        "### gemma-3-4b scaled down to 6 layers x 32 hidden, with random weights\n\n8 query"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_measurement_that_is_no_number_fails_the_plan_and_is_null(value, gemma):
    """As an engine that divides by zero would make it."""
    *others, last = gemma.checks
    lost = replace(last, measured=replace(last.measured, value=value))
    errors = replace(gemma.measurement.errors, cached=value, stored=value)
    simulation = replace(gemma, checks=(*others, lost), measurement=replace(gemma.measurement, errors=errors))
    for found in (report_of(simulation), all_report([simulation])):
        data = json.loads(render_json(to_dict(found)), parse_constant=refuse_constant)
        assert data["agree"] is data["verdict"]["agree"] is False
    (row,) = [row for row in to_dict(report_of(simulation))["checks"] if not row["agree"]]
    assert (row["name"], row["measured"]) == ("cached_logit_error", None)


# All models


def test_all_models_are_a_line_each(gemma, bundled):
    other = run(bundled("gpt2"), layers=1)
    found = all_report([gemma, other])
    data = to_dict(found)
    assert data["agree"] is True
    assert [(row["model"], row["figures"], row["differing"], row["agree"]) for row in data["models"]] == [
        ("gemma-3-4b", 30, 0, True),
        ("gpt2", 20, 0, True),
    ]
    assert data["inputs"]["prompt_tokens"] == [9, 40]
    assert found.verdict.text == "The plan holds: all 50 figures of 2 models agree."
    lines = render_table(found, Terminal(80)).splitlines()
    assert lines[0] == "2 models, each scaled down, with random weights"
    assert max(map(len, lines)) <= 80


def test_one_model_that_fails_fails_all_and_is_named(gemma, bundled):
    other = broken(run(bundled("gpt2"), layers=1), "weights_bytes", "decode_matmul_flops")
    found = all_report([gemma, other])
    data = to_dict(found)
    assert data["agree"] is data["verdict"]["agree"] is False
    assert [row["differing_figures"] for row in data["models"]] == ["", "weights_bytes, decode_matmul_flops"]
    assert found.verdict.text.startswith(
        "The plan does not hold for 1 of 2 models. gpt2: 2 of 20 figures differ: weights_bytes ("
    )
