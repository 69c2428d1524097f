"""A config.json saved again by transformers 5.23 means the same model as the one that was released."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kvplan.plan.weights import parameter_count
from kvplan.specs.config_json import import_config, import_file
from kvplan.specs.families.common import Identity
from kvplan.specs.strict_json import parse_json

DATA = Path(__file__).parents[1] / "data"
RELEASED = DATA / "hf_configs"
NAMES = sorted(path.stem for path in (DATA / "resaved_hf_configs").glob("*.json"))


# Families of remote code: transformers has no class that could save them.
REMOTE = set("baichuan chatglm exaone hunyuan internlm2 mimo minicpm minimax_m1 minimax_m3 qwen".split())

# transformers saves DBRX with another base of its rotations: see resave_configs.py.
LOST = {"dbrx"}


def test_there_is_one_for_every_bundled_model_that_transformers_can_save() -> None:
    released = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RELEASED.glob("*.json")}
    saved = [name for name in sorted(released) if released[name]["model_type"] not in REMOTE | LOST]
    assert saved == NAMES


def test_a_key_that_is_null_changes_nothing() -> None:
    data = json.loads((DATA / "hf_configs" / "llama-3.1-8b.json").read_text(encoding="utf-8"))
    document = parse_json(json.dumps({**data, "num_kv_shared_layers": None}), "config.json")
    assert parameter_count(import_config(document, Identity("a", "b"))).number == 8_030_261_248


@pytest.mark.parametrize("name", NAMES)
def test_saving_again_changes_nothing(name) -> None:
    identity = Identity(name, "test")
    released = import_file(DATA / "hf_configs" / f"{name}.json", identity)
    resaved = import_file(DATA / "resaved_hf_configs" / f"{name}.json", identity)
    assert replace(resaved, dtype=released.dtype) == released
