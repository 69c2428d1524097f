"""The tensors that a module's name in a checkpoint stands for."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from kvplan.arch.model import Model
from kvplan.arch.weight import Weight
from kvplan.specs.quantization.module_styles import LLAMA, PARTS, STYLES, Style

# What stands before ``layers.N`` in a text model.
_BEFORE = (
    *("model.", "model.language_model.", "language_model.model.", "language_model.", "backbone.", ""),
    *("model.text_model.", "thinker.model.", "model.decoder.", "transformer.", "gpt_neox.", "text_model."),
    *("language_model.backbone.", "language_model.model.decoder.", "transformer.encoder."),
)
_LAYER = re.compile(r"(?P<before>|.*\.)(?:layers|h|blocks)\.(?P<index>[0-9]{1,6})(?:\.(?P<rest>.+))?")
# Before layers that predict further tokens where they are counted by themselves (Qwen3.5).
_PREDICTING = "mtp."
_EXPERT = re.compile(r"\bexperts\.([0-9]{1,6})(?=\.|$)")
_OUTER: dict[str, tuple[str, ...]] = {
    "embed_tokens": ("embeddings", "wte", "embed", "word_embeddings", "embed_in", "tok_embeddings"),
    "embed_positions": ("wpe",),
    "norm": ("norm_f", "ln_f", "final_layernorm"),
    "lm_head": ("head", "embed_out", "output", "output_layer"),
}
# Modules that are no weights of the text model, or that hold none a format could pack: encoders, projectors,
# layers that predict further tokens, norms, rotations, short convolutions.
_NOT_COUNTED = re.compile(
    r"(vision|visual|image|audio|speech|video|patch|mtp|nextn|rotary|talker|token2wav|embed_vision|embed_audio"
    r"|connector|aligner|vit|resampler|mm_|multi_modal)\w*|\w*(projector|norm|norms|head|conv1d)"
    r"|eh_proj|act_fn|e_score_correction_bias|ln_\w+|perceive|mlp1"
)
_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]+")
# Words of names that say nothing of a module.
_EVERYWHERE = frozenset(
    ("model", "layers", "language_model", "backbone", "transformer", "weight", "bias", "text_model")
)
_PARTS = tuple(part for parts in PARTS.values() for part in parts)
# Nothing nested and few stars, so that no regular expression of a file can take for ever.
_MOST_STARS = 4
_SIMPLE = re.compile(
    r"(?:[\w\-/:^$|]|\\[.\-_/]|\\[dwb]\+?|\.[*+]?\??|\[\^?(?:[\w\-]|\\.)+\][*+]?|\((?:\?[:!=])?|\)\??){0,300}"
)


class UnknownNameError(ValueError):
    """A name that stands for no module known here; the message says why, and goes behind the name."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a layer, or with ``layer`` absent of the model, by its name here."""

    layer: int | None
    name: str


@dataclass(frozen=True, slots=True)
class Found:
    """A tensor, or with ``piece`` a piece of it: an expert of a stack, a part that is a tensor there."""

    tensor: Tensor
    piece: str = ""


class ModuleNames:
    """The tensors of a model, found by what checkpoints of its family call their modules."""

    def __init__(self, model: Model, model_type: str) -> None:
        """Look at a model, its prediction layers behind it, whose text model is of this ``model_type``."""
        self._style = style = STYLES.get(model_type, LLAMA)
        known: dict[tuple[Weight, ...], _Names] = {}
        self._layers = []
        self._main = sum(not layer.predicts for layer in model.layers)
        for layer in model.layers:
            weights = model.layer_weights(layer)
            self._layers.append(known.setdefault(weights, _Names(weights, style)))
        self._kinds = tuple(known.values())
        self._outer = {
            w.name: _outer_names(w.name) for w in (*model.input_weights(), *model.output_weights())
        }

    def find(self, name: str) -> list[Found]:
        """Return what a name, a ``*`` pattern, or behind ``re:`` a regular expression stands for.

        A point behind a name says nothing: AutoAWQ looks for parts of names.

        Raises:
            UnknownNameError: for nothing that is known.
        """
        if name.startswith("re:"):
            return self._matching(_regular(name[3:]), name[3:].replace("\\", ""))
        if "*" in name or "?" in name:
            # A module that matches has all that is in it.
            whole = re.compile(f"{fnmatch.translate(name)[:-2]}(?:\\..*)?\\Z")
            return self._matching(whole, name)
        name = name.removesuffix(".")
        inside = _LAYER.fullmatch(name)
        return self._anywhere(name) if inside is None else self._in_layer(name, inside)

    def _in_layer(self, name: str, inside: re.Match[str]) -> list[Found]:
        index, rest = int(inside["index"]), inside["rest"]
        if inside["before"] == _PREDICTING:
            index += self._main
        elif inside["before"] not in _BEFORE:
            return self._nothing(name)
        if index >= len(self._layers):
            return []  # a layer that predicts further tokens, and of no kind known here
        if rest is None:
            return [Found(Tensor(index, tensor)) for tensor in self._layers[index].paths]
        found = self._layers[index].under.get(_EXPERT.sub("experts", rest))
        if found is None:
            # A prediction layer is released with copies of the embedding and the head.
            return self._nothing(rest) if index >= self._main else self._in_other_layers(rest)
        return [Found(Tensor(index, tensor), _piece(rest)) for tensor in found]

    def _anywhere(self, name: str) -> list[Found]:
        """Return what a name without the number of a layer stands for: in every layer, or outside all."""
        found = [Found(Tensor(None, tensor)) for tensor, names in self._outer.items() if name in names]
        piece, path = _piece(name), _EXPERT.sub("experts", name)
        for index, names in enumerate(self._layers):
            found += (Found(Tensor(index, tensor), piece) for tensor in names.within.get(path, ()))
        return found or self._nothing(name)

    def _matching(self, pattern: re.Pattern[str], text: str) -> list[Found]:
        found = [
            Found(Tensor(None, tensor))
            for tensor, names in self._outer.items()
            if any(pattern.match(name) for name in names)
        ]
        said = (f"{before}layers" for before in _BEFORE if text.startswith(f"{before}layers"))
        layers = max(said, key=len, default=self._style.layers)
        for index, names in enumerate(self._layers):
            starts = [f"{layers}.{index}."]
            if index >= self._main:
                starts.append(f"{_PREDICTING}layers.{index - self._main}.")
            for start in starts:
                pieces = names.matching(pattern, start)
                found += (Found(Tensor(index, tensor), piece) for tensor, piece in pieces)
        return found or self._nothing(text)

    def _in_other_layers(self, rest: str) -> list[Found]:
        """Return no tensor for a module that other layers have, or one that is not counted.

        Raises:
            UnknownNameError: no layer has such a module.
        """
        path = _EXPERT.sub("experts", rest)
        if any(path in names.under for names in self._kinds):
            return []
        if any(_NOT_COUNTED.fullmatch(word) for word in _WORD.findall(rest)):
            return []
        raise UnknownNameError(f"stands for no module known here ({_strange(rest, self._vocabulary)!r})")

    def _nothing(self, name: str) -> list[Found]:
        """Return no tensor for a name whose words are all known, or that is of a module not counted.

        Raises:
            UnknownNameError: a word of it is of no module known here.
        """
        words = [word for word in _WORD.findall(name) if word not in _EVERYWHERE]
        if any(_NOT_COUNTED.fullmatch(word) for word in words):
            return []
        if any(word not in self._vocabulary for word in words):
            raise UnknownNameError(f"stands for no module known here ({_strange(name, self._vocabulary)!r})")
        return []

    @cached_property
    def _vocabulary(self) -> frozenset[str]:
        named = (LLAMA, self._style)
        texts = [part for style in named for _, theirs in style.blocks for part in theirs]
        texts += (leaf for style in named for own, theirs in style.leaves.items() for leaf in (own, *theirs))
        texts += (path for names in self._kinds for path in names.under)
        texts += (name for names in self._outer.values() for name in names)
        return frozenset(word for text in texts for word in _WORD.findall(text)) | {
            "self_attn",
            "linear_attn",
        }


class _Names:
    """The tensors of one layer by every name of theirs.

    Args:
        paths: each tensor's modules, below the layer.
        under: the tensors in each module; ``experts`` has no number behind it.
        within: the same by any run of a path's words.
    """

    def __init__(self, weights: tuple[Weight, ...], style: Style) -> None:
        self.paths = {weight.name: tuple(_paths(weight.name, style)) for weight in weights}
        self.under: dict[str, dict[str, None]] = {}
        self.within: dict[str, dict[str, None]] = {}
        self._experts = {weight.name: weight.copies for weight in weights}
        for tensor, paths in self.paths.items():
            for path in paths:
                words = f"{path}{tensor[tensor.rindex('.') :] if '.' in tensor else ''}".split(".")
                for start in range(len(words)):
                    for end in range(start + 1, len(words) + 1):
                        run = ".".join(words[start:end])
                        self.within.setdefault(run, {})[tensor] = None
                        if start == 0:
                            self.under.setdefault(run, {})[tensor] = None

    def matching(self, pattern: re.Pattern[str], start: str) -> Iterator[tuple[str, str]]:
        """Iterate over the tensors with a module that matches, by names that begin with ``start``.

        Each comes with the piece of it that matches; empty for all of it.

        Raises:
            UnknownNameError: a pattern takes some experts of a stack only.
        """
        for tensor, paths in self.paths.items():
            found = [path for path in paths if self._matches(pattern, start + path, self._experts[tensor])]
            pieces = {_part(path) for path in found}
            for piece in ("",) if "" in pieces else sorted(pieces):
                yield tensor, piece

    def _matches(self, pattern: re.Pattern[str], path: str, experts: int) -> bool:
        if experts == 1 or ".experts." not in path:
            return pattern.match(path) is not None
        ends = (path.replace(".experts.", f".experts.{number}.") for number in (0, experts - 1))
        found = [pattern.match(name) is not None for name in (path, *ends)]
        if found[1] != found[2]:
            raise UnknownNameError("stands for some experts of a layer only")
        return any(found)


def _strange(name: str, known: frozenset[str]) -> str:
    """Return the first word of a name that is not known; all of it where each word is."""
    words = [word for word in _WORD.findall(name) if word not in known and word not in _EVERYWHERE]
    return (words[0] if words else name)[:40]


def _piece(path: str) -> str:
    """Return the expert or part of a tensor of ours that a path stands for; empty for a whole tensor."""
    numbered = _EXPERT.search(path)
    return numbered[1] if numbered else _part(path)


def _part(path: str) -> str:
    return next((part for part in _PARTS if path.endswith(part)), "")


def _paths(tensor: str, style: Style) -> Iterator[str]:
    """Iterate over the names of a tensor's module, our own only where the family has no other."""
    module = tensor.rpartition(".")[0] or tensor
    blocks = ((ours, theirs) for ours, theirs in style.blocks if f"{module}.".startswith(ours))
    ours, theirs = next(blocks, ("", ("",)))
    rest = f"{module}."[len(ours) :].strip(".")
    leaves = [rest]
    for own, others in style.leaves.items():
        if rest == own or rest.endswith(f".{own}"):
            leaves += (rest.removesuffix(own) + other for other in others)
    before, dot, last = rest.rpartition(".")
    leaves += (f"{before}{dot}{part}" for part in PARTS.get(last, ()))
    for block in theirs:
        for leaf in leaves:
            yield f"{block}{leaf}".strip(".")


def _outer_names(tensor: str) -> tuple[str, ...]:
    """Return the names of a tensor outside the layers, with all that may stand before them."""
    module = tensor.removesuffix(".weight").removesuffix(".bias")
    names = (module, *_OUTER.get(module, ()))
    return tuple(f"{before}{name}" for name in names for before in _BEFORE)


def _regular(text: str) -> re.Pattern[str]:
    """Return a regular expression of a file.

    Raises:
        UnknownNameError: it is none, or one that could take for ever.
    """
    if not _SIMPLE.fullmatch(text) or len(re.findall(r"(?<!\\)[.\]][*+]", text)) > _MOST_STARS:
        raise UnknownNameError(
            "is a regular expression that is not understood: too long, or with repeated groups"
        )
    try:
        return re.compile(text)
    except re.error:
        raise UnknownNameError("is no regular expression") from None
