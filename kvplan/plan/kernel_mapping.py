"""How decode attention lies on one accelerator: rows, tiles, thread blocks, splits and waves, explained.

The kernel is the one published for the accelerator's generation (:mod:`kvplan.plan.kernel_designs`).
What is not known of an accelerator leaves the figures that need it without a value, and says why.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from kvplan.arch.entry import Latent
from kvplan.arch.model import Model
from kvplan.checks import LARGEST_SIZE
from kvplan.errors import UsageError
from kvplan.plan import kernel_laws as laws
from kvplan.plan.absent import absent, known
from kvplan.plan.attention_kinds import AttentionKind, HeadBytes, attention_kinds, head_bytes
from kvplan.plan.deployment import Deployment
from kvplan.plan.kernel_tile import Tile, TileMaker
from kvplan.plan.operator_formulas import tokens_on_rank
from kvplan.plan.visibility import Stretch, tokens_read
from kvplan.results import Quantity, computed, fact
from kvplan.storage import DTYPE_BYTES
from kvplan.units import Unit


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one rank, and the rows of queries that share a KV head."""

    query_heads: Quantity
    kv_heads: Quantity
    query_rows: Quantity


@dataclass(frozen=True, slots=True)
class Splits:
    """How each sequence is split.

    Args:
        kv_tokens: tokens in view of a request, on this rank.
        tiles: tiles they make.
        unsplit_blocks: thread blocks of the grid where no sequence is split.
        sm_count: SMs of the accelerator.
        splits_for_every_sm: splits that give every SM a thread block, as far as there are tiles.
        slots: thread blocks that run at once.
        splits: what a published kernel chooses.
        tiles_per_split: tiles of the longest split.
    """

    kv_tokens: Quantity
    tiles: Quantity
    unsplit_blocks: Quantity
    sm_count: Quantity
    splits_for_every_sm: Quantity
    slots: Quantity
    splits: Quantity
    tiles_per_split: Quantity


@dataclass(frozen=True, slots=True)
class Grid:
    """The thread blocks of a step, what they move, and the waves they run in."""

    thread_blocks: Quantity
    block_kv_bytes: Quantity
    partial_bytes: Quantity
    waves: Quantity
    last_wave_share: Quantity
    wave_use_share: Quantity


@dataclass(frozen=True, slots=True)
class KernelMapping:
    """One kind of attention of a decode step on one GPU.

    Args:
        name: the kind's key: ``full``, ``window_1024``, ``latent``.
        label: what a person calls it.
        layers: layers of this kind in the model; each runs the kernel once a step.
        requests: requests of the step.
        heads: query heads, KV heads and the rows they make.
        row_blocks: thread blocks that share the rows of a KV head.
        row_use_share: share of the rows multiplied that belong to a query.
        tile: what a thread block works on at a time.
        splits: how sequences are split.
        grid: thread blocks and waves.
    """

    name: str
    label: str
    layers: Quantity
    requests: Quantity
    heads: Heads
    row_blocks: Quantity
    row_use_share: Quantity
    tile: Tile
    splits: Splits
    grid: Grid

    def figures(self) -> tuple[Quantity, ...]:
        """Return every figure, from the heads to the waves."""
        rows = (self.row_blocks, self.row_use_share)
        rest = (*_figures(self.tile), *rows, *_figures(self.splits), *_figures(self.grid))
        return (self.layers, self.requests, *_figures(self.heads), *rest)


def _figures(group: Heads | Tile | Splits | Grid) -> tuple[Quantity, ...]:
    return tuple(getattr(group, field.name) for field in fields(group))


def kernel_mappings(
    model: Model, deployment: Deployment, batch: int, context: int, new_tokens: int = 1
) -> tuple[KernelMapping, ...]:
    """Return how each kind of attention of a decode step lies on one GPU, in the order of the layers.

    ``batch`` requests of one replica have ``context`` tokens cached and add ``new_tokens`` each: several
    where speculated ones are verified. Recurrent layers run no attention and are left out.

    Raises:
        UsageError: a number is out of range, the heads cannot be divided over the ranks, or the cache
            cannot be kept in the format.
    """
    _require_counts(batch=batch, context=context, new_tokens=new_tokens)
    found: list[KernelMapping] = []
    for kind, count in attention_kinds(model, deployment).items():
        asked = (
            fact("requests", batch, "asked for", Unit.REQUESTS, "requests"),
            fact("context", context, "asked for", Unit.TOKENS),
            fact("new_tokens", new_tokens, "asked for", Unit.TOKENS),
        )
        mapping = _Mapper(model, deployment, kind, *asked).mapping(count)
        alike = sum(mapping.label == other.label.partition(", ")[0] for other in found)
        found.append(_told_apart(mapping, alike + 1) if alike else mapping)
    return tuple(found)


def _told_apart(mapping: KernelMapping, number: int) -> KernelMapping:
    """Name a kind that sees what an earlier one does but has other heads."""
    label = f"{mapping.label}, kind {number}"
    return replace(mapping, name=f"{mapping.name}_kind_{number}", label=label)


def _require_counts(**counts: int) -> None:
    for name, value in counts.items():
        least = 0 if name == "context" else 1
        if not least <= value <= LARGEST_SIZE:
            raise UsageError(f"{name} must be {least} to {LARGEST_SIZE:,}, not {value:,}")


@dataclass(frozen=True, slots=True)
class _Mapper:
    """One kind of attention in one step: makes its figures."""

    model: Model
    deployment: Deployment
    kind: AttentionKind
    requests: Quantity
    context: Quantity
    new_tokens: Quantity

    def mapping(self, layer_count: int) -> KernelMapping:
        source, device = self.model.source, self.deployment.device
        heads = self._heads()
        stored = head_bytes(self.kind.entry, self.deployment.kv, source)
        tile = TileMaker(device, self.kind, stored, heads.query_rows, self.model.dtype, source).largest()
        rows = (heads.query_rows, tile.block_rows)
        row_blocks = known("row_blocks", laws.blocks_of_rows, *rows, label="blocks of rows")
        used = (heads.query_rows, row_blocks, tile.block_rows)
        splits = self._splits(heads, row_blocks, tile)
        return KernelMapping(
            name=self.kind.name,
            label=self.kind.label,
            layers=fact("layers", layer_count, source, Unit.LAYERS, "layers"),
            requests=self.requests,
            heads=heads,
            row_blocks=row_blocks,
            row_use_share=known("row_use_share", laws.row_use, *used, label="tensor-core rows used"),
            tile=tile,
            splits=splits,
            grid=self._grid(heads, row_blocks, tile, splits, stored),
        )

    def _heads(self) -> Heads:
        ranks, source = self.deployment.parallelism.tensor, self.model.source
        where = source if ranks == 1 else f"{source}, over {ranks} tensor-parallel ranks"
        kv_label = "latents, for all heads" if isinstance(self.kind.entry, Latent) else "KV heads"
        query_heads = fact("query_heads", self.kind.query_heads, where, label="query heads")
        kv_heads = fact("kv_heads", self.kind.kv_heads, where, label=kv_label)
        sizes = (query_heads, kv_heads, self.new_tokens)
        rows = computed("query_rows", laws.packed_query_rows, *sizes, label="query rows of a KV head")
        return Heads(query_heads, kv_heads, rows)

    def _splits(self, heads: Heads, row_blocks: Quantity, tile: Tile) -> Splits:
        in_view, sms = self._tokens_in_view(), self._sm_count()
        tiles = known("tiles", laws.tiles_in_view, in_view, tile.tile_tokens, label="KV tiles of a request")
        one_each = (self.requests, heads.kv_heads, row_blocks)
        unsplit = known("unsplit_blocks", laws.unsplit_blocks, *one_each, label="thread blocks, unsplit")
        filling = (unsplit, sms, tiles)
        for_every_sm = known(
            "splits_for_every_sm", laws.splits_for_every_sm, *filling, label="splits to fill the SMs"
        )
        slots = known("slots", laws.block_slots, sms, tile.blocks_per_sm, label="thread blocks at once")
        splits = known("splits", laws.chosen_splits, unsplit, slots, tiles, label="splits chosen")
        longest = known("tiles_per_split", laws.tiles_of_split, tiles, splits, label="KV tiles of a split")
        return Splits(in_view, tiles, unsplit, sms, for_every_sm, slots, splits, longest)

    def _grid(
        self, heads: Heads, row_blocks: Quantity, tile: Tile, splits: Splits, stored: HeadBytes
    ) -> Grid:
        sizes = (self.requests, heads.kv_heads, row_blocks, splits.splits)
        blocks = known("thread_blocks", laws.grid_blocks, *sizes, label="thread blocks of the grid")
        busiest = (splits.kv_tokens, splits.tiles_per_split, tile.tile_tokens)
        tokens = known("split_tokens", laws.tokens_of_split, *busiest)
        waves = known("waves", laws.wave_count, blocks, splits.slots, label="waves")
        full = (blocks, waves, splits.slots)
        return Grid(
            thread_blocks=blocks,
            block_kv_bytes=stored.of("block_kv_bytes", tokens, "KV bytes of a thread block"),
            partial_bytes=self._partial_bytes(heads, splits.splits),
            waves=waves,
            last_wave_share=known(
                "last_wave_share", laws.last_wave_share, *full, label="slots used, last wave"
            ),
            wave_use_share=known("wave_use_share", laws.wave_use, *full, label="slots used, all waves"),
        )

    def _partial_bytes(self, heads: Heads, splits: Quantity) -> Quantity:
        return known(
            "partial_bytes",
            laws.partial_result_bytes,
            self.requests,
            heads.kv_heads,
            heads.query_rows,
            splits,
            fact("v_dim", self.kind.v_dim, self.model.source),
            fact("element_bytes", DTYPE_BYTES["fp32"], "float32", Unit.BYTES),
            label="bytes of partial results",
        )

    def _tokens_in_view(self) -> Quantity:
        """Return the tokens of a request that one rank reads: all in view, or its part of them."""
        one_step = replace(self.new_tokens, name="step_tokens")
        stretch = Stretch(self.context, self.new_tokens, one_step)
        in_view = tokens_read("kv_tokens", self.kind.sight, stretch, self.model.source)
        ranks = self.deployment.parallelism.context
        if ranks > 1:
            over = fact("context_parallel", ranks, "ranks that share the tokens of a request")
            in_view = computed("kv_tokens", tokens_on_rank, in_view, over)
        return replace(in_view, label="tokens in view")

    def _sm_count(self) -> Quantity:
        device = self.deployment.device
        if device.sm_count is None:
            return absent("sm_count", f"sm_count of {device.name} is not known", label="SMs")
        return fact("sm_count", device.sm_count, device.source, label="SMs")
