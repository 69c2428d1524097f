"""A model with what its released files are stored in, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.prediction_layer import last_attending, with_prediction_layers
from kvplan.arch.released import StoredAs
from kvplan.arch.weight import Weight
from kvplan.specs.quantization.module_names import Found, ModuleNames, Tensor, UnknownNameError
from kvplan.specs.quantization.module_styles import PARTS
from kvplan.specs.quantization.rules import Names, Quantization, Rule, Scope
from kvplan.storage import TensorRole, WeightFormat, weight_format

_LINEAR = frozenset((TensorRole.ATTENTION, TensorRole.MLP, TensorRole.EXPERT, TensorRole.STATE))
_Formats = dict[Tensor, str]


def as_quantised(model: Model, quantization: Quantization, model_type: str) -> Model:
    """Return a model with the formats a quantisation says its files are in.

    Args:
        model: as its adapter made it, with plain weights.
        quantization: the rules, and the KV format.
        model_type: of the text model: its files call modules by the names of that family.

    Raises:
        SpecError: a name in the quantisation is of no module of this model.
    """
    drafting = with_prediction_layers(model) if model.num_nextn_predict_layers else model
    formats = _formats(drafting, quantization, ModuleNames(drafting, model_type))
    base = _base(model, formats)
    here = {tensor.name: stored for tensor, stored in formats.items() if tensor.layer is None}
    outer = (*model.input_weights(), *model.output_weights())
    by_layer: list[dict[str, str]] = [{} for _ in drafting.layers]
    for tensor, stored in formats.items():
        if tensor.layer is not None:
            by_layer[tensor.layer][tensor.name] = stored
    layers = [_layer(model, *each, base) for each in zip(drafting.layers, by_layer, strict=True)]
    main, added = layers[: len(model.layers)], layers[len(model.layers) :]
    return replace(
        model,
        weight_format=base,
        stored_otherwise=_exceptions(outer, here, base, model.dtype),
        kv_format=quantization.kv_format,
        layers=tuple(main),
        prediction_stored_otherwise=_unlike(last_attending(replace(model, layers=tuple(main))), added),
    )


def _unlike(last: Layer, added: list[Layer]) -> tuple[StoredAs, ...] | None:
    """Return what the files have otherwise of prediction layers, unless that is so of the ``last`` too."""
    if not added or added[0].stored_otherwise == last.stored_otherwise:
        return None
    return added[0].stored_otherwise


def _layer(model: Model, layer: Layer, formats: dict[str, str], base: str) -> Layer:
    found = _exceptions(model.layer_weights(layer), formats, base, model.dtype)
    return replace(layer, stored_otherwise=found) if found else layer


def _formats(model: Model, quantization: Quantization, names: ModuleNames) -> _Formats:
    """Return the format of every tensor that a rule packs."""
    found: _Formats = {}
    weights = dict(_tensors(model))
    for rule in quantization.rules:
        for tensor in _tensors_of(rule, weights, names):
            if rule.format:
                found[tensor] = rule.format
            else:
                found.pop(tensor, None)
    return found


def _tensors(model: Model) -> Iterator[tuple[Tensor, Weight]]:
    for weight in (*model.input_weights(), *model.output_weights()):
        yield Tensor(None, weight.name), weight
    for index, layer in enumerate(model.layers):
        for weight in model.layer_weights(layer):
            yield Tensor(index, weight.name), weight


def _tensors_of(rule: Rule, weights: dict[Tensor, Weight], names: ModuleNames) -> Iterable[Tensor]:
    """Return the tensors a rule is about, of those that can be packed."""
    match rule.modules:
        case Names() as said:
            return [t for t in _named(said, weights, names) if weights[t].trained and weights[t].is_matrix]
        case scope:
            return [tensor for tensor, weight in weights.items() if _in_scope(weight, scope)]


def _in_scope(weight: Weight, scope: Scope) -> bool:
    if not weight.trained or not weight.is_matrix:
        return False
    match scope:
        case Scope.EXPERTS:
            return weight.role is TensorRole.EXPERT
        case Scope.LINEAR:
            return weight.role in _LINEAR
        case Scope.LINEAR_AND_HEAD:
            return weight.role in _LINEAR or weight.name == "lm_head.weight"


def _named(said: Names, weights: dict[Tensor, Weight], names: ModuleNames) -> list[Tensor]:
    """Return the tensors that names stand for.

    Raises:
        SpecError: a name stands for nothing known, or for some experts of a stack only.
    """
    whole: dict[Tensor, None] = {}
    pieces: dict[Tensor, set[str]] = {}
    for index, name in enumerate(said.names):
        for found in _found(names, name, _refusal(said, index, name)):
            if found.piece:
                pieces.setdefault(found.tensor, set()).add(found.piece)
            else:
                whole[found.tensor] = None
    for tensor, named in pieces.items():
        count = _pieces_of(weights[tensor])
        if len(named) != count and tensor not in whole:
            which = f"layer {tensor.layer}, {tensor.name}: {len(named)} of {count}"
            key = said.key if said.listed else None
            said.config.refuse(key, f"{which} pieces are named; only all or none are understood")
    return list(dict.fromkeys((*whole, *pieces)))


def _pieces_of(weight: Weight) -> int:
    """Return how many tensors of a checkpoint a tensor is made of."""
    module = weight.name.removesuffix(".weight").rpartition(".")[2]
    return weight.copies * len(PARTS.get(module, ("whole",)))


def _found(names: ModuleNames, name: str, refuse: Callable[[str], None]) -> list[Found]:
    try:
        return names.find(name)
    except UnknownNameError as error:
        refuse(str(error))
        raise


def _refusal(said: Names, index: int, name: str) -> Callable[[str], None]:
    def refuse(why: str) -> None:
        message = f"{name[:80]!r} {why}"
        if said.listed:
            said.config.refuse_entry(said.key, index, message)
        said.config.refuse(name, message)

    return refuse


# ------------------------------------------------------------------ one format for most, others by name


def _base(model: Model, formats: _Formats) -> str:
    """Return the format with the most elements in it; empty where there is none."""
    elements: dict[str, int] = {}
    weights = dict(_tensors(model))
    for tensor, stored in formats.items():
        if tensor not in weights:
            continue  # of a layer beside the model
        elements[stored] = elements.get(stored, 0) + weights[tensor].elements
    return max(elements, key=lambda stored: elements[stored], default="")


def _exceptions(
    weights: Iterable[Weight], formats: dict[str, str], base: str, dtype: str
) -> tuple[StoredAs, ...]:
    """Return the tensors that are not stored as the base would store their role, by their formats."""
    found: dict[str, list[str]] = {}
    by_role = weight_format(base or dtype)
    for weight in weights:
        if not weight.trained or not weight.is_matrix or weight.role is TensorRole.TOWER:
            continue
        stored = formats.get(weight.name, dtype)
        if stored != _by_role(weight, by_role, dtype):
            found.setdefault(stored, []).append(weight.name)
    return tuple(StoredAs(stored, tuple(names)) for stored, names in found.items())


def _by_role(weight: Weight, base: WeightFormat, dtype: str) -> str:
    packed = weight.format_under(base)
    return dtype if packed is None else packed.name
