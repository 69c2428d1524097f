"""Finding the quantisation of a checkpoint, and the model with it."""

from __future__ import annotations

from kvplan.arch.model import Model
from kvplan.specs.config import Config
from kvplan.specs.document import Document
from kvplan.specs.quantization.methods import read_quantization
from kvplan.specs.quantization.modelopt import beside as read_beside
from kvplan.specs.quantization.released import as_quantised
from kvplan.specs.quantization.rules import Quantization

_KEY = "quantization_config"
# Where multimodal files have their text model.
_TEXT = ("text_config", "llm_config", "language_config")


def with_quantization(model: Model, config: Config, beside: Document | None) -> Model:
    """Return a model with what its released files are stored in.

    The quantisation is config.json's, at its top or beside the text model's keys; where it has none, that of
    the hf_quant_config.json in its folder.

    Args:
        model: as its adapter made it.
        config: the whole config.json.
        beside: the other file, if there is one.

    Raises:
        SpecError: the quantisation is not understood, or names a module that the model has not.
    """
    quantization = _quantization(config, beside)
    if quantization is None:
        return model
    return as_quantised(model, quantization, _text_model_type(config))


def _quantization(config: Config, beside: Document | None) -> Quantization | None:
    places = (config, *(config.inner(key) for key in _TEXT if config.has(key)))
    for place in places:
        if place.has(_KEY):
            # DeepSeek-V4 says the format of its experts beside it.
            return read_quantization(place.inner_with(_KEY, ("expert_dtype",)))
    return None if beside is None else read_beside(Config(beside))


def _text_model_type(config: Config) -> str:
    inner = next((config.inner(key) for key in _TEXT if config.has(key)), config)
    return inner.text("model_type") or config.text("model_type")
