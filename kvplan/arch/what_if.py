"""What if a model were another: fewer KV heads, latent attention, a sliding window.

Each function returns the changed model, or says in one line why the question does not apply. What it
returns is a shape, not a checkpoint: such a model would have to be trained, or converted and healed. Its
name stays, and its ``source`` says what is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kvplan.arch.attention import Attention
from kvplan.arch.attention_beside_mamba import AttentionBesideMamba
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Mixer
from kvplan.arch.model import Model
from kvplan.arch.recurrent import Recurrent
from kvplan.arch.rotary import RopeParameters, RopeType
from kvplan.arch.shared_block import SharedBlock
from kvplan.errors import UsageError

# ------------------------------------------------------------------ fewer KV heads


def with_kv_heads(model: Model, kv_heads: int) -> Model:
    """Return the model with at most ``kv_heads`` KV heads in every softmax layer (arXiv 2305.13245).

    Query heads stay, so each KV head serves more of them: grouped-query attention, and multi-query
    attention where one is left. Layers with as few already stay as they are.

    Raises:
        UsageError: no layer has more, they do not divide the query heads, or there are no KV heads.
    """
    _refuse_without_kv_heads(model)
    if kv_heads < 1:
        raise UsageError(f"attention needs at least 1 KV head, not {kv_heads}")
    if kv_heads >= _most_kv_heads(model):
        has = _kv_heads(_most_kv_heads(model))
        raise UsageError(f"{model.name} has {has} already: {kv_heads} would not be fewer")
    _refuse_uneven(model, kv_heads)

    def fewer_heads(attention: Attention) -> Attention:
        left, indexer = min(attention.num_key_value_heads, kv_heads), attention.indexer
        chooses = None if indexer is None else indexer.of_fewer(left)
        return replace(attention, num_key_value_heads=left, indexer=chooses)

    return _changed(model, fewer_heads, f"with {_kv_heads(kv_heads)}")


def default_kv_heads_steps(model: Model) -> tuple[int, ...]:
    """Return the numbers of KV heads worth asking for: half, a quarter, and one (MQA), most first.

    Half and a quarter are of the most heads any layer has; a number that :func:`with_kv_heads` would
    refuse is left out. Empty where there is nothing to lower.
    """
    if _has_latent(model) or not _softmax(model):
        return ()
    most = _most_kv_heads(model)
    halves = {most // parts for parts in (2, 4) if most % parts == 0}
    return tuple(n for n in sorted(halves | {1}, reverse=True) if n < most and not _uneven(model, n))


def _refuse_uneven(model: Model, kv_heads: int) -> None:
    if uneven := _uneven(model, kv_heads):
        even = [str(n) for n in range(1, _most_kv_heads(model)) if not _uneven(model, n)]
        raise UsageError(
            f"{_kv_heads(kv_heads)} cannot share {model.name}'s {uneven[0]} query heads evenly",
            hint=f"numbers that do: {', '.join(even)}",
        )


def _uneven(model: Model, kv_heads: int) -> list[int]:
    """Return the query heads of layers with more KV heads now that so many could not share evenly."""
    lowered = [layer for layer in _softmax(model) if layer.num_key_value_heads > kv_heads]
    return [layer.num_attention_heads for layer in lowered if layer.num_attention_heads % kv_heads]


def _most_kv_heads(model: Model) -> int:
    return max(attention.num_key_value_heads for attention in _softmax(model))


def _refuse_without_kv_heads(model: Model) -> None:
    if _has_latent(model):
        raise UsageError(f"{model.name} caches one latent for all heads: it has no KV heads to remove")
    if not _softmax(model):
        raise UsageError(f"{model.name} has {_other_kinds(model)} only: they cache no KV heads")


def _kv_heads(count: int) -> str:
    return f"{count} KV head" if count == 1 else f"{count} KV heads"


# ------------------------------------------------------------------ latent attention


def with_latent_attention(model: Model, kv_lora_rank: int = 512, qk_rope_head_dim: int = 64) -> Model:
    """Return the model with latent attention in place of softmax attention (arXiv 2405.04434, 2502.07864).

    Query heads stay; the unrotated part of a head and its value are as wide as they were, beside a
    rotary key of ``qk_rope_head_dim`` for all heads; queries are not compressed. Biases, norms, bounds and
    scales of queries, keys, values and scores go with the projections they belong to. The defaults
    are DeepSeek's. Every tensor-parallel rank keeps the whole latent, so where KV heads are cut over many
    ranks one GPU may cache more than before, though the model caches less.

    Raises:
        UsageError: it is there already, cannot do what this model's attention does, or saves nothing.
    """
    if _has_latent(model):
        raise UsageError(f"{model.name} has latent attention already")
    if not _softmax(model):
        raise UsageError(f"{model.name} has {_other_kinds(model)} only: no keys and values to compress")
    _refuse_no_latent(kv_lora_rank, qk_rope_head_dim)
    _refuse_what_latents_cannot_do(model)
    _refuse_larger_latent(model, kv_lora_rank + qk_rope_head_dim)
    rotations = {attention: _rotation(model, attention, qk_rope_head_dim) for attention in _softmax(model)}

    def compressed(attention: Attention) -> LatentAttention:
        return LatentAttention(
            num_attention_heads=attention.num_attention_heads,
            kv_lora_rank=kv_lora_rank,
            qk_nope_head_dim=attention.head_dim,
            qk_rope_head_dim=qk_rope_head_dim,
            v_head_dim=attention.value_dim,
            rope_parameters=rotations[attention],
        )

    return _changed(model, compressed, f"with latents of {kv_lora_rank} + {qk_rope_head_dim} elements")


def _refuse_no_latent(kv_lora_rank: int, qk_rope_head_dim: int) -> None:
    if kv_lora_rank < 1:
        raise UsageError(f"a latent has at least 1 element, not {kv_lora_rank}")
    if qk_rope_head_dim < 2 or qk_rope_head_dim % 2:
        raise UsageError(f"a rotary key has an even number of elements, at least 2, not {qk_rope_head_dim}")


def _refuse_what_latents_cannot_do(model: Model) -> None:
    layers = _softmax(model)
    asked = {
        "sliding windows": any(
            layer.sliding_window is not None or layer.visible_window is not None for layer in layers
        ),
        "attention chunks": any(layer.attention_chunk_size is not None for layer in layers),
        "sink logits": any(layer.sinks for layer in layers),
        "soft-capped scores": any(layer.attn_logit_softcapping is not None for layer in layers),
        "output gates": any(layer.output_gate is not None for layer in layers),
        "ALiBi": any(layer.alibi for layer in layers),
        "queries that grow with their position": any(layer.temperature is not None for layer in layers),
        "shared keys and values": any(layer.shares_kv for layer in layers),
        "chosen blocks": any(layer.indexer is not None for layer in layers),
        "shared blocks": any(layer.input_streams > 1 for layer in layers),
        "state spaces beside it": any(
            isinstance(run.layer.mixer, AttentionBesideMamba) for run in model.runs()
        ),
    }
    found = [words for words, there in asked.items() if there]
    if found:
        raise UsageError(f"latent attention cannot keep {model.name}'s {' and '.join(found)}")


def _refuse_larger_latent(model: Model, latent_elements: int) -> None:
    """Refuse a latent that is no smaller than the keys and values of some layer."""
    replaced = min(
        layer.num_key_value_heads * (layer.head_dim + layer.value_dim) for layer in _softmax(model)
    )
    if latent_elements >= replaced:
        raise UsageError(
            f"a latent of {latent_elements:,} elements saves nothing: "
            f"{model.name}'s keys and values are {replaced:,} a token and layer"
        )


def _rotation(model: Model, attention: Attention, qk_rope_head_dim: int) -> RopeParameters:
    """Return the rotation of the rotary key: the same frequencies, over all of its elements."""
    rope = attention.rope_parameters
    if rope is None:
        some = any(layer.rope_parameters is not None for layer in _softmax(model))
        where = "in some layers" if some else ""
        lacks = f"{model.name} rotates no positions {where}".rstrip()
        raise UsageError(f"{lacks}: a rotary key would carry nothing")
    fitted = rope.rotated(attention.head_dim)
    if rope.rope_type is RopeType.LONGROPE and fitted != qk_rope_head_dim:
        raise UsageError(
            f"{model.name}'s longrope is fitted to {fitted} rotated elements, not {qk_rope_head_dim}",
            hint=f"a rotary key of {fitted} elements keeps it",
        )
    return replace(rope, partial_rotary_factor=1.0)


# ------------------------------------------------------------------ a sliding window


def with_window(model: Model, window: int, sink_tokens: int = 0) -> Model:
    """Return the model with no softmax layer that keeps more than ``window`` and ``sink_tokens`` tokens.

    Full-attention layers slide (arXiv 2310.06825, with sinks: 2309.17453), wider windows, chunks and chosen
    blocks give way to this one, and what keeps as few tokens already stays; so do latent and recurrent
    layers. Layers that keep what their window does not show let go of it.

    Raises:
        UsageError: it would never slide within the context the model was made for, or changes nothing.
    """
    if window < 1:
        raise UsageError(f"a window has at least 1 token, not {window}")
    if sink_tokens < 0:
        raise UsageError(f"a window has 0 or more sink tokens, not {sink_tokens}")
    if not _softmax(model):
        raise UsageError(f"{model.name} has {_other_kinds(model)} only: there is no window to set")
    kept, longest = window + sink_tokens, model.max_position_embeddings
    words = f"a window of {window:,} tokens" + (f" and {sink_tokens:,} sink tokens" if sink_tokens else "")
    if kept >= longest:
        raise UsageError(f"{model.name} is made for {longest:,} tokens: {words} never slides")
    if all(_keeps_at_most(attention, kept) for attention in _softmax(model)):
        others = f", and its {_other_kinds(model)} have no window" if _other_kinds(model) else ""
        raise UsageError(f"{model.name}'s attention keeps at most {kept:,} tokens already{others}")

    def sliding(attention: Attention) -> Attention:
        if _keeps_at_most(attention, kept):
            return attention
        if attention.visible_window is not None and attention.visible_window <= kept:
            return replace(attention, sliding_window=attention.visible_window, visible_window=None)
        plain = replace(attention, attention_chunk_size=None, visible_window=None, indexer=None)
        return replace(plain, sliding_window=window, sink_tokens=sink_tokens)

    return _changed(model, sliding, f"with {words}")


def _keeps_at_most(attention: Attention, tokens: int) -> bool:
    if attention.sliding_window is not None:
        return attention.sliding_window + attention.sink_tokens <= tokens
    return attention.attention_chunk_size is not None and attention.attention_chunk_size <= tokens


def _other_kinds(model: Model) -> str:
    """Return the kinds of layers that are no softmax attention, as words; empty where there are none."""
    recurrent = any(isinstance(mixer, Recurrent) for run in model.runs() for mixer in run.layer.mixers())
    compressed = any(isinstance(run.layer.mixer, CompressedAttention) for run in model.runs())
    words = {
        "latent-attention layers": _has_latent(model),
        "compressed-attention layers": compressed,
        "recurrent layers": recurrent,
    }
    return " and ".join(word for word, there in words.items() if there)


# ------------------------------------------------------------------ of any model


def _softmax(model: Model) -> list[Attention]:
    """Return the softmax attention of every distinct layer."""
    mixers = (mixer for run in model.runs() for mixer in run.layer.mixers())
    return [mixer for mixer in mixers if isinstance(mixer, Attention)]


def _has_latent(model: Model) -> bool:
    return any(isinstance(run.layer.mixer, LatentAttention) for run in model.runs())


def _changed(model: Model, change: Callable[[Attention], Mixer], words: str) -> Model:
    """Return the model with its softmax attention changed; ``words`` end its source."""
    layers = tuple(
        replace(
            layer,
            mixer=_changed_mixer(layer.mixer, change),
            shared_block=_changed_block(layer.shared_block, change),
        )
        for layer in model.layers
    )
    return replace(model, source=f"{model.source}, {words}", layers=layers)


def _changed_block(block: SharedBlock | None, change: Callable[[Attention], Mixer]) -> SharedBlock | None:
    if block is None:
        return None
    attention = change(block.attention)
    assert isinstance(attention, Attention)
    return replace(block, attention=attention)


def _changed_mixer(mixer: Mixer | None, change: Callable[[Attention], Mixer]) -> Mixer | None:
    match mixer:
        case Attention():
            return change(mixer)
        case AttentionBesideMamba():
            attention = change(mixer.attention)
            assert isinstance(attention, Attention)
            return replace(mixer, attention=attention)
    return mixer
