"""Decode attention's mapping onto an accelerator: a table, and a sentence for each kind of attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvplan.plan.kernel_mapping import KernelMapping
from kvplan.results import Column, Table, fact


def kernel_table(mappings: Sequence[KernelMapping]) -> Table:
    """Return the figures one below the other, with a column for each kind of attention."""
    named = mappings[0].figures() if mappings else ()
    columns = (
        Column("figure", "figure", tuple(fact("figure", q.name, q.label) for q in named)),
        *(_column(mapping) for mapping in mappings),
        Column("unit", "unit", tuple(fact("unit", q.unit.value, q.label) for q in named), shown=False),
    )
    labels = tuple(q.label for q in named)
    return Table("kernel", "Decode attention on one GPU", columns, units=True, labels=labels)


def kernel_notes(mappings: Sequence[KernelMapping]) -> tuple[str, ...]:
    """Return a sentence for each kind of attention: how it fills the accelerator, or why nobody knows."""
    return tuple(f"{mapping.label} attention: {_limit(mapping)}" for mapping in mappings)


def _column(mapping: KernelMapping) -> Column:
    cells = tuple(replace(q, name=mapping.name) for q in mapping.figures())
    return Column(mapping.name, mapping.label, cells)


def _limit(mapping: KernelMapping) -> str:
    if mapping.grid.waves.value is None:
        return mapping.grid.waves.note
    splits = mapping.splits
    unsplit, sms = splits.unsplit_blocks.number, splits.sm_count.number
    given = f"batch {mapping.requests.number:,} gives {_blocks(unsplit)} for {sms:,} SMs"
    if splits.splits.number > 1:
        return f"{given}: {_filled(mapping)}; {_chosen(mapping)}"
    if splits.tiles.number == 1 and unsplit < sms:
        seen = f"{splits.kv_tokens.number:,} tokens are one tile"
        return f"{given}: {seen}, not to be split, and {sms - unsplit:,} SMs are idle"
    return f"{given}: enough without a split, {_waves(mapping)}"


def _filled(mapping: KernelMapping) -> str:
    splits = mapping.splits
    filling = splits.splits_for_every_sm.number
    if filling == 1:
        return "at least one for each"
    if splits.unsplit_blocks.number * filling < splits.sm_count.number:
        return f"even {filling:,} splits, one for each tile, leave some idle"
    return f"{filling:,} splits fill them"


def _chosen(mapping: KernelMapping) -> str:
    tiles = mapping.splits.tiles_per_split.number
    each = "1 tile" if tiles == 1 else f"{tiles:,} tiles"
    return f"{mapping.splits.splits.number:,} splits of {each} are chosen, {_waves(mapping)}"


def _waves(mapping: KernelMapping) -> str:
    waves, use = mapping.grid.waves.number, mapping.grid.wave_use_share.amount
    plural = "" if waves == 1 else "s"
    return f"{_blocks(mapping.grid.thread_blocks.number)} in {waves:,} wave{plural}, {use:.0%} full"


def _blocks(count: int) -> str:
    return f"{count:,} thread block" + ("" if count == 1 else "s")
