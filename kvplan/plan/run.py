"""What a run of given requests will store, multiply, read and write, from the model's description alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvplan.allocation import Allocation
from kvplan.arch.model import Model, Run, SlotRun
from kvplan.arch.retention import Retention
from kvplan.formula import formula
from kvplan.plan.cache import Cache, CacheRun, Stored, request_cache
from kvplan.plan.held import Held, held_at_the_end
from kvplan.plan.phase import Phase, decode_phase, prefill_phase
from kvplan.plan.requests import Alike, Request, alike_requests
from kvplan.plan.stages import pipeline_stages
from kvplan.plan.step_work import (
    phase_attention_flops,
    phase_matmul_flops,
    phase_read_bytes,
    phase_written_bytes,
    run_name,
    slot_name,
    step_weights_bytes,
)
from kvplan.plan.weights import parameter_count, weights_bytes
from kvplan.results import Column, Facts, Quantity, Shown, Table, computed, fact, total
from kvplan.storage import DTYPE_BYTES, KvFormat, state_layout, weight_format
from kvplan.units import Count, Unit

# The engine's arrays are float32, but for what a cache format stores.
ENGINE_DTYPE = "fp32"


@formula(Unit.BYTES, "every request has a state of its own in every layer")
def states_bytes(layers: Count, requests: Count, entry_bytes: Count) -> Count:
    """Bytes of the states of all requests in a run of equal recurrent layers."""
    return layers * requests * entry_bytes


@dataclass(frozen=True, slots=True)
class PhaseWork:
    """What one phase multiplies and touches, and the sums over requests that it is made from."""

    phase: Phase
    matmul_flops: Quantity
    attention_flops: Quantity
    cache_read_bytes: Quantity
    cache_written_bytes: Quantity

    def figures(self) -> tuple[Quantity, ...]:
        """Return the four figures, each named after the phase."""
        return (self.matmul_flops, self.attention_flops, self.cache_read_bytes, self.cache_written_bytes)


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """Cache of one layer, all requests together, and the layers that have as much.

    Args:
        name: the layers' name in sums.
        indices: the layers, from 0.
        live: bytes that matter at the end of the run.
        allocated: bytes handed out.
    """

    name: str
    indices: tuple[int, ...]
    live: Quantity
    allocated: Quantity


@dataclass(frozen=True, slots=True)
class RunPrediction:
    """What a run will store, multiply, read and write.

    Args:
        requests: the requests, those of equal lengths together.
        held: tokens held at the end, for each retention among the layers.
        parameters: trained parameters of the model.
        weights_bytes: weights, in float32.
        cache_live_bytes: keys, values, latents and states that matter when every request is at its end.
        cache_allocated_bytes: what is handed out for them.
        state_bytes: the states among them, and room for tokens that wait to be compressed.
        cache_blocks: blocks handed out; ``None`` where there are none, as in a contiguous cache.
        alike_layers: cache of one layer, all requests together, equal layers as one.
        prefill, decode: what the phases multiply and touch.
        decode_intensity: attention operations for each byte of cache that decoding reads; a float, or
            ``None`` where nothing is decoded.
        decode_step_weights_bytes: weights one decode step reads whatever its tokens are.
    """

    requests: tuple[Alike, ...]
    held: tuple[Held, ...]
    parameters: Quantity
    weights_bytes: Quantity
    cache_live_bytes: Quantity
    cache_allocated_bytes: Quantity
    state_bytes: Quantity
    cache_blocks: Quantity | None
    alike_layers: tuple[LayerBytes, ...]
    prefill: PhaseWork
    decode: PhaseWork
    decode_intensity: Quantity
    decode_step_weights_bytes: Quantity

    @property
    def layers(self) -> tuple[tuple[Quantity, Quantity], ...]:
        """Live and allocated bytes of every layer, in order."""
        found = {index: (some.live, some.allocated) for some in self.alike_layers for index in some.indices}
        return tuple(found[index] for index in sorted(found))

    def figures(self) -> tuple[Quantity, ...]:
        """Return every figure that is not of a single layer."""
        stored = (self.cache_live_bytes, self.cache_allocated_bytes, self.state_bytes)
        blocks = () if self.cache_blocks is None else (self.cache_blocks,)
        work = (*self.prefill.figures(), *self.decode.figures())
        read = (self.decode_intensity, self.decode_step_weights_bytes)
        return (self.parameters, self.weights_bytes, *stored, *blocks, *work, *read)

    def details(self) -> tuple[Table, Facts]:
        """Return what the figures are made from: a report that holds it explains them in fewer lines."""
        names = tuple(fact("request", alike.name, "asked for") for alike in self.requests)
        columns = (
            Column("request", "request", names),
            Column("prompt_tokens", "prompt", tuple(alike.prompt for alike in self.requests)),
            Column("decoded_tokens", "decoded", tuple(alike.decoded for alike in self.requests)),
            Column("cached_tokens", "cached at the end", tuple(alike.cached for alike in self.requests)),
        )
        held = (figure for some in self.held for figure in some.sums())
        sums = (*self.prefill.phase.sums(), *self.decode.phase.sums(), *held)
        return (
            Table("requests", "Requests", columns, Shown.NOT),
            Facts("sums", "Sums over requests", sums, Shown.NOT),
        )


def predict_run(
    model: Model, requests: Sequence[Request], kv: KvFormat, allocation: Allocation, chunk_tokens: int
) -> RunPrediction:
    """Predict a run: every prompt is read in steps of its own, then all requests decode.

    Raises:
        UsageError: the format cannot be kept in this allocation.
        ValueError: there is no request.
    """
    several = alike_requests(requests)
    layout = state_layout("transformers")
    cache = request_cache(model.slot_runs(), 1, kv, layout, ENGINE_DTYPE, allocation, model.source)
    held = held_at_the_end(model, cache, several, allocation)
    (stage,) = pipeline_stages(model, 1)
    decode = _work(model, cache, decode_phase(model, kv, several))
    element_bytes = fact("element_bytes", DTYPE_BYTES[ENGINE_DTYPE], ENGINE_DTYPE, Unit.BYTES)
    return RunPrediction(
        requests=several,
        held=tuple(held.values()),
        parameters=parameter_count(model),
        weights_bytes=weights_bytes(model, stage, 1, weight_format(ENGINE_DTYPE)),
        cache_live_bytes=_live(model, cache, several, held),
        cache_allocated_bytes=_allocated(model, cache, several, held),
        state_bytes=_states(model, cache, several, held),
        cache_blocks=_blocks(held),
        alike_layers=tuple(_layer_bytes(model, run, cache, several, held) for run in model.runs()),
        prefill=_work(model, cache, prefill_phase(model, kv, several, chunk_tokens)),
        decode=decode,
        decode_intensity=_intensity(decode),
        decode_step_weights_bytes=step_weights_bytes(model, element_bytes),
    )


def _work(model: Model, cache: Cache, phase: Phase) -> PhaseWork:
    return PhaseWork(
        phase,
        phase_matmul_flops(model, phase),
        phase_attention_flops(model, phase),
        phase_read_bytes(model, cache, phase),
        phase_written_bytes(model, cache, phase),
    )


def _intensity(decode: PhaseWork) -> Quantity:
    flops, read = decode.attention_flops, decode.cache_read_bytes
    return Quantity(
        "decode_intensity_flops_per_byte",
        flops.number / read.number if read.number else None,
        Unit.FLOPS_PER_BYTE,
        "decode attention intensity",
        inputs=(flops, read),
        note="attention FLOPs for each byte of cache read" if read.number else "nothing is decoded",
    )


def _live(model: Model, cache: Cache, several: Sequence[Alike], held: Mapping[Retention, Held]) -> Quantity:
    amounts = {retention: some.live for retention, some in held.items()}
    parts = _stored(model, cache, several, amounts)
    return total("cache_live_bytes", Unit.BYTES, parts, "cache live")


def _allocated(
    model: Model, cache: Cache, several: Sequence[Alike], held: Mapping[Retention, Held]
) -> Quantity:
    amounts = {retention: some.allocated for retention, some in held.items()}
    parts = _stored(model, cache, several, amounts)
    return total("cache_allocated_bytes", Unit.BYTES, parts, "cache allocated")


def _stored(
    model: Model, cache: Cache, several: Sequence[Alike], amounts: Mapping[Retention, Stored]
) -> tuple[Quantity, ...]:
    """Return the bytes of each slot of runs of equal layers."""
    parts = []
    for run, cached in zip(model.slot_runs(), cache.runs, strict=True):
        if cached.live is None:
            parts.append(_state(slot_name(run), cached.layers, cached, several))
        else:
            parts.append(cached.bytes_of(slot_name(run), cached.layers, amounts[run.slot.retention]))
    return tuple(parts)


def _states(model: Model, cache: Cache, several: Sequence[Alike], held: Mapping[Retention, Held]) -> Quantity:
    """Return what requests hold however long they are: states, and room for tokens that wait."""
    amounts = {retention: some.allocated for retention, some in held.items()}
    runs = zip(cache.runs, _stored(model, cache, several, amounts), strict=True)
    parts = tuple(stored for cached, stored in runs if cached.live is None or cached.waits)
    return total("state_bytes", Unit.BYTES, parts, "states", "" if parts else "no layer keeps a state")


def _state(name: str, layers: Quantity, cached: CacheRun, several: Sequence[Alike]) -> Quantity:
    count = sum(alike.count.number for alike in several)
    requests = fact("requests", count, "asked for", Unit.REQUESTS)
    return computed(name, states_bytes, layers, requests, cached.entry_bytes)


def _blocks(held: Mapping[Retention, Held]) -> Quantity | None:
    """Return the blocks held: layers that keep the same tokens share one table of blocks."""
    tables = tuple(some.blocks for some in held.values() if some.blocks is not None)
    return total("cache_blocks", Unit.BLOCKS, tables, "cache blocks") if tables else None


def _layer_bytes(
    model: Model, run: Run, cache: Cache, several: Sequence[Alike], held: Mapping[Retention, Held]
) -> LayerBytes:
    stored = [
        _slot_bytes(found, cached, several, held)
        for found, cached in zip(model.slot_runs(), cache.runs, strict=True)
        if found.layer == run.layer and found.slot.owned
    ]
    indices = tuple(index for index, layer in enumerate(model.layers) if layer == run.layer)
    note = "" if stored else "stores nothing"
    live, allocated = (
        total(f"{word}_bytes", Unit.BYTES, tuple(of[place] for of in stored), note=note)
        for place, word in enumerate(("live", "allocated"))
    )
    return LayerBytes(run_name(run.layer), indices, live, allocated)


def _slot_bytes(
    run: SlotRun, cached: CacheRun, several: Sequence[Alike], held: Mapping[Retention, Held]
) -> tuple[Quantity, Quantity]:
    """Return the live and the allocated bytes of one layer's slot, all requests together."""
    name, one = slot_name(run), fact("layers", 1, "one of the equal ones", Unit.LAYERS)
    if cached.live is None:
        state = _state(name, one, cached, several)
        return state, state
    some = held[run.slot.retention]
    return cached.bytes_of(name, one, some.live), cached.bytes_of(name, one, some.allocated)
