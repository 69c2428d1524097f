"""What one thread block of a decode attention kernel works on at a time, and how many fit an SM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kvplan.hardware.device import Device
from kvplan.plan import kernel_laws as laws
from kvplan.plan.absent import absent, known
from kvplan.plan.attention_kinds import AttentionKind, HeadBytes
from kvplan.plan.kernel_designs import RESERVED_SOURCE, KernelDesign, kernel_design
from kvplan.results import Quantity, computed, fact
from kvplan.storage import DTYPE_BYTES
from kvplan.units import Unit

# The smallest tile FlashAttention uses (hopper/tile_size.h).
LEAST_TILE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows of queries and tokens of keys and values, and the shared memory they take.

    Args:
        mma_rows: rows one matrix instruction multiplies.
        block_rows: rows of queries a thread block has room for.
        tile_tokens: tokens of keys and values it works on at a time.
        tile_bytes: bytes of those, as stored.
        stages: tiles in shared memory at once.
        block_shared_bytes: shared memory of a thread block.
        sm_shared_bytes: shared memory of an SM.
        blocks_per_sm: thread blocks that are on an SM at once.
    """

    mma_rows: Quantity
    block_rows: Quantity
    tile_tokens: Quantity
    tile_bytes: Quantity
    stages: Quantity
    block_shared_bytes: Quantity
    sm_shared_bytes: Quantity
    blocks_per_sm: Quantity


@dataclass(frozen=True, slots=True)
class TileMaker:
    """Everything a tile depends on.

    Args:
        device: the accelerator.
        kind: the kind of attention.
        stored: what one KV head stores.
        query_rows: rows of queries that share a KV head.
        dtype: the number format of queries.
        source: where the model's description comes from.
    """

    device: Device
    kind: AttentionKind
    stored: HeadBytes
    query_rows: Quantity
    dtype: str
    source: str

    def largest(self) -> Tile:
        """Return the largest tile of which one thread block fits an SM: most rows first, then most tokens.

        Its figures have no value where the accelerator's kernel or its shared memory is not known, or where
        nothing fits.
        """
        design, kib = kernel_design(self.device), self.device.shared_memory_per_sm_kib
        if design is None:
            return self._tile(None, 0, absent("halvings", no_design(self.device)))
        if kib is None:
            return self._tile(design, design.most_rows, absent("halvings", self._no_shared_memory()))
        for most_rows in _halved(design.most_rows, design.mma_rows):
            for count in range(4):
                halvings = fact("halvings", count, "as few as let one thread block fit an SM")
                tile = self._tile(design, most_rows, halvings)
                if tile.blocks_per_sm.number and tile.tile_tokens.number >= LEAST_TILE_TOKENS:
                    return tile
        reason = f"no tile of {LEAST_TILE_TOKENS} tokens fits the {kib} KiB of an SM of {self.device.name}"
        return self._tile(design, design.most_rows, absent("halvings", reason))

    def _tile(self, design: KernelDesign | None, most_rows: int, halvings: Quantity) -> Tile:
        mma_rows = self._of(design, "mma_rows", "rows of a matrix instruction")
        most = fact("most_rows", most_rows, self._why_most(design, most_rows))
        block_rows = known(
            "block_rows",
            laws.rows_per_block,
            self.query_rows,
            mma_rows,
            most,
            label="rows a thread block holds",
        )
        k_dim = fact("k_dim", self.kind.k_dim, self.source)
        published = computed("published_tokens", laws.published_tile_tokens, k_dim)
        tokens = known(
            "tile_tokens", laws.fitted_tile_tokens, published, halvings, label="tokens of a KV tile"
        )
        held = self.stored.of("tile_bytes", tokens, "bytes of a KV tile")
        stages = self._of(design, "stages", "KV tiles held at once")
        element = fact("element_bytes", DTYPE_BYTES[self.dtype], self.dtype, Unit.BYTES)
        shared = known(
            "block_shared_bytes",
            laws.block_shared_bytes,
            block_rows,
            k_dim,
            element,
            stages,
            held,
            label="shared memory of a block",
        )
        of_sm = self._sm_shared_bytes()
        return Tile(
            mma_rows=mma_rows,
            block_rows=block_rows,
            tile_tokens=tokens,
            tile_bytes=held,
            stages=stages,
            block_shared_bytes=shared,
            sm_shared_bytes=of_sm,
            blocks_per_sm=self._blocks_per_sm(design, of_sm, shared),
        )

    def _blocks_per_sm(self, design: KernelDesign | None, of_sm: Quantity, shared: Quantity) -> Quantity:
        return known(
            "blocks_per_sm",
            laws.resident_blocks,
            self._of(design, "most_blocks_per_sm"),
            of_sm,
            shared,
            self._of(design, "reserved_bytes"),
            label="thread blocks an SM holds",
        )

    def _sm_shared_bytes(self) -> Quantity:
        label, kib = "shared memory of an SM", self.device.shared_memory_per_sm_kib
        if kib is None:
            return absent("sm_shared_bytes", self._no_shared_memory(), Unit.BYTES, label)
        read = fact("shared_memory_per_sm_kib", kib, self.device.source)
        return computed("sm_shared_bytes", laws.shared_memory_bytes, read, label=label)

    def _of(self, design: KernelDesign | None, name: str, label: str = "") -> Quantity:
        """Return a number of the design; without a value where there is none."""
        if design is None:
            return absent(name, no_design(self.device), label=label)
        sources = {"mma_rows": design.instruction_source, "reserved_bytes": RESERVED_SOURCE}
        return fact(name, getattr(design, name), sources.get(name, design.source), label=label)

    def _why_most(self, design: KernelDesign | None, most_rows: int) -> str:
        if design is None or most_rows == design.most_rows:
            return "" if design is None else design.source
        return "kvplan: fewer than published, for the shared memory of an SM"

    def _no_shared_memory(self) -> str:
        return f"shared_memory_per_sm_kib of {self.device.name} is not known"


def no_design(device: Device) -> str:
    """Return the sentence that says why an accelerator's figures have no value."""
    capability = f" {device.compute_capability}" if device.compute_capability else ""
    return f"no split-KV kernel is known for {device.architecture}{capability}"


def _halved(most_rows: int, mma_rows: int) -> Iterator[int]:
    """Iterate over the rows a thread block may take, down to one matrix instruction's."""
    while most_rows >= mma_rows:
        yield most_rows
        most_rows //= 2
