"""A checkpoint as Hugging Face has it: safetensors, with config.json and tokenizer.json beside them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kvplan.arch.model import Model
from kvplan.checkpoint.assemble import weights_from
from kvplan.checkpoint.checkpoint import Checkpoint
from kvplan.checkpoint.names import names_of
from kvplan.checkpoint.names.released import found_in
from kvplan.checkpoint.safetensors_files import SafetensorsFile, safetensors_in
from kvplan.checkpoint.stop_tokens import stop_tokens_in
from kvplan.checkpoint.tensor_file import F32
from kvplan.checkpoint.tokenizer import Tokenizer, from_tokenizer_json
from kvplan.errors import UsageError
from kvplan.specs.catalog import Found, load_model
from kvplan.specs.config_json import text_type
from kvplan.specs.document import printable, shortened
from kvplan.specs.strict_json import read_json

# What transformers calls the shards of a model.
_SHARD = re.compile(r"-\d+-of-\d+")


def folder_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a folder, or in one .safetensors file beside its config.json.

    Raises:
        SpecError: mistakes in config.json or in the index of the weights.
        UsageError: no weights are there, or a file is no safetensors file; the package is not installed.
        FileError: a file cannot be read.
    """
    single = path.suffix.lower() == ".safetensors" and not os.path.isdir(path)
    folder, label = path.parent if single else path, printable(shortened(path))
    if single and _SHARD.search(path.stem):
        hint = f"name its folder: {printable(shortened(folder))}"
        raise UsageError(f"'{label}' is one shard of several", hint=hint)
    file = SafetensorsFile(path) if single else safetensors_in(folder)
    config = folder / "config.json"
    model = load_model(Found(printable(shortened(config)), config))
    _refuse_packed(model, label)
    names = names_of(text_type(read_json(config)), model)

    def weights() -> dict[str, F32]:
        return weights_from(model, found_in(file, names), file)

    def tokenizer() -> Tokenizer:
        return _tokenizer_in(folder, model.vocab_size)

    return Checkpoint(label, path, model, weights, tokenizer)


def _refuse_packed(model: Model, label: str) -> None:
    """Refuse quantised weights: one tensor of the model is several of the file."""
    if model.weight_format:
        message = f"{label}: its weights are stored in {model.weight_format}, which cannot be read"
        raise UsageError(message, hint="safetensors are read in BF16, F16 and F32")


def _tokenizer_in(folder: Path, vocab_size: int) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.exists():
        raise UsageError(f"no tokenizer: there is no '{printable(shortened(path))}'")
    return from_tokenizer_json(path, vocab_size, stop_tokens_in(folder))
