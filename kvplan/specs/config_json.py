"""From a Hugging Face config.json to a model: the file's family is known by its ``model_type``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from kvplan.arch.model import Model
from kvplan.checks import FieldError, Where
from kvplan.errors import Problem, SpecError, did_you_mean
from kvplan.specs import families
from kvplan.specs.config import Config
from kvplan.specs.document import Document, dotted
from kvplan.specs.families import wrappers
from kvplan.specs.families.common import Adapter, Families, Identity
from kvplan.specs.quantization.read import with_quantization
from kvplan.specs.strict_json import read_json


def _text_families() -> Iterator[tuple[str, Adapter]]:
    """Iterate over the model types that the modules of kvplan.specs.families read, each with its adapter."""
    for module in iter_modules(families.__path__):
        found: Families = getattr(import_module(f"{families.__name__}.{module.name}"), "FAMILIES", {})
        yield from sorted(found.items())


TEXT_FAMILIES: Families = dict(_text_families())
FAMILIES: Families = {**TEXT_FAMILIES, **wrappers.adapters(TEXT_FAMILIES)}

# Classes whose released files may leave out their model_type.
_TYPES = {"MiniCPM3ForCausalLM": "minicpm3"}
_GENERATING = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ChatGLMModel")


def import_file(path: Path, identity: Identity) -> Model:
    """Return the model that a config.json on disk describes.

    Raises:
        SpecError: as :func:`import_config`.
        FileError: the file cannot be read.
    """
    document = read_json(path)
    beside = path.with_name("hf_quant_config.json")
    return import_config(document, identity, read_json(beside) if beside.is_file() else None)


def import_config(document: Document, identity: Identity, beside: Document | None = None) -> Model:
    """Return the model that a config.json describes.

    ``beside`` is the hf_quant_config.json of its folder: the file's quantisation where config.json has none.

    Raises:
        SpecError: a key is missing, malformed or not understood; each is named with its place.
    """
    config = Config(document)
    model_type = config.text("model_type") or _type_of_class(config)
    adapt = FAMILIES.get(model_type)
    if adapt is None:
        known = did_you_mean(model_type, FAMILIES) or f"{len(FAMILIES)} others are, such as llama"
        message = (
            f"model_type {model_type[:40]!r} is not understood ({known})"
            if model_type
            else "'model_type' is required"
        )
        raise SpecError([document.problem(("model_type",), message)])
    _refuse_other_heads(config)
    try:
        return with_quantization(adapt(config, identity), config, beside)
    except FieldError as error:
        raise SpecError([_placed(document, where, text) for where, text in error.complaints]) from error


def text_type(document: Document) -> str:
    """Return the model_type of the text model that a config.json describes, which may be inside a wrapper.

    Raises:
        SpecError: it is malformed.
    """
    config = Config(document)
    found = config.text("model_type") or _type_of_class(config)
    wrapper = wrappers.WRAPPERS.get(found)
    if wrapper is None:
        return found
    inner = config.optional_inner("text_config")
    return wrapper.text_type if inner is None else inner.text("model_type", default=wrapper.text_type)


def _type_of_class(config: Config) -> str:
    """Return the model_type of the class that a file names where it says none itself (MiniCPM3-4B)."""
    return next((_TYPES[name] for name in config.words("architectures") if name in _TYPES), "")


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
