"""Softmax attention with cached keys and values: MHA, GQA and MQA, full or sliding-window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from kvplan.arch.adapter import adapter
from kvplan.arch.block_indexer import BlockIndexer
from kvplan.arch.buffer import Buffer
from kvplan.arch.entry import KV
from kvplan.arch.limits import Limits
from kvplan.arch.retention import Chunked, Full, Retention, Sliding
from kvplan.arch.rotary import RopeParameters
from kvplan.arch.slot import CacheSlot
from kvplan.arch.temperature import TemperatureTuning
from kvplan.arch.weight import Split, Weight, bias, heads, kv_heads, matrix
from kvplan.checks import FieldError, require_amounts, require_multiple, require_sizes
from kvplan.storage import TensorRole

_ROLE = TensorRole.ATTENTION
_Q_NORM, _K_NORM = "self_attn.q_norm.weight", "self_attn.k_norm.weight"


class QkNorm(Enum):
    """How queries and keys are normalised, as the model's norms do it; the value is its name in model files.

    ``head``: each head, all by the same ``head_dim`` weights (Qwen 3). ``each_head``: each head by weights of
    its own, without a bias (Command-R+). ``projection``: all heads at once (OLMo 2). ``unit``: each head,
    without weights (Llama 4).
    """

    HEAD = "head"
    EACH_HEAD = "each_head"
    PROJECTION = "projection"
    UNIT = "unit"


class OutputGate(Enum):
    """What makes the gate that what heads give is multiplied by; the value is its name in model files.

    ``query``: the query projection, which is twice as wide (Qwen3-Next). ``element``: a projection of its
    own, a number for each element (AFMoE). ``head``: one of its own, a number for each head (Step-3.5).
    """

    QUERY = "query"
    ELEMENT = "element"
    HEAD = "head"


@dataclass(frozen=True, slots=True)
class Attention:
    """Scaled dot-product attention over keys and values cached per KV head.

    Args:
        num_attention_heads: query heads.
        num_key_value_heads: heads that are cached; query heads are a multiple of it.
        head_dim: elements of a query, key or value head.
        sliding_window: tokens a query sees, itself included; absent when it sees all.
        qkv_bias: the query, key and value projections have a bias.
        out_bias: the output projection has a bias.
        v_head_dim: elements of a value head; ``head_dim`` where absent (MiMo-V2).
        qk_norm: how queries and keys are normalised; absent where they are not.
        qk_norm_after_rope: they are rotated first (Hunyuan).
        v_norm: values are normalised per head, without weights (Gemma 4).
        output_gate: what makes the gate of the output; absent where it has none.
        sinks: each query head has a learned sink logit (gpt-oss).
        rope_parameters: the rotation of queries and keys; absent where positions are not rotated.
        alibi: scores fall with the distance, by a slope of each head (arXiv 2108.12409).
        alibi_scaled: slopes are multiplied by what products of queries and keys are (Falcon).
        temperature: queries grow with their position; absent where they do not (Llama 4).
        query_pre_attn_scalar: scores are divided by its square root; ``head_dim`` where absent (Gemma).
        attention_multiplier: scores are multiplied by it instead (Granite).
        attention_value_scale: values are multiplied by it (MiMo-V2).
        clip_qkv: queries, keys and values are clipped to it on both sides (OLMo, DBRX).
        attn_logit_softcapping: scores are bent to stay below it by a hyperbolic tangent (Gemma 2).
        attention_chunk_size: a query sees its own chunk of so many tokens only (Llama 4).
        visible_window: a query sees so many last tokens only, though all of them stay (GPT-Neo).
        shares_kv: keys and values are those of the nearest layer before it with a cache like this one's;
            it has no projections for them (Gemma 4).
        k_eq_v: values are made by the keys' projection (Gemma 4).
        sink_tokens: first tokens that stay in view beside a window (arXiv 2309.17453).
        indexer: what chooses the blocks of tokens a query attends to; absent where it attends to all.
        input_streams: hidden sizes that its input is wide: 2 with the embedding beside the residual (Zamba2).
        adapter_rank: rank of what is added to queries, keys and values by low-rank products; absent for none.
    """

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    sliding_window: int | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    v_head_dim: int | None = None
    qk_norm: QkNorm | None = None
    qk_norm_after_rope: bool = False
    v_norm: bool = False
    output_gate: OutputGate | None = None
    sinks: bool = False
    rope_parameters: RopeParameters | None = None
    alibi: bool = False
    alibi_scaled: bool = False
    temperature: TemperatureTuning | None = None
    query_pre_attn_scalar: float | None = None
    attention_multiplier: float | None = None
    attention_value_scale: float | None = None
    clip_qkv: float | None = None
    attn_logit_softcapping: float | None = None
    attention_chunk_size: int | None = None
    visible_window: int | None = None
    shares_kv: bool = False
    k_eq_v: bool = False
    sink_tokens: int = 0
    indexer: BlockIndexer | None = None
    input_streams: int = 1
    adapter_rank: int | None = None

    def __post_init__(self) -> None:
        require_sizes(self, "num_attention_heads", "num_key_value_heads", "head_dim", "sliding_window")
        sinks = ("sink_tokens",) if self.sink_tokens else ()
        require_sizes(self, "v_head_dim", "attention_chunk_size", "visible_window", *sinks)
        require_sizes(self, "input_streams", "adapter_rank")
        require_amounts(self, "query_pre_attn_scalar", "attn_logit_softcapping")
        require_amounts(self, "attention_multiplier", "attention_value_scale", "clip_qkv")
        require_multiple(
            self.num_attention_heads, "num_attention_heads", self.num_key_value_heads, "num_key_value_heads"
        )
        complaints = [((name,), complaint) for wrong, name, complaint in self._contradictions() if wrong]
        if complaints:
            raise FieldError(*complaints)
        if self.rope_parameters is not None:
            self.rope_parameters.require_fit(self.head_dim)
        if self.indexer is not None:
            self._require_fit(self.indexer)

    def _require_fit(self, indexer: BlockIndexer) -> None:
        if self.num_key_value_heads % indexer.index_n_heads:
            message = f"must divide num_key_value_heads ({self.num_key_value_heads})"
            raise FieldError((("indexer", "index_n_heads"), f"{message}, not {indexer.index_n_heads}"))
        rotated = 0 if self.rope_parameters is None else self.rope_parameters.rotated(self.head_dim)
        if indexer.index_head_dim < rotated:
            message = f"must be at least the {rotated} elements of a head that are rotated"
            raise FieldError((("indexer", "index_head_dim"), f"{message}, not {indexer.index_head_dim}"))

    def _contradictions(self) -> Iterator[tuple[bool, str, str]]:
        """Iterate over what cannot be together: whether it is, the field, and the complaint."""
        chunked, windowed = self.attention_chunk_size is not None, self.sliding_window is not None
        yield chunked and windowed, "attention_chunk_size", "cannot be beside a sliding_window"
        seen = self.visible_window is not None
        yield seen and (chunked or windowed), "visible_window", "is for layers that keep every token"
        multiplied, divided = self.attention_multiplier is not None, self.query_pre_attn_scalar is not None
        yield multiplied and divided, "attention_multiplier", "cannot be beside a query_pre_attn_scalar"
        narrow = self.value_dim != self.head_dim
        yield self.k_eq_v and narrow, "v_head_dim", "must be head_dim where k_eq_v is true"
        gated = self.output_gate is OutputGate.QUERY
        yield gated and narrow, "v_head_dim", "must be head_dim where the query projection makes a gate"
        yield bool(self.sink_tokens) and not windowed, "sink_tokens", "needs a sliding_window"
        yield self.alibi_scaled and not self.alibi, "alibi_scaled", "needs alibi"
        # Scores are known up to a constant of the query only, which sinks and a bend would show.
        yield self.alibi and self.sinks, "alibi", "cannot be beside sinks"
        yield self.alibi and self.attn_logit_softcapping is not None, "alibi", "cannot be beside a softcap"
        chosen, capped = self.indexer is not None, self.attn_logit_softcapping is not None
        passing = windowed or chunked or seen or self.shares_kv
        yield chosen and passing, "indexer", "is for layers that store every token and see it"
        wide = self.input_streams > 1
        yield chosen and wide, "indexer", "is for layers that read the residual stream alone"
        yield (
            self.adapter_rank is not None and gated,
            "adapter_rank",
            "cannot be beside a gate of the queries",
        )
        bent = self.sinks or self.alibi or capped
        yield chosen and bent, "indexer", "cannot be beside sinks, alibi or a softcap"

    @property
    def value_dim(self) -> int:
        """Elements of a value head."""
        return self.v_head_dim or self.head_dim

    def slots(self) -> tuple[CacheSlot, ...]:
        """Return what one token leaves in the cache and for how long; an indexer's key is behind it."""
        entry = KV(self.num_key_value_heads, self.head_dim, self.value_dim)
        owned, seen = not self.shares_kv, self.visible_window
        if self.indexer is not None:
            return (CacheSlot(entry, Full(), selected=self.indexer.selected), self.indexer.slot())
        return (CacheSlot(entry, self._retention(), owned, visible_window=seen),)

    def _retention(self) -> Retention:
        if self.sliding_window is not None:
            return Sliding(self.sliding_window, self.sink_tokens)
        return Full() if self.attention_chunk_size is None else Chunked(self.attention_chunk_size)

    def weights(self, hidden_size: int) -> tuple[Weight, ...]:
        """Return the projections and, where there are any, a gate, biases, norms and sinks."""
        inputs = self.input_streams * hidden_size
        found = [matrix(name, rows, inputs, _ROLE, split) for name, rows, split in self._projections()]
        mixed, by_head = self.num_attention_heads * self.value_dim, heads(1, self.num_attention_heads)
        found.append(matrix("self_attn.o_proj", hidden_size, mixed, _ROLE, by_head))
        if self._gates:
            by_gate = heads(0, self.num_attention_heads)
            found.append(matrix("self_attn.g_proj", self._gates, inputs, _ROLE, by_gate))
        if self.qkv_bias:
            found += [bias(name, rows, split) for name, rows, split in self._projections()]
        if self.out_bias:
            found.append(bias("self_attn.o_proj", hidden_size))
        found += self._norm_weights()
        if self.sinks:
            by_head = heads(0, self.num_attention_heads)
            found.append(Weight("self_attn.sinks", (self.num_attention_heads,), TensorRole.BIAS, by_head))
        if self.indexer is not None:
            found += self.indexer.weights(hidden_size)
        if self.adapter_rank is not None:
            for name, rows, split in self._projections():
                found += adapter(name, rows, inputs, self.adapter_rank, _ROLE, split)
        return tuple(found)

    def _projections(self) -> list[tuple[str, int, Split]]:
        """Return the name, the rows and the cut of each projection of the layer's input."""
        queries, by_kv_head = self._queries, kv_heads(self.num_key_value_heads)
        gated = queries * (2 if self.output_gate is OutputGate.QUERY else 1)
        found = [("self_attn.q_proj", gated, heads(0, self.num_attention_heads))]
        if not self.shares_kv:
            found.append(("self_attn.k_proj", self._keys, by_kv_head))
        if not (self.shares_kv or self.k_eq_v):
            found.append(("self_attn.v_proj", self._values, by_kv_head))
        return found

    def _norm_weights(self) -> list[Weight]:
        if self.qk_norm in (None, QkNorm.UNIT):
            return []
        query, cached = self.num_attention_heads, self.num_key_value_heads
        match self.qk_norm:
            case QkNorm.EACH_HEAD:
                queries = Weight(_Q_NORM, (query, self.head_dim), TensorRole.NORM, heads(0, query))
                keys = Weight(_K_NORM, (cached, self.head_dim), TensorRole.NORM, kv_heads(cached))
            case QkNorm.PROJECTION:
                queries = Weight(_Q_NORM, (self._queries,), TensorRole.NORM, heads(0, query))
                keys = Weight(_K_NORM, (self._keys,), TensorRole.NORM, kv_heads(cached))
            case _:
                queries = Weight(_Q_NORM, (self.head_dim,), TensorRole.NORM)
                keys = Weight(_K_NORM, (self.head_dim,), TensorRole.NORM)
        return [queries] if self.shares_kv else [queries, keys]

    @property
    def _queries(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def _gates(self) -> int:
        """Numbers that a projection of the gate's own makes; 0 where there is none."""
        match self.output_gate:
            case OutputGate.ELEMENT:
                return self.num_attention_heads * self.value_dim
            case OutputGate.HEAD:
                return self.num_attention_heads
        return 0

    @property
    def _keys(self) -> int:
        return self.num_key_value_heads * self.head_dim

    @property
    def _values(self) -> int:
        return self.num_key_value_heads * self.value_dim

    def buffers(self, hidden_size: int) -> tuple[Buffer, ...]:
        """Return the arrays alive at once while a prefill chunk passes, per token."""
        by_head, by_kv_head = heads(0, self.num_attention_heads), kv_heads(self.num_key_value_heads)
        cached = (Buffer("keys", self._keys, by_kv_head), Buffer("values", self._values, by_kv_head))
        return (
            Buffer("queries", self._queries * (2 if self.output_gate is OutputGate.QUERY else 1), by_head),
            *(() if self.shares_kv else cached),
            *((Buffer("gate", self._gates, by_head),) if self._gates else ()),
            *(() if self.adapter_rank is None else (Buffer("adapters", 3 * self.adapter_rank),)),
            *(() if self.indexer is None else self.indexer.buffers()),
            Buffer("attention output", self.num_attention_heads * self.value_dim, by_head),
            Buffer("projected output", hidden_size),
        )

    def scaled_down(self, limits: Limits) -> Attention:
        """Return the mixer with as few heads and as short a window as a scaled model has."""
        group = self.num_attention_heads // self.num_key_value_heads
        kept = limits.heads(self.num_key_value_heads, group)
        return replace(
            self,
            num_attention_heads=kept * group,
            num_key_value_heads=kept,
            sliding_window=limits.kept(self.sliding_window),
            attention_chunk_size=limits.kept(self.attention_chunk_size),
            visible_window=limits.kept(self.visible_window),
            indexer=None if self.indexer is None else self.indexer.of_fewer(kept).scaled_down(limits),
        )
