"""A family's names met with a file, or with a whole set of tensors: which tensors make which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.checkpoint.assemble import FileTensor, Recipe
from kvplan.checkpoint.names.fusion import Fusion, Names
from kvplan.checkpoint.names.kinds import SAME, Kind, Shape
from kvplan.checkpoint.tensor_file import F32, TensorFile
from kvplan.engine.random_weights import named_weights

_FOR_KEYS_AND_VALUES = tuple(f"self_attn.{name}" for name in ("k_proj", "v_proj", "k_norm", "v_norm"))

_HEAD = "lm_head"
# Last words of buffers that every class makes anew.
_MADE_ANEW = (".rotary_emb.inv_freq",)
# Words that only names of layers that draft tokens have.
_DRAFTING = ("mtp", "mtp_layers", "mtp_block")


@dataclass(frozen=True, slots=True)
class Piece:
    """Tensors of files and the tensors of the engine that they are.

    Args:
        there: their full names in files.
        here: their full names in the engine.
        shapes: the shapes of the engine's.
        kind: how these become those.
        layer: whose they are; none outside layers.
    """

    there: tuple[str, ...]
    here: tuple[str, ...]
    shapes: tuple[Shape, ...]
    kind: Kind
    layer: Layer | None

    def shapes_there(self) -> Sequence[Shape]:
        """Return the shapes of the file's tensors."""
        return self.kind.shapes(self.layer, self.shapes)

    def fit(self, held: Mapping[str, Shape]) -> int:
        """Return how well a file with tensors of these shapes fits: 2 wholly, 1 by its names, 0 not."""
        if not all(name in held for name in self.there):
            return 0
        shapes = zip(self.there, self.shapes_there(), strict=True)
        return 2 if all(held[name] == tuple(shape) for name, shape in shapes) else 1

    def join(self, weights: Mapping[str, F32]) -> Iterator[tuple[str, F32]]:
        """Iterate over the file's tensors, made of the engine's."""
        made = self.kind.join(self.layer, [weights[name] for name in self.here])
        return zip(self.there, made, strict=True)

    def split(self, *arrays: F32) -> Sequence[F32]:
        """Return the engine's tensors, made of the file's."""
        return self.kind.split(self.layer, arrays, self.shapes)


@dataclass(frozen=True, slots=True)
class Root:
    """Where a file has a text model.

    Args:
        body: what stands there for the first word of the family's names (``model``), none where it is left
            out.
        head: what stands before names without that word (``lm_head``).
    """

    body: str
    head: str = ""


# Text models of files that hold more, or a model without its head, as transformers has written them.
ROOTS = (
    Root("language_model.model", "language_model."),
    Root("model.language_model"),
    Root("model.text_model"),
    Root("language_model"),
    Root("model.language_model.model"),
    Root("language_model.model.model", "language_model."),
    Root("thinker.model", "thinker."),
    Root("model"),
    Root(""),
)


@dataclass(frozen=True, slots=True)
class Placed:
    """A family's names outside layers, as a file has them."""

    outer: Mapping[str, str]

    def name(self, engine_name: str) -> str:
        """Return the full name of a tensor outside the layers."""
        return renamed(engine_name, self.outer)

    @property
    def layers(self) -> str:
        """What the names of all layers begin with."""
        return f"{self.outer['layers']}."

    def layer(self, index: int) -> str:
        """Return what a layer's names begin with."""
        return f"{self.layers}{index}."

    def is_text(self, name: str) -> bool:
        """Whether a name is that of the text model's body or head."""
        body = self.outer["layers"].rpartition(".")[0]
        return name.startswith((f"{body}." if body else "", f"{self.outer[_HEAD]}."))


def placed(outer: Mapping[str, str], root: Root | None = None) -> Placed:
    """Return the names outside the layers under a root, by default the family's own."""
    outer = {_HEAD: _HEAD, **outer}
    if root is None:
        return Placed(outer)
    word = outer["layers"].partition(".")[0]
    return Placed({here: _under(root, there, word) for here, there in outer.items()})


def _under(root: Root, name: str, word: str) -> str:
    first, _, rest = name.partition(".")
    if first != word or not rest:
        return f"{root.head}{name}"
    return f"{root.body}.{rest}" if root.body else rest


def renamed(name: str, renames: Mapping[str, str]) -> str:
    """Return the name with its longest prefix of whole words that has another name there replaced."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        prefix = ".".join(words[:count])
        if prefix in renames:
            return ".".join([renames[prefix], *words[count:]])
    return name


def pieces(
    names: Names, model: Model, at: Placed, held: Mapping[str, Shape] | None = None
) -> Iterator[Piece]:
    """Iterate over the pieces that together are every tensor the engine runs, each once.

    Args:
        names: those of the model's family.
        model: whose tensors they are.
        at: the names outside its layers.
        held: the shapes of a file's tensors: of several ways to keep one, that of the file. Where absent it
            is the first.
    """
    shapes: dict[str, dict[str, Shape]] = {}
    for name, weight in named_weights(model):
        shape = weight.shape if weight.copies == 1 else (weight.copies, *weight.shape)
        if name.startswith(("layers.", "blocks.")):
            kind_of_part, number, inside = name.split(".", 2)
            shapes.setdefault(f"{kind_of_part}.{number}", {})[inside] = shape
        else:
            kind = names.kinds.get(name, SAME)
            yield Piece((at.name(name),), (name,), (shape,), kind, None)
    for part in _parts(names, model, at, shapes):
        for piece in _layer_pieces(part.names, part.layer, part.own, part.prefix, held):
            yield replace(piece, here=tuple(f"{part.here}.{name}" for name in piece.here))


@dataclass(frozen=True, slots=True)
class _Part:
    """Tensors of a layer, or of a block that layers share.

    Args:
        here: what their names begin with in the engine.
        prefix: what they begin with in files.
        names: their names behind that.
        layer: the layer, or the first that runs the block.
        own: their shapes, by their names in the layer or block.
    """

    here: str
    prefix: str
    names: Names
    layer: Layer
    own: Mapping[str, Shape]


def _parts(
    names: Names, model: Model, at: Placed, shapes: Mapping[str, Mapping[str, Shape]]
) -> Iterator[_Part]:
    """Iterate over the parts of a model that have tensors of these shapes."""
    use = 0
    for index, layer in enumerate(model.layers):
        here, prefix = f"layers.{index}", at.layer(index)
        own = shapes.get(here, {})
        if layer.shared_block is None:
            yield _Part(here, prefix, names, layer, own)
            continue
        shared, block = names.shared, layer.shared_block.name
        assert shared is not None
        first = model.shared_blocks()[block]
        if index == first:
            yield _Part(block, prefix, shared.block, layer, shapes[block])
        adapters = {name: own[name] for name in own if renamed(name, shared.adapters) != name}
        rest = {name: own[name] for name in own if name not in adapters}
        yield _Part(here, prefix, shared.beside, layer, rest)
        yield _Part(here, at.layer(first), shared.adapters_of(use), layer, adapters)
        use += 1


def _layer_pieces(
    names: Names, layer: Layer, own: Mapping[str, Shape], prefix: str, held: Mapping[str, Shape] | None
) -> Iterator[Piece]:
    """Iterate over the pieces of a layer; ``prefix`` is what its names begin with in the file."""
    possible = [
        _fused(fusion, layer, own, prefix) for fusion in names.fusions if own.keys() >= {*fusion.here}
    ]
    plain = {name: _plain(names, name, prefix, held) for name in own}
    left = dict(own)
    for piece in possible if held is None else _best_first(possible, plain, held):
        if left.keys() >= {*piece.here}:
            left = {name: shape for name, shape in left.items() if name not in piece.here}
            yield piece
    for name, shape in left.items():
        yield Piece((plain[name],), (name,), (shape,), SAME, layer)


def _best_first(
    possible: Iterable[Piece], plain: Mapping[str, str], held: Mapping[str, Shape]
) -> list[Piece]:
    """Return pieces by how well they fit a file; not those whose tensors it has one by one.

    One that does not fit is there to say what is missing.
    """
    fits = [(piece.fit(held), piece) for piece in possible]
    kept = [(fit, p) for fit, p in fits if fit or not all(plain[name] in held for name in p.here)]
    return [piece for _, piece in sorted(kept, key=lambda pair: -pair[0])]


def _plain(names: Names, name: str, prefix: str, held: Mapping[str, Shape] | None) -> str:
    """Return what a layer's tensor is called where it is kept by itself."""
    first, other = (f"{prefix}{renamed(name, ways)}" for ways in (names.inner, names.other_inner))
    return other if held is not None and first not in held and other in held else first


def _fused(fusion: Fusion, layer: Layer, own: Mapping[str, Shape], prefix: str) -> Piece:
    """Return the piece of a layer that a fusion makes."""
    shapes = tuple(own[name] for name in fusion.here)
    there = tuple(f"{prefix}{name}" for name in _numbered(fusion.there, shapes[0][0]))
    return Piece(there, fusion.here, shapes, fusion.kind, layer)


def _numbered(names: Iterable[str], count: int) -> Iterator[str]:
    """Iterate over names, each with all numbers where it has a place for one."""
    for name in names:
        yield from (name.format(number) for number in range(count)) if "{}" in name else (name,)


def file_tensors(
    names: Names, model: Model, weights: Mapping[str, F32], root: Root | None = None
) -> dict[str, F32]:
    """Return what a file of the family would hold: ``weights`` are the engine's, by its names."""
    found = pieces(names, model, placed(names.outer, root))
    return dict(tensor for piece in found for tensor in piece.join(weights))


@dataclass(frozen=True, slots=True)
class Released:
    """A family's names as one file has them."""

    names: Names
    at: Placed

    def recipes(self, model: Model, file: TensorFile) -> Iterator[Recipe]:
        """Iterate over the recipes that together make every tensor the engine runs, each once."""
        held = {name: file.shape(name) for name in file.names()}
        for piece in pieces(self.names, model, self.at, held):
            shapes = zip(piece.there, piece.shapes_there(), strict=True)
            yield Recipe(piece.here, tuple(FileTensor(*given) for given in shapes), piece.split)

    def repeated(self, model: Model) -> Mapping[str, str]:
        """Return the head, which a tied model may have stored though it is the embedding."""
        if not model.tie_word_embeddings:
            return {}
        return {self.at.name("lm_head.weight"): self.at.name("embed_tokens.weight")}

    def is_surplus(self, model: Model, name: str) -> bool:
        """Whether a tensor is none the engine runs: a buffer made anew, a tower, a prediction layer."""
        if name.endswith((*_MADE_ANEW, *self.names.unused)) or set(_DRAFTING) & set(name.split(".")):
            return True
        number, _, rest = name.removeprefix(self.at.layers).partition(".")
        if name.startswith(self.at.layers) and number.isdecimal():
            return _is_surplus_layer(model, int(number)) or _is_unread(model, int(number), rest)
        return bool(model.towers or model.missing_towers) and not self.at.is_text(name)


def _is_surplus_layer(model: Model, number: int) -> bool:
    """Whether this is a layer that drafts tokens."""
    return len(model.layers) <= number < len(model.layers) + model.num_nextn_predict_layers


def _is_unread(model: Model, number: int, name: str) -> bool:
    """Whether a layer that reads another's keys and values has a tensor for some of its own (Gemma 3n, 4)."""
    mixer = model.layers[number].mixer if number < len(model.layers) else None
    shares = isinstance(mixer, Attention) and mixer.shares_kv
    return shares and name.rpartition(".")[0] in _FOR_KEYS_AND_VALUES


def found_in(file: TensorFile, names: Names) -> Released:
    """Return a family's names as a file has them: under the root where its embedding is."""
    held = frozenset(file.names())
    outers = [names.outer, *([names.other_outer] if names.other_outer else [])]
    ways = [placed(outer, root) for root in (None, *ROOTS) for outer in outers]
    return Released(names, next((way for way in ways if way.name("embed_tokens.weight") in held), ways[0]))
