"""What the keys of a GGUF file say, as the config.json of the same model says it.

Rules from llama.cpp (convert_hf_to_gguf.py writes the keys, src/models/ says what is computed) and from
transformers 5.23 (integrations/ggml.py), which reads these files too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kvplan.errors import did_you_mean
from kvplan.specs.gguf_header import GgufHeader
from kvplan.specs.gguf_keys import Keys
from kvplan.specs.gguf_rotation import longrope, rotation

Json: TypeAlias = dict[str, object]

# gguf, constants.py, ExpertGatingFuncType.
_SIGMOID = 2
_WINDOW, _CAP = "attention.sliding_window", "final_logit_softcapping"


def config_of(header: GgufHeader) -> Json:
    """Return the keys of a config.json that say what a file's keys say.

    Raises:
        UsageError: the architecture or a key of it is not understood.
    """
    keys = Keys(header)
    adapt = ARCHITECTURES.get(keys.architecture)
    if adapt is None:
        known = did_you_mean(keys.architecture, ARCHITECTURES) or f"understood: {', '.join(ARCHITECTURES)}"
        header.refuse(f"the architecture {keys.architecture[:40]!r} is not understood ({known})")
    config = adapt(keys)
    keys.finish()
    return config


def _sizes(keys: Keys) -> Json:
    """Return what every architecture has."""
    embedding = keys.tensor("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        keys.header.refuse("'token_embd.weight' is required, with a row for each token")
    rows = embedding.shape[0]
    if keys.integer("vocab_size", rows) != rows:
        keys.refuse("vocab_size", f"the embedding has {rows:,} rows")
    return {
        "vocab_size": rows,
        "hidden_size": keys.integer("embedding_length"),
        "num_hidden_layers": keys.integer("block_count"),
        "max_position_embeddings": keys.integer("context_length"),
        "tie_word_embeddings": keys.tensor("output.weight") is None,
    }


def _head_dim(keys: Keys) -> int:
    hidden_size, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    if not keys.has("attention.key_length") and hidden_size % heads:
        keys.refuse("attention.key_length", f"is required: {hidden_size:,} is no multiple of {heads:,} heads")
    found = keys.integer("attention.key_length", hidden_size // heads)
    keys.only("attention.value_length", found)
    return found


def _heads(keys: Keys) -> Json:
    heads = keys.integer("attention.head_count")
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": keys.integer("attention.head_count_kv", heads),
    }


def _rotated(keys: Keys) -> Json:
    """Return the heads, each rotated as a whole."""
    head_dim = _head_dim(keys)
    keys.only("rope.dimension_count", head_dim)
    return {**_heads(keys), "head_dim": head_dim, **rotation(keys, head_dim)}


def _partly_rotated(keys: Keys) -> Json:
    """Return the heads, and how much of each is rotated."""
    head_dim = _head_dim(keys)
    rotated = keys.integer("rope.dimension_count", head_dim)
    return {
        **_heads(keys),
        "head_dim": head_dim,
        "partial_rotary_factor": rotated / head_dim,
        **rotation(keys, rotated),
    }


def _gated(keys: Keys) -> Json:
    """Return a decoder of rotated heads, RMSNorm and a gated MLP."""
    return {
        **_sizes(keys),
        **_rotated(keys),
        "intermediate_size": keys.integer("feed_forward_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
    }


def _experts(keys: Keys, count_key: str) -> Json:
    """Return how many experts there are, and how many a token has."""
    return {
        count_key: keys.integer("expert_count"),
        "num_experts_per_tok": keys.integer("expert_used_count"),
    }


def _bloom(keys: Keys) -> Json:
    sizes = _sizes(keys)
    keys.only("feed_forward_length", 4 * keys.integer("embedding_length"))
    keys.only("attention.head_count_kv", keys.integer("attention.head_count"))
    return {
        "model_type": "bloom",
        "vocab_size": sizes["vocab_size"],
        "hidden_size": sizes["hidden_size"],
        "n_layer": sizes["num_hidden_layers"],
        "n_head": keys.integer("attention.head_count"),
        "seq_length": sizes["max_position_embeddings"],
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
        "tie_word_embeddings": sizes["tie_word_embeddings"],
    }


def _falcon(keys: Keys) -> Json:
    """Falcon: rows of queries, keys and values stand one below the other, as in its new decoder."""
    keys.only("tensor_data_layout", "jploski")
    norms = 2 if keys.has_tensor("attn_norm_2.weight") else 1
    heads = _rotated(keys)
    kv_heads = heads.pop("num_key_value_heads")
    return {
        "model_type": "falcon",
        **_sizes(keys),
        **heads,
        "num_kv_heads": kv_heads,
        "ffn_hidden_size": keys.integer("feed_forward_length"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
        "new_decoder_architecture": True,
        "num_ln_in_parallel_attn": norms,
    }


def _gemma2(keys: Keys) -> Json:
    return {
        "model_type": "gemma2",
        **_gated(keys),
        "query_pre_attn_scalar": _gemma_scale(keys, largest=46),
        "sliding_window": keys.integer("attention.sliding_window"),
        "attn_logit_softcapping": keys.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": keys.number("final_logit_softcapping", 30.0),
    }


def _gemma3(keys: Keys) -> Json:
    pattern = keys.integer("attention.sliding_window_pattern", 6)
    if not keys.has("rope.freq_base"):
        keys.refuse("rope.freq_base", "is required")
    return {
        "model_type": "gemma3_text",
        **_gated(keys),
        "query_pre_attn_scalar": _gemma_scale(keys, largest=62),
        "sliding_window": keys.integer("attention.sliding_window"),
        "sliding_window_pattern": pattern,
        "rope_local_base_freq": keys.number("rope.freq_base_swa", 10_000.0),
    } | ({"final_logit_softcapping": keys.number(_CAP)} if keys.has(_CAP) else {})


def _gemma_scale(keys: Keys, *, largest: int) -> int:
    """Return what scores are divided by the root of: other than head_dim in 27B, known by its layers."""
    if keys.integer("block_count") == largest:
        return keys.integer("embedding_length") // keys.integer("attention.head_count")
    return _head_dim(keys)


def _gpt_oss(keys: Keys) -> Json:
    """gpt-oss: the ends of its stretched rotation are not rounded in any release, which no key says."""
    heads = _rotated(keys)
    scaling = heads.get("rope_scaling")
    if isinstance(scaling, dict):
        scaling["truncate"] = False
    width = keys.integer("expert_feed_forward_length")
    keys.only("feed_forward_length", width)
    return {
        "model_type": "gpt_oss",
        **_sizes(keys),
        **heads,
        **_experts(keys, "num_local_experts"),
        "intermediate_size": width,
        "sliding_window": keys.integer(_WINDOW),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
    }


def _gpt2(keys: Keys) -> Json:
    sizes = _sizes(keys)
    keys.only("attention.head_count_kv", keys.integer("attention.head_count"))
    return {
        "model_type": "gpt2",
        "vocab_size": sizes["vocab_size"],
        "n_embd": sizes["hidden_size"],
        "n_layer": sizes["num_hidden_layers"],
        "n_positions": sizes["max_position_embeddings"],
        "n_head": keys.integer("attention.head_count"),
        "n_inner": keys.integer("feed_forward_length"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
        "tie_word_embeddings": sizes["tie_word_embeddings"],
    }


def _lfm2(keys: Keys) -> Json:
    """LFM2: layers without KV heads are convolutions."""
    kv_heads = keys.integers("attention.head_count_kv", keys.integer("block_count"))
    attending = sorted({heads for heads in kv_heads if heads})
    if len(attending) != 1:
        keys.refuse("attention.head_count_kv", "layers that differ are not understood")
    hidden_size, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    keys.only("attention.key_length", hidden_size // heads)
    keys.only("attention.value_length", hidden_size // heads)
    keys.only("rope.dimension_count", hidden_size // heads)
    return {
        "model_type": "lfm2",
        **_sizes(keys),
        "num_attention_heads": heads,
        "num_key_value_heads": attending[0],
        "layer_types": ["full_attention" if count else "conv" for count in kv_heads],
        **rotation(keys, hidden_size // heads),
        "intermediate_size": keys.integer("feed_forward_length"),
        "block_auto_adjust_ff_dim": False,
        "norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "conv_L_cache": keys.integer("shortconv.l_cache"),
        "conv_bias": keys.has_tensor("shortconv.in_proj.bias"),
    }


def _llama(keys: Keys) -> Json:
    """Llama, Mistral, SmolLM; with experts Mixtral."""
    keys.only("tensor_data_layout", "Meta AI original pth")
    if keys.has("expert_count"):
        return {"model_type": "mixtral", **_gated(keys), **_experts(keys, "num_local_experts")}
    bias = keys.has_tensor("attn_output.bias")
    return {"model_type": "llama", **_gated(keys), "attention_bias": bias}


def _mamba(keys: Keys) -> Json:
    keys.only("feed_forward_length", 0)
    keys.only("attention.head_count", 0)
    keys.only("ssm.dt_b_c_rms", False)
    return {
        "model_type": "mamba",
        **_sizes(keys),
        "intermediate_size": keys.integer("ssm.inner_size"),
        "state_size": keys.integer("ssm.state_size"),
        "conv_kernel": keys.integer("ssm.conv_kernel"),
        "time_step_rank": keys.integer("ssm.time_step_rank"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_rms_epsilon"),
    }


def _minimax_m2(keys: Keys) -> Json:
    heads = _partly_rotated(keys)
    keys.only("expert_gating_func", _SIGMOID)
    keys.only("expert_feed_forward_length", keys.integer("feed_forward_length"))
    heads["rotary_dim"] = keys.integer("rope.dimension_count")
    del heads["partial_rotary_factor"]
    return {
        "model_type": "minimax_m2",
        **_sizes(keys),
        **heads,
        **_experts(keys, "num_local_experts"),
        "intermediate_size": keys.integer("feed_forward_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
    }


def _nemotron(keys: Keys) -> Json:
    return {
        "model_type": "nemotron",
        **_sizes(keys),
        **_partly_rotated(keys),
        "intermediate_size": keys.integer("feed_forward_length"),
        "norm_eps": keys.number("attention.layer_norm_epsilon"),
        "attention_bias": keys.has_tensor("attn_output.bias"),
        "mlp_bias": keys.has_tensor("ffn_up.bias"),
    }


def _phi3(keys: Keys) -> Json:
    head_dim = _head_dim(keys)
    rotated = keys.integer("rope.dimension_count", head_dim)
    has_window = keys.has(_WINDOW) and not keys.is_zero(_WINDOW)
    return {
        "model_type": "phi3",
        **_sizes(keys),
        **_heads(keys),
        "head_dim": head_dim,
        "partial_rotary_factor": rotated / head_dim,
        **longrope(keys, rotated),
        "intermediate_size": keys.integer("feed_forward_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "sliding_window": keys.integer(_WINDOW) if has_window else None,
    }


def _qwen2(keys: Keys) -> Json:
    return {"model_type": "qwen2", **_gated(keys)}


def _qwen2moe(keys: Keys) -> Json:
    return {
        "model_type": "qwen2_moe",
        **_gated(keys),
        **_experts(keys, "num_experts"),
        "moe_intermediate_size": keys.integer("expert_feed_forward_length"),
        "shared_expert_intermediate_size": keys.integer("expert_shared_feed_forward_length"),
        "norm_topk_prob": False,
    }


def _qwen3(keys: Keys) -> Json:
    return {"model_type": "qwen3", **_gated(keys)}


def _qwen3moe(keys: Keys) -> Json:
    return {
        "model_type": "qwen3_moe",
        **_gated(keys),
        **_experts(keys, "num_experts"),
        "moe_intermediate_size": keys.integer("expert_feed_forward_length"),
        "norm_topk_prob": True,
    }


def _stablelm(keys: Keys) -> Json:
    """StableLM: whether attention and MLP are beside each other is known by their norms."""
    keys.only("use_parallel_residual", True, False)
    return {
        "model_type": "stablelm",
        **_sizes(keys),
        **_partly_rotated(keys),
        "intermediate_size": keys.integer("feed_forward_length"),
        "layer_norm_eps": keys.number("attention.layer_norm_epsilon"),
        "use_qkv_bias": keys.has_tensor("attn_q.bias"),
        "qk_layernorm": keys.has_tensor("attn_q_norm.weight"),
        "use_parallel_residual": not keys.has_tensor("ffn_norm.weight"),
    }


def _starcoder2(keys: Keys) -> Json:
    return {
        "model_type": "starcoder2",
        **_sizes(keys),
        **_rotated(keys),
        "intermediate_size": keys.integer("feed_forward_length"),
        "norm_epsilon": keys.number("attention.layer_norm_epsilon"),
        "use_bias": keys.has_tensor("attn_output.bias"),
    }


ARCHITECTURES: dict[str, Callable[[Keys], Json]] = {
    "bloom": _bloom,
    "falcon": _falcon,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gpt-oss": _gpt_oss,
    "gpt2": _gpt2,
    "lfm2": _lfm2,
    "llama": _llama,
    "mamba": _mamba,
    "minimax-m2": _minimax_m2,
    "nemotron": _nemotron,
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen2moe": _qwen2moe,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3moe,
    "stablelm": _stablelm,
    "starcoder2": _starcoder2,
}
