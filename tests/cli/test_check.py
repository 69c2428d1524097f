"""``kvplan check``: exit statuses, every format, several plans, and what is said of what does not hold."""

import csv
import io
import json

import pytest

import kvplan

TOY = """\
name: {name}
model: llama-3.1-8b
gpu: {gpu}
workload: {{batch: 16, context: 8k}}
require: {require}
"""


@pytest.fixture
def plan_file(tmp_path, monkeypatch):
    """A function that writes a plan with these requirements into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(require, name="toy", gpu="h100-sxm"):
        (tmp_path / f"{name}.yaml").write_text(TOY.format(name=name, gpu=gpu, require=require))
        return f"{name}.yaml"

    return write


def test_a_plan_that_holds(plan_file, command):
    status, out, lines = command("check", plan_file("[fits, max_context >= 16k]"))
    assert (status, lines) == (0, [])
    assert out.splitlines()[0] == "toy: llama-3.1-8b  bf16 weights, bf16 KV   on 1 x NVIDIA H100 SXM5 80GB"
    assert "\nAll 2 requirements hold on h100-sxm.\n" in out


def test_one_requirement_is_one(plan_file, command):
    assert "\nThe one requirement holds on h100-sxm.\n" in command("check", plan_file("[fits]"))[1]


def test_a_plan_that_does_not_hold_says_what_and_by_how_much(plan_file, command):
    status, out, lines = command("check", plan_file("[fits, max_context >= 32k, weights <= 15 GiB]"))
    assert (status, lines) == (1, [])
    held = json.loads(command("capacity", "llama-3.1-8b", "--gpu", "h100-sxm", "--batch", "16", "--json")[1])
    longest = held["max_context"][0]["context_tokens"]
    said = f"1 of 3 is not met on h100-sxm: max_context >= 32k at batch 16 ({longest:,} tokens)."
    assert f"\n{said}\n" in out
    (row,) = [line for line in out.splitlines() if line.strip().startswith("max_context")]
    short = f"{longest - 32_768:,} tokens"
    assert short.startswith("-")
    assert [cell.strip() for cell in row.split("   ") if cell.strip()] == [
        *("max_context >= 32k at batch 16", "32,768 tokens", f"{longest:,} tokens", short),
        *(f"{100 * (longest / 32_768 - 1):.3g} %", "no"),
    ]


def test_each_accelerator_is_checked_alone(plan_file, command):
    path = plan_file("[fits, max_batch >= 40]", gpu="[h100-sxm, l40s]")
    status, out, _ = command("check", path, "--json")
    data = json.loads(out)
    assert status == 1
    assert [(row["gpu"], row["metric"], row["met"]) for row in data["requirements"]] == [
        ("h100-sxm", "fits", True),
        ("h100-sxm", "max_batch", True),
        ("l40s", "fits", True),
        ("l40s", "max_batch", False),
    ]
    assert data["verdict"]["holds"] is False
    assert data["verdict"]["text"].startswith("1 of 2 is not met on l40s: max_batch >= 40 at context 8k (")
    assert data["verdict"]["text"].endswith("; all 2 requirements hold on h100-sxm.")
    for gpu in ("h100-sxm", "l40s"):
        alone = json.loads(command("check", plan_file("[fits, max_batch >= 40]", gpu=gpu), "--json")[1])
        assert alone["requirements"] == [row for row in data["requirements"] if row["gpu"] == gpu]


@pytest.mark.parametrize("gpus", ["[h100-sxm, l40s]", "[l40s, h100-sxm]"])
def test_a_plan_holds_on_every_accelerator_or_not_at_all(gpus, plan_file, command):
    assert command("check", plan_file("[max_batch >= 40]", gpu=gpus))[0] == 1
    assert command("check", plan_file("[max_batch >= 4]", gpu=gpus))[0] == 0


def test_what_does_not_fit_has_no_figures_and_a_reason(plan_file, command):
    status, out, _ = command("check", plan_file("[fits, tpot <= 15 ms at batch 500]"))
    (row,) = [line for line in out.splitlines() if line.strip().startswith("tpot")]
    cells = [cell.strip() for cell in row.split("   ") if cell.strip()]
    assert cells == ["tpot <= 15 ms at batch 500 context 8k", "15 ms", "-", "-", "-", "no"]
    said = "tpot <= 15 ms at batch 500 context 8k"
    assert f"\n1 of 2 is not met on h100-sxm: {said} (it does not fit).\n" in out
    assert f"\nnote: {said}: Does not fit: 500 requests of 8,193 need " in out
    assert status == 1


def test_the_json_says_what_was_asked_and_from_what(plan_file, command):
    data = json.loads(command("check", plan_file("[tpot <= 1 s]"), "--json")[1])
    assert data["command"] == "check"
    assert data["plan"] == {"name": "toy", "model": "llama-3.1-8b"}
    assert data["inputs"]["plan_file"] == "toy.yaml"
    assert len(data["inputs"]["plan_sha256"]) == len(data["inputs"]["gpu_sha256"]) == 64
    (row,) = data["requirements"]
    assert (row["name"], row["required"], row["unit"]) == ("tpot_at_batch_16_context_8192", 1.0, "s")
    assert (row["batch"], row["context_tokens"], row["met"]) == (16, 8192, True)
    assert row["margin"] == pytest.approx(1 - row["got"])
    assert row["margin_share"] == pytest.approx(1 - row["got"])


def test_python_users_get_the_same(plan_file, command):
    path = plan_file("[fits, tpot <= 1 s]")
    report = kvplan.check_plan(path)
    assert report.to_json() == command("check", path, "--json")[1]
    assert report.verdict.yes
    assert kvplan.check_plan(kvplan.load_plan(path)) == report


def test_what_one_must_know_of_the_figures_is_said(plan_file, command):
    out = command("check", plan_file("[fits]", gpu="t4"))[1]
    assert "note: t4 has no bf16 matrix unit" in out
    assert "note: estimate" not in out
    out = command("check", plan_file("[tpot <= 1 s]"))[1]
    assert "note: estimate: median error 11%" in out
    assert "are of decode steps alone" in out
    out = command("check", plan_file("[weights <= 10 GiB]\ndeployment: {tp: 2}"))[1]
    assert "note: kv_pool and weights are of the GPU where" in out


# ------------------------------------------------------------------ several plans


@pytest.fixture
def two(plan_file):
    return plan_file("[fits]", "good"), plan_file("[max_context >= 128k]", "bad")


def test_several_plans_are_one_report_after_another(two, command):
    status, out, _ = command("check", *two)
    assert status == 1
    apart = [command("check", path)[1] for path in two]
    assert out == "\n".join(apart)
    assert command("check", two[0], two[0])[0] == 0


def test_several_plans_are_a_list_in_json(two, command):
    data = json.loads(command("check", *two, "--json")[1])
    assert data == [json.loads(command("check", path, "--json")[1]) for path in two]
    assert [one["verdict"]["holds"] for one in data] == [True, False]


def test_several_plans_are_one_table_in_csv(two, command):
    rows = list(csv.DictReader(io.StringIO(command("check", *two, "--format", "csv")[1])))
    assert [row["value"] for row in rows if row["figure"] == "plan.name"] == ["good", "bad"]
    assert [row["value"] for row in rows if row["figure"] == "verdict.holds"] == ["true", "false"]
    assert not any(row["figure"] == "figure" for row in rows)


@pytest.mark.parametrize("form", ["plain", "md"])
def test_several_plans_are_told_apart_in(form, two, command):
    out = command("check", *two, "--format", form)[1]
    assert out.index("good") < out.index("bad")


def test_a_mistake_in_one_of_several_is_an_error_before_any_answer(two, plan_file, refused):
    lines = refused("check", two[0], plan_file("[max_contxt >= 1]", "wrong"))
    assert lines == [
        "wrong.yaml:5:11: require[0]: 'max_contxt' cannot be required (did you mean max_context?)"
    ]


def test_verbose_says_what_was_read(two, command):
    lines = command("check", *two, "--verbose")[2]
    names = "good.yaml bundled:models/llama-3.1-8b.yaml bundled:gpus/h100-sxm.yaml bad.yaml".split()
    assert [line.split(" (sha256 ")[0] for line in lines] == [f"read {name}" for name in names]
    assert command("check", *two)[2] == []


# ------------------------------------------------------------------ errors


def test_a_plan_that_requires_nothing_is_no_pass(plan_file, refused):
    assert refused("check", plan_file("[]")) == [
        "toy.yaml: there is nothing to check   (require: [fits, tpot <= 30 ms])"
    ]


def test_a_plan_is_needed(refused):
    assert refused("check") == ["missing argument 'PLAN...'   (kvplan --help)"]


def test_a_file_that_is_not_there(refused, tmp_path):
    (line,) = refused("check", str(tmp_path / "none.yaml"), status=3)
    assert "there is no such file" in line


@pytest.mark.parametrize(
    ("deployment", "said"),
    [
        ("{gpus: 3, tp: 2}", "tp 2 x pp 1 x dp 1 is 2 GPUs, not the 3 of --gpus"),
        ("{tp: 3}", "tensor parallel 3 does not divide"),
        ("{chunk: 1M, block_size: 128k}", "block_size: 131,072 is out of range"),
        ("{latent_cache: expanded}", "has no latent attention"),
    ],
)
def test_a_deployment_that_cannot_be_names_the_file(deployment, said, plan_file, refused, tmp_path):
    path = plan_file(f"[fits]\ndeployment: {deployment}")
    (line,) = refused("check", path)
    assert line.startswith("toy.yaml: ")
    assert said in line


def test_a_mistake_in_the_model_is_told_in_the_models_file(plan_file, refused, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    (tmp_path / "p.yaml").write_text("name: p\nmodel: ./mine.yaml\ngpu: t4\nrequire: [kv_pool >= 1 GiB]\n")
    plan_file("[fits]")
    assert all(line.startswith("mine.yaml:1:1: ") for line in refused("check", "p.yaml"))


# ------------------------------------------------------------------ derivations


def test_what_there_is_can_be_explained(plan_file, command):
    path = plan_file("[max_batch >= 1, weights <= 15 GiB]")
    status, out, _ = command("check", path, "--explain", "max_batch")
    assert status == 0
    assert "margin = got - required" in out.replace("requirements.h100-sxm.max_batch_at_context_8192.", "")
    assert "found by search: the most requests that fit" in out
    assert "weights" not in out.split("[1]")[0].replace("weights_bytes", "")
    weights = command("check", path, "--explain", "weights")[1]
    assert "margin = required - got" in weights.replace("requirements.h100-sxm.weights.", "")


def test_several_plans_are_explained_in_turn(two, command):
    status, out, _ = command("check", *two, "--explain", "margin")
    assert status == 1
    assert out.count("max_context_at_batch_16.margin = got - required") == 1
    data = json.loads(command("check", *two, "--explain", "requirements", "--json")[1])
    assert [rows[0]["name"].split(".")[2] for rows in data] == [
        "fits_at_batch_16_context_8192",
        "max_context_at_batch_16",
    ]
