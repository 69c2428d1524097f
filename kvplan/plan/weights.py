"""Weight bytes and parameter counts, tensor by tensor."""

from __future__ import annotations

from kvplan.arch.model import Model, Run
from kvplan.arch.weight import Weight
from kvplan.formula import formula
from kvplan.plan.stages import Stage
from kvplan.results import Quantity, computed, fact, total
from kvplan.storage import (
    DTYPE_BYTES,
    WeightFormat,
    WeightStorage,
    doubly_scaled_tensor_bytes,
    plain_tensor_bytes,
    tiled_matrix_bytes,
)
from kvplan.units import Count, Unit


@formula(Unit.BYTES, "equal layers hold equal tensors")
def bytes_of_layers(layers: Count, bytes_of_one_layer: Count) -> Count:
    """Weight bytes of a run of equal layers."""
    return layers * bytes_of_one_layer


@formula(Unit.BYTES, "layers that share a block hold it once between them")
def bytes_of_shared_block(bytes_of_the_block: Count) -> Count:
    """Weight bytes of a block that several layers run."""
    return bytes_of_the_block


@formula(Unit.PARAMETERS, "layers that share a block have it once between them")
def parameters_of_shared_block(parameters_of_the_block: Count) -> Count:
    """Parameters of a block that several layers run."""
    return parameters_of_the_block


@formula(Unit.PARAMETERS, "equal layers hold equal tensors")
def parameters_of_layers(layers: Count, parameters_of_one_layer: Count) -> Count:
    """Parameters of a run of equal layers."""
    return layers * parameters_of_one_layer


def weights_bytes(
    model: Model, stage: Stage, tensor_parallel: int, storage: WeightStorage, expert_parallel: int = 1
) -> Quantity:
    """Return the bytes of weights on one rank of a stage, with every tensor among its parts."""

    def stored(weights: tuple[Weight, ...]) -> tuple[Quantity, ...]:
        return tuple(tensor_bytes(w, tensor_parallel, storage, model.dtype, expert_parallel) for w in weights)

    parts = list(stored(stage.outer_weights(model)))
    for run in stage.runs():
        one = total("bytes_of_one_layer", Unit.BYTES, stored(_own(model, run)))
        count = fact("layers", run.count, model.source, Unit.LAYERS)
        parts.append(computed("layers", bytes_of_layers, count, one))
    for name, weights in _shared(model, stage.runs()).items():
        one = total("bytes_of_the_block", Unit.BYTES, stored(weights))
        parts.append(computed(name, bytes_of_shared_block, one))
    return total("weights_bytes", Unit.BYTES, tuple(parts), "weights")


def parameter_count(model: Model, *, active: bool = False) -> Quantity:
    """Return the trained parameters, or those one text token uses, with every tensor among the parts."""

    def counted(weights: tuple[Weight, ...]) -> tuple[Quantity, ...]:
        return tuple(
            fact(w.name, w.active_elements if active else w.elements, _shape(w), Unit.PARAMETERS)
            for w in weights
            if w.trained
        )

    parts = list(counted(model.input_weights() + model.output_weights()))
    for run in model.runs():
        one = total("parameters_of_one_layer", Unit.PARAMETERS, counted(_own(model, run)))
        count = fact("layers", run.count, model.source, Unit.LAYERS)
        parts.append(computed("layers", parameters_of_layers, count, one))
    for name, weights in _shared(model, model.runs()).items():
        one = total("parameters_of_the_block", Unit.PARAMETERS, counted(weights))
        parts.append(computed(name, parameters_of_shared_block, one))
    name = "params_active" if active else "params_total"
    label = "active parameters" if active else "parameters"
    return total(name, Unit.PARAMETERS, tuple(parts), label)


def _own(model: Model, run: Run) -> tuple[Weight, ...]:
    """Return the tensors that each of a run's equal layers has for itself."""
    return tuple(w for w in model.layer_weights(run.layer) if not w.shared_in)


def _shared(model: Model, runs: tuple[Run, ...]) -> dict[str, tuple[Weight, ...]]:
    """Return the tensors of every block that these layers share, by the block's name."""
    found: dict[str, tuple[Weight, ...]] = {}
    for weight, _ in model.weights_of_runs(runs):
        if weight.shared_in:
            found[weight.shared_in] = (*found.get(weight.shared_in, ()), weight)
    return found


def _shape(weight: Weight) -> str:
    return f"{weight.copies} x ({weight.dimensions})" if weight.copies > 1 else f"shape {weight.dimensions}"


def tensor_bytes(
    whole: Weight,
    tensor_parallel: int,
    storage: WeightStorage,
    model_dtype: str,
    expert_parallel: int = 1,
) -> Quantity:
    """Return the stored bytes of one rank's piece of a tensor, explained."""
    packed, weight = whole.format_under(storage), whole.on_rank(tensor_parallel, expert_parallel)
    if packed is None:
        dtype = weight.plain_dtype(storage, model_dtype)
        elements = fact("elements", weight.elements, _shape(weight), Unit.PARAMETERS)
        element_bytes = fact("element_bytes", DTYPE_BYTES[dtype], dtype, Unit.BYTES)
        return computed(weight.name, plain_tensor_bytes, elements, element_bytes)
    rows, columns = weight.shape
    return computed(
        weight.name,
        tiled_matrix_bytes,
        fact("copies", weight.copies, "experts on this rank, or 1"),
        fact("rows", rows, "output features on this rank"),
        fact("columns", columns, "input features on this rank"),
        fact("bits", packed.bits, packed.source),
        fact("tiles", packed.tiles(rows, columns), packed.source),
        fact("tile_half_bytes", packed.tile_half_bytes, packed.source),
        fact("column_bytes", packed.column_bytes, packed.source),
        _once_per_matrix(packed, rows, columns),
    )


def _once_per_matrix(packed: WeightFormat, rows: int, columns: int) -> Quantity:
    """Return the bytes of a matrix that belong to no tile and no column."""
    once = fact("tensor_bytes", packed.tensor_bytes, packed.source)
    if not packed.scales_per_scale:
        return once
    scales = fact("scales_of_scales", packed.scales_of_scales(rows, columns), packed.source)
    return computed("tensor_bytes", doubly_scaled_tensor_bytes, once, scales)
