"""The answer of ``kvplan capacity``: where memory goes, how the cache grows, and what fits."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.entry import State
from kvplan.arch.model import Model
from kvplan.arch.prediction_layer import prediction_words
from kvplan.arch.retention import Full
from kvplan.arch.tower import in_words
from kvplan.formula import formula
from kvplan.plan.cache_notes import cache_notes
from kvplan.plan.capacity import Capacity
from kvplan.plan.capacity_figures import fits, longest_context, most_requests
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.plan.kept_tokens import context_ranks
from kvplan.plan.memory import StageMemory
from kvplan.plan.verdict import verdict
from kvplan.plan.weights import parameter_count
from kvplan.results import Column, Facts, Quantity, Report, Scalar, Shown, Table, computed, fact
from kvplan.units import Count, Unit, gib


@formula(Unit.BLOCKS, "whole blocks of every growing layer, rounded down")
def pool_blocks(pool_bytes: int, block_tokens: int, bytes_per_token: int) -> Count:
    """Blocks in the pool while every layer still grows."""
    return pool_bytes // (block_tokens * bytes_per_token)


@formula(Unit.TOKENS, "blocks x tokens in a block")
def pool_tokens(pool_blocks: int, block_tokens: int) -> Count:
    """Tokens in the pool while every layer still grows."""
    return pool_blocks * block_tokens


@formula(Unit.TOKENS, "blocks x tokens in a block, on each of the ranks that share a request's tokens")
def pool_tokens_of_ranks(pool_blocks: int, block_tokens: int, context_parallel: int) -> Count:
    """Tokens in the pools of a context-parallel group while every layer still grows."""
    return pool_blocks * block_tokens * context_parallel


def capacity_report(
    capacity: Capacity,
    contexts: Sequence[int],
    batches: Sequence[int],
    *,
    decide_context: int | None,
    decide_batch: int,
    inputs: tuple[tuple[str, Scalar | list[int]], ...],
) -> Report:
    """Return the whole answer; per-GPU figures are those of the most loaded GPU.

    ``decide_context`` and ``decide_batch`` are what the last sentence is about; without a context it is
    how long a context that many requests can have.
    """
    loaded = capacity.most_loaded
    return Report(
        command="capacity",
        heading=_heading(capacity),
        sections=(
            _model(capacity),
            _gpu(capacity),
            deployment_facts(capacity.deployment),
            _memory(loaded),
            _kv(capacity, loaded),
            _growth(capacity, contexts),
            _max_batch(capacity, contexts),
            _max_context(capacity, batches),
        ),
        verdict=verdict(capacity, decide_context, decide_batch),
        notes=_notes(capacity, contexts),
        inputs=inputs,
    )


def _heading(capacity: Capacity) -> str:
    d, model = capacity.deployment, capacity.model
    usable = gib(d.device.memory_bytes, 1)
    gpus = f"{d.parallelism.gpus} x {d.device.label}{_shared_degrees(d.parallelism)}"
    planned = f"({usable} GiB usable, {d.utilization_bp / 100:g}% planned)"
    return f"{model.name}  {d.weights.name} weights, {d.kv.name} KV   on {gpus} {planned}"


def _shared_degrees(cut: Parallelism) -> str:
    """Return the expert- and context-parallel degrees where there are any: ``, ep 8, cp 2``."""
    return "".join(f", {name} {size}" for name, size in (("ep", cut.expert), ("cp", cut.context)) if size > 1)


def _notes(capacity: Capacity, contexts: Sequence[int]) -> tuple[str, ...]:
    d, found = capacity.deployment, []
    if d.device.memory.driver_mib is None:
        sold = d.device.memory.sold_gb
        found.append(
            f"no driver reading is known for {d.device.name}: planned on the {sold} GB it is sold with"
        )
    if any(isinstance(run.slot.entry, State) for run in capacity.model.slot_runs()):
        found.append(f"recurrent state as {d.state.name} stores it: {d.state.source} (--state)")
        if guessed := d.state.speculative_tokens:
            found.append(f"a state is kept behind each guessed token too: {1 + guessed} in all")
    beyond = [c for c in contexts if c > d.max_tokens]
    if beyond:
        found.append(
            f"no request may be longer than {d.max_tokens:,} tokens: {_limit(capacity, d.max_tokens)}"
        )
    found += _encoder_notes(capacity.model, d.parallelism.tensor)
    predicting = sum(layer.predicts for layer in capacity.model.layers)
    if predicting:
        found.append(
            f"{prediction_words(predicting)} held to draft with (--mtp): weights and cache are counted, "
            "embedding and head are the model's own; the bundled engine runs none of them"
        )
    found += cache_notes(capacity.model, d)
    found += hardware_notes(capacity)
    found += _sharing_notes(capacity)
    p = d.parallelism
    if p.gpus > 1:
        cut = f"{p.degrees}, ep {p.expert}" if p.expert > 1 else p.degrees
        stage = capacity.most_loaded.stage
        which = f", on stage {stage.number} of {stage.of}" if stage.of > 1 else ""
        found.append(
            f"per-GPU figures are of the GPU where one growing request runs out first ({cut}{which})"
        )
    return tuple(found)


def _sharing_notes(capacity: Capacity) -> list[str]:
    """Say what each GPU holds where experts or the tokens of a request are shared."""
    cut, found = capacity.deployment.parallelism, []
    if cut.expert > 1:
        found.append(f"each GPU holds 1 in {cut.expert} of the routed experts, whole (--ep)")
    if cut.context > 1:
        kept = [isinstance(run.slot.retention, Full) for run in capacity.model.slot_runs()]
        whole = "" if all(kept) else "; windows, chunks and states are whole on every one"
        held = f"1 in {cut.context} of a request's tokens in full-attention layers"
        found.append(f"each GPU of a context-parallel group holds {held}{whole} (--cp)")
    return found


def _encoder_notes(model: Model, tensor: int) -> list[str]:
    """Return what is counted of encoders of images and sound, and of layers that attend to images."""
    found = []
    if model.towers:
        towers = in_words([tower.name for tower in model.towers])
        whole = ", whole on each GPU (vLLM's --mm-encoder-tp-mode data)" if tensor > 1 else ""
        found.append(f"{towers} counted in the weights{whole}; images take tokens like text")
    if assumed := [tower.name for tower in model.towers if tower.assumed]:
        found.append(f"{in_words(assumed)} of the class's own sizes: the model's file does not describe it")
    if model.missing_towers:
        towers = in_words(model.missing_towers)
        found.append(f"{towers} not counted: their weights come on top")
    if any(layer.images_only for layer in model.layers):
        found.append(
            "cross-attention layers are counted in the weights; text passes them by, and what an image "
            "caches there is not counted"
        )
    return found


def hardware_notes(capacity: Capacity) -> list[str]:
    """Say where the accelerator has no unit for a format: the bytes are the same, the speed is not."""
    d = capacity.deployment
    peaks = d.device.peak_dense
    units = {"bf16": peaks.bf16_tflops, "fp8": peaks.fp8_tflops, "nvfp4": peaks.fp4_tflops}
    formats = [name for name in d.weights.name.split("+") if not name.endswith("-a16")]
    used = {*(name.partition("-")[0] for name in formats), capacity.model.dtype}
    return [
        f"{d.device.name} has no {name} matrix unit: a runtime converts, or does not support it"
        for name, peak in units.items()
        if peak is None and name in used
    ]


def _model(capacity: Capacity) -> Facts:
    model = capacity.model
    return Facts(
        "model",
        "Model",
        (
            fact("name", model.name, model.source, label="model"),
            parameter_count(model),
            parameter_count(model, active=True),
        ),
        Shown.NOT,
    )


def _gpu(capacity: Capacity) -> Facts:
    device = capacity.deployment.device
    known = device.memory.driver_mib is not None
    source = device.memory.driver_source if known else f"as sold: {device.source}"
    return Facts(
        "gpu",
        "GPU",
        (
            fact("name", device.name, device.source, label="accelerator"),
            fact("count", capacity.deployment.parallelism.gpus, "tp x pp x dp x cp", Unit.GPUS),
            fact("memory_bytes", device.memory_bytes, source, Unit.BYTES, "memory"),
        ),
        Shown.NOT,
    )


def deployment_facts(deployment: Deployment) -> Facts:
    """Return what was decided about a deployment, for machines."""
    d = deployment
    match d.allocation:
        case Paged():
            allocation = "paged"
        case Contiguous():
            allocation = "contiguous"
    return Facts(
        "deployment",
        "Deployment",
        (
            fact("tensor_parallel", d.parallelism.tensor, "--tp"),
            fact("pipeline_parallel", d.parallelism.pipeline, "--pp"),
            fact("data_parallel", d.parallelism.data, "--dp"),
            fact("expert_parallel", d.parallelism.expert, "--ep"),
            fact("context_parallel", d.parallelism.context, "--cp"),
            fact("weights", d.weights.name, d.weights.source),
            fact("kv", d.kv.name, d.kv.source),
            fact("state", d.state.name, d.state.source),
            fact("allocation", allocation, "--alloc"),
            fact("max_length_tokens", d.max_tokens, "--max-length, or the model's limit", Unit.TOKENS),
            fact("chunk_tokens", d.chunk_tokens, "--chunk", Unit.TOKENS),
            fact("memory_utilization", d.utilization_bp / 10_000, "--memory-utilization", Unit.SHARE),
        ),
        Shown.NOT,
    )


def _memory(loaded: StageMemory) -> Facts:
    spent = (loaded.weights, loaded.activations, loaded.overhead, loaded.pool)
    short = (loaded.shortfall,) if loaded.shortfall.number else ()
    return Facts("memory", "Where the memory goes", (*spent, *short, loaded.total), Shown.BUDGET)


def _kv(capacity: Capacity, loaded: StageMemory) -> Facts:
    allocation = capacity.deployment.allocation
    paged = isinstance(allocation, Paged)
    block = allocation.block_tokens if isinstance(allocation, Paged) else 1
    source = "--block-size" if paged else "a contiguous cache is counted in tokens"
    per_token = capacity.whole_cache.growth("bytes_per_token", "B per token")
    many = capacity.deployment.parallelism.gpus > 1
    per_gpu = loaded.cache.growth("bytes_per_token_per_gpu", "B per token on each GPU" if many else "")
    block_tokens = fact("block_tokens", block, source, Unit.TOKENS, "tokens per block" if paged else "")
    ranks = context_ranks(capacity.deployment.parallelism.context)
    stored = per_gpu if ranks.number == 1 else loaded.cache.growth_per_turn("bytes_per_turn", ranks)
    if stored.number:
        blocks = computed(
            "pool_blocks", pool_blocks, loaded.pool, block_tokens, stored, label="blocks" if paged else ""
        )
    else:
        blocks = fact("pool_blocks", 0, "no layer on this GPU grows with the context", Unit.BLOCKS)
    tokens = _pool_tokens(capacity, blocks, block_tokens, ranks)
    state = capacity.whole_cache.state("state_bytes_per_sequence", "B of state per request")
    return Facts("kv", "KV cache", (per_token, per_gpu, state, block_tokens, blocks, tokens), Shown.SENTENCE)


def _pool_tokens(capacity: Capacity, blocks: Quantity, block_tokens: Quantity, ranks: Quantity) -> Quantity:
    label = _pool_label(capacity)
    if ranks.number == 1:
        return computed("pool_tokens", pool_tokens, blocks, block_tokens, label=label)
    return computed("pool_tokens", pool_tokens_of_ranks, blocks, block_tokens, ranks, label=label)


def _pool_label(capacity: Capacity) -> str:
    """Return what the pool's tokens are called: with windows or states, more fit than the label counts."""
    all_grow = all(isinstance(run.slot.retention, Full) for run in capacity.model.slot_runs())
    return "tokens in the pool" if all_grow else "tokens in the pool while every layer grows"


def _growth(capacity: Capacity, contexts: Sequence[int]) -> Table:
    whole = capacity.whole_cache
    asked = tuple(_asked("context_tokens", c, Unit.TOKENS, "context") for c in contexts)
    return Table(
        "growth",
        "How the cache of one request grows",
        (
            Column("context_tokens", "context", asked),
            Column(
                "kv_live_bytes", "live", tuple(whole.live("kv_live_bytes", c) for c in contexts), priority=1
            ),
            Column(
                "kv_allocated_bytes",
                "allocated",
                tuple(whole.allocated("kv_allocated_bytes", c) for c in contexts),
            ),
            Column("fits", "fits", tuple(fits(capacity, 1, c) for c in contexts), priority=2),
            Column(
                "max_batch",
                "most requests at once",
                tuple(most_requests(capacity, c, "max_batch") for c in contexts),
            ),
        ),
    )


def _max_batch(capacity: Capacity, contexts: Sequence[int]) -> Table:
    asked = tuple(_asked("context_tokens", c, Unit.TOKENS, "context") for c in contexts)
    found = tuple(most_requests(capacity, c, "batch") for c in contexts)
    columns = (Column("context_tokens", "context", asked), Column("batch", "most requests", found))
    return Table("max_batch", "Most requests at a context", columns, Shown.NOT)


def _max_context(capacity: Capacity, batches: Sequence[int]) -> Table:
    asked = tuple(_asked("batch", b, Unit.REQUESTS, "requests at once") for b in batches)
    found = tuple(longest_context(capacity, b) for b in batches)
    limits = tuple(fact("limit", _limit(capacity, q.number), "what stops a longer one") for q in found)
    return Table(
        "max_context",
        "Longest context at a batch",
        (
            Column("batch", "requests at once", asked),
            Column("context_tokens", "longest context", found),
            Column("limit", "limited by", limits, priority=1),
        ),
    )


def _limit(capacity: Capacity, context: int) -> str:
    if context < capacity.deployment.max_tokens:
        return "memory"
    is_models = context == capacity.model.max_position_embeddings
    return "the model's limit" if is_models else "--max-length"


def _asked(name: str, value: int, unit: Unit, label: str) -> Quantity:
    return fact(name, value, "asked for", unit, label)
