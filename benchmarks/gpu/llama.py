"""transformers' LlamaForCausalLM at full size with random weights: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
from sizes import LlamaSizes
from stopwatch import Call
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, StaticCache
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

ATTENTION = "grouped_sdpa"
# 16-bit activations through every layer, summed in another order.
NEAR = 0.05


def grouped_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over a static cache without a mask: a decode step on a full one, or a prompt's first chunk.

    transformers' own masks the unused end of the cache and, with a mask, copies keys and values once for each
    query head. No runtime does so; here a decode step fills the cache exactly, and a first chunk is causal.
    """
    new = query.shape[2]
    if new > 1:
        key, value = key[:, :, :new], value[:, :, :new]
    found = scaled_dot_product_attention(query, key, value, is_causal=new > 1, scale=scaling, enable_gqa=True)
    return found.transpose(1, 2).contiguous(), None


def build(sizes: LlamaSizes, device: torch.device, dtype: torch.dtype) -> LlamaForCausalLM:
    """Return the model with random weights, made where they stay."""
    AttentionInterface.register(ATTENTION, grouped_sdpa)
    config = _config(sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=ATTENTION)
    model = model.to_empty(device=device).eval().requires_grad_(False)
    model.tie_weights()
    # Its frequencies are computed when it is made, and were on the meta device.
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0)  # norms
        else:
            parameter.normal_(0.0, config.initializer_range)
    return model


def _config(sizes: LlamaSizes) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.query_heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        max_position_embeddings=sizes.max_position_embeddings,
        rms_norm_eps=sizes.norm_eps,
        tie_word_embeddings=sizes.tied,
        rope_parameters={"rope_type": "default", "rope_theta": sizes.rope_theta},
        bos_token_id=None,
        eos_token_id=None,
    )


def full_cache(model: LlamaForCausalLM, batch: int, tokens: int) -> StaticCache:
    """Return a cache of ``tokens`` tokens for each request, filled with random keys and values."""
    config, weight = model.config, model.lm_head.weight
    cache = StaticCache(config=config, max_cache_len=tokens)
    cache.early_initialization(
        batch_size=batch,
        num_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        dtype=weight.dtype,
        device=weight.device,
    )
    for layer in cache.layers:
        layer.keys.normal_()
        layer.values.normal_()
    return cache


def set_position(cache: StaticCache, tokens: int) -> None:
    """Make a cache store what comes next behind ``tokens`` tokens: each step would move it on by itself."""
    for layer in cache.layers:
        layer.cumulative_length.fill_(tokens)


def first_chunk(model: LlamaForCausalLM, cache: StaticCache, tokens: torch.Tensor) -> torch.Tensor:
    """Read the first tokens (batch, tokens) of every request in one step; return the last one's logits."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
    set_position(cache, 0)
    return model(
        tokens, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits


def decode_call(model: Any, cache: StaticCache, tokens: torch.Tensor) -> Call:
    """Return the step that adds a token (batch, 1) to requests whose cache has room for just that one.

    ``set_position`` has to stand before each call of it.
    """
    last = cache.get_max_length() - 1
    position = torch.full((1, 1), last, dtype=torch.int64, device=tokens.device)
    return lambda: model(tokens, position_ids=position, past_key_values=cache, use_cache=True).logits


def require_right(model: LlamaForCausalLM) -> None:
    """Raise ValueError where a chunk and a step over the cache end in other logits than no cache at all.

    What is compared with is transformers' own eager attention over the whole sequence.
    """
    tokens = torch.randint(model.config.vocab_size, (2, 17), device=model.lm_head.weight.device)
    cache = full_cache(model, *tokens.shape)
    first_chunk(model, cache, tokens[:, :-1])
    found = decode_call(model, cache, tokens[:, -1:])()[:, -1].float()
    model.set_attn_implementation("eager")
    expected = model(tokens, use_cache=False, logits_to_keep=1).logits[:, -1].float()
    model.set_attn_implementation(ATTENTION)
    apart = float((found - expected).norm() / expected.norm())
    if not apart < NEAR:
        raise ValueError(f"steps over the cache are wrong: logits differ by {apart:.1%}")


def weights_bytes(model: LlamaForCausalLM) -> int:
    """Return the bytes of the parameters; a tied one counts once."""
    return sum(parameter.nbytes for parameter in model.parameters())


def cache_bytes(cache: StaticCache) -> int:
    """Return the bytes of all keys and values."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
