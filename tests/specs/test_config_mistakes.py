"""config.json files with mistakes: what is not understood is refused by name, with its place."""

# ruff: noqa: E501 - one line a case, its whole message on it

import json
from pathlib import Path

import pytest

from kvplan.specs.config_json import FAMILIES
from kvplan.specs.families.wrappers import WRAPPERS

CONFIGS = Path(__file__).parent.parent / "data" / "hf_configs"

# A released file, where in it (the top, or a mapping in it), keys to set, keys to drop, the mistakes.
# fmt: off
EDITS = [
    pytest.param('llama-3.1-8b', '', {'model_type': 'lama'}, [], ["15:16: model_type 'lama' is not understood (did you mean llama, mllama, llama4?)"], id='model_type: close'),
    pytest.param('llama-3.1-8b', '', {'model_type': 'LLAMA'}, [], ["15:16: model_type 'LLAMA' is not understood (did you mean llama, mllama, llama4?)"], id='model_type: capitals'),
    pytest.param('llama-3.1-8b', '', {'model_type': 'xlnet'}, [], ["15:16: model_type 'xlnet' is not understood ({others})"], id='model_type: unknown'),
    pytest.param('llama-3.1-8b', '', {'model_type': None}, [], ["15:16: 'model_type' is required"], id='model_type: null'),
    pytest.param('llama-3.1-8b', '', {'model_type': ''}, [], ["15:16: 'model_type' is required"], id='model_type: empty'),
    pytest.param('llama-3.1-8b', '', {'model_type': 3}, [], ['15:16: model_type: expected text, not 3'], id='model_type: number'),
    pytest.param('llama-3.1-8b', '', {'model_type': ['llama']}, [], ['15:16: model_type: expected text, not a list'], id='model_type: list'),
    pytest.param('llama-3.1-8b', '', {'model_type': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'}, [], ["15:16: model_type 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' is not understood ({others})"], id='model_type: long'),
    pytest.param('llama-3.1-8b', '', {'model_type': '\x1b[31m'}, [], ["15:16: model_type '\\x1b[31m' is not understood ({others})"], id='model_type: control character'),
    pytest.param('llama-3.1-8b', '', {}, ['model_type'], ["1:1: 'model_type' is required"], id='model_type: missing'),
    pytest.param('llama-3.1-8b', '', {'sparse_attention': True}, [], ['26:2: sparse_attention: this key is not understood'], id='key not understood: one'),
    pytest.param('llama-3.1-8b', '', {'sparse_attention': True, 'kv_share': 2}, [], ['26:2: sparse_attention: this key is not understood', '27:2: kv_share: this key is not understood'], id='key not understood: two'),
    pytest.param('llama-3.1-8b', '', {'layer_type': 'full'}, [], ['26:2: layer_type: this key is not understood'], id='key not understood: near one that is known'),
    pytest.param('llama-3.1-8b', '', {'attention_chunk_size': 8192}, [], ['26:2: attention_chunk_size: this key is not understood'], id='key not understood: chunked attention'),
    pytest.param('llama-3.1-8b', '', {'a\x1b': 1}, [], ['26:2: a\\x1b: this key is not understood'], id='key not understood: control character'),
    pytest.param('llama-3.1-8b', '', {'a\nb': 1}, [], ['26:2: a\\nb: this key is not understood'], id='key not understood: line break'),
    pytest.param('llama-3.1-8b', '', {'': 1}, [], ["26:2: '': this key is not understood"], id='key not understood: empty'),
    pytest.param('llama-3.1-8b', '', {'kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk': 1}, [], ['26:2: kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk: this key is not understood'], id='key not understood: long'),
    pytest.param('llama-3.1-8b', '', {'hidden_size': '4096'}, [], ["10:17: hidden_size: expected a whole number, not '4096'"], id='hidden_size: text'),
    pytest.param('llama-3.1-8b', '', {'hidden_size': 32.0}, [], ['10:17: hidden_size: expected a whole number, not 32.0'], id='hidden_size: float'),
    pytest.param('llama-3.1-8b', '', {'hidden_size': True}, [], ['10:17: hidden_size: expected a whole number, not true'], id='hidden_size: true'),
    pytest.param('llama-3.1-8b', '', {'hidden_size': None}, [], ["1:1: 'hidden_size' is required"], id='hidden_size: null'),
    pytest.param('llama-3.1-8b', '', {'hidden_size': [1]}, [], ['10:17: hidden_size: expected a whole number, not a list'], id='hidden_size: list'),
    pytest.param('llama-3.1-8b', '', {'hidden_size': 0}, [], ['10:17: hidden_size: expected 1 to 2,147,483,648, not 0'], id='hidden_size: zero'),
    pytest.param('llama-3.1-8b', '', {'hidden_size': -1}, [], ['10:17: hidden_size: expected 1 to 2,147,483,648, not -1'], id='hidden_size: negative'),
    pytest.param('llama-3.1-8b', '', {'hidden_size': 2147483649}, [], ['10:17: hidden_size: expected 1 to 2,147,483,648, not 2147483649'], id='hidden_size: past 2^31'),
    pytest.param('llama-3.1-8b', '', {'num_hidden_layers': '4096'}, [], ["17:23: num_hidden_layers: expected a whole number, not '4096'"], id='num_hidden_layers: text'),
    pytest.param('llama-3.1-8b', '', {'num_hidden_layers': 32.0}, [], ['17:23: num_hidden_layers: expected a whole number, not 32.0'], id='num_hidden_layers: float'),
    pytest.param('llama-3.1-8b', '', {'num_hidden_layers': True}, [], ['17:23: num_hidden_layers: expected a whole number, not true'], id='num_hidden_layers: true'),
    pytest.param('llama-3.1-8b', '', {'num_hidden_layers': None}, [], ["1:1: 'num_hidden_layers' is required"], id='num_hidden_layers: null'),
    pytest.param('llama-3.1-8b', '', {'num_hidden_layers': [1]}, [], ['17:23: num_hidden_layers: expected a whole number, not a list'], id='num_hidden_layers: list'),
    pytest.param('llama-3.1-8b', '', {'num_hidden_layers': 0}, [], ['17:23: num_hidden_layers: expected 1 to 2,147,483,648, not 0'], id='num_hidden_layers: zero'),
    pytest.param('llama-3.1-8b', '', {'num_hidden_layers': -1}, [], ['17:23: num_hidden_layers: expected 1 to 2,147,483,648, not -1'], id='num_hidden_layers: negative'),
    pytest.param('llama-3.1-8b', '', {'num_hidden_layers': 2147483649}, [], ['17:23: num_hidden_layers: expected 1 to 2,147,483,648, not 2147483649'], id='num_hidden_layers: past 2^31'),
    pytest.param('llama-3.1-8b', '', {}, ['num_attention_heads'], ["1:1: 'num_attention_heads' is required"], id='num_attention_heads: missing'),
    pytest.param('llama-3.1-8b', '', {}, ['vocab_size'], ["1:1: 'vocab_size' is required"], id='vocab_size: missing'),
    pytest.param('llama-3.1-8b', '', {}, ['max_position_embeddings'], ["1:1: 'max_position_embeddings' is required"], id='max_position_embeddings: missing'),
    pytest.param('llama-3.1-8b', '', {}, ['intermediate_size'], ["1:1: 'intermediate_size' is required"], id='intermediate_size: missing'),
    pytest.param('llama-3.1-8b', '', {'num_hidden_layers': 1000000000}, [], ['17:23: num_hidden_layers: expected 1 to 4,096 layers, not 1,000,000,000'], id='num_hidden_layers: a billion'),
    pytest.param('llama-3.1-8b', '', {'num_hidden_layers': 4097}, [], ['17:23: num_hidden_layers: expected 1 to 4,096 layers, not 4,097'], id='num_hidden_layers: 4,097'),
    pytest.param('llama-3.1-8b', '', {'num_key_value_heads': 0}, [], ['18:25: num_key_value_heads: expected 1 to 2,147,483,648, not 0'], id='num_key_value_heads: zero'),
    pytest.param('llama-3.1-8b', '', {'num_key_value_heads': 5}, [], ['16:25: num_attention_heads: must be a multiple of num_key_value_heads (5), not 32'], id='num_key_value_heads: do not divide the heads'),
    pytest.param('llama-3.1-8b', '', {'num_attention_heads': 30, 'num_key_value_heads': 30}, [], ['1:1: hidden_size (4096) is no multiple of 30 heads, and there is no head_dim'], id='hidden_size: no multiple of the heads'),
    pytest.param('llama-3.1-8b', '', {'tie_word_embeddings': 1}, [], ['21:25: tie_word_embeddings: expected true or false, not 1'], id='tie_word_embeddings: 1'),
    pytest.param('llama-3.1-8b', '', {'attention_bias': 'no'}, [], ["5:20: attention_bias: expected true or false, not 'no'"], id='attention_bias: no'),
    pytest.param('llama-3.1-8b', '', {'mlp_bias': 0}, [], ['14:14: mlp_bias: expected true or false, not 0'], id='mlp_bias: 0'),
    pytest.param('llama-3.1-8b', '', {'torch_dtype': 'bf16'}, [], ["22:17: torch_dtype: 'bf16' is not one of bfloat16, float16, float32"], id='torch_dtype: bf16'),
    pytest.param('llama-3.1-8b', '', {'torch_dtype': 16}, [], ['22:17: torch_dtype: expected text, not 16'], id='torch_dtype: 16'),
    pytest.param('llama-3.1-8b', '', {'head_dim': 0}, [], ['26:14: head_dim: expected 1 to 2,147,483,648, not 0'], id='head_dim: 0'),
    pytest.param('llama-3.1-8b', '', {'sliding_window': 4096}, [], ['26:2: sliding_window: this key is not understood'], id='sliding_window: 4096'),
    pytest.param('llama-3.1-8b', '', {'dtype': 'float16'}, [], ["26:11: dtype: 'float16' contradicts 'torch_dtype'"], id='dtype twice, and not the same'),
    pytest.param('llama-3.1-8b', '', {'quantization_config': {'quant_method': 'hqq', 'bits': 4}}, [], ["27:19: quantization_config.quant_method: 'hqq' is not understood (fp8, fbgemm_fp8, mxfp4, awq, gptq, bitsandbytes, compressed-tensors, modelopt, modelopt_fp4, modelopt_mixed are)"], id='quantization_config: unknown'),
    pytest.param('llama-3.1-8b', '', {'quantization_config': {'quant_method': 'gptq'}}, [], ["26:25: quantization_config: 'bits' is required"], id='quantization_config: gptq without bits'),
    pytest.param('llama-3.1-8b', '', {'quantization_config': {}}, [], ["26:25: quantization_config: 'quant_method' is required"], id='quantization_config: empty'),
    pytest.param('llama-3.1-8b', '', {'quantization_config': 'fp8'}, [], ["26:25: quantization_config: expected a mapping, not 'fp8'"], id='quantization_config: text'),
    pytest.param('llama-3.1-8b', '', {'quantization_config': []}, [], ['26:25: quantization_config: expected a mapping, not a list'], id='quantization_config: list'),
    pytest.param('llama-3.1-8b', '', {'quantization_config': {'quant_method': 3}}, [], ['27:19: quantization_config.quant_method: expected text, not 3'], id='quantization_config: method is a number'),
    pytest.param('llama-3.1-8b', '', {'quantization_config': {'quant_method': 'fp8', 'activation_scheme': 'calm'}}, [], ["28:24: quantization_config.activation_scheme: 'calm' is not dynamic or static"], id='quantization_config: fp8 of another scheme'),
    pytest.param('llama-3.1-8b', '', {'quantization_config': {'quant_method': 'fp8', 'weight_block_size': [64, 64]}}, [], ['28:24: quantization_config.weight_block_size: fp8 in blocks of [64, 64] is not understood (128 x 128 is)'], id='quantization_config: fp8 in other blocks'),
    pytest.param('llama-3.1-8b', '', {'quantization_config': {'quant_method': 'fp8', 'weight_block_size': '128'}}, [], ["28:24: quantization_config.weight_block_size: expected a list, not '128'"], id='quantization_config: blocks are text'),
    pytest.param('llama-3.1-8b', '', {'quantization_config': {'quant_method': 'fp8', 'weight_block_size': [128, '128']}}, [], ["28:24: quantization_config.weight_block_size: expected a list of whole numbers, not '128' in it"], id='quantization_config: text in the blocks'),
    pytest.param('llama-3.1-8b', '', {'quantization_config': {'quant_method': 'fp8', 'weight_block_size': [128, 128], 'kv_cache_scheme': 1}}, [], ['32:3: quantization_config.kv_cache_scheme: this key is not understood'], id='quantization_config: key not understood'),
    pytest.param('mistral-7b-v0.1', '', {'sliding_window': 0}, [], ['25:20: sliding_window: expected 1 to 2,147,483,648, not 0'], id='sliding_window: zero'),
    pytest.param('mistral-7b-v0.1', '', {'sliding_window': '4096'}, [], ["25:20: sliding_window: expected a whole number, not '4096'"], id='sliding_window: text'),
    pytest.param('gemma-2-9b', '', {'layer_types': ['full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention']}, [], ['33:17: layer_types: has 41 entries for 42 layers'], id='layer_types: too short'),
    pytest.param('gemma-2-9b', '', {'layer_types': ['full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention']}, [], ['33:17: layer_types: has 43 entries for 42 layers'], id='layer_types: too long'),
    pytest.param('gemma-2-9b', '', {'layer_types': ['full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'linear_attention']}, [], ["75:3: layer_types[41]: 'linear_attention' is not one of full_attention, sliding_attention"], id='layer_types: unknown word'),
    pytest.param('gemma-2-9b', '', {'layer_types': ['full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 3]}, [], ['75:3: layer_types[41]: 3 is not one of full_attention, sliding_attention'], id='layer_types: number in it'),
    pytest.param('gemma-2-9b', '', {'layer_types': ['full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', None]}, [], ['75:3: layer_types[41]: nothing is not one of full_attention, sliding_attention'], id='layer_types: null in it'),
    pytest.param('gemma-2-9b', '', {'layer_types': ['full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', ['x']]}, [], ['75:3: layer_types[41]: a list is not one of full_attention, sliding_attention'], id='layer_types: list in it'),
    pytest.param('gemma-2-9b', '', {'layer_types': 'full_attention'}, [], ["33:17: layer_types: expected a list, not 'full_attention'"], id='layer_types: text'),
    pytest.param('gemma-2-9b', '', {'layer_types': {}}, [], ['33:17: layer_types: expected a list, not a mapping'], id='layer_types: mapping'),
    pytest.param('gemma-2-9b', '', {'layer_types': []}, [], ['33:17: layer_types: has 0 entries for 42 layers'], id='layer_types: empty'),
    pytest.param('gemma-3-27b', '', {}, ['text_config'], ["1:1: 'text_config' is required"], id='gemma3: no text_config'),
    pytest.param('gemma-3-27b', '', {'text_config': None}, [], ['16:17: text_config: expected a mapping, not nothing'], id='gemma3: text_config null'),
    pytest.param('gemma-3-27b', '', {'text_config': []}, [], ['16:17: text_config: expected a mapping, not a list'], id='gemma3: text_config a list'),
    pytest.param('gemma-3-27b', 'text_config', {'zz': 3}, [], ['107:3: text_config.zz: this key is not understood'], id='gemma3: text key not understood'),
    pytest.param('gemma-3-27b', 'vision_config', {'zz': 3}, [], ['122:3: vision_config.zz: this key is not understood'], id='gemma3: vision key not understood'),
    pytest.param('gemma-3-27b', 'vision_config', {'model_type': 'sam_vision_model'}, [], ["116:17: vision_config.model_type: 'sam_vision_model' is no encoder that is understood (did you mean siglip_vision_model, clip_vision_model, siglip2_vision_model?)"], id='gemma3: another tower'),
    pytest.param('gemma-3-27b', 'vision_config', {'patch_size': 0}, [], ['120:17: vision_config.patch_size: expected 1 to 2,147,483,648, not 0'], id='gemma3: patches of nothing'),
    pytest.param('gemma-3-27b', 'vision_config', {'vision_use_head': 1}, [], ['121:22: vision_config.vision_use_head: expected true or false, not 1'], id='gemma3: pooling head 1'),
    pytest.param('gemma-3-27b', 'text_config', {'model_type': 'bert'}, [], ["92:17: text_config.model_type: 'bert' is no text model that is understood ({texts})"], id='gemma3: another text model'),
    pytest.param('gemma-3-27b', 'text_config', {'num_attention_heads': 3}, [], ['1:1: num_attention_heads: must be a multiple of num_key_value_heads (16), not 3'], id='gemma3: text heads'),
    pytest.param('gemma-3-27b', 'text_config', {'sliding_window_pattern': 0}, [], ["17:30: text_config._sliding_window_pattern: 6 contradicts 'sliding_window_pattern'"], id='gemma3: pattern zero'),
    pytest.param('gemma-3-27b', 'text_config', {'hidden_size': '5376'}, [], ["24:18: text_config.hidden_size: expected a whole number, not '5376'"], id='gemma3: text size is text'),
    pytest.param('deepseek-v2-lite', '', {'q_lora_rank': 0}, [], ['34:17: q_lora_rank: expected 1 to 2,147,483,648, not 0'], id='deepseek: q_lora_rank zero'),
    pytest.param('deepseek-v2-lite', '', {'moe_layer_freq': 2}, [], ['24:20: moe_layer_freq: 2 is not understood: every layer after the dense ones has experts'], id='deepseek: experts in every other layer'),
    pytest.param('deepseek-v2-lite', '', {'attention_bias': 1}, [], ['5:20: attention_bias: expected true or false, not 1'], id='deepseek: bias is a number'),
    pytest.param('deepseek-v2-lite', '', {'num_experts_per_tok': 65}, [], ['30:25: num_experts_per_tok: must be at most num_experts (64), not 65'], id='deepseek: more experts per token than experts'),
    pytest.param('deepseek-v2-lite', '', {'n_shared_experts': -1}, [], ['27:22: n_shared_experts: expected 0 to 2,147,483,648, not -1'], id='deepseek: negative shared experts'),
    pytest.param('deepseek-v2-lite', '', {'n_shared_experts': 2147483648}, [], ['1:1: shared_expert_intermediate_size: must be at most 2,147,483,648, not 3023656976384'], id='deepseek: shared experts past 2^31'),
    pytest.param('deepseek-v2-lite', '', {'first_k_dense_replace': '1'}, [], ["15:27: first_k_dense_replace: expected a whole number, not '1'"], id='deepseek: dense layers are text'),
    pytest.param('deepseek-v2-lite', '', {}, ['num_experts_per_tok'], ["1:1: 'num_experts_per_tok' is required"], id='deepseek: experts of a token missing, without a default'),
    pytest.param('deepseek-v2-lite', '', {'num_experts_per_tok': None}, [], ["1:1: 'num_experts_per_tok' is required"], id='deepseek: experts of a token null, which runs nothing'),
    pytest.param('qwen3-next-80b-a3b', '', {'linear_num_value_heads': 33}, [], ['18:28: linear_num_value_heads: must be a multiple of linear_num_key_heads (16), not 33'], id='qwen3-next: value heads no multiple'),
    pytest.param('qwen3-next-80b-a3b', '', {'full_attention_interval': 0}, [], ['9:29: full_attention_interval: expected 1 to 2,147,483,648, not 0'], id='qwen3-next: interval zero'),
    pytest.param('qwen3-next-80b-a3b', '', {'layer_types': ['sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention']}, [], ["43:3: layer_types[0]: 'sliding_attention' is not one of full_attention, linear_attention"], id='qwen3-next: sliding layers'),
    pytest.param('qwen3-next-80b-a3b', '', {'mlp_only_layers': 'all'}, [], ["21:21: mlp_only_layers: expected a list, not 'all'"], id='qwen3-next: dense layers are text'),
    pytest.param('qwen3-next-80b-a3b', '', {'mlp_only_layers': ['a']}, [], ["21:21: mlp_only_layers: expected a list of whole numbers, not 'a' in it"], id='qwen3-next: text in the dense layers'),
    pytest.param('qwen3-next-80b-a3b', '', {'mlp_only_layers': [48]}, [], ['21:21: mlp_only_layers: expected layers 0 to 47, not 48'], id='qwen3-next: dense layer past the last'),
    pytest.param('qwen3-next-80b-a3b', '', {'mlp_only_layers': [-1]}, [], ['21:21: mlp_only_layers: expected layers 0 to 47, not -1'], id='qwen3-next: dense layer before the first'),
    pytest.param('qwen3-next-80b-a3b', '', {'decoder_sparse_step': 0}, [], ['7:25: decoder_sparse_step: expected 1 to 2,147,483,648, not 0'], id='qwen3-next: step zero'),
    pytest.param('mixtral-8x7b', '', {'num_experts_per_tok': 9}, [], ['15:25: num_experts_per_tok: must be at most num_experts (8), not 9'], id='mixtral: more experts per token than experts'),
    pytest.param('qwen2.5-7b', '', {'max_window_layers': -1}, [], ['13:23: max_window_layers: expected 0 to 2,147,483,648, not -1'], id='qwen2: window layers negative'),
    pytest.param('qwen2.5-7b', '', {'use_sliding_window': 'yes'}, [], ["26:24: use_sliding_window: expected true or false, not 'yes'"], id='qwen2: window flag is text'),
    pytest.param('gpt-oss-20b', '', {'num_local_experts': 3}, [], ['44:25: num_experts_per_tok: must be at most num_experts (3), not 4'], id='gpt-oss: fewer experts than a token uses'),
    pytest.param('gpt-oss-20b', '', {'experts_per_token': 2}, [], ["8:23: experts_per_token: 2 contradicts 'num_experts_per_tok'"], id='gpt-oss: two names, two values'),
    pytest.param('gpt2', '', {'n_embd': 769}, [], ['1:1: hidden_size (769) is no multiple of 12 heads, and there is no head_dim'], id='gpt2: width no multiple of the heads'),
    pytest.param('gpt2', '', {'n_inner': -3}, [], ['31:13: n_inner: expected 1 to 2,147,483,648, not -3'], id='gpt2: inner width negative'),
    pytest.param('falcon-7b', '', {'multi_query': 'a'}, [], ["17:17: multi_query: expected true or false, not 'a'"], id='falcon: flag is text'),
    pytest.param('phi-2', '', {'qk_layernorm': True}, [], ['20:18: qk_layernorm: true is not understood: normalised queries and keys are not counted in this family'], id='phi: normalised queries'),
    pytest.param('phi-3-mini-4k', '', {'full_attn_mod': 2}, [], ['36:19: full_attn_mod: 2 is not understood: full attention in some layers only is not described by this key'], id='phi3: full attention in between'),
    pytest.param('llama-3.1-8b', '', {'rope_theta': '1e6'}, [], ["20:16: rope_theta: expected a number, not '1e6'"], id='rope_theta: text'),
    pytest.param('llama-3.1-8b', '', {'rope_theta': True}, [], ["20:16: rope_theta: expected a number, not true"], id='rope_theta: true'),
    pytest.param('llama-3.1-8b', '', {'rope_theta': [1]}, [], ["20:16: rope_theta: expected a number, not a list"], id='rope_theta: list'),
    pytest.param('llama-3.1-8b', '', {'rope_theta': 0}, [], ["20:16: rope_theta: expected a number above 0 and up to 1,000,000,000,000, not 0"], id='rope_theta: zero'),
    pytest.param('llama-3.1-8b', '', {'rope_theta': -10000.0}, [], ["20:16: rope_theta: expected a number above 0 and up to 1,000,000,000,000, not -10000.0"], id='rope_theta: negative'),
    pytest.param('llama-3.1-8b', '', {'rope_theta': 1}, [], ["20:16: rope_theta: must be above 1 and at most 1,000,000,000,000, not 1"], id='rope_theta: one'),
    pytest.param('llama-3.1-8b', '', {'rope_theta': 10000000000000.0}, [], ["20:16: rope_theta: expected a number above 0 and up to 1,000,000,000,000, not 10000000000000.0"], id='rope_theta: too large'),
    pytest.param('llama-3.1-8b', '', {'rope_theta': 100000000000000000000000000000}, [], ["20:16: rope_theta: expected a number above 0 and up to 1,000,000,000,000, not 100000000000000000000000000000"], id='rope_theta: thirty digits'),
    pytest.param('llama-3.1-8b', '', {'rope_parameters': {'rope_theta': 10000.0, 'rope_type': 'default'}}, [], ["20:16: rope_theta: 500000 contradicts the rotation's own, 10000"], id='rope_theta: said twice'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': 'yarn'}, [], ["26:18: rope_scaling: expected a mapping, not 'yarn'"], id='rope_scaling: text'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': [1]}, [], ["26:18: rope_scaling: expected a mapping, not a list"], id='rope_scaling: list'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': {'type': 'linear', 'factor': 2.0}, 'rope_parameters': {'rope_type': 'default'}}, [], ["30:21: rope_parameters: a mapping contradicts 'rope_scaling'"], id='rope_scaling: beside other rope_parameters'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': {'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0, 'original_max_position_embeddings': 8192, 'rope_type': 'lama3'}}, [], ["31:16: rope_scaling.rope_type: 'lama3' is not one of default, linear, dynamic, llama3, yarn, longrope, proportional (did you mean llama3?)"], id='rope_scaling: type close'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': {'type': 'mrope', 'mrope_section': [16, 24, 24]}}, [], ["27:11: rope_scaling.type: 'mrope' is not one of default, linear, dynamic, llama3, yarn, longrope, proportional (did you mean longrope?)"], id='rope_scaling: type unknown'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': {'type': 'linear', 'rope_type': 'dynamic', 'factor': 2.0}}, [], ["27:11: rope_scaling.type: 'linear' contradicts 'rope_type'"], id='rope_scaling: two types'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': {'type': 'linear'}}, [], ["26:18: rope_scaling: 'factor' is required"], id='rope_scaling: no factor'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': {'type': 'linear', 'factor': '2'}}, [], ["28:13: rope_scaling.factor: expected a number, not '2'"], id='rope_scaling: factor text'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': {'type': 'linear', 'factor': 0}}, [], ["28:13: rope_scaling.factor: expected a number above 0 and up to 1,000,000,000,000, not 0"], id='rope_scaling: factor zero'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': {'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0, 'original_max_position_embeddings': 8192, 'rope_type': 'llama3', 'attention_factor': 1.2}}, [], ["32:3: rope_scaling.attention_factor: this key is not understood"], id='rope_scaling: key not understood'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': {'rope_type': 'llama3', 'factor': 8.0}}, [], ["26:18: rope_scaling: 'low_freq_factor' is required"], id='rope_scaling: llama3 without its parameters'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': {'factor': 8.0, 'low_freq_factor': 4.0, 'high_freq_factor': 3.5, 'original_max_position_embeddings': 8192, 'rope_type': 'llama3'}}, [], ["29:23: rope_scaling.high_freq_factor: must be at least low_freq_factor (4), not 3.5"], id='rope_scaling: llama3 the wrong way round'),
    pytest.param('llama-3.1-8b', '', {'rope_scaling': {'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0, 'original_max_position_embeddings': 8192, 'rope_type': 'llama3'}, 'original_max_position_embeddings': 4096}, [], ["30:39: rope_scaling.original_max_position_embeddings: 8192 contradicts the file's own, 4096"], id='rope_scaling: original contradicted'),
    pytest.param('gpt-oss-20b', 'rope_scaling', {'truncate': 0}, [], ["66:15: rope_scaling.truncate: expected true or false, not 0"], id='rope_scaling: yarn truncate'),
    pytest.param('deepseek-v3', 'rope_scaling', {'mscale': -1}, [], ["51:13: rope_scaling.mscale: expected a number from 0 to 1,000,000,000,000, not -1"], id='rope_scaling: yarn mscale'),
    pytest.param('gpt-oss-20b', '', {'rope_parameters': {'full_attention': {'rope_type': 'default'}}, 'rope_scaling': None}, [], ["70:3: rope_parameters.full_attention: this key is not understood"], id='rope_parameters: by layer kind'),
    pytest.param('llama-3.1-8b', '', {'partial_rotary_factor': 0.5}, [], ["26:27: partial_rotary_factor: 0.5 is not understood: this family rotates whole heads"], id='partial_rotary_factor: whole heads only'),
    pytest.param('llama-3.1-8b', '', {'rope_parameters': {'rope_type': 'default', 'partial_rotary_factor': 0.5}}, [], ["28:28: rope_parameters.partial_rotary_factor: 0.5 is not understood: this family rotates whole heads"], id='partial_rotary_factor: whole heads only, inside'),
    pytest.param('phi-2', '', {'partial_rotary_factor': 1.5}, [], ["19:27: partial_rotary_factor: must be at most 1, not 1.5"], id='partial_rotary_factor: above one'),
    pytest.param('phi-2', '', {'partial_rotary_factor': 0.39}, [], ["19:27: partial_rotary_factor: must rotate an even number of a head's 80 elements, not 31"], id='partial_rotary_factor: an odd number of elements'),
    pytest.param('phi-3.5-mini', 'rope_scaling', {'short_factor': [1.0, 2.0]}, [], ["78:19: rope_scaling.short_factor: must have 48 entries, not 2"], id='longrope: lists too short'),
    pytest.param('phi-3.5-mini', 'rope_scaling', {}, ['long_factor'], ["27:18: rope_scaling: 'long_factor' is required"], id='longrope: no list'),
    pytest.param('phi-3.5-mini', 'rope_scaling', {'long_factor': ['1.0']}, [], ["28:18: rope_scaling.long_factor: expected a list of numbers, not '1.0' in it"], id='longrope: text in a list'),
    pytest.param('phi-3.5-mini', 'rope_scaling', {'long_factor': [0]}, [], ["28:18: rope_scaling.long_factor: expected a number above 0 and up to 1,000,000,000,000, not 0"], id='longrope: zero in a list'),
    pytest.param('phi-3.5-mini', 'rope_scaling', {'long_factor': 4}, [], ["28:18: rope_scaling.long_factor: expected a list, not 4"], id='longrope: list is a number'),
    pytest.param('gemma-3-1b', '', {'rope_scaling': {'rope_type': 'linear', 'factor': 8.0}, 'rope_parameters': {'full_attention': {'rope_type': 'default'}}}, [], ["29:18: rope_scaling: cannot be beside rope_parameters"], id='gemma 3: rope_scaling beside rope_parameters'),
    pytest.param('gemma-3-1b', '', {'rope_parameters': {'rope_type': 'default', 'rope_theta': 1000000.0}}, [], ["38:3: rope_parameters.rope_type: this key is not understood", "39:3: rope_parameters.rope_theta: this key is not understood"], id='gemma 3: rope_parameters not by kind'),
    pytest.param('gemma-3-1b', '', {'rope_parameters': {'sliding_attention': {'rope_theta': 20000.0}}}, [], ["28:26: rope_local_base_freq: 10000 contradicts the rotation's own, 20000"], id='gemma 3: local base contradicted'),
    pytest.param('gemma-3-1b', '', {'use_bidirectional_attention': True}, [], ["37:33: use_bidirectional_attention: true is not understood: a token sees those before it only"], id='gemma 3: bidirectional'),
    pytest.param('gemma-3-1b', '', {'attn_logit_softcapping': 50.0}, [], ["7:28: attn_logit_softcapping: 50.0 is not understood: attention scores are not capped in this family"], id='gemma 3: scores capped'),
    pytest.param('gemma-3-4b', 'text_config', {'final_logit_softcapping': 30.0}, [], ["25:30: text_config.final_logit_softcapping: 30.0 is not understood: logits are not capped in this family's class with images"], id='gemma 3: logits capped beside images'),
    pytest.param('gemma-2-9b', '', {'query_pre_attn_scalar': 0}, [], ["24:27: query_pre_attn_scalar: expected a number above 0 and up to 1,000,000,000,000, not 0"], id='gemma 2: query_pre_attn_scalar zero'),
    pytest.param('gemma-2-9b', '', {'attn_logit_softcapping': '50'}, [], ["7:28: attn_logit_softcapping: expected a number, not '50'"], id='gemma 2: softcap text'),
    pytest.param('llama-3.1-8b', '', {'hidden_act': 'sillu'}, [], ["9:16: hidden_act: 'sillu' is not understood (did you mean silu?)"], id='hidden_act: close'),
    pytest.param('llama-3.1-8b', '', {'hidden_act': 'tanh'}, [], ["9:16: hidden_act: 'tanh' is not understood (understood: silu, swish, gelu, gelu_python, gelu_new, gelu_fast, gelu_accurate, gelu_python_tanh, gelu_pytorch_tanh, relu, relu2, quick_gelu)"], id='hidden_act: unknown'),
    pytest.param('llama-3.1-8b', '', {'hidden_act': 3}, [], ["9:16: hidden_act: expected text, not 3"], id='hidden_act: number'),
    pytest.param('gemma-2-9b', '', {'hidden_activation': 'mish'}, [], ["14:23: hidden_activation: 'mish' is not understood (did you mean swish?)"], id='hidden_activation: unknown'),
    pytest.param('gpt2', '', {'activation_function': 'tanh'}, [], ["2:25: activation_function: 'tanh' is not understood (understood: silu, swish, gelu, gelu_python, gelu_new, gelu_fast, gelu_accurate, gelu_python_tanh, gelu_pytorch_tanh, relu, relu2, quick_gelu)"], id='activation_function: unknown'),
    pytest.param('falcon-7b', '', {'activation': 'tanh'}, [], ["26:16: activation: 'tanh' is not understood (understood: silu, swish, gelu, gelu_python, gelu_new, gelu_fast, gelu_accurate, gelu_python_tanh, gelu_pytorch_tanh, relu, relu2, quick_gelu)"], id='activation: unknown'),
    pytest.param('gpt-oss-20b', '', {'hidden_act': 'gelu'}, [], ["10:16: hidden_act: 'gelu' is not understood: the experts of this family are gated by silu"], id='hidden_act: not silu in gpt-oss'),
    pytest.param('qwen3-next-80b-a3b', '', {'hidden_act': 'gelu'}, [], ["11:16: hidden_act: the delta nets of this family are understood with silu only"], id='hidden_act: not silu in delta nets'),
    pytest.param('llama-3.1-8b', '', {'rms_norm_eps': 0}, [], ["19:18: rms_norm_eps: expected a number above 0 and up to 1,000,000,000,000, not 0"], id='rms_norm_eps: zero'),
    pytest.param('llama-3.1-8b', '', {'rms_norm_eps': '1e-5'}, [], ["19:18: rms_norm_eps: expected a number, not '1e-5'"], id='rms_norm_eps: text'),
    pytest.param('gpt2', '', {'layer_norm_epsilon': -1e-05}, [], ["11:24: layer_norm_epsilon: expected a number above 0 and up to 1,000,000,000,000, not -1e-05"], id='layer_norm_epsilon: negative'),
    pytest.param('falcon-7b', '', {'apply_residual_connection_post_layernorm': True}, [], ["4:46: apply_residual_connection_post_layernorm: true is not understood: the residual is the layer's input"], id='falcon: residual after the norm'),
    pytest.param('gpt-oss-20b', '', {'swiglu_limit': 0}, [], ["71:18: swiglu_limit: expected a number above 0 and up to 1,000,000,000,000, not 0"], id='swiglu_limit: zero'),
    pytest.param('deepseek-v2-lite', '', {'scoring_func': 'sigmoid'}, [], ["49:18: scoring_func: 'sigmoid' is not understood: this family's router is a softmax"], id='deepseek v2: sigmoid'),
    pytest.param('deepseek-v2-lite', '', {'norm_topk_prob': True}, [], ["28:20: norm_topk_prob: true is not understood: the chosen scores are not scaled to one in this family"], id='deepseek v2: scores scaled to one'),
    pytest.param('deepseek-v2-lite', '', {'topk_method': 'noaux_tc'}, [], ["53:17: topk_method: 'noaux_tc' is not understood (greedy and group_limited_greedy are, in this family)"], id='deepseek v2: topk_method'),
    pytest.param('deepseek-v2-lite', '', {'topk_method': 'group_limited_greedy', 'n_group': 7}, [], ["1:1: num_experts: must be a multiple of n_group (7), not 64"], id='deepseek v2: groups do not divide'),
    pytest.param('deepseek-v2-lite', '', {'rope_interleave': False}, [], ["59:21: rope_interleave: false is not understood: neighbours are rotated together in this family"], id='deepseek v2: rope_interleave'),
    pytest.param('deepseek-v3', '', {'scoring_func': 'softmax'}, [], ["58:18: scoring_func: 'softmax' is not understood: this family's router is a sigmoid"], id='deepseek v3: softmax'),
    pytest.param('deepseek-v3', '', {'topk_method': 'greedy'}, [], ["61:17: topk_method: 'greedy' is not understood: experts are chosen with the correction bias in this family"], id='deepseek v3: greedy'),
    pytest.param('deepseek-v3', '', {'topk_group': 9}, [], ["60:16: topk_group: must be at most n_group (8), not 9"], id='deepseek v3: topk_group'),
    pytest.param('deepseek-v3', '', {'routed_scaling_factor': '2.5'}, [], ["57:27: routed_scaling_factor: expected a number, not '2.5'"], id='deepseek v3: routed_scaling_factor text'),
    pytest.param('qwen3-30b-a3b', '', {'norm_topk_prob': 1}, [], ["20:20: norm_topk_prob: expected true or false, not 1"], id='norm_topk_prob: number'),
    pytest.param('llama-3.1-8b', '', {'attn_logit_softcapping': 50.0}, [], ["26:2: attn_logit_softcapping: this key is not understood"], id='a softcap the family has not'),
    pytest.param('llama-3.1-8b', '', {'query_pre_attn_scalar': 256}, [], ["26:2: query_pre_attn_scalar: this key is not understood"], id='a scalar the family has not'),
    pytest.param('llama-3.1-8b', '', {'is_causal': False}, [], ["26:2: is_causal: this key is not understood"], id='bidirectional'),
    pytest.param('qwen2.5-7b', '', {'use_mrope': True}, [], ["25:2: use_mrope: this key is not understood"], id='mrope'),
    pytest.param('llama-3.1-8b', '', {'rope_interleaved': True}, [], ["26:2: rope_interleaved: this key is not understood"], id='interleaved llama'),
]

# Null, missing, and what the two mean.
PASSES = [
    pytest.param('llama-3.1-8b', {'head_dim': None}, [], id='head_dim null'),
    pytest.param('llama-3.1-8b', {'num_key_value_heads': None}, [], id='KV heads null: one per query head'),
    pytest.param('llama-3.1-8b', {}, ['num_key_value_heads'], id='KV heads missing'),
    pytest.param('llama-3.1-8b', {'torch_dtype': None}, [], id='torch_dtype null'),
    pytest.param('llama-3.1-8b', {}, ['torch_dtype'], id='torch_dtype missing'),
    pytest.param('llama-3.1-8b', {'quantization_config': None}, [], id='quantization_config null'),
    pytest.param('llama-3.1-8b', {'tie_word_embeddings': None}, [], id='tied null'),
    pytest.param('llama-3.1-8b', {'dtype': 'bfloat16'}, [], id='dtype twice, the same'),
    pytest.param('llama-3.1-8b', {'temperature': 0.6, 'top_p': 0.9, 'max_length': 20}, [], id='generation settings'),
    pytest.param('mistral-7b-v0.1', {'sliding_window': None}, [], id='sliding_window null'),
    pytest.param('mistral-7b-v0.1', {}, ['sliding_window'], id='sliding_window missing'),
    pytest.param('gemma-2-9b', {}, ['layer_types'], id='layer_types missing'),
    pytest.param('deepseek-v2-lite', {'q_lora_rank': None}, [], id='q_lora_rank null'),
    pytest.param('deepseek-v2-lite', {}, ['q_lora_rank'], id='q_lora_rank missing'),
    pytest.param('gpt2', {'n_inner': None}, [], id='n_inner null'),
    pytest.param('qwen2.5-7b', {'use_sliding_window': False}, [], id='a window that is not used'),
    pytest.param('llama-3.1-8b', {'num_hidden_layers': 4096}, [], id='4,096 layers'),
]

WHOLE = [
    pytest.param('', ['1:1: the file is empty: expected an object such as {"name": 1}'], id='empty'),
    pytest.param('{', ['1:2: expected a key in double quotes, found the end of the file'], id='an unclosed brace'),
    pytest.param('[]', ['1:1: expected a mapping, not a list'], id='a list'),
    pytest.param('3', ['1:1: expected a mapping, not 3'], id='a number'),
    pytest.param('"llama"', ["1:1: expected a mapping, not 'llama'"], id='a text'),
    pytest.param('null', ['1:1: expected a mapping, not nothing'], id='null'),
    pytest.param('not json', ["1:1: 'not' is not JSON: put text in double quotes"], id='words'),
    pytest.param('{}', ["1:1: 'model_type' is required"], id='an empty object'),
    pytest.param('{"model_type": "llama",}', ["1:23: trailing comma before '}': remove it"], id='trailing comma'),
    pytest.param('{"model_type": "llama", "model_type": "gpt2"}', ["1:25: duplicate key 'model_type' (first at column 2)"], id='duplicate key'),
    pytest.param('{"model_type": NaN}', ["1:16: 'NaN' is not a finite number"], id='NaN'),
    pytest.param("{'model_type': 'llama'}", ['1:2: JSON takes double quotes only'], id='single quotes'),
    pytest.param('{} x', ["1:4: expected the end of the file, found 'x'"], id='text after the end'),
    pytest.param('// c\n{}', ['1:1: JSON has no comments: remove it'], id='a comment'),
    pytest.param("[" * 100_000, ['1:65: nested deeper than 64 levels'], id='nested too deep'),
    pytest.param('\x00', ['1:1: NUL byte: this is not a text file'], id='a NUL byte'),
    pytest.param('{"a": 1e999}', ["1:7: '1e999' is too large for a floating-point number"], id='infinity'),
    pytest.param('{"hidden_size": 1111111111111111111111111111111111111111}', ['1:17: integer of 40 digits: at most 30 are allowed'], id='forty digits'),
    pytest.param('{"use_cache": True}', ["1:15: 'True' is not JSON: write true"], id='Python'),
    pytest.param('{"a": "\\ud800"}', ["1:7: text '\\ud800' holds half of a surrogate pair"], id='half a surrogate'),
]
# fmt: on


@pytest.fixture
def mistakes(tmp_path, monkeypatch, refused):
    """A function from the text of a config.json to its mistakes, as the command line tells them."""
    monkeypatch.chdir(tmp_path)

    def of(text):
        (tmp_path / "c.json").write_text(text)
        lines = refused("models", "import", "c.json")
        assert refused("models", "show", "./c.json") == lines
        assert all(line.startswith("c.json:") for line in lines)
        return [line.removeprefix("c.json:") for line in lines]

    return of


def edited(name, inside, changes, dropped):
    config = json.loads((CONFIGS / f"{name}.json").read_text())
    place = config[inside] if inside else config
    for key in dropped:
        place.pop(key, None)
    place.update(changes)
    return json.dumps(config, indent=1)


@pytest.mark.parametrize(("name", "inside", "changes", "dropped", "expected"), EDITS)
def test_edited(name, inside, changes, dropped, expected, mistakes):
    others = f"{len(FAMILIES)} others are, such as llama"
    texts = f"{len(FAMILIES) - len(WRAPPERS)} others are, such as llama"
    expected = [line.replace("{others}", others).replace("{texts}", texts) for line in expected]
    assert mistakes(edited(name, inside, changes, dropped)) == expected


@pytest.mark.parametrize(("text", "expected"), WHOLE)
def test_whole_file(text, expected, mistakes):
    assert mistakes(text) == expected


@pytest.mark.parametrize(("name", "changes", "dropped"), PASSES)
def test_what_is_optional_may_be_null_or_missing(name, changes, dropped, tmp_path, command):
    path = tmp_path / "c.json"
    path.write_text(edited(name, "", changes, dropped))
    status, _, lines = command("models", "show", str(path))
    assert (status, lines) == (0, [])


def test_only_the_first_hundred_keys_are_told(mistakes):
    config = json.loads(edited("llama-3.1-8b", "", {}, []))
    lines = mistakes(json.dumps(config | {f"unheard_of_{number}": 1 for number in range(20_000)}))
    assert len(lines) == 101
    assert lines[-1].endswith(": 19,900 more keys are not understood")


def test_bytes_that_are_no_text(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.json").write_bytes(b"\xff\xfe{}")
    assert refused("models", "import", "c.json") == [
        "c.json:1:1: byte 0xff is not UTF-8: save the file as UTF-8"
    ]
