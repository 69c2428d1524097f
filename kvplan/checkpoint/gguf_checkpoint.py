"""A GGUF file as a checkpoint: one file holds the description, the weights and the tokenizer."""

from __future__ import annotations

from pathlib import Path

from kvplan.checkpoint.assemble import weights_from
from kvplan.checkpoint.checkpoint import Checkpoint
from kvplan.checkpoint.gguf_recipes import GgufRecipes
from kvplan.checkpoint.gguf_tensors import GgufFile
from kvplan.checkpoint.gguf_tokenizer import gguf_tokenizer
from kvplan.checkpoint.tensor_file import F32
from kvplan.checkpoint.tokenizer import Tokenizer
from kvplan.specs.catalog import name_from
from kvplan.specs.families.common import Identity
from kvplan.specs.gguf_file import model_of
from kvplan.specs.gguf_header import read_header
from kvplan.specs.gguf_names import NAMES


def gguf_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a GGUF file.

    Raises:
        UsageError: it is no such file, a damaged one, or not understood.
        FileError: it cannot be read.
    """
    header = read_header(path)
    model = model_of(header, Identity(name_from(path), header.label))
    names = NAMES[str(header.metadata["general.architecture"])]

    def weights() -> dict[str, F32]:
        return weights_from(model, GgufRecipes(names), GgufFile(header))

    def tokenizer() -> Tokenizer:
        return gguf_tokenizer(header, model.vocab_size)

    return Checkpoint(header.label, path, model, weights, tokenizer)
