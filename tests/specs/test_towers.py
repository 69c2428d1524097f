"""Encoders beside language models, counted as transformers' own classes hold them (data/count_towers.py).

Every case is a small config: with sizes of its own, in the class's defaults, or with a switch turned.
"""

from pathlib import Path

import pytest
import yaml

from kvplan.plan.weights import parameter_count
from kvplan.specs.config_json import FAMILIES
from kvplan.specs.families.towers.vision_transformers import ENCODERS
from kvplan.specs.families.wrappers import WRAPPERS, Tied

COUNTS = yaml.safe_load((Path(__file__).parents[1] / "data" / "towers.yaml").read_text(encoding="utf-8"))
# Its encoder of images is known to transformers by its name in timm only.
NOT_COUNTED_THERE = {"gemma3n"}


def config_of(name):
    cases = [*COUNTS["encoders"], *COUNTS["uncounted"]]
    return next(case["config"] for case in cases if case["case"] == name)


@pytest.mark.parametrize("counted", COUNTS["encoders"], ids=lambda counted: counted["case"])
def test_a_tower_has_the_tensors_of_its_class(counted, from_config):
    weights = [w for tower in from_config(**counted["config"]).towers for w in tower.weights()]
    assert sum(w.elements for w in weights if w.trained) == counted["parameters"]
    assert sum(w.elements for w in weights if not w.trained) == counted["buffers"]


@pytest.mark.parametrize("uncounted", COUNTS["uncounted"], ids=lambda uncounted: uncounted["case"])
def test_a_wrapper_without_a_counted_tower_is_its_text_model_and_says_what_is_missing(uncounted, from_config):
    model = from_config(**uncounted["config"])
    assert parameter_count(model).number == uncounted["text"]
    assert not model.towers
    assert model.missing_towers


def test_every_wrapper_and_every_encoder_has_a_case():
    assert set(COUNTS["tied"]) == set(WRAPPERS) - NOT_COUNTED_THERE
    visions = [counted["config"].get("vision_config", {}) for counted in COUNTS["encoders"]]
    assert {vision.get("model_type") for vision in visions} >= set(ENCODERS)


SAID = {"missing": {}, "true": {"tie_word_embeddings": True}, "false": {"tie_word_embeddings": False}}


def said(kind, case):
    """Return the case's config where it and its text_config say nothing, true or false of tying."""
    outer, inner = (SAID[word] for word in case.split(", "))
    config = {key: value for key, value in config_of(kind).items() if key != "tie_word_embeddings"}
    return config | outer | {"text_config": config["text_config"] | inner}


@pytest.mark.parametrize("kind", COUNTS["tied"])
def test_the_head_is_tied_where_the_wrappers_class_ties_it(kind, from_config, config_refusal):
    for case, tied in COUNTS["tied"][kind].items():
        config = said(kind, case)
        if WRAPPERS[kind].tied is Tied.NEVER and "true" in case:
            assert "never ties its head" in config_refusal(**config), case
        else:
            assert from_config(**config).tie_word_embeddings is tied, case


@pytest.mark.parametrize("kind", COUNTS["by_default"])
def test_a_file_that_says_no_size_is_the_class_by_its_defaults(kind, from_config):
    vision = {"vision_config": {}} if "vision_config" in config_of(kind) else {}
    model = from_config(kind, text_config={}, tie_word_embeddings=False, **vision)
    assert parameter_count(model).number == COUNTS["by_default"][kind]


def test_every_text_model_of_a_wrapper_is_understood():
    assert {wrapper.text_type for wrapper in WRAPPERS.values()} <= set(FAMILIES)
