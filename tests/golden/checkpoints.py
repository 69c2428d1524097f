"""Save every golden case with transformers as it saves a model, and hold what kvplan opens to the weights.

    pip install torch==2.13.0 transformers==5.23.0
    python tests/golden/checkpoints.py [--write] [NAME ...]

transformers writes the names that released files have: it undoes what it does to them when it loads. Of
classes with encoders beside a text model names and shapes are made only: nothing of them is filled. The exit
status is 1 where a tensor of the engine is not the very array that the case's weights have under its name, or
where names and shapes are not those of tests/checkpoint/data, which ``--write`` writes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import saved_tensors
import torch
import transformers
from make_golden import hf_model, native_config
from replay import NAMES, Array, config_path, model_type, read_case, read_model
from saved_tensors import WITH_ENCODERS, Saved
from transformers import CONFIG_MAPPING
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.auto import modeling_auto
from weights import golden_weights

from kvplan.checkpoint.assemble import weights_from
from kvplan.checkpoint.checkpoint import open_checkpoint
from kvplan.checkpoint.names import names_of
from kvplan.checkpoint.names.released import found_in
from kvplan.checkpoint.safetensors_files import safetensors_in
from kvplan.errors import KvplanError
from kvplan.specs.families.wrappers import WRAPPERS

_CLASSES = {
    **modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    **modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    **modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
}
# Classes with encoders by their names here; Gemma 3n's encoder is of another package.
WRAPPED = {f"{kind}{WITH_ENCODERS}": kind for kind in WRAPPERS if kind != "gemma3n"}
# The class's own default has heads that do not divide its width.
ENCODERS = {"aya_vision": {"vision_config": {"hidden_size": 64, "num_attention_heads": 4}}}
# transformers renames the encoder's ``layers`` to what released files have, and the text model's with them.
LAYERS_ARE_BLOCKS = ("kimi_k25",)


def opened(name: str, weights: dict[str, Array], folder: Path) -> Mapping[str, Array]:
    """Return the weights of the checkpoint that transformers saves of a case, beside the case's config.

    Of remote code, whose files have other names, it is read as one of the class that stands for it.
    """
    model = read_model(name)
    hf_model(name, model, weights).save_pretrained(folder)
    native = native_config(name)["model_type"]
    if native != model_type(name):
        file = safetensors_in(folder)
        return weights_from(model, found_in(file, names_of(native, model)), file)
    shutil.copy(config_path(name), folder / "config.json")
    return open_checkpoint(folder).weights()


def differences(found: Mapping[str, Array], weights: Mapping[str, Array]) -> list[str]:
    """Return the names that are in one only, or whose arrays are not the same."""
    shared = found.keys() & weights.keys()
    apart = [name for name in shared if not np.array_equal(found[name], weights[name])]
    return sorted([*(found.keys() ^ weights.keys()), *apart])


def saved_case(name: str) -> tuple[Saved, list[str]]:
    """Return what transformers saves of a case, and what is wrong with what kvplan reads of it."""
    weights = golden_weights(read_model(name), read_case(name).seed)
    with TemporaryDirectory() as folder:
        try:
            wrong = differences(opened(name, weights, Path(folder)), weights)
        except KvplanError as error:
            wrong = list(error.lines())
        file = safetensors_in(Path(folder))
        tensors = {tensor: file.shape(tensor) for tensor in sorted(file.names())}
    return Saved(native_config(name)["model_type"], name, tensors), wrong


def saved_wrapper(kind: str) -> Saved:
    """Return what transformers would save of a class with encoders, around the first case of its text."""
    text_type = WRAPPERS[kind].text_type
    case = next(name for name in NAMES if model_type(name) == text_type)
    given: dict[str, Any] = {"text_config": native_config(case), **ENCODERS.get(kind, {})}
    given["tie_word_embeddings"] = given["text_config"].get("tie_word_embeddings", False)
    with torch.device("meta"):
        found = getattr(transformers, _class(kind))._from_config(CONFIG_MAPPING[kind].from_dict(given))
    tensors = {
        name.replace(".blocks.", ".layers.") if kind in LAYERS_ARE_BLOCKS else name: tuple(tensor.shape)
        for name, tensor in revert_weight_conversion(found, found.state_dict()).items()
    }
    return Saved(text_type, case, dict(sorted(tensors.items())))


def _class(kind: str) -> str:
    found = _CLASSES[kind]
    return found if isinstance(found, str) else found[0]


def checked(names: list[str]) -> Iterator[tuple[str, Saved, list[str]]]:
    """Iterate over checkpoints: the name, what is saved, what is wrong with what is read of it."""
    for name in names:
        if name in WRAPPED:
            yield name, saved_wrapper(WRAPPED[name]), []
        else:
            yield name, *saved_case(name)


def main() -> int:
    """Check the named cases and classes with encoders, all by default."""
    everything = [*NAMES, *WRAPPED]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write names and shapes, rather than compare")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(everything))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    known, bad = saved_tensors.read() if saved_tensors.PATH.is_file() else {}, 0
    for name, saved, wrong in checked(arguments.names or everything):
        if not arguments.write and known.get(name) != saved:
            wrong.append("not the names and shapes of tests/checkpoint/data")
        known[name], bad = saved, bad + bool(wrong)
        print(f"{name:<32} {len(saved.tensors):>4} tensors {'; '.join(wrong[:3]) or 'equal'}", flush=True)
    if arguments.write:
        saved_tensors.write(known)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
