"""Lightning attention (MiniMax-01): linear attention whose heads forget at fixed rates."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.activation import Activation
from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import State
from kvplan.arch.limits import Limits
from kvplan.arch.recurrent import Product, Recurrence, Recurrent, Size
from kvplan.arch.retention import PerRequest
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight, heads, matrix
from kvplan.checks import require_sizes
from kvplan.formula import formula
from kvplan.storage import TensorRole
from kvplan.units import Count, Unit


@formula(Unit.FLOPS, "each head's key x value matrix is added to, and read by the query: arXiv 2401.04658")
def lightning_flops(layers: Count, tokens: Count, heads: Count, head_dim: Count) -> Count:
    """Operations of the recurrence in a run of equal layers of lightning attention."""
    return layers * tokens * 4 * heads * head_dim * head_dim


@dataclass(frozen=True, slots=True)
class LightningAttention(Recurrent):
    """Linear attention without a softmax (arXiv 2401.04658, arXiv 2501.08313).

    How fast a head forgets follows from its number, and from where the layer stands in the model.

    Args:
        num_attention_heads: query, key and value heads.
        head_dim: elements of each.
        hidden_act: the function of queries, keys and values.
    """

    num_attention_heads: int
    head_dim: int
    hidden_act: Activation = Activation.SILU

    def __post_init__(self) -> None:
        require_sizes(self, "num_attention_heads", "head_dim")

    @property
    def width(self) -> int:
        """Elements of all heads."""
        return self.num_attention_heads * self.head_dim

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return one request's state: a key x value matrix per head, in the model's dtype."""
        state = State(0, 1, self.width * self.head_dim, newest_kept=False, recurrent_dtype="")
        return (CacheSlot(state, PerRequest()),)

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the fused projection, the output gate, the norm of all heads, and the way out."""
        by_head, out = heads(0, self.num_attention_heads), heads(1, self.num_attention_heads)
        role = TensorRole.ATTENTION
        return (
            matrix("self_attn.qkv_proj", 3 * self.width, hidden_size, role, by_head),
            matrix("self_attn.output_gate", self.width, hidden_size, role, by_head),
            Weight("self_attn.norm.weight", (self.width,), TensorRole.NORM, by_head),
            matrix("self_attn.out_proj", hidden_size, self.width, role, out),
        )

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""
        by_head = heads(0, self.num_attention_heads)
        return (
            Buffer("queries, keys, values", 3 * self.width, by_head),
            Buffer("output gate", self.width, by_head),
            Buffer("recurrence output", self.width, by_head),
            Buffer("gated output", self.width, by_head),
            Buffer("projected output", hidden_size),
        )

    def recurrence(self) -> Recurrence:
        """Return the operators it runs as."""
        return Recurrence(
            inputs=(Product("in_proj", "recurrence inputs", ("qkv_proj", "output_gate")),),
            flops=lightning_flops,
            sizes=(Size("heads", self.num_attention_heads), Size("head_dim", self.head_dim, cut=False)),
            features=4 * self.width,
            outputs=(Product("out_proj", "recurrence output", ("out_proj",)),),
        )

    def scaled_down(self, limits: Limits) -> LightningAttention:
        """Return the layer with as few heads as a scaled model has."""
        return replace(self, num_attention_heads=limits.heads(self.num_attention_heads, 2))
