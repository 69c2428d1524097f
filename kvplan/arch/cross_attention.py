"""Cross-attention from text to an image: weights that take memory and that text alone never uses."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.buffer import Buffer
from kvplan.arch.limits import Limits
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, heads, kv_heads, matrix
from kvplan.checks import require_multiple, require_sizes
from kvplan.storage import TensorRole

_ROLE = TensorRole.ATTENTION


@dataclass(frozen=True, slots=True)
class CrossAttention:
    """Gated attention over what an image encoder has made (Llama 3.2 Vision).

    Its keys and values are an image's, not a token's, so text caches nothing here, and where there is no
    image the whole layer is passed by, its MLP included (transformers, modeling_mllama.py).

    Args:
        num_attention_heads: query heads.
        num_key_value_heads: key and value heads; query heads are a multiple of it.
        head_dim: elements of a head.
    """

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        require_sizes(self, "num_attention_heads", "num_key_value_heads", "head_dim")
        require_multiple(
            self.num_attention_heads, "num_attention_heads", self.num_key_value_heads, "num_key_value_heads"
        )

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return nothing: text leaves nothing here."""
        return ()

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the projections, the norms of queries and keys, and the gates of the layer's two parts."""
        queries, keys = (
            self.num_attention_heads * self.head_dim,
            self.num_key_value_heads * self.head_dim,
        )
        count, cached = self.num_attention_heads, kv_heads(self.num_key_value_heads)
        return (
            matrix("cross_attn.q_proj", queries, hidden_size, _ROLE, heads(0, count)),
            matrix("cross_attn.k_proj", keys, hidden_size, _ROLE, cached),
            matrix("cross_attn.v_proj", keys, hidden_size, _ROLE, cached),
            matrix("cross_attn.o_proj", hidden_size, queries, _ROLE, heads(1, count)),
            Weight("cross_attn.q_norm.weight", (self.head_dim,), TensorRole.NORM),
            Weight("cross_attn.k_norm.weight", (self.head_dim,), TensorRole.NORM),
            Weight("cross_attn_attn_gate", (1,), TensorRole.BIAS),
            Weight("cross_attn_mlp_gate", (1,), TensorRole.BIAS),
        )

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return nothing: text does not run it."""
        return ()

    def scaled_down(self, limits: Limits) -> CrossAttention:
        """Return the mixer with as few heads as a scaled model has."""
        group = self.num_attention_heads // self.num_key_value_heads
        kept = limits.heads(self.num_key_value_heads, group)
        return replace(self, num_attention_heads=kept * group, num_key_value_heads=kept)
