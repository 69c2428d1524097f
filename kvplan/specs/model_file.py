"""The model file: what a YAML model says, and how it becomes a :class:`~kvplan.arch.model.Model`.

The file names the kinds of layer once and then lists their order, so a uniform model is short and a
patterned one shows its pattern. Everything inside a kind is the layer kind's own dataclass in ``arch``:
a new architecture adds no second list of fields here, only its key.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from kvplan.arch.attention import Attention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import FeedForward, Layer, Mixer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.arch.vision import SiglipTower
from kvplan.specs.document import Document
from kvplan.specs.layer_pattern import Segment, compress, expand, kind_names
from kvplan.specs.validation import validate
from kvplan.storage import TORCH_DTYPES

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
# Larger figures are mistakes; bounding them keeps every product of two an exact int64.
Size = Annotated[int, Field(ge=1, le=1 << 31)]

MAX_LAYERS = 4096

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
        mixers = ("attention", "latent_attention", "gated_delta_net")
        for names in (mixers, ("mlp", "experts")):
            given = [name for name in names if getattr(self, name) is not None]
            if len(given) != 1:
                found = " and ".join(given) or "none"
                raise ValueError(f"expected exactly one of {', '.join(names)}; found {found}")
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
    """A model as its file describes it; key names are Hugging Face's where they exist there."""

    name: Name
    source: Annotated[str, Field(min_length=1, max_length=2000)]
    torch_dtype: Literal["bfloat16", "float16", "float32"]
    weight_format: Literal["fp8-block", "mxfp4"] | None = None
    hidden_size: Size
    vocab_size: Size
    max_position_embeddings: Size
    norm: Norm = Norm.RMS
    tie_word_embeddings: bool = False
    learned_positions: Size | None = None
    lm_head_bias: bool = False
    kinds: Annotated[dict[str, LayerKind], Field(min_length=1, max_length=MAX_LAYERS)]
    layers: Annotated[list[LayerGroup], Field(min_length=1, max_length=MAX_LAYERS)]
    vision_config: SiglipTower | None = None

    @model_validator(mode="after")
    def _layers_are_kinds(self) -> ModelFile:
        order = self._order()
        unknown = [name for name in dict.fromkeys(order) if name not in self.kinds]
        if unknown:
            raise ValueError(
                f"layers name '{unknown[0][:40]}', which is not one of kinds: {', '.join(self.kinds)}"
            )
        unused = [name for name in self.kinds if name not in order]
        if unused:
            raise ValueError(f"kind '{unused[0][:40]}' is in no layer")
        return self

    def _order(self) -> list[str]:
        depth = sum(group.repeat * len(group.pattern) for group in self.layers)
        if depth > MAX_LAYERS:
            raise ValueError(f"{depth:,} layers are more than {MAX_LAYERS:,}")
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
            tie_word_embeddings=self.tie_word_embeddings,
            learned_positions=self.learned_positions or 0,
            lm_head_bias=self.lm_head_bias,
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
    return validate(document, adapter()).model()


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
            "tie_word_embeddings": model.tie_word_embeddings,
            "learned_positions": model.learned_positions or None,
            "lm_head_bias": model.lm_head_bias,
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
