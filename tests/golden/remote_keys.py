"""Config files of remote code in the keys of the class of transformers that is the same architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Given = dict[str, Any]


def _renamed(given: Given, keys: dict[str, str]) -> Given:
    return {keys.get(key, key): value for key, value in given.items()}


def exaone(given: Given) -> Given:
    """EXAONE 3 as a Llama."""
    keys = {
        "num_layers": "num_hidden_layers",
        "layer_norm_epsilon": "rms_norm_eps",
        "activation_function": "hidden_act",
    }
    return {**_renamed(given, keys), "model_type": "llama"}


def chatglm(given: Given) -> Given:
    """ChatGLM with RMSNorm as a GLM."""
    keys = {
        "num_layers": "num_hidden_layers",
        "layernorm_epsilon": "rms_norm_eps",
        "ffn_hidden_size": "intermediate_size",
        "kv_channels": "head_dim",
        "multi_query_group_num": "num_key_value_heads",
        "padded_vocab_size": "vocab_size",
        "seq_length": "max_position_embeddings",
        "add_qkv_bias": "attention_bias",
    }
    theta = 10_000.0 * given["rope_ratio"]
    return {**_renamed(given, keys), "rope_theta": theta, "model_type": "glm"}


def qwen(given: Given) -> Given:
    """Qwen 1, whose width is that of two gates, as a Qwen 2."""
    keys = {"layer_norm_epsilon": "rms_norm_eps", "rotary_emb_base": "rope_theta", "seq_length": "longest"}
    own = {"intermediate_size": given["intermediate_size"] // 2, "num_key_value_heads": None}
    return {**_renamed(given, keys), **own, "model_type": "qwen2"}


def minicpm(given: Given) -> Given:
    """MiniCPM as a Granite: what one multiplies by, the other divides by."""
    residual = given["scale_depth"] / given["num_hidden_layers"] ** 0.5
    return {
        **_renamed(given, {"scale_emb": "embedding_multiplier"}),
        "residual_multiplier": residual,
        "logits_scaling": given["hidden_size"] / given["dim_model_base"],
        "attention_multiplier": (given["hidden_size"] // given["num_attention_heads"]) ** -0.5,
        "model_type": "granite",
    }


def biased_llama(given: Given) -> Given:
    """InternLM 1 and 2 as a Llama."""
    return {**_renamed(given, {"bias": "attention_bias"}), "model_type": "llama"}


def orion(given: Given) -> Given:
    """Orion as a StableLM that rotates whole heads."""
    keys = {"rms_norm_eps": "layer_norm_eps"}
    return {**_renamed(given, keys), "partial_rotary_factor": 1.0, "model_type": "stablelm"}


def phi_msft(given: Given) -> Given:
    """Phi 1.5 as first released, as a Phi."""
    keys = {
        "activation_function": "hidden_act",
        "layer_norm_epsilon": "layer_norm_eps",
        "n_embd": "hidden_size",
        "n_head": "num_attention_heads",
        "n_head_kv": "num_key_value_heads",
        "n_inner": "intermediate_size",
        "n_layer": "num_hidden_layers",
        "n_positions": "max_position_embeddings",
    }
    rotated = given["rotary_dim"] / (given["n_embd"] // given["n_head"])
    return {**_renamed(given, keys), "partial_rotary_factor": rotated, "model_type": "phi"}


def searched_llama(given: Given) -> Given:
    """A searched Llama whose blocks are alike, as a Llama."""
    block = given["block_configs"][0]
    heads = given["num_attention_heads"] // block["attention"]["n_heads_in_group"]
    width = int(2 * block["ffn"]["ffn_mult"] * given["hidden_size"] / 3)
    own = {"num_key_value_heads": heads, "intermediate_size": -(-width // 256) * 256}
    return {**given, **own, "model_type": "llama"}


def deci(given: Given) -> Given:
    """A DeciLM whose layers are alike as a Llama."""
    heads = given["num_key_value_heads_per_layer"][0]
    return {**given, "num_key_value_heads": heads, "model_type": "llama"}


def minimax_m1(given: Given) -> Given:
    """MiniMax-M1 that rotates whole heads, with normed residuals, as a MiniMax."""
    keys = {
        f"layernorm_{theirs}_{factor}": f"{ours}_{factor}_factor"
        for theirs, ours in (
            ("linear_attention", "linear_attn"),
            ("full_attention", "full_attn"),
            ("mlp", "mlp"),
        )
        for factor in ("alpha", "beta")
    }
    kinds = ["full_attention" if kind else "linear_attention" for kind in given["attn_type_list"]]
    return {**_renamed(given, keys), "layer_types": kinds, "model_type": "minimax"}


def hunyuan(given: Given) -> Given:
    """Hunyuan with experts of one width, the shared one included, as its native class."""
    own = {"intermediate_size": given["moe_intermediate_size"][0], "head_dim": given["attention_head_dim"]}
    return {**given, **own, "model_type": "hunyuan_v1_moe"}


def deepseek(given: Given) -> Given:
    """DeepSeek-MoE without dense layers, whose shares sum to one, as a Granite without multipliers."""
    keys = {
        "intermediate_size": "width_of_no_layer",
        "moe_intermediate_size": "intermediate_size",
        "n_routed_experts": "num_local_experts",
    }
    own = {
        "shared_intermediate_size": given["n_shared_experts"] * given["moe_intermediate_size"],
        "attention_multiplier": (given["hidden_size"] // given["num_attention_heads"]) ** -0.5,
    }
    return {**_renamed(given, keys), **own, "model_type": "granitemoeshared"}


IN_NATIVE_KEYS: dict[str, Callable[[Given], Given]] = {
    "chatglm": chatglm,
    "deci": deci,
    "deepseek": deepseek,
    "exaone": exaone,
    "hunyuan": hunyuan,
    "internlm": biased_llama,
    "internlm2": biased_llama,
    "minicpm": minicpm,
    "nemotron-nas": searched_llama,
    "minimax_m1": minimax_m1,
    "minimax_text_01": minimax_m1,
    "orion": orion,
    "phi-msft": phi_msft,
    "qwen": qwen,
}
