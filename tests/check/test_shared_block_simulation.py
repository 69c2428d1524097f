"""The plan of Zamba2 is what the engine does, to the byte and operation, and a wrong formula is seen."""

from dataclasses import replace
from pathlib import Path

import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.check.scenario import Scenario
from kvplan.check.simulation import simulate
from kvplan.plan import step_work, weights
from kvplan.specs.config_json import import_file
from kvplan.specs.families.common import Identity
from kvplan.storage import kv_format

CONFIGS = Path(__file__).parents[1] / "golden" / "configs"
NAMES = ("zamba2", "zamba2-defaults", "zamba2-unrotated", "zamba2-untied")
MIXES = {
    "fp32 in pages": Scenario((3, 26, 61), 14, 17, 2, kv_format("fp32"), Paged(4)),
    "int8 in one piece": Scenario((1, 40, 77), 5, 100, 3, kv_format("int8"), Contiguous(128)),
    "bf16 token by token": Scenario((9, 31), 9, 1, 4, kv_format("bf16"), Paged(16)),
}


def differing(name, mix):
    model = import_file(CONFIGS / f"{name}.json", Identity(name, "a test"))
    simulation = simulate(model, MIXES[mix], lambda _: None)
    return {check.name for check in simulation.disagreeing}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("name", NAMES)
def test_every_figure_agrees(name, mix):
    assert differing(name, mix) == set()


@pytest.mark.parametrize(
    ("module", "name", "seen"),
    [
        (weights, "bytes_of_shared_block", {"weights_bytes"}),
        (weights, "bytes_of_layers", {"weights_bytes"}),
        (step_work, "matrices_flops", {"prefill_matmul_flops", "decode_matmul_flops"}),
        (step_work, "attention_flops", {"prefill_attention_flops", "decode_attention_flops"}),
    ],
)
def test_a_wrong_formula_is_seen(module, name, seen, monkeypatch):
    formula = getattr(module, name)
    wrong = replace(formula, function=lambda *args: 2 * formula.function(*args))
    monkeypatch.setattr(module, name, wrong)
    assert seen <= differing("zamba2", "fp32 in pages")


def test_a_block_counted_at_every_use_is_seen(monkeypatch):
    monkeypatch.setattr(weights, "_own", lambda model, run: model.layer_weights(run.layer))
    monkeypatch.setattr(weights, "_shared", lambda model, runs: {})
    assert "weights_bytes" in differing("zamba2", "fp32 in pages")
