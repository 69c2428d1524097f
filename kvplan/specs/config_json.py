"""From a Hugging Face config.json to a model: the file's family is known by its ``model_type``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kvplan.arch.model import Model
from kvplan.checks import FieldError, Where
from kvplan.errors import Problem, SpecError, did_you_mean
from kvplan.specs.config import Config
from kvplan.specs.document import Document, dotted, printable
from kvplan.specs.families import deepseek, gemma, gpt_oss, llama, older, qwen3
from kvplan.specs.families.common import Identity
from kvplan.specs.strict_json import read_json

FAMILIES: dict[str, Callable[[Config, Identity], Model]] = {
    "deepseek_v2": deepseek.deepseek_v2,
    "deepseek_v3": deepseek.deepseek_v3,
    "falcon": older.falcon,
    "gemma2": gemma.gemma2,
    "gemma3": gemma.gemma3,
    "gemma3_text": gemma.gemma3_text,
    "gpt2": older.gpt2,
    "gpt_oss": gpt_oss.gpt_oss,
    "kimi_k2": deepseek.deepseek_v3,
    "llama": llama.llama,
    "mistral": llama.mistral,
    "mixtral": llama.mixtral,
    "phi": older.phi,
    "phi3": llama.phi3,
    "qwen2": llama.qwen2,
    "qwen3": qwen3.qwen3,
    "qwen3_moe": qwen3.qwen3_moe,
    "qwen3_next": qwen3.qwen3_next,
}

_GENERATING = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


def import_file(path: Path, identity: Identity) -> Model:
    """Return the model that a config.json on disk describes.

    Raises:
        SpecError: as :func:`import_config`, or a quantisation described beside the file only.
        FileError: the file cannot be read.
    """
    document = read_json(path)
    beside = path.with_name("hf_quant_config.json")
    quantised = isinstance(document.data, dict) and document.data.get("quantization_config")
    if beside.is_file() and not quantised:
        message = "this quantisation is not understood, and without it the weights would be counted as plain"
        raise SpecError([Problem(printable(str(beside)), 1, 1, message)])
    return import_config(document, identity)


def import_config(document: Document, identity: Identity) -> Model:
    """Return the model that a config.json describes.

    Raises:
        SpecError: a key is missing, malformed or not understood; each is named with its place.
    """
    config = Config(document)
    model_type = config.text("model_type")
    adapt = FAMILIES.get(model_type)
    if adapt is None:
        known = did_you_mean(model_type, FAMILIES) or f"understood: {', '.join(FAMILIES)}"
        message = (
            f"model_type {model_type[:40]!r} is not understood ({known})"
            if model_type
            else (f"'model_type' is required ({known})")
        )
        raise SpecError([document.problem(("model_type",), message)])
    _refuse_other_heads(config)
    try:
        return adapt(config, identity)
    except FieldError as error:
        raise SpecError([_placed(document, where, text) for where, text in error.complaints]) from error


def _refuse_other_heads(config: Config) -> None:
    """Refuse a class without a language model's head: its weights are others."""
    for name in config.words("architectures"):
        if not name.endswith(_GENERATING):
            config.refuse("architectures", f"{name[:40]!r} is not understood: it does not generate text")


def _placed(document: Document, where: Where, text: str) -> Problem:
    """Return what a field cannot be, placed at the key of its name, or at the file."""
    named = [path for path in document.key_places if path[-1:] == where[-1:]]
    path = named[0] if len(named) == 1 else where
    return document.problem(path, f"{dotted(path)}{text}")
