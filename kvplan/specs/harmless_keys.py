"""Keys of a config.json that change neither a weight, nor what is cached, nor any number computed from them.

A key is listed by name; a pattern stands only where the ending decides. What is not here and not read by
the family's adapter is refused.
"""

from __future__ import annotations

import re

_ALWAYS = frozenset(
    """
    _name_or_path _commit_hash _from_model_config _flash_attn_2_enabled
    auto_map transformers_version transformers.js_config use_cache pretraining_tp is_llama_config
    unsloth_version unsloth_fixed neftune_noise_alpha hf_device_map torchscript use_bfloat16
    use_flash_attention attn_implementation gradient_checkpointing
    initial_context_length model_max_length max_sequence_length tokenizer_model_max_length

    output_router_logits router_aux_loss_coef router_jitter_noise aux_loss_alpha seq_aux ep_size

    initializer_range initializer_factor
    id2label label2id problem_type finetuning_task is_decoder tie_encoder_decoder
    chunk_size_feed_forward output_attentions output_hidden_states return_dict return_dict_in_generate
    task_specific_params tokenizer_class cache_implementation tf_legacy_loss sep_token prefix

    bad_words_ids begin_suppress_tokens suppress_tokens early_stopping diversity_penalty length_penalty
    max_length min_length no_repeat_ngram_size encoder_no_repeat_ngram_size num_beams num_beam_groups
    num_return_sequences output_scores remove_invalid_values repetition_penalty
    exponential_decay_length_penalty do_sample temperature top_k top_p typical_p
    """.split()
)
_BY_ENDING = re.compile(
    r"\w+_token_ids?|\w+_token_index|(\w+_)?dropout(_rate|_prob)?|\w+_pdrop|\w*layerdrop"
    r"|_attn_implementation\w*|summary_\w+|forced_\w+_token_id"
)
# Harmless only when off: turned on, each adds or removes weights, or changes what is cached or computed.
_WHEN_OFF = frozenset(
    """
    add_cross_attention cross_attention_hidden_size is_encoder_decoder pruned_heads use_sliding_window
    attention_bias mlp_bias qkv_bias lm_head_bias use_qk_norm qk_layernorm quantization_config
    rope_interleaved use_mrope use_bidirectional_attention
    """.split()
)


def is_harmless(key: str, value: object) -> bool:
    """Whether a key with this value changes nothing counted or computed; null says that nothing is set."""
    if value is None or key in _ALWAYS or _BY_ENDING.fullmatch(key):
        return True
    if key == "is_causal":
        return value is True
    return key in _WHEN_OFF and value in (False, {}, [])
