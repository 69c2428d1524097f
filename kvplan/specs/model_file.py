"""The model file: what a YAML model says, and how it becomes a :class:`~kvplan.arch.model.Model`.

The file names the kinds of layer once and then lists their order, so a uniform model is short and a
patterned one shows its pattern. Everything inside a kind is the layer kind's own dataclass in ``arch``:
a new architecture adds no second list of fields here, only its key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, model_validator

from kvplan.arch.altup import AltUp
from kvplan.arch.attention import Attention
from kvplan.arch.attention_beside_mamba import AttentionBesideMamba
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.cross_attention import CrossAttention
from kvplan.arch.experts import Experts
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.hyper_connections import HyperConnections
from kvplan.arch.kimi_delta_attention import KimiDeltaAttention
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import FeedForward, Layer, Mixer
from kvplan.arch.lightning_attention import LightningAttention
from kvplan.arch.mamba import Mamba
from kvplan.arch.mamba2 import Mamba2
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.arch.per_layer_input import PerLayerInput
from kvplan.arch.prediction_layer import prediction_layer
from kvplan.arch.released import StoredAs, strange_tensors
from kvplan.arch.residual import ResidualFactors
from kvplan.arch.rg_lru import RgLru
from kvplan.arch.shared_block import SharedBlock
from kvplan.arch.short_convolution import ShortConvolution
from kvplan.arch.tower import Tower
from kvplan.arch.weight import Weight
from kvplan.checks import LARGEST_SIZE, NAME, FieldError, Where, require_amounts
from kvplan.errors import Problem, SpecError, did_you_mean
from kvplan.specs.document import MAX_PROBLEMS, MAX_QUOTED, Document, NodePath, dotted, printable, quoted
from kvplan.specs.layer_pattern import MAX_LAYERS, Segment, compress, expand, kind_names
from kvplan.specs.validation import validate
from kvplan.storage import PACKED_FORMATS, TORCH_DTYPES

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
Size = Annotated[int, Field(ge=1, le=LARGEST_SIZE)]
if TYPE_CHECKING:
    FormatName: TypeAlias = str
else:
    FormatName = Literal[PACKED_FORMATS]

MAX_KINDS = 512
MAX_TOWERS = 8
MOST_LISTED = 24

# The key of each class inside a kind.
MIXERS: dict[str, type[Mixer]] = {
    "attention": Attention,
    "latent_attention": LatentAttention,
    "compressed_attention": CompressedAttention,
    "gated_delta_net": GatedDeltaNet,
    "kimi_delta_attention": KimiDeltaAttention,
    "lightning_attention": LightningAttention,
    "rg_lru": RgLru,
    "short_convolution": ShortConvolution,
    "mamba": Mamba,
    "mamba2": Mamba2,
    "attention_beside_mamba": AttentionBesideMamba,
    "cross_attention": CrossAttention,
}
FEED_FORWARDS: dict[str, type[FeedForward]] = {"mlp": MLP, "experts": Experts}


class LayerKind(BaseModel):
    """One kind of layer: at most one mixer and at most one feed-forward block, and one of them at least."""

    attention: Attention | None = None
    latent_attention: LatentAttention | None = None
    compressed_attention: CompressedAttention | None = None
    gated_delta_net: GatedDeltaNet | None = None
    kimi_delta_attention: KimiDeltaAttention | None = None
    lightning_attention: LightningAttention | None = None
    rg_lru: RgLru | None = None
    short_convolution: ShortConvolution | None = None
    mamba: Mamba | None = None
    mamba2: Mamba2 | None = None
    attention_beside_mamba: AttentionBesideMamba | None = None
    cross_attention: CrossAttention | None = None
    mlp: MLP | None = None
    experts: Experts | None = None
    block: Block = Block.PRE_NORM
    residual_factors: ResidualFactors | None = None
    output_scale: bool = False
    stored_otherwise: tuple[StoredAs, ...] = ()
    shared_block: SharedBlock | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> LayerKind:
        complaints: list[tuple[Where, str]] = []
        for names in (MIXERS, FEED_FORWARDS):
            given = self._given(names)
            if len(given) > 1:
                found = " and ".join(given)
                complaints.append(((), f"expected at most one of {', '.join(names)}; found {found}"))
        if not self._given((*MIXERS, *FEED_FORWARDS)):
            complaints.append(((), f"expected one of {', '.join((*MIXERS, *FEED_FORWARDS))}; found none"))
        if complaints:
            raise FieldError(*complaints)
        return self

    def _given(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]

    def layer(
        self,
        per_layer_input: PerLayerInput | None,
        altup: AltUp | None,
        hyper_connections: HyperConnections | None,
    ) -> Layer:
        """Return the layer this kind describes, in a model with these inputs and streams."""
        mixer: Mixer | None = next((getattr(self, name) for name in self._given(MIXERS)), None)
        mlp: FeedForward | None = next((getattr(self, name) for name in self._given(FEED_FORWARDS)), None)
        factors, scaled = self.residual_factors, self.output_scale
        return Layer(
            mixer,
            mlp,
            self.block,
            self.stored_otherwise,
            residual_factors=factors,
            per_layer_input=per_layer_input,
            altup=altup,
            hyper_connections=hyper_connections,
            output_scale=scaled,
            shared_block=self.shared_block,
        )


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
        stored_otherwise: tensors outside layers that these files have in another format.
        kv_format: the KV format its files ask for; absent when they ask for none.
        hidden_size: width of the residual stream.
        vocab_size: rows of the embedding.
        max_position_embeddings: the longest context the model was made for, in tokens.
        norm: the kind of norm used throughout.
        norm_eps: what norms add under the root.
        tie_word_embeddings: the output head is the embedding.
        input_only_tokens: rows of the embedding behind the vocabulary's, which the head has no rows for
            (Llama 3.2 Vision).
        learned_positions: positions of a learned position embedding.
        position_offset: rows of that embedding before the first position's (OPT).
        lm_head_bias: the output head has a bias.
        embedding_size: width of the embedding and of the head, with a matrix between each and the residual
            stream; hidden_size, without them, where absent (OPT-350m).
        embedding_multiplier: embeddings are multiplied by it (Gemma: the root of the width).
        embedding_norm: embeddings are normalised (BLOOM).
        residual_multiplier: what a mixer or an MLP adds to the residual stream is multiplied by it (Granite).
        final_norm: the residual stream is normalised behind the last layer; not so in OPT-350m.
        logits_multiplier: logits are multiplied by it (Cohere, Granite).
        final_logit_softcapping: logits are bent to stay below it by a hyperbolic tangent (Gemma 2).
        kinds: the kinds of layer, by name.
        layers: the order of the layers: patterns of kinds, repeated.
        per_layer_input: a second embedding, with a part for each layer (Gemma 4).
        num_nextn_predict_layers: layers beside the model that predict further tokens, each like the last one.
        prediction_stored_otherwise: their tensors that these files have in another format; those of the last
            layer where absent.
        altup: residual streams of which a layer runs on one (Gemma 3n).
        hyper_connections: residual streams that mixers and MLPs read, feed and mix anew (DeepSeek-V4).
        towers: encoders of images or sound beside the language model, tensor by tensor.
        missing_towers: encoders that are not counted, by name: their weights come on top.
    """

    name: Name
    source: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
    torch_dtype: Literal["bfloat16", "float16", "float32"]
    weight_format: FormatName | None = None
    stored_otherwise: tuple[StoredAs, ...] = ()
    kv_format: Literal["fp8"] | None = None
    hidden_size: Size
    vocab_size: Size
    max_position_embeddings: Size
    norm: Norm = Norm.RMS
    norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    input_only_tokens: Annotated[int, Field(ge=0, le=LARGEST_SIZE)] = 0
    learned_positions: Size | None = None
    position_offset: Annotated[int, Field(ge=0, le=LARGEST_SIZE)] = 0
    lm_head_bias: bool = False
    embedding_size: Size | None = None
    embedding_multiplier: float = 1.0
    embedding_norm: bool = False
    residual_multiplier: float = 1.0
    final_norm: bool = True
    logits_multiplier: float = 1.0
    final_logit_softcapping: float | None = None
    kinds: Annotated[dict[str, LayerKind], Field(min_length=1, max_length=MAX_KINDS)]
    layers: Annotated[list[LayerGroup], Field(min_length=1, max_length=MAX_LAYERS)]
    per_layer_input: PerLayerInput | None = None
    altup: AltUp | None = None
    hyper_connections: HyperConnections | None = None
    num_nextn_predict_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)] | None = None
    prediction_stored_otherwise: tuple[StoredAs, ...] | None = None
    towers: Annotated[tuple[Tower, ...], Field(max_length=MAX_TOWERS)] = ()
    missing_towers: Annotated[tuple[Name, ...], Field(max_length=MAX_TOWERS)] = ()

    @model_validator(mode="after")
    def _layers_are_not_too_many(self) -> ModelFile:
        depth = sum(group.repeat * len(group.pattern) for group in self.layers)
        if depth > MAX_LAYERS:
            raise FieldError((("layers",), f"{depth:,} layers are more than {MAX_LAYERS:,}"))
        return self

    @model_validator(mode="after")
    def _amounts_are_amounts(self) -> ModelFile:
        require_amounts(self, "norm_eps", "embedding_multiplier", "residual_multiplier")
        require_amounts(self, "logits_multiplier", "final_logit_softcapping")
        return self

    @model_validator(mode="after")
    def _positions_are_learned(self) -> ModelFile:
        longest = self.max_position_embeddings
        if self.position_offset and self.learned_positions is None:
            raise FieldError((("position_offset",), "needs learned_positions"))
        if self.learned_positions is not None and self.learned_positions < longest:
            message = f"must be at least max_position_embeddings ({longest}), not {self.learned_positions}"
            raise FieldError((("learned_positions",), message))
        return self

    @model_validator(mode="after")
    def _prediction_layers_are_there(self) -> ModelFile:
        if self.prediction_stored_otherwise is not None and self.num_nextn_predict_layers is None:
            raise FieldError((("prediction_stored_otherwise",), "needs num_nextn_predict_layers"))
        return self

    def _order(self) -> list[str]:
        return expand([Segment(group.repeat, tuple(group.pattern)) for group in self.layers])

    def model(self) -> Model:
        """Return the model this file describes."""
        of_all = (self.per_layer_input, self.altup, self.hyper_connections)
        layers = {name: kind.layer(*of_all) for name, kind in self.kinds.items()}
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
            input_only_tokens=self.input_only_tokens,
            learned_positions=self.learned_positions or 0,
            position_offset=self.position_offset,
            lm_head_bias=self.lm_head_bias,
            embedding_size=self.embedding_size,
            embedding_multiplier=self.embedding_multiplier,
            embedding_norm=self.embedding_norm,
            residual_multiplier=self.residual_multiplier,
            final_norm=self.final_norm,
            logits_multiplier=self.logits_multiplier,
            final_logit_softcapping=self.final_logit_softcapping,
            weight_format=self.weight_format or "",
            stored_otherwise=self.stored_otherwise,
            kv_format=self.kv_format or "",
            per_layer_input=self.per_layer_input,
            altup=self.altup,
            hyper_connections=self.hyper_connections,
            num_nextn_predict_layers=self.num_nextn_predict_layers or 0,
            prediction_stored_otherwise=self.prediction_stored_otherwise,
            towers=self.towers,
            missing_towers=self.missing_towers,
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
    model = found.model()
    if problems := _strange_tensors(document, found, model):
        raise SpecError(problems[:MAX_PROBLEMS])
    return model


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


def _strange_tensors(document: Document, found: ModelFile, model: Model) -> list[Problem]:
    """Return the names under ``stored_otherwise`` that are of no tensor, or stand there twice."""
    outer = (*model.input_weights(), *model.output_weights())
    places: dict[str, tuple[NodePath, tuple[Weight, ...], tuple[StoredAs, ...]]] = {
        "": (("stored_otherwise",), outer, found.stored_otherwise)
    }
    for name, layer in zip(found._order(), model.layers, strict=True):
        path = ("kinds", name, "stored_otherwise")
        places[name] = (path, model.layer_weights(layer), layer.stored_otherwise)
    if found.prediction_stored_otherwise is not None:
        added = model.layer_weights(prediction_layer(model))
        places["+"] = (("prediction_stored_otherwise",), added, found.prediction_stored_otherwise)
    return [
        document.problem(path, f"{dotted(path)}{quoted(tensor)} is no tensor here, or is named twice")
        for path, weights, stored in places.values()
        for tensor in strange_tensors(weights, stored)
    ]


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
            "stored_otherwise": model.stored_otherwise,
            "kv_format": model.kv_format or None,
            "hidden_size": model.hidden_size,
            "vocab_size": model.vocab_size,
            "max_position_embeddings": model.max_position_embeddings,
            "norm": model.norm,
            "norm_eps": model.norm_eps,
            "tie_word_embeddings": model.tie_word_embeddings,
            "input_only_tokens": model.input_only_tokens,
            "learned_positions": model.learned_positions or None,
            "position_offset": model.position_offset,
            "lm_head_bias": model.lm_head_bias,
            "embedding_size": model.embedding_size,
            "embedding_multiplier": model.embedding_multiplier,
            "embedding_norm": model.embedding_norm,
            "residual_multiplier": model.residual_multiplier,
            "final_norm": model.final_norm,
            "logits_multiplier": model.logits_multiplier,
            "final_logit_softcapping": model.final_logit_softcapping,
            "kinds": {name: _kind(layer) for layer, name in names.items()},
            "layers": [{"repeat": s.repeat, "pattern": list(s.pattern)} for s in segments],
            "per_layer_input": model.per_layer_input,
            "altup": model.altup,
            "hyper_connections": model.hyper_connections,
            "num_nextn_predict_layers": model.num_nextn_predict_layers or None,
            "prediction_stored_otherwise": model.prediction_stored_otherwise,
            "towers": model.towers,
            "missing_towers": model.missing_towers,
        }
    )


def _kind(layer: Layer) -> LayerKind:
    kind = LayerKind.model_construct(
        block=layer.block,
        residual_factors=layer.residual_factors,
        output_scale=layer.output_scale,
        stored_otherwise=layer.stored_otherwise,
        shared_block=layer.shared_block,
    )
    keys: dict[type, str] = {kind_class: key for key, kind_class in (MIXERS | FEED_FORWARDS).items()}
    for part in (layer.mixer, layer.mlp):
        if part is not None:
            setattr(kind, keys[type(part)], part)
    return kind
