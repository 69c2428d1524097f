"""Reports of what is in the catalog: models by size and cache, accelerators by memory and peaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from enum import Enum
from typing import assert_never

from kvplan.allocation import Paged
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.retention import Chunked, Compressed, Full, PerRequest, Sliding, Unfinished
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight
from kvplan.hardware.device import Device
from kvplan.plan.cache import Cache, request_cache
from kvplan.plan.weights import parameter_count
from kvplan.results import Column, Facts, Quantity, Report, Scalar, Scale, Table, fact
from kvplan.storage import WeightStorage, kv_format, state_layout
from kvplan.units import Unit


def models_report(models: Sequence[Model]) -> Report:
    """Return the list of models: parameters, context, cache per token and state per request in bf16."""
    caches = [_cache(model) for model in models]
    columns = (
        Column("name", "model", tuple(fact("name", m.name, m.source) for m in models)),
        Column("params_total", "parameters", tuple(parameter_count(m) for m in models)),
        Column("params_active", "active", tuple(parameter_count(m, active=True) for m in models), priority=1),
        Column(
            "layers", "layers", tuple(fact("layers", len(m.layers), m.source) for m in models), priority=2
        ),
        Column(
            "max_position_embeddings",
            "longest context",
            tuple(fact("max_position_embeddings", m.max_position_embeddings, m.source) for m in models),
            priority=3,
        ),
        Column(
            "kv_bytes_per_token", "KV B/token", tuple(c.growth("kv_bytes_per_token", "KV") for c in caches)
        ),
        Column(
            "state_bytes_per_sequence",
            "state",
            tuple(c.state("state_bytes_per_sequence", "state") for c in caches),
            priority=2,
            scale=Scale.MB,
        ),
        Column(
            "layer_kinds",
            "layers keep",
            tuple(fact("layer_kinds", kept_in_words(m.layers), m.source) for m in models),
            priority=4,
        ),
    )
    return Report("models list", f"{len(models)} models, KV in bf16", (Table("models", "Models", columns),))


def model_report(model: Model) -> Report:
    """Return what a model is: sizes, layers by kind, and every tensor."""
    cache = _cache(model)
    facts = (
        fact("name", model.name, model.source, label="name"),
        fact("source", model.source, model.source, label="source"),
        parameter_count(model),
        parameter_count(model, active=True),
        fact("dtype", model.dtype, model.source, label="dtype"),
        fact("weight_format", model.as_released().name, model.source, label="released weights"),
        fact("hidden_size", model.hidden_size, model.source, label="hidden size"),
        fact("vocab_size", model.vocab_size, model.source, label="vocabulary"),
        fact("max_position_embeddings", model.max_position_embeddings, model.source, label="longest context"),
        fact("layers", len(model.layers), model.source, label="layers"),
        fact("layer_kinds", kept_in_words(model.layers), model.source, label="layers keep"),
        cache.growth("kv_bytes_per_token", "KV bytes per token, bf16"),
        cache.state("state_bytes_per_sequence", "state per request"),
    )
    return Report("models show", model.name, (Facts("model", "Model", facts), _tensors(model)))


def _tensors(model: Model) -> Table:
    named, storage = _named_tensors(model), model.as_released()

    def column(key: str, label: str, values: Sequence[Scalar], priority: int = 0) -> Column:
        return Column(key, label, tuple(fact(key, value, model.source) for value in values), priority)

    columns = (
        column("tensor", "tensor", [name for name, _, _ in named]),
        column("shape", "shape", [w.dimensions for _, w, _ in named], 1),
        column("experts", "experts", [w.copies for _, w, _ in named], 3),
        column("layers", "layers", [count for _, _, count in named], 2),
        column("elements", "elements in all", [w.elements * count for _, w, count in named]),
        column("stored", "stored in", [_stored_in(w, storage, model.dtype) for _, w, _ in named], 3),
        column("role", "role", [_role(w) for _, w, _ in named], 4),
    )
    return Table("tensors", "Tensors, each under the first layer that has its like", columns)


def _stored_in(weight: Weight, storage: WeightStorage, model_dtype: str) -> str:
    packed = weight.format_under(storage)
    return packed.name if packed else weight.plain_dtype(storage, model_dtype)


def _role(weight: Weight) -> str:
    return weight.role.value if weight.trained else f"{weight.role.value}, no parameter"


def _named_tensors(model: Model) -> list[tuple[str, Weight, int]]:
    """Return every tensor with a name of its own, and how many layers hold its like."""
    named = [(weight.name, weight, 1) for weight in model.input_weights()]
    for run in model.runs():
        first = model.layers.index(run.layer)
        for weight, count in model.weights_of_runs((run,)):
            named.append((weight.full_name(first), weight, count))
    return named + [(weight.name, weight, 1) for weight in model.output_weights()]


def _cache(model: Model) -> Cache:
    layout = state_layout("transformers")
    return request_cache(
        model.slot_runs(), 1, kv_format("bf16"), layout, model.dtype, Paged(16), model.source
    )


def kept_in_words(layers: Sequence[Layer]) -> str:
    """Return how many layers keep what: ``21 sliding 4,096 + 21 full``."""
    counts: dict[str, int] = {}
    for layer in layers:
        words = dict.fromkeys(_kept_word(slot) for slot in layer.slots())
        if any(isinstance(slot.retention, Compressed) for slot in layer.slots()):
            words.pop("state", None)  # tokens that wait to be compressed go with the compressed ones
        word = " and ".join(words) or "no cache"
        counts[word] = counts.get(word, 0) + 1
    return " + ".join(f"{count} {word}" for word, count in counts.items())


def _kept_word(slot: CacheSlot) -> str:
    if not slot.owned:
        return "shared"
    match slot.retention:
        case Full():
            return "full"
        case Chunked(chunk=chunk):
            return f"chunks of {chunk:,}"
        case Sliding(window=window):
            return f"sliding {window:,}"
        case Compressed(ratio=ratio):
            return f"1 in {ratio:,}"
        case Unfinished() | PerRequest():
            return "state"
        case _ as never:
            assert_never(never)


def gpus_report(devices: Sequence[Device]) -> Report:
    """Return the list of accelerators: memory as the driver reports it, bandwidth, dense peaks."""

    def column(
        key: str, label: str, values: Sequence[Scalar], priority: int = 0, unit: Unit = Unit.NONE
    ) -> Column:
        cells = (fact(key, value, device.source, unit) for value, device in zip(values, devices, strict=True))
        return Column(key, label, tuple(cells), priority)

    columns = (
        column("name", "accelerator", [d.name for d in devices]),
        column("label", "vendor's name", [d.label for d in devices], 4),
        column("memory_bytes", "memory", [d.memory_bytes for d in devices], 0, Unit.BYTES),
        column("memory_read_from", "read from", [_memory_source(d) for d in devices], 3),
        column("bandwidth_gb_per_s", "GB/s", [d.memory.bandwidth_gb_per_s for d in devices]),
        column("bf16_tflops", "bf16 TFLOP/s", [d.peak_dense.bf16_tflops for d in devices], 1),
        column("fp8_tflops", "fp8 TFLOP/s", [d.peak_dense.fp8_tflops for d in devices], 2),
    )
    table = Table("gpus", "Accelerators", columns)
    return Report("gpus list", f"{len(devices)} accelerators, dense peaks", (table,))


def gpu_report(device: Device) -> Report:
    """Return everything known of an accelerator, field by field."""
    sections = [
        Facts(
            "gpu",
            "Accelerator",
            (
                *_plain_fields(device, device.source),
                fact(
                    "memory_bytes",
                    device.memory_bytes,
                    _memory_source(device),
                    Unit.BYTES,
                    "memory planned on",
                ),
            ),
        ),
        Facts("memory", "Memory", _plain_fields(device.memory, device.source)),
        Facts("peak_dense", "Peaks, dense", _plain_fields(device.peak_dense, device.source)),
        Facts("interconnect", "Links", _plain_fields(device.interconnect, device.source)),
    ]
    if device.price_per_hour is not None:
        price = device.price_per_hour
        sections.append(Facts("price_per_hour", "Price per hour", _plain_fields(price, price.source)))
    return Report("gpus show", device.label, (*sections, *_efficiency(device)))


def _efficiency(device: Device) -> Iterator[Table]:
    """Iterate over what was measured of a device's kernels, and of its sums over ranks."""
    fits, sums = device.efficiency, device.all_reduce

    def column(name: str, label: str, unit: Unit = Unit.NONE, priority: int = 0) -> Column:
        values = [getattr(fit, name) for fit in fits]
        plain = [value.value if isinstance(value, Enum) else value for value in values]
        cells = (fact(name, value, fit.source, unit) for value, fit in zip(plain, fits, strict=True))
        return Column(name, label, tuple(cells), priority)

    if fits:
        columns = (
            column("kernel", "kernel"),
            column("format", "format"),
            column("launch_us", "launch (us)"),
            column("memory_share", "of bandwidth", Unit.SHARE),
            column("compute_share", "of peak", Unit.SHARE),
            column("peak", "which", priority=2),
            column("ramp_tokens", "ramp (tokens)", priority=3),
            column("median_error", "median error", Unit.SHARE, 1),
            column("p90_error", "p90 error", Unit.SHARE, 2),
        )
        yield Table("efficiency", "Kernels, as measured", columns, named_by=2)
    if sums:
        ranks = tuple(fact("ranks", one.ranks, one.source) for one in sums)
        launches = tuple(fact("launch_us", one.launch_us, one.source) for one in sums)
        shares = tuple(fact("link_share", one.link_share, one.source, Unit.SHARE) for one in sums)
        three = (
            Column("ranks", "ranks", ranks),
            Column("launch_us", "launch (us)", launches),
            Column("link_share", "of the link", shares),
        )
        yield Table("all_reduce", "Sums over ranks, as measured", three)


def _memory_source(device: Device) -> str:
    return "driver" if device.memory.driver_mib is not None else "as sold"


def _plain_fields(owner: object, source: str) -> tuple[Quantity, ...]:
    """Return the single-valued fields of a dataclass that have a value, as figures."""
    assert hasattr(owner, "__dataclass_fields__")
    found = []
    for field in fields(owner):  # type: ignore[arg-type]
        value = getattr(owner, field.name)
        if isinstance(value, tuple):
            value = "; ".join(text for text in value if isinstance(text, str))
        if isinstance(value, (int, float, str)) and value != "":
            found.append(fact(field.name, value, source, label=field.name))
    return tuple(found)
