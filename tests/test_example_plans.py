"""The plans under examples/plans: each holds, by little, and not without what it is made of."""

import json
from pathlib import Path

import pytest

import kvplan
from kvplan.api.plan import options_of
from kvplan.requirement import Metric

PLANS = Path(__file__).parents[1] / "examples" / "plans"
NAMES = ("edge", "laptop", "long-context", "moe")
plans = pytest.mark.parametrize("name", NAMES)


def rows(report):
    return report.to_dict()["requirements"]


def test_these_are_all_of_them():
    assert sorted(path.stem for path in PLANS.glob("*.yaml")) == list(NAMES)


@plans
def test_it_holds(name, command):
    status, out, lines = command("check", str(PLANS / f"{name}.yaml"))
    assert (status, lines) == (0, [])
    assert f"\nAll {len(kvplan.load_plan(PLANS / f'{name}.yaml').require)} requirements hold on " in out
    assert out.startswith(f"{name}: ")


@plans
def test_it_is_sharp(name):
    """On the accelerator with the least room, memory is left by a twentieth, and time by an eighth."""
    plan = kvplan.load_plan(PLANS / f"{name}.yaml")
    found = rows(kvplan.check_plan(plan))
    timed = {metric.kind.word for metric in Metric if metric.kind.timed}
    for requirement in plan.require:
        shares = [row["margin_share"] for row in found if row["name"] == requirement.name]
        assert len(shares) == len(plan.gpus)
        if requirement.metric is not Metric.FITS:
            assert 0 <= min(shares) <= (0.125 if requirement.metric.kind.word in timed else 0.05)


# What each is made of, changed, and requirements that it must then miss, whatever else.
WITHOUT = [
    ("laptop", "kv: fp8 ", "kv: bf16 ", {"max_context", "max_batch", "tpot", "ttft"}),
    ("laptop", "weights: q4_k ", "weights: fp8 ", {"max_context", "max_batch", "tpot"}),
    ("laptop", "memory_utilization: 85%", "memory_utilization: 80%", {"max_context", "max_batch"}),
    ("laptop", "gpu: rtx4090", "gpu: l4", {"tpot", "ttft", "max_context", "max_batch"}),
    ("long-context", "kv: fp8", "kv: bf16", {"max_batch", "tpot", "cost", "ttft"}),
    ("long-context", "weights: fp8 ", "weights: bf16 ", {"max_batch", "kv_pool", "ttft", "tpot", "cost"}),
    ("long-context", "gpus: 8", "gpus: 4", {"max_batch", "kv_pool", "fits", "ttft", "tpot", "cost"}),
    ("long-context", "price: 2.95 ", "price: 5.95 ", {"cost"}),
    ("long-context", "output_tokens: 1k", "output_tokens: 2k", {"fits", "tpot", "cost"}),
    ("moe", "  dp: 8\n", "  tp: 8\n", {"max_batch"}),
    ("moe", "  dp: 8\n  ep: 8", "  gpus: 8", {"max_batch"}),
    ("edge", "weights: int8", "weights: bf16", {"tpot", "tokens_per_s"}),
    ("edge", "overhead: 1GiB ", "overhead: 2GiB ", {"max_context"}),
    ("edge", "batch: 4\n", "batch: 8\n", {"tpot"}),
]


@pytest.mark.parametrize(
    ("name", "old", "new", "missed"), WITHOUT, ids=[f"{n}: {new}" for n, _, new, _ in WITHOUT]
)
def test_it_does_not_hold_without(name, old, new, missed, tmp_path):
    text = (PLANS / f"{name}.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "p.yaml").write_text(text.replace(old, new))
    report = kvplan.check_plan(tmp_path / "p.yaml")
    assert missed <= {row["metric"] for row in rows(report) if not row["met"]}
    assert not report.verdict.yes


@plans
def test_other_commands_take_it_too(name, command):
    plan = str(PLANS / f"{name}.yaml")
    gpu = ("--gpu", "t4") if name == "edge" else ()
    for other in (("capacity",), ("roofline",), ("compare", "--no-measure", "--only", "--with", "chunk=2k")):
        status, out, lines = command(*other, "--plan", plan, *gpu, "--json")
        assert (status, lines) == (0, []), other
        assert json.loads(out)["command"] == other[0]


@plans
def test_it_compares_what_goes_with_it(name):
    for changes in kvplan.load_plan(PLANS / f"{name}.yaml").compare:
        plan = kvplan.load_plan(PLANS / f"{name}.yaml")
        options = {"measure": False, "only": True, "changes": [changes]}
        deployment = options_of(plan.deployment)
        report = kvplan.compare(plan.model, gpu=plan.gpus[0], batch=1, context=4096, **options, **deployment)
        (row,) = [row for row in report.to_dict()["options"] if row["name"] == changes]
        assert row["applies"] is not False
