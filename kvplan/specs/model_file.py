"""The model file: what a YAML model says, and how it becomes a :class:`~kvplan.arch.model.Model`.

The file names the kinds of layer once and then lists their order, so a uniform model is short and a
patterned one shows its pattern. Everything inside a kind is the layer kind's own dataclass in ``arch``:
a new architecture adds no second list of fields here, only its key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, model_validator

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import FeedForward, Layer, Mixer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.arch.vision import SiglipTower
from kvplan.checks import LARGEST_SIZE, NAME, FieldError, Where, require_amounts
from kvplan.errors import Problem, SpecError, did_you_mean
from kvplan.specs.document import MAX_PROBLEMS, MAX_QUOTED, Document, dotted, printable, quoted
from kvplan.specs.layer_pattern import MAX_LAYERS, Segment, compress, expand, kind_names
from kvplan.specs.validation import validate
from kvplan.storage import TORCH_DTYPES

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
Size = Annotated[int, Field(ge=1, le=LARGEST_SIZE)]

MAX_KINDS = 512
MOST_LISTED = 24

# The key of each mixer and feed-forward class inside a kind.
KIND_CLASSES: dict[str, type[Mixer | FeedForward]] = {
    "attention": Attention,
    "latent_attention": LatentAttention,
    "gated_delta_net": GatedDeltaNet,
    "mlp": MLP,
    "experts": Experts,
}


class LayerKind(BaseModel):
    """One kind of layer: exactly one mixer, exactly one feed-forward block."""

    attention: Attention | None = None
    latent_attention: LatentAttention | None = None
    gated_delta_net: GatedDeltaNet | None = None
    mlp: MLP | None = None
    experts: Experts | None = None
    block: Block = Block.PRE_NORM

    @model_validator(mode="after")
    def _one_of_each(self) -> LayerKind:
        complaints: list[tuple[Where, str]] = []
        for names in (("attention", "latent_attention", "gated_delta_net"), ("mlp", "experts")):
            given = [name for name in names if getattr(self, name) is not None]
            if len(given) != 1:
                found = " and ".join(given) or "none"
                complaints.append(((), f"expected exactly one of {', '.join(names)}; found {found}"))
        if complaints:
            raise FieldError(*complaints)
        return self

    def layer(self) -> Layer:
        """Return the layer this kind describes."""
        mixer = self.attention or self.latent_attention or self.gated_delta_net
        mlp = self.mlp or self.experts
        assert mixer is not None
        assert mlp is not None
        return Layer(mixer, mlp, self.block)


class LayerGroup(BaseModel):
    """A pattern of layer kinds, repeated."""

    repeat: Annotated[int, Field(ge=1, le=MAX_LAYERS)] = 1
    pattern: Annotated[list[str], Field(min_length=1, max_length=MAX_LAYERS)]


class ModelFile(BaseModel):
    """A model as its file describes it; key names are Hugging Face's where they exist there.

    Args:
        name: the name in the catalog.
        source: where the description comes from.
        torch_dtype: the dtype of its released weights where no format says otherwise.
        weight_format: the format its released files are in; absent when they are plain.
        hidden_size: width of the residual stream.
        vocab_size: rows of the embedding.
        max_position_embeddings: the longest context the model was made for, in tokens.
        norm: the kind of norm used throughout.
        norm_eps: what norms add under the root.
        tie_word_embeddings: the output head is the embedding.
        learned_positions: rows of a learned position embedding.
        lm_head_bias: the output head has a bias.
        embedding_multiplier: embeddings are multiplied by it (Gemma: the root of the width).
        final_logit_softcapping: logits are bent to stay below it by a hyperbolic tangent (Gemma 2).
        kinds: the kinds of layer, by name.
        layers: the order of the layers: patterns of kinds, repeated.
        vision_config: an image encoder beside the language model.
    """

    name: Name
    source: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
    torch_dtype: Literal["bfloat16", "float16", "float32"]
    weight_format: Literal["fp8-block", "mxfp4"] | None = None
    hidden_size: Size
    vocab_size: Size
    max_position_embeddings: Size
    norm: Norm = Norm.RMS
    norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    learned_positions: Size | None = None
    lm_head_bias: bool = False
    embedding_multiplier: float = 1.0
    final_logit_softcapping: float | None = None
    kinds: Annotated[dict[str, LayerKind], Field(min_length=1, max_length=MAX_KINDS)]
    layers: Annotated[list[LayerGroup], Field(min_length=1, max_length=MAX_LAYERS)]
    vision_config: SiglipTower | None = None

    @model_validator(mode="after")
    def _layers_are_not_too_many(self) -> ModelFile:
        depth = sum(group.repeat * len(group.pattern) for group in self.layers)
        if depth > MAX_LAYERS:
            raise FieldError((("layers",), f"{depth:,} layers are more than {MAX_LAYERS:,}"))
        return self

    @model_validator(mode="after")
    def _amounts_are_amounts(self) -> ModelFile:
        require_amounts(self, "norm_eps", "embedding_multiplier", "final_logit_softcapping")
        return self

    @model_validator(mode="after")
    def _positions_are_learned(self) -> ModelFile:
        longest = self.max_position_embeddings
        if self.learned_positions is not None and self.learned_positions < longest:
            message = f"must be at least max_position_embeddings ({longest}), not {self.learned_positions}"
            raise FieldError((("learned_positions",), message))
        return self

    def _order(self) -> list[str]:
        return expand([Segment(group.repeat, tuple(group.pattern)) for group in self.layers])

    def model(self) -> Model:
        """Return the model this file describes."""
        layers = {name: kind.layer() for name, kind in self.kinds.items()}
        return Model(
            name=self.name,
            source=self.source,
            dtype=TORCH_DTYPES[self.torch_dtype],
            hidden_size=self.hidden_size,
            vocab_size=self.vocab_size,
            max_position_embeddings=self.max_position_embeddings,
            layers=tuple(layers[name] for name in self._order()),
            norm=self.norm,
            norm_eps=self.norm_eps,
            tie_word_embeddings=self.tie_word_embeddings,
            learned_positions=self.learned_positions or 0,
            lm_head_bias=self.lm_head_bias,
            embedding_multiplier=self.embedding_multiplier,
            final_logit_softcapping=self.final_logit_softcapping,
            weight_format=self.weight_format or "",
            vision=self.vision_config,
        )


def adapter() -> TypeAdapter[ModelFile]:
    """Return the checker of model files."""
    return TypeAdapter(ModelFile)


def read_model(document: Document) -> Model:
    """Return the model a document describes.

    Raises:
        SpecError: every mistake in the document.
    """
    if isinstance(document.data, dict) and {"memory", "peak_dense"} <= document.data.keys():
        raise SpecError([document.problem((), "this is an accelerator file: it goes with --gpu")])
    strange = _strange_kinds(document)
    try:
        found = validate(document, adapter())
    except SpecError as error:
        raise SpecError([*error.problems, *strange[:MAX_PROBLEMS]]) from None
    if problems := strange or _idle_kinds(document, found):
        raise SpecError(problems[:MAX_PROBLEMS])
    return found.model()


def _strange_kinds(document: Document) -> list[Problem]:
    """Return the names in patterns that are no kind.

    They are looked for in the plain data, so that they are told together with whatever else is wrong.
    """
    data = document.data if isinstance(document.data, dict) else {}
    kinds, groups = data.get("kinds"), data.get("layers")
    if not isinstance(kinds, dict) or not kinds or not isinstance(groups, list):
        return []
    used = {
        ("layers", row, "pattern", column): name
        for row, group in enumerate(groups)
        if isinstance(group, dict) and isinstance(group.get("pattern"), list)
        for column, name in enumerate(group["pattern"])
        if isinstance(name, str)
    }
    return [
        document.problem(path, f"{dotted(path)}{_unknown_kind(name, kinds)}")
        for path, name in used.items()
        if name not in kinds
    ]


def _idle_kinds(document: Document, found: ModelFile) -> list[Problem]:
    """Return the kinds that no layer is of."""
    used = {name for group in found.layers for name in group.pattern}
    idle = [("kinds", name) for name in found.kinds if name not in used]
    return [document.problem(path, f"{dotted(path)}is in no layer", at_key=True) for path in idle]


def _unknown_kind(name: str, kinds: Iterable[str]) -> str:
    known = [printable(kind)[:MAX_QUOTED] for kind in kinds]
    suggestion = did_you_mean(name, known)
    end = f" ({suggestion})" if suggestion else ""
    return f"{quoted(name)} is not one of kinds: {', '.join(known[:MOST_LISTED])}{end}"


def model_file(model: Model) -> ModelFile:
    """Return the file that describes a model: reading it gives the model back."""
    names = kind_names(model.layers)
    segments = compress([names[layer] for layer in model.layers])
    torch_dtypes = {ours: theirs for theirs, ours in TORCH_DTYPES.items()}
    return ModelFile.model_validate(
        {
            "name": model.name,
            "source": model.source,
            "torch_dtype": torch_dtypes[model.dtype],
            "weight_format": model.weight_format or None,
            "hidden_size": model.hidden_size,
            "vocab_size": model.vocab_size,
            "max_position_embeddings": model.max_position_embeddings,
            "norm": model.norm,
            "norm_eps": model.norm_eps,
            "tie_word_embeddings": model.tie_word_embeddings,
            "learned_positions": model.learned_positions or None,
            "lm_head_bias": model.lm_head_bias,
            "embedding_multiplier": model.embedding_multiplier,
            "final_logit_softcapping": model.final_logit_softcapping,
            "kinds": {name: _kind(layer) for layer, name in names.items()},
            "layers": [{"repeat": s.repeat, "pattern": list(s.pattern)} for s in segments],
            "vision_config": model.vision,
        }
    )


def _kind(layer: Layer) -> LayerKind:
    kind = LayerKind.model_construct(block=layer.block)
    keys = {kind_class: key for key, kind_class in KIND_CLASSES.items()}
    for part in (layer.mixer, layer.mlp):
        setattr(kind, keys[type(part)], part)
    return kind
