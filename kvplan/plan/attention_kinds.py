"""The kinds of attention a model has on one rank, and what one KV head of each stores."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.attention import Attention
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.entry import KV, Latent
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.model import Model
from kvplan.arch.recurrent import Recurrent
from kvplan.arch.retention import Chunked, Full, Sliding
from kvplan.arch.selected import TopBlocks, TopTokens
from kvplan.arch.slot import Sight
from kvplan.arch.weight import heads
from kvplan.errors import UsageError
from kvplan.plan.absent import known
from kvplan.plan.deployment import Deployment
from kvplan.plan.entry_bytes import attention_entry_bytes, entry_on_rank, latent_entry_bytes
from kvplan.plan.grouped_keys import GroupedKeys, grouped_keys, refuse_ungroupable, value_entry_bytes
from kvplan.plan.kernel_laws import grouped_tile_bytes, tile_bytes
from kvplan.plan.phase import sight_word
from kvplan.results import Quantity, computed, fact
from kvplan.storage import KvFormat


@dataclass(frozen=True, slots=True)
class AttentionKind:
    """What two layers must share to run the same kernel: heads, what is stored, and what is seen."""

    query_heads: int
    entry: KV | Latent
    sight: Sight

    @property
    def name(self) -> str:
        """Its key: ``full``, ``window_1024``, ``latent``."""
        return "latent" if isinstance(self.entry, Latent) else sight_word(self.sight)

    @property
    def label(self) -> str:
        """What a person calls it."""
        if isinstance(self.entry, Latent):
            return f"latent{self._selected}"
        match self.sight.retention:
            case Sliding(window=window):
                return f"sliding {window:,}"
            case Chunked(chunk=chunk):
                return f"chunks of {chunk:,}"
            case Full():
                return f"full{self._selected}"
            case _:
                raise ValueError("a recurrent layer has no kind of attention")

    @property
    def _selected(self) -> str:
        """What an indexer chooses of it, to put behind what it is called."""
        match self.sight.selected:
            case TopTokens(tokens=tokens):
                return f", top {tokens:,}"
            case TopBlocks(blocks=blocks, block_tokens=length):
                return f", top {blocks:,} blocks of {length:,}"
        return ""

    @property
    def kv_heads(self) -> int:
        """KV heads on the rank; all query heads share one latent."""
        return 1 if isinstance(self.entry, Latent) else self.entry.kv_heads

    @property
    def k_dim(self) -> int:
        """Elements a query is multiplied with: of a key, or of a latent and its rotary part."""
        return self.entry.rank + self.entry.rope_dim if isinstance(self.entry, Latent) else self.entry.k_dim

    @property
    def v_dim(self) -> int:
        """Elements of a row of results: of a value, or of a latent, which is expanded afterwards."""
        return self.entry.rank if isinstance(self.entry, Latent) else self.entry.v_dim


def attention_kinds(model: Model, deployment: Deployment) -> dict[AttentionKind, int]:
    """Return the kinds of attention on one rank, in the order of the layers, and how many layers are of each.

    Raises:
        UsageError: the heads cannot be divided, the cache cannot be kept in the format, or tokens are
            compressed.
    """
    ranks = deployment.parallelism.tensor
    counts: dict[AttentionKind, int] = {}
    mixers = ((run.count, mixer) for run in model.runs() for mixer in run.layer.mixers())
    for layers, mixer in mixers:
        match mixer:
            case Attention(num_attention_heads=count) | LatentAttention(num_attention_heads=count):
                slot, *index_slots = mixer.slots()
                for kept in (slot, *index_slots):
                    refuse_ungroupable(kept, deployment.kv, deployment.allocation)
                entry = entry_on_rank(slot.entry, ranks)
                assert isinstance(entry, KV | Latent)
                kind = AttentionKind(heads(0, count).units_per_rank(ranks), entry, slot.sight)
                counts[kind] = counts.get(kind, 0) + layers
            case CompressedAttention():
                raise UsageError("how a window and compressed entries lie on a GPU together is not modelled")
            case Recurrent():
                continue
    return counts


@dataclass(frozen=True, slots=True)
class HeadBytes:
    """What one KV head stores of a token; where keys are quantised in groups, of its value alone."""

    token: Quantity
    keys: GroupedKeys | None = None

    def of(self, name: str, tokens: Quantity, label: str) -> Quantity:
        """Return the bytes of so many tokens; without a value where the tokens have none."""
        if self.keys is None:
            return known(name, tile_bytes, tokens, self.token, label=label)
        group = (self.keys.group_tokens, self.keys.group_bytes)
        return known(name, grouped_tile_bytes, tokens, self.token, *group, label=label)


def head_bytes(entry: KV | Latent, kv: KvFormat, source: str) -> HeadBytes:
    """Return what one KV head, or the one latent, stores of a token, explained."""
    storage = (fact("bits", kv.bits, kv.source), fact("scale_bytes", kv.scale_bytes, kv.source))
    if isinstance(entry, Latent):
        sizes = (fact("kv_lora_rank", entry.rank, source), fact("qk_rope_head_dim", entry.rope_dim, source))
        return HeadBytes(computed("token_bytes", latent_entry_bytes, *sizes, *storage))
    one, v_dim = fact("kv_heads", 1, "of one KV head"), fact("v_dim", entry.v_dim, source)
    keys = grouped_keys(KV(1, entry.k_dim, entry.v_dim), kv, source)
    if keys is not None:
        return HeadBytes(computed("value_bytes", value_entry_bytes, one, v_dim, *storage), keys)
    k_dim = fact("k_dim", entry.k_dim, source)
    return HeadBytes(computed("token_bytes", attention_entry_bytes, one, k_dim, v_dim, *storage))
