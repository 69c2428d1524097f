"""Count the encoders of small configs with transformers on the meta device, into towers.yaml.

    pip install torch==2.13.0 transformers==5.23.0
    python tests/data/count_towers.py [--check]

With ``--check`` they are counted again and compared; the exit status is 1 where they differ.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from tower_cases import CASES, SOUND_ONLY, TEXT, UNCOUNTED
from transformers import CONFIG_MAPPING, AutoModelForMultimodalLM

COUNTS = Path(__file__).with_name("towers.yaml")
TEXT_PARTS = ("language_model.", "lm_head.", "model.text_model.")
# By default it has 96 heads in 4,096 elements, which do not divide.
WITHOUT_DEFAULTS = ("glm4v_moe",)
SAID = {"missing": None, "true": True, "false": False}


def made(given: dict[str, Any]) -> torch.nn.Module:
    """Return transformers' model of a config, without memory for its tensors."""
    given = copy.deepcopy(given)
    config = CONFIG_MAPPING[given["model_type"]].from_dict(given)
    config._experts_implementation = "eager"
    with torch.device("meta"):
        return AutoModelForMultimodalLM.from_config(config)


def counted(given: dict[str, Any]) -> tuple[int, int]:
    """Return the parameters outside the language model and its head, and the stored buffers there."""
    model = made(given)
    parameters = dict(model.named_parameters())
    stored = {name: tensor for name, tensor in model.state_dict().items() if name not in parameters}
    return _elements(parameters), _elements(stored)


def _elements(tensors: dict[str, torch.Tensor]) -> int:
    names = (name for name in tensors if not any(part in name for part in TEXT_PARTS))
    return sum(tensors[name].numel() for name in names)


def by_default(model_type: str) -> int:
    """Return all parameters of a class whose encoder and text model are those of their defaults, untied."""
    config = {"model_type": model_type, "text_config": {}, "tie_word_embeddings": False}
    config |= {} if model_type in SOUND_ONLY else {"vision_config": {}}
    return sum(parameter.numel() for parameter in made(config).parameters())


def tied(given: dict[str, Any]) -> dict[str, bool]:
    """Return whether the head is the embedding, by what the config and its text_config say of it."""
    found = {}
    for outer, outside in SAID.items():
        for inner, inside in SAID.items():
            config = copy.deepcopy(given)
            config.pop("tie_word_embeddings", None)
            if outside is not None:
                config["tie_word_embeddings"] = outside
            if inside is not None:
                config["text_config"]["tie_word_embeddings"] = inside
            model = made(config)
            # Llama 4 keeps a whole language model inside, with a head of its own.
            model = getattr(model, "language_model", model)
            found[f"{outer}, {inner}"] = model.lm_head.weight is model.get_input_embeddings().weight
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    encoders, uncounted, ties, defaults = [], [], {}, {}
    for name, config in CASES.items():
        parameters, buffers = counted(config)
        encoders.append({"case": name, "parameters": parameters, "buffers": buffers, "config": config})
        if config["model_type"] == name:
            ties[name] = tied(config)
            if name not in WITHOUT_DEFAULTS:
                defaults[name] = by_default(name)
    for name, text in UNCOUNTED.items():
        config = {"model_type": name, "text_config": {**TEXT, **text, "pad_token_id": 0}}
        config["tie_word_embeddings"] = False
        everything = sum(parameter.numel() for parameter in made(config).parameters())
        uncounted.append({"case": name, "text": everything - counted(config)[0], "config": config})
        ties[name] = tied(config)
    found = {"encoders": encoders, "uncounted": uncounted, "tied": ties, "by_default": defaults}
    if check:
        return found != yaml.safe_load(COUNTS.read_text(encoding="utf-8"))
    COUNTS.write_text(yaml.dump(found, sort_keys=False, width=110, default_flow_style=None), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
