"""From a Hugging Face config.json to a model: the file's family is known by its ``model_type``."""

from __future__ import annotations

from collections.abc import Callable

from kvplan.arch.model import Model
from kvplan.errors import SpecError, did_you_mean
from kvplan.specs.config import Config
from kvplan.specs.document import Document
from kvplan.specs.families import deepseek, gemma, gpt_oss, llama, older, qwen3
from kvplan.specs.families.common import Identity

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
    try:
        return adapt(config, identity)
    except ValueError as error:
        raise SpecError([document.problem((), str(error))]) from error
