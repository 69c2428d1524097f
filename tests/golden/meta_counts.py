"""Count parameters with transformers on the meta device, and compare them with the importer's.

    pip install torch==2.13.0 transformers==5.23.0
    python tests/golden/meta_counts.py [WORD ...]

Counted are every config.json of tests/data whose family is part of transformers, and the class defaults of
every such family, which no test of released files sees; WORDs choose among them by name. Nothing is
allocated. What differs is printed, then one line of how many were counted; the exit status is 1 where
anything differs, or where nothing was counted.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    PreTrainedConfig,
)

from kvplan.errors import SpecError
from kvplan.plan.weights import parameter_count
from kvplan.specs.config_json import FAMILIES, import_config
from kvplan.specs.families.common import Identity
from kvplan.specs.families.wrappers import WRAPPERS
from kvplan.specs.strict_json import read_json

DATA = Path(__file__).parent.parent / "data"
FOLDERS = ("hf_configs", "more_hf_configs")
MODELS = (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING)
# Class defaults that make no model in transformers itself: sizes are missing or do not divide, or a tower
# needs a package.
NO_MODEL = (
    *"aya_vision dbrx dots1 hunyuan_v1_dense hunyuan_v1_moe".split(),
    *"lfm2_moe ministral nemotron".split(),
)
# Class defaults that the importer refuses, by the key it names: no released file leaves these as they are.
REFUSED = {
    "deepseek_v2": "num_experts_per_tok",
    "glm4_moe": "head_dim",
    "glm4v_moe": "head_dim",
    "minimax_m3_vl": "rotary_dim",
    "minimax_m3_vl_text": "rotary_dim",
}


@dataclass(frozen=True)
class Counted:
    """A config that is counted twice.

    Args:
        name: what it is called.
        path: its config.json.
        config: the same, as transformers reads it.
        defaults_of: the family whose class defaults it is; empty for a released config.
    """

    name: str
    path: Path
    config: PreTrainedConfig
    defaults_of: str = ""


def released() -> Iterator[Counted]:
    """Iterate over the configs of tests/data whose family is part of transformers."""
    for path in sorted(path for folder in FOLDERS for path in (DATA / folder).glob("*.json")):
        given = json.loads(path.read_text(encoding="utf-8"))
        given.pop("quantization_config", None)
        if given.get("model_type") in CONFIG_MAPPING:
            yield Counted(path.stem, path, CONFIG_MAPPING[given["model_type"]].from_dict(given))


def defaults(folder: Path) -> Iterator[Counted]:
    """Iterate over the class defaults of the families that generate text, written out key by key.

    Those whose encoders kvplan says it does not count are left to tests/data/count_towers.py.
    """
    missing = {kind for kind, wrapper in WRAPPERS.items() if wrapper.missing}
    for kind in sorted((FAMILIES.keys() & CONFIG_MAPPING.keys()) - missing):
        if any(CONFIG_MAPPING[kind] in models for models in MODELS):
            config = CONFIG_MAPPING[kind]()
            path = folder / f"{kind}.json"
            path.write_text(json.dumps(config.to_dict(), default=str), encoding="utf-8")
            yield Counted(f"defaults of {kind}", path, config, kind)


def in_transformers(counted: Counted) -> int | str:
    """Return the parameters of transformers' model, tied ones once; or why there is none."""
    config = counted.config
    try:
        with torch.device("meta"):
            model = next(models[type(config)] for models in MODELS if type(config) in models)(config)
        model.tie_weights()
    except Exception as error:  # noqa: BLE001 - whatever a class raises, it has no model
        return f"transformers: {type(error).__name__}: {error}"
    return sum(parameter.numel() for parameter in model.parameters())


def in_kvplan(counted: Counted) -> int | str:
    """Return the parameters of the imported model; or why it is refused."""
    try:
        model = import_config(read_json(counted.path), Identity("counted", "tests/golden"))
    except SpecError as error:
        return f"refused: {error.problems[0].message}"
    return parameter_count(model).number


def complaint(counted: Counted) -> str:
    """Return what is wrong with a config's two counts; nothing where they are equal, or known to be none."""
    wanted = in_transformers(counted)
    if isinstance(wanted, str):
        return "" if counted.defaults_of in NO_MODEL else wanted
    found, key = in_kvplan(counted), REFUSED.get(counted.defaults_of)
    if key is None:
        return "" if found == wanted else f"{wanted} in transformers, {found} here"
    refused = isinstance(found, str) and key in found
    return "" if refused else f"expected to be refused for {key}, is {found}"


def main() -> int:
    """Compare the configs whose names hold one of the words, all by default."""
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    words, complaints, count = sys.argv[1:], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for counted in (*released(), *defaults(Path(folder))):
            if not words or any(word in counted.name for word in words):
                count += 1
                if said := complaint(counted):
                    complaints += 1
                    print(f"{counted.name}: {said}", flush=True)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}: parameters of {count} configs counted, {complaints} differ")
    return 1 if complaints or not count else 0


if __name__ == "__main__":
    sys.exit(main())
