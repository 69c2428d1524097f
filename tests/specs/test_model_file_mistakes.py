"""Model files with mistakes: each gives one line for each mistake, with its place and what was expected."""

# ruff: noqa: E501 - one line a case, its whole message on it

import pytest

from kvplan.specs.model_file import MIXERS, ModelFile
from kvplan.storage import PACKED_FORMATS

TINY = """\
name: tiny
source: made up for tests
torch_dtype: bfloat16
hidden_size: 64
vocab_size: 256
max_position_embeddings: 128
kinds:
  slides:
    attention:
      num_attention_heads: 4
      num_key_value_heads: 2
      head_dim: 16
      sliding_window: 32
    mlp:
      intermediate_size: 128
  mixes:
    latent_attention:
      num_attention_heads: 4
      kv_lora_rank: 32
      qk_nope_head_dim: 16
      qk_rope_head_dim: 8
      v_head_dim: 16
    experts:
      num_experts: 8
      num_experts_per_tok: 2
      moe_intermediate_size: 32
  recurs:
    gated_delta_net:
      linear_num_key_heads: 2
      linear_num_value_heads: 4
      linear_key_head_dim: 8
      linear_value_head_dim: 8
      linear_conv_kernel_dim: 4
    mlp:
      intermediate_size: 128
    block: sandwich
layers:
  - repeat: 2
    pattern: [slides, mixes]
  - pattern: [recurs]
towers:
  - name: vision_tower
    tensors:
      - name: patches.weight
        shape: [32, 588]
      - name: layers.weight
        shape: [64, 32]
        count: 2
"""

# fmt: off
EDITS = [
    pytest.param([("hidden_size: 64", 'hidden_size: "4096 "')], ["4:14: hidden_size: expected a whole number, not '4096 '"], id="hidden_size is text with a space"),
    pytest.param([("hidden_size: 64", 'hidden_size: "4096"')], ["4:14: hidden_size: expected a whole number, not '4096'"], id="hidden_size is text of digits"),
    pytest.param([("hidden_size: 64", "hidden_size: 4096.0")], ["4:14: hidden_size: expected a whole number, not 4096.0"], id="hidden_size is a float"),
    pytest.param([("hidden_size: 64", "hidden_size: 1e3")], ["4:14: hidden_size: expected a whole number, not 1000.0"], id="hidden_size is an exponent"),
    pytest.param([("hidden_size: 64", "hidden_size: true")], ["4:14: hidden_size: expected a whole number, not true"], id="hidden_size is true"),
    pytest.param([("hidden_size: 64", "hidden_size: null")], ["4:14: hidden_size: expected a whole number, not nothing"], id="hidden_size is null"),
    pytest.param([("hidden_size: 64", "hidden_size: ")], ["4:13: hidden_size: expected a whole number, not nothing"], id="hidden_size is nothing"),
    pytest.param([("hidden_size: 64", "hidden_size: [64]")], ["4:14: hidden_size: expected a whole number, not a list"], id="hidden_size is a list"),
    pytest.param([("hidden_size: 64", "hidden_size: {a: 1}")], ["4:14: hidden_size: expected a whole number, not a mapping"], id="hidden_size is a mapping"),
    pytest.param([("hidden_size: 64", "hidden_size: sixty-four")], ["4:14: hidden_size: expected a whole number, not 'sixty-four'"], id="hidden_size is a word"),
    pytest.param([("hidden_size: 64", "hidden_size: 0")], ["4:14: hidden_size: must be at least 1, not 0"], id="hidden_size is zero"),
    pytest.param([("hidden_size: 64", "hidden_size: -64")], ["4:14: hidden_size: must be at least 1, not -64"], id="hidden_size is negative"),
    pytest.param([("hidden_size: 64", "hidden_size: 2147483649")], ["4:14: hidden_size: must be at most 2,147,483,648, not 2147483649"], id="hidden_size is past 2^31"),
    pytest.param([("hidden_size: 64", "hidden_size: 9223372036854775808")], ["4:14: hidden_size: must be at most 2,147,483,648, not 9223372036854775808"], id="hidden_size is past int64"),
    pytest.param([("hidden_size: 64", "hidden_size: 999999999999999999999999999999")], ["4:14: hidden_size: must be at most 2,147,483,648, not 999999999999999999999999999999"], id="hidden_size is thirty digits"),
    pytest.param([("hidden_size: 64", "hidden_size: 9999999999999999999999999999999")], ["4:14: integer of 31 digits: at most 30 are allowed"], id="hidden_size is thirty-one digits"),
    pytest.param([("hidden_size: 64", "hidden_size: 0100")], ["4:14: '0100' could be read as octal: write it without the leading zero, or put it in quotes"], id="hidden_size is octal"),
    pytest.param([("hidden_size: 64", "hidden_size: 4_096")], ["4:14: '4_096' is a number with underscores: write it without them, or put it in quotes"], id="hidden_size is underscores"),
    pytest.param([("hidden_size: 64", "hidden_size: .nan")], ["4:14: '.nan' is not a finite number"], id="hidden_size is not a number"),
    pytest.param([("hidden_size: 64", "hidden_size: 1:30")], ["4:14: '1:30' could be read as a number in base 60: put it in quotes"], id="hidden_size is base 60"),
    pytest.param([("num_attention_heads: 4", 'num_attention_heads: "4"')], ["10:28: kinds.slides.attention.num_attention_heads: expected a whole number, not '4'"], id="heads are text"),
    pytest.param([("num_attention_heads: 4", "num_attention_heads: 4.0")], ["10:28: kinds.slides.attention.num_attention_heads: expected a whole number, not 4.0"], id="heads are a float"),
    pytest.param([("num_attention_heads: 4", "num_attention_heads: true")], ["10:28: kinds.slides.attention.num_attention_heads: expected a whole number, not true"], id="heads are true"),
    pytest.param([("num_attention_heads: 4", "num_attention_heads: null")], ["10:28: kinds.slides.attention.num_attention_heads: expected a whole number, not nothing"], id="heads are null"),
    pytest.param([("num_attention_heads: 4", "num_attention_heads: 0")], ["10:28: kinds.slides.attention.num_attention_heads: must be at least 1, not 0"], id="heads are zero"),
    pytest.param([("num_attention_heads: 4", "num_attention_heads: -4")], ["10:28: kinds.slides.attention.num_attention_heads: must be at least 1, not -4"], id="heads are negative"),
    pytest.param([("num_attention_heads: 4", "num_attention_heads: 100000000000000000000000000000")], ["10:28: kinds.slides.attention.num_attention_heads: must be at most 2,147,483,648, not 100000000000000000000000000000"], id="heads are huge"),
    pytest.param([("num_attention_heads: 4", "num_attention_heads: 3")], ["10:28: kinds.slides.attention.num_attention_heads: must be a multiple of num_key_value_heads (2), not 3"], id="heads are no multiple of the KV heads"),
    pytest.param([("head_dim: 16", "head_dim: 0")], ["12:17: kinds.slides.attention.head_dim: must be at least 1, not 0"], id="head_dim zero"),
    pytest.param([("head_dim: 16", "head_dim: 5000000000")], ["12:17: kinds.slides.attention.head_dim: must be at most 2,147,483,648, not 5000000000"], id="head_dim past 2^31"),
    pytest.param([("sliding_window: 32", "sliding_window: 0")], ["13:23: kinds.slides.attention.sliding_window: must be at least 1, not 0"], id="window zero"),
    pytest.param([("sliding_window: 32", "sliding_window: -1")], ["13:23: kinds.slides.attention.sliding_window: must be at least 1, not -1"], id="window negative"),
    pytest.param([("sliding_window: 32", "sliding_window: 999999999999999999999999999999")], ["13:23: kinds.slides.attention.sliding_window: must be at most 2,147,483,648, not 999999999999999999999999999999"], id="window huge"),
    pytest.param([("sliding_window: 32", 'sliding_window: "32"')], ["13:23: kinds.slides.attention.sliding_window: expected a whole number, not '32'"], id="window text"),
    pytest.param([("head_dim: 16", "head_dim: 0"), ("num_key_value_heads: 2", "num_key_value_heads: -2")], ["11:28: kinds.slides.attention.num_key_value_heads: must be at least 1, not -2", "12:17: kinds.slides.attention.head_dim: must be at least 1, not 0"], id="two sizes of one layer"),
    pytest.param([("intermediate_size: 128", "intermediate_size: 0")], ["15:26: kinds.slides.mlp.intermediate_size: must be at least 1, not 0"], id="MLP width zero"),
    pytest.param([("intermediate_size: 128\n", 'intermediate_size: 128\n      gated: "true"\n')], ["16:14: kinds.slides.mlp.gated: expected true or false, not 'true'"], id="gated is text"),
    pytest.param([("intermediate_size: 128\n", "intermediate_size: 128\n      gated: 1\n")], ["16:14: kinds.slides.mlp.gated: expected true or false, not 1"], id="gated is 1"),
    pytest.param([("num_experts: 8", "num_experts: 0")], ["24:20: kinds.mixes.experts.num_experts: must be at least 1, not 0"], id="experts zero"),
    pytest.param([("num_experts: 8", "num_experts: 99999999999")], ["24:20: kinds.mixes.experts.num_experts: must be at most 2,147,483,648, not 99999999999"], id="experts past 2^31"),
    pytest.param([("num_experts_per_tok: 2", "num_experts_per_tok: 9")], ["25:28: kinds.mixes.experts.num_experts_per_tok: must be at most num_experts (8), not 9"], id="experts per token more than experts"),
    pytest.param([("num_experts_per_tok: 2", "num_experts_per_tok: 0")], ["25:28: kinds.mixes.experts.num_experts_per_tok: must be at least 1, not 0"], id="experts per token zero"),
    pytest.param([("moe_intermediate_size: 32\n", "moe_intermediate_size: 32\n      shared_expert_intermediate_size: -1\n")], ["27:40: kinds.mixes.experts.shared_expert_intermediate_size: must be at least 1, not -1"], id="shared expert negative"),
    pytest.param([("moe_intermediate_size: 32\n", "moe_intermediate_size: 32\n      shared_expert_intermediate_size: 99999999999\n")], ["27:40: kinds.mixes.experts.shared_expert_intermediate_size: must be at most 2,147,483,648, not 99999999999"], id="shared expert huge"),
    pytest.param([("moe_intermediate_size: 32\n", "moe_intermediate_size: 32\n      shared_expert_gate: true\n")], ["27:27: kinds.mixes.experts.shared_expert_gate: needs a shared_expert_intermediate_size"], id="gate without shared expert"),
    pytest.param([("kv_lora_rank: 32", "kv_lora_rank: 0")], ["19:21: kinds.mixes.latent_attention.kv_lora_rank: must be at least 1, not 0"], id="latent rank zero"),
    pytest.param([("v_head_dim: 16\n", "v_head_dim: 16\n      q_lora_rank: 0\n")], ["23:20: kinds.mixes.latent_attention.q_lora_rank: must be at least 1, not 0"], id="query rank zero"),
    pytest.param([("linear_num_value_heads: 4", "linear_num_value_heads: 3")], ["30:31: kinds.recurs.gated_delta_net.linear_num_value_heads: must be a multiple of linear_num_key_heads (2), not 3"], id="value heads no multiple"),
    pytest.param([("linear_conv_kernel_dim: 4", "linear_conv_kernel_dim: -4")], ["33:31: kinds.recurs.gated_delta_net.linear_conv_kernel_dim: must be at least 1, not -4"], id="conv kernel negative"),
    pytest.param([("shape: [32, 588]", "shape: [32, 0]")], ["45:16: towers[0].tensors[0].shape: must be sizes from 1 to 2,147,483,648"], id="tower tensor of nothing"),
    pytest.param([("shape: [32, 588]", "shape: []")], ["45:16: towers[0].tensors[0].shape: must be sizes from 1 to 2,147,483,648"], id="tower tensor without a shape"),
    pytest.param([("count: 2", "count: 99999999999")], ["48:16: towers[0].tensors[1].count: must be at most 2,147,483,648, not 99999999999"], id="tower layers huge"),
    pytest.param([("name: tiny\n", "")], ["1:1: 'name' is required"], id="missing name"),
    pytest.param([("source: made up for tests\n", "")], ["1:1: 'source' is required"], id="missing source"),
    pytest.param([("torch_dtype: bfloat16\n", "")], ["1:1: 'torch_dtype' is required"], id="missing torch_dtype"),
    pytest.param([("hidden_size: 64\n", "")], ["1:1: 'hidden_size' is required"], id="missing hidden_size"),
    pytest.param([("vocab_size: 256\n", "")], ["1:1: 'vocab_size' is required"], id="missing vocab_size"),
    pytest.param([("max_position_embeddings: 128\n", "")], ["1:1: 'max_position_embeddings' is required"], id="missing max_position_embeddings"),
    pytest.param([("kinds:\n  slides:\n    attention:\n      num_attention_heads: 4\n      num_key_value_heads: 2\n      head_dim: 16\n      sliding_window: 32\n    mlp:\n      intermediate_size: 128\n  mixes:\n    latent_attention:\n      num_attention_heads: 4\n      kv_lora_rank: 32\n      qk_nope_head_dim: 16\n      qk_rope_head_dim: 8\n      v_head_dim: 16\n    experts:\n      num_experts: 8\n      num_experts_per_tok: 2\n      moe_intermediate_size: 32\n  recurs:\n    gated_delta_net:\n      linear_num_key_heads: 2\n      linear_num_value_heads: 4\n      linear_key_head_dim: 8\n      linear_value_head_dim: 8\n      linear_conv_kernel_dim: 4\n    mlp:\n      intermediate_size: 128\n    block: sandwich\n", "")], ["1:1: 'kinds' is required"], id="missing kinds"),
    pytest.param([("layers:\n  - repeat: 2\n    pattern: [slides, mixes]\n  - pattern: [recurs]\n", "")], ["1:1: 'layers' is required"], id="missing layers"),
    pytest.param([("      num_attention_heads: 4\n", "")], ["9:5: kinds.slides.attention: 'num_attention_heads' is required"], id="missing heads"),
    pytest.param([("      num_experts: 8\n", "")], ["23:5: kinds.mixes.experts: 'num_experts' is required"], id="missing expert count"),
    pytest.param([("      kv_lora_rank: 32\n", "")], ["17:5: kinds.mixes.latent_attention: 'kv_lora_rank' is required"], id="missing latent rank"),
    pytest.param([("    pattern: [slides, mixes]\n", "")], ["38:5: layers[0]: 'pattern' is required"], id="missing pattern"),
    pytest.param([("        shape: [32, 588]\n", "")], ["44:9: towers[0].tensors[0]: 'shape' is required"], id="missing shape"),
    pytest.param([("name: tiny", "name: Tiny")], ["1:7: name: 'Tiny' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit"], id="name with capitals"),
    pytest.param([("name: tiny", "name: a b")], ["1:7: name: 'a b' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit"], id="name with a space"),
    pytest.param([("name: tiny", "name: -tiny")], ["1:7: name: '-tiny' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit"], id="name beginning with a dash"),
    pytest.param([("name: tiny", "name: ../tiny")], ["1:7: name: '../tiny' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit"], id="name of a path"),
    pytest.param([("name: tiny", "name: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")], ["1:7: name: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit"], id="name too long"),
    pytest.param([("name: tiny", 'name: ""')], ["1:7: name: '' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit"], id="name empty"),
    pytest.param([("name: tiny", "name: null")], ["1:7: name: expected text, not nothing"], id="name null"),
    pytest.param([("name: tiny", "name: 3")], ["1:7: name: expected text, not 3"], id="name a number"),
    pytest.param([("name: tiny", "name: [tiny]")], ["1:7: name: expected text, not a list"], id="name a list"),
    pytest.param([("source: made up for tests", 'source: ""')], ["2:9: source: must not be empty"], id="source empty"),
    pytest.param([("source: made up for tests", 'source: "   "')], ["2:9: source: must not be empty"], id="source blank"),
    pytest.param([("source: made up for tests", "source: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")], ["2:9: source: must have at most 2,000 characters, not 2,001"], id="source too long"),
    pytest.param([("source: made up for tests", "source: 3")], ["2:9: source: expected text, not 3"], id="source a number"),
    pytest.param([("source: made up for tests", 'source: "a\\e[31m"')], ["2:9: source: holds an unprintable character"], id="source with an escape"),
    pytest.param([("torch_dtype: bfloat16", "torch_dtype: bf16")], ["3:14: torch_dtype: 'bf16' is not one of bfloat16, float16, float32 (did you mean bfloat16?)"], id="dtype of torch shorthand"),
    pytest.param([("torch_dtype: bfloat16", "torch_dtype: float64")], ["3:14: torch_dtype: 'float64' is not one of bfloat16, float16, float32 (did you mean float16, bfloat16, float32?)"], id="dtype unknown"),
    pytest.param([("torch_dtype: bfloat16", "torch_dtype: null")], ["3:14: torch_dtype: expected one of bfloat16, float16, float32, not nothing"], id="dtype null"),
    pytest.param([("torch_dtype: bfloat16", "torch_dtype: 16")], ["3:14: torch_dtype: expected one of bfloat16, float16, float32, not 16"], id="dtype a number"),
    pytest.param([("torch_dtype: bfloat16", "torch_dtype: [bfloat16]")], ["3:14: torch_dtype: expected one of bfloat16, float16, float32, not a list"], id="dtype a list"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nnorm: layernorm\n")], ["5:7: norm: 'layernorm' is not one of rms_norm, rms_norm_unit_offset, layer_norm, layer_norm_no_bias, layer_norm_no_weight, layer_norm_unit_offset (did you mean layer_norm, layer_norm_no_bias, layer_norm_no_weight?)"], id="norm misspelt"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nnorm: null\n")], ["5:7: norm: expected one of rms_norm, rms_norm_unit_offset, layer_norm, layer_norm_no_bias, layer_norm_no_weight, layer_norm_unit_offset, not nothing"], id="norm null"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nweight_format: int3\n")], ["5:16: weight_format: 'int3' is not one of {formats} that are known, such as fp8, fp8-block, fp8-row (did you mean int8, int4?)"], id="weight format unknown"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\ntie_word_embeddings: 1\n")], ["5:22: tie_word_embeddings: expected true or false, not 1"], id="tied is 1"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\ntie_word_embeddings: yes\n")], ["5:22: 'yes' could be read as true: write true, or put it in quotes"], id="tied is yes"),
    pytest.param([("hidden_size: 64\n", 'hidden_size: 64\ntie_word_embeddings: "true"\n')], ["5:22: tie_word_embeddings: expected true or false, not 'true'"], id="tied is quoted"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nlearned_positions: 0\n")], ["5:20: learned_positions: must be at least 1, not 0"], id="learned positions zero"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nlearned_positions: 64\n")], ["5:20: learned_positions: must be at least max_position_embeddings (128), not 64"], id="learned positions fewer than the context"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nhidden_sise: 3\n")], ["5:1: 'hidden_sise' is not a key known here (did you mean hidden_size?)"], id="unknown key: close"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nName: x\n")], ["5:1: 'Name' is not a key known here (did you mean name?)"], id="unknown key: capital"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nzzz: 3\n")], ["5:1: 'zzz' is not a key known here (expected one of {keys})"], id="unknown key: nothing like it"),
    pytest.param([("hidden_size: 64\n", 'hidden_size: 64\n"": 3\n')], ["5:1: '' is not a key known here (expected one of {keys})"], id="unknown key: empty"),
    pytest.param([("hidden_size: 64\n", 'hidden_size: 64\n"a\\e": 3\n')], ["5:1: 'a\\x1b' is not a key known here (expected one of {keys})"], id="unknown key: control character"),
    pytest.param([("hidden_size: 64\n", 'hidden_size: 64\n"a\\nb": 3\n')], ["5:1: 'a\\nb' is not a key known here (expected one of {keys})"], id="unknown key: line break"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk: 3\n")], ["5:1: 'kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk...' is not a key known here (expected one of {keys})"], id="unknown key: long"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nx: &a 3\n")], ["5:4: anchors (&name) are not allowed: remove it"], id="anchor"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nx: !!int 3\n")], ["5:4: tags (!name) are not allowed: remove it"], id="tag"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nx: *b\n")], ["5:4: aliases (*name) are not allowed: write the value out again"], id="alias"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\n<<: {a: 1}\n")], ["5:1: merge keys (<<) are not allowed: write the keys out"], id="merge key"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\nhidden_size: 65\n")], ["5:1: duplicate key 'hidden_size' (first at line 4)"], id="duplicate key"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\n? [a]\n: 3\n")], ["5:3: a key must be text, not a list or a mapping"], id="key is a list"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\n3: 3\n")], ["5:1: the unquoted key '3' is not text: put it in quotes"], id="key is a number"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\n: 3\n")], ["5:1: expected a 'key: value' here: check the indentation and the brackets"], id="key is missing"),
    pytest.param([("hidden_size: 64\n", "hidden_size: 64\n\tx: 3\n")], ["5:1: a tab cannot indent: use spaces"], id="tab"),
    pytest.param([("    mlp:\n", "    blok: sandwich\n    mlp:\n")], ["14:5: kinds.slides: 'blok' is not a key of slides (did you mean block?)"], id="kind: unknown key, close"),
    pytest.param([("    mlp:\n", "    zzz: 3\n    mlp:\n")], ["14:5: kinds.slides: 'zzz' is not a key of slides (expected one of attention, latent_attention, compressed_attention, gated_delta_net, kimi_delta_attention, lightning_attention, rg_lru, short_convolution, mamba, mamba2, attention_beside_mamba, cross_attention, mlp, experts, block, residual_factors, output_scale, stored_otherwise, shared_block)"], id="kind: unknown key, far"),
    pytest.param([("    mlp:\n", "    num_attention_heads: 4\n    mlp:\n")], ["14:5: kinds.slides: 'num_attention_heads' is not a key of slides (did you mean attention, latent_attention?)"], id="kind: key of another level"),
    pytest.param([("    mlp:\n", "    block: sandwhich\n    mlp:\n")], ["14:12: kinds.slides.block: 'sandwhich' is not one of pre_norm, sandwich, post_norm, residual_norm, normed_residual, parallel, parallel_two_norms (did you mean sandwich?)"], id="kind: block misspelt"),
    pytest.param([("    mlp:\n", "    block: null\n    mlp:\n")], ["14:12: kinds.slides.block: expected one of pre_norm, sandwich, post_norm, residual_norm, normed_residual, parallel, parallel_two_norms, not nothing"], id="kind: block null"),
    pytest.param([("    mlp:\n", "    latent_attention: {num_attention_heads: 4, kv_lora_rank: 2, qk_nope_head_dim: 2, qk_rope_head_dim: 2, v_head_dim: 2}\n    mlp:\n")], ["8:3: kinds.slides: expected at most one of {mixers}; found attention and latent_attention"], id="kind: two mixers"),
    pytest.param([("    mlp:\n", "    latent_attention: 3\n    mlp:\n")], ["14:23: kinds.slides.latent_attention: expected a mapping, not 3"], id="kind: mixer is a number"),
    pytest.param([("    mlp:\n", "    latent_attention: []\n    mlp:\n")], ["14:23: kinds.slides.latent_attention: expected a mapping, not a list"], id="kind: mixer is a list"),
    pytest.param([("    mlp:\n", "    experts: {num_experts: 8, num_experts_per_tok: 2, moe_intermediate_size: 32}\n    mlp:\n")], ["8:3: kinds.slides: expected at most one of mlp, experts; found mlp and experts"], id="kind: two feed-forwards"),
    pytest.param([("kinds:\n  slides:\n    attention:\n      num_attention_heads: 4\n      num_key_value_heads: 2\n      head_dim: 16\n      sliding_window: 32\n    mlp:\n      intermediate_size: 128\n  mixes:\n    latent_attention:\n      num_attention_heads: 4\n      kv_lora_rank: 32\n      qk_nope_head_dim: 16\n      qk_rope_head_dim: 8\n      v_head_dim: 16\n    experts:\n      num_experts: 8\n      num_experts_per_tok: 2\n      moe_intermediate_size: 32\n  recurs:\n    gated_delta_net:\n      linear_num_key_heads: 2\n      linear_num_value_heads: 4\n      linear_key_head_dim: 8\n      linear_value_head_dim: 8\n      linear_conv_kernel_dim: 4\n    mlp:\n      intermediate_size: 128\n    block: sandwich\n", "kinds:\n  slides: {}\n")], ["8:3: kinds.slides: expected one of {mixers}, mlp, experts; found none", "11:23: layers[0].pattern[1]: 'mixes' is not one of kinds: slides", "12:15: layers[1].pattern[0]: 'recurs' is not one of kinds: slides"], id="kind: empty"),
    pytest.param([("kinds:\n  slides:\n    attention:\n      num_attention_heads: 4\n      num_key_value_heads: 2\n      head_dim: 16\n      sliding_window: 32\n    mlp:\n      intermediate_size: 128\n  mixes:\n    latent_attention:\n      num_attention_heads: 4\n      kv_lora_rank: 32\n      qk_nope_head_dim: 16\n      qk_rope_head_dim: 8\n      v_head_dim: 16\n    experts:\n      num_experts: 8\n      num_experts_per_tok: 2\n      moe_intermediate_size: 32\n  recurs:\n    gated_delta_net:\n      linear_num_key_heads: 2\n      linear_num_value_heads: 4\n      linear_key_head_dim: 8\n      linear_value_head_dim: 8\n      linear_conv_kernel_dim: 4\n    mlp:\n      intermediate_size: 128\n    block: sandwich\n", "kinds:\n  slides: null\n")], ["8:11: kinds.slides: expected a mapping, not nothing", "11:23: layers[0].pattern[1]: 'mixes' is not one of kinds: slides", "12:15: layers[1].pattern[0]: 'recurs' is not one of kinds: slides"], id="kind: null"),
    pytest.param([("kinds:\n", "kinds:\n  unused:\n    attention: {num_attention_heads: 2, num_key_value_heads: 2, head_dim: 4}\n    mlp: {intermediate_size: 3}\n")], ["8:3: kinds.unused: is in no layer"], id="kind: in no layer"),
    pytest.param([("kinds:\n  slides:\n    attention:\n      num_attention_heads: 4\n      num_key_value_heads: 2\n      head_dim: 16\n      sliding_window: 32\n    mlp:\n      intermediate_size: 128\n  mixes:\n    latent_attention:\n      num_attention_heads: 4\n      kv_lora_rank: 32\n      qk_nope_head_dim: 16\n      qk_rope_head_dim: 8\n      v_head_dim: 16\n    experts:\n      num_experts: 8\n      num_experts_per_tok: 2\n      moe_intermediate_size: 32\n  recurs:\n    gated_delta_net:\n      linear_num_key_heads: 2\n      linear_num_value_heads: 4\n      linear_key_head_dim: 8\n      linear_value_head_dim: 8\n      linear_conv_kernel_dim: 4\n    mlp:\n      intermediate_size: 128\n    block: sandwich\n", "kinds: {}\n")], ["7:8: kinds: must not be empty"], id="kinds: empty"),
    pytest.param([("kinds:\n  slides:\n    attention:\n      num_attention_heads: 4\n      num_key_value_heads: 2\n      head_dim: 16\n      sliding_window: 32\n    mlp:\n      intermediate_size: 128\n  mixes:\n    latent_attention:\n      num_attention_heads: 4\n      kv_lora_rank: 32\n      qk_nope_head_dim: 16\n      qk_rope_head_dim: 8\n      v_head_dim: 16\n    experts:\n      num_experts: 8\n      num_experts_per_tok: 2\n      moe_intermediate_size: 32\n  recurs:\n    gated_delta_net:\n      linear_num_key_heads: 2\n      linear_num_value_heads: 4\n      linear_key_head_dim: 8\n      linear_value_head_dim: 8\n      linear_conv_kernel_dim: 4\n    mlp:\n      intermediate_size: 128\n    block: sandwich\n", "kinds: []\n")], ["7:8: kinds: expected a mapping, not a list"], id="kinds: a list"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      num_kv_heads: 2\n")], ["13:7: kinds.slides.attention: 'num_kv_heads' is not a key of attention (did you mean num_key_value_heads, num_attention_heads?)"], id="attention: unknown key"),
    pytest.param([("      intermediate_size: 128\n", "      intermediate_size: 128\n      intermediate: 3\n")], ["16:7: kinds.slides.mlp: 'intermediate' is not a key of mlp (did you mean intermediate_size?)"], id="mlp: unknown key"),
    pytest.param([("      num_experts: 8\n", "      num_experts: 8\n      n_experts: 3\n")], ["25:7: kinds.mixes.experts: 'n_experts' is not a key of experts (did you mean num_experts, expert_bias, num_experts_per_tok?)"], id="experts: unknown key"),
    pytest.param([("      kv_lora_rank: 32\n", "      kv_lora_rank: 32\n      kv_lora: 3\n")], ["20:7: kinds.mixes.latent_attention: 'kv_lora' is not a key of latent_attention (did you mean kv_lora_rank?)"], id="latent attention: unknown key"),
    pytest.param([("      linear_num_key_heads: 2\n", "      linear_num_key_heads: 2\n      linear_key_heads: 3\n")], ["30:7: kinds.recurs.gated_delta_net: 'linear_key_heads' is not a key of gated_delta_net (did you mean linear_num_key_heads, linear_key_head_dim, linear_num_value_heads?)"], id="delta net: unknown key"),
    pytest.param([("count: 2", "cuont: 2")], ["48:9: towers[0].tensors[1]: 'cuont' is not a key known here (did you mean count?)"], id="towers: unknown key"),
    pytest.param([("  - name: vision_tower\n    tensors:\n      - name: patches.weight\n        shape: [32, 588]\n      - name: layers.weight\n        shape: [64, 32]\n        count: 2\n", "  siglip\n")], ["42:3: towers: expected a list, not 'siglip'"], id="towers: text"),
    pytest.param([("  - repeat: 2\n", "  - repeat: 2\n    repeats: 3\n")], ["39:5: layers[0]: 'repeats' is not a key known here (did you mean repeat?)"], id="layers: unknown key"),
    pytest.param([("repeat: 2", "repeat: 0")], ["38:13: layers[0].repeat: must be at least 1, not 0"], id="repeat zero"),
    pytest.param([("repeat: 2", "repeat: 4097")], ["38:13: layers[0].repeat: must be at most 4,096, not 4097"], id="repeat too large"),
    pytest.param([("repeat: 2", 'repeat: "2"')], ["38:13: layers[0].repeat: expected a whole number, not '2'"], id="repeat text"),
    pytest.param([("repeat: 2", "repeat: null")], ["38:13: layers[0].repeat: expected a whole number, not nothing"], id="repeat null"),
    pytest.param([("repeat: 2", "repeat: 4096")], ["38:3: layers: 8,193 layers are more than 4,096"], id="more layers than 4,096"),
    pytest.param([("[slides, mixes]", "[]")], ["39:14: layers[0].pattern: must not be empty"], id="pattern empty"),
    pytest.param([("[slides, mixes]", "slides")], ["39:14: layers[0].pattern: expected a list, not 'slides'"], id="pattern one word"),
    pytest.param([("[slides, mixes]", "null")], ["39:14: layers[0].pattern: expected a list, not nothing"], id="pattern null"),
    pytest.param([("[slides, mixes]", "[slides, mixs]")], ["39:23: layers[0].pattern[1]: 'mixs' is not one of kinds: slides, mixes, recurs (did you mean mixes?)"], id="pattern names an unknown kind"),
    pytest.param([("[slides, mixes]", "[slids, mixs]")], ["39:15: layers[0].pattern[0]: 'slids' is not one of kinds: slides, mixes, recurs (did you mean slides?)", "39:22: layers[0].pattern[1]: 'mixs' is not one of kinds: slides, mixes, recurs (did you mean mixes?)"], id="pattern names two unknown kinds"),
    pytest.param([("[slides, mixes]", "[slides, 3]")], ["39:23: layers[0].pattern[1]: expected text, not 3"], id="pattern holds a number"),
    pytest.param([("[slides, mixes]", "[[slides], mixes]")], ["39:15: layers[0].pattern[0]: expected text, not a list"], id="pattern holds a list"),
    pytest.param([("[slides, mixes]", "[slides]")], ["16:3: kinds.mixes: is in no layer"], id="pattern leaves a kind out"),
    pytest.param([("[slides, mixes]", '["", slides, mixes]')], ["39:15: layers[0].pattern[0]: '' is not one of kinds: slides, mixes, recurs"], id="pattern holds an empty name"),
    pytest.param([("layers:\n  - repeat: 2\n    pattern: [slides, mixes]\n  - pattern: [recurs]\n", "layers: []\n")], ["37:9: layers: must not be empty"], id="layers: empty"),
    pytest.param([("layers:\n  - repeat: 2\n    pattern: [slides, mixes]\n  - pattern: [recurs]\n", "layers: {}\n")], ["37:9: layers: expected a list, not a mapping"], id="layers: a mapping"),
    pytest.param([("layers:\n  - repeat: 2\n    pattern: [slides, mixes]\n  - pattern: [recurs]\n", "layers: slides\n")], ["37:9: layers: expected a list, not 'slides'"], id="layers: a word"),
    pytest.param([("layers:\n  - repeat: 2\n    pattern: [slides, mixes]\n  - pattern: [recurs]\n", "layers: [slides]\n")], ["37:10: layers[0]: expected a mapping, not 'slides'"], id="layers: a list of words"),
    pytest.param([("name: tiny", "name: Tiny"), ("hidden_size: 64", 'hidden_size: "64"'), ("head_dim: 16", "head_dim: 0"), ("block: sandwich", "block: sandwhich"), ("count: 2", "cuont: 2")], ["1:7: name: 'Tiny' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit", "4:14: hidden_size: expected a whole number, not '64'", "12:17: kinds.slides.attention.head_dim: must be at least 1, not 0", "36:12: kinds.recurs.block: 'sandwhich' is not one of pre_norm, sandwich, post_norm, residual_norm, normed_residual, parallel, parallel_two_norms (did you mean sandwich?)", "48:9: towers[0].tensors[1]: 'cuont' is not a key known here (did you mean count?)"], id="several at once, in the order of the file"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters: 10000.0\n")], ["13:24: kinds.slides.attention.rope_parameters: expected a mapping, not 10000.0"], id="rope_parameters: number"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters: {}\n")], ["13:7: kinds.slides.attention.rope_parameters: 'rope_theta' is required"], id="rope_parameters: empty"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: \"10000\"\n")], ["14:21: kinds.slides.attention.rope_parameters.rope_theta: expected a number, not '10000'"], id="rope_theta: text"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: true\n")], ["14:21: kinds.slides.attention.rope_parameters.rope_theta: expected a number, not true"], id="rope_theta: true"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 0\n")], ["14:21: kinds.slides.attention.rope_parameters.rope_theta: must be above 1 and at most 1,000,000,000,000, not 0"], id="rope_theta: zero"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 1.0\n")], ["14:21: kinds.slides.attention.rope_parameters.rope_theta: must be above 1 and at most 1,000,000,000,000, not 1"], id="rope_theta: one"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 1.0e+13\n")], ["14:21: kinds.slides.attention.rope_parameters.rope_theta: must be above 1 and at most 1,000,000,000,000, not 1e+13"], id="rope_theta: past 10^12"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        rope_type: lama3\n")], ["15:20: kinds.slides.attention.rope_parameters.rope_type: 'lama3' is not one of default, linear, dynamic, llama3, yarn, longrope, proportional (did you mean llama3?)"], id="rope_type: close"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        rope_type: 3\n")], ["15:20: kinds.slides.attention.rope_parameters.rope_type: expected one of default, linear, dynamic, llama3, yarn, longrope, proportional, not 3"], id="rope_type: number"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        rope_teta: 10000.0\n")], ["15:9: kinds.slides.attention.rope_parameters: 'rope_teta' is not a key of rope_parameters (did you mean rope_theta, rope_type?)"], id="rope key unknown"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        rope_type: llama3\n")], ["15:20: kinds.slides.attention.rope_parameters.rope_type: llama3 needs factor, low_freq_factor, high_freq_factor, original_max_position_embeddings"], id="llama3 without its parameters"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        rope_type: llama3\n        factor: 8.0\n        original_max_position_embeddings: 64\n        low_freq_factor: 4.0\n        high_freq_factor: 1.0\n")], ["19:27: kinds.slides.attention.rope_parameters.high_freq_factor: must be at least low_freq_factor (4), not 1"], id="llama3 wavelengths the wrong way round"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        rope_type: yarn\n        factor: 2.0\n")], ["15:20: kinds.slides.attention.rope_parameters.rope_type: yarn needs original_max_position_embeddings"], id="yarn without its parameters"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        partial_rotary_factor: 1.5\n")], ["15:32: kinds.slides.attention.rope_parameters.partial_rotary_factor: must be at most 1, not 1.5"], id="partial_rotary_factor above one"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        partial_rotary_factor: 0.19\n")], ["15:32: kinds.slides.attention.rope_parameters.partial_rotary_factor: must rotate an even number of a head's 16 elements, not 3"], id="an odd number of elements rotated"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        rope_type: longrope\n        original_max_position_embeddings: 64\n        attention_factor: 1.1\n        short_factor: [1.0, 2.0]\n        long_factor: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]\n")], ["18:23: kinds.slides.attention.rope_parameters.short_factor: must have 8 entries, not 2"], id="longrope lists of the wrong length"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        rope_type: longrope\n        original_max_position_embeddings: 64\n        attention_factor: 1.1\n        short_factor: [1.0, a]\n        long_factor: 3.0\n")], ["18:29: kinds.slides.attention.rope_parameters.short_factor[1]: expected a number, not 'a'", "19:22: kinds.slides.attention.rope_parameters.long_factor: expected a list, not 3.0"], id="longrope: text in a list"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        rope_type: longrope\n        original_max_position_embeddings: 64\n        attention_factor: 1.1\n        short_factor: [1.0, 0]\n        long_factor: [1.0]\n")], ["18:29: kinds.slides.attention.rope_parameters.short_factor[1]: must be above 0 and at most 1,000,000,000, not 0"], id="longrope: zero in a list"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        truncate: \"no\"\n")], ["15:19: kinds.slides.attention.rope_parameters.truncate: expected true or false, not 'no'"], id="truncate: text"),
    pytest.param([("qk_rope_head_dim: 8\n", "qk_rope_head_dim: 7\n"), ("      v_head_dim: 16\n", "      v_head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n")], ["23:7: kinds.mixes.latent_attention.rope_parameters: must rotate an even number of a head's 7 elements, not 7"], id="latent rope: odd"),
    pytest.param([("      v_head_dim: 16\n", "      v_head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        scale: 1\n")], ["25:9: kinds.mixes.latent_attention.rope_parameters: 'scale' is not a key of rope_parameters (did you mean mscale?)"], id="latent rope: unknown key"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      query_pre_attn_scalar: 0\n")], ["13:30: kinds.slides.attention.query_pre_attn_scalar: must be above 0 and at most 1,000,000,000, not 0"], id="query_pre_attn_scalar: zero"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      query_pre_attn_scalar: many\n")], ["13:30: kinds.slides.attention.query_pre_attn_scalar: expected a number, not 'many'"], id="query_pre_attn_scalar: text"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      attn_logit_softcapping: -50.0\n")], ["13:31: kinds.slides.attention.attn_logit_softcapping: must be above 0 and at most 1,000,000,000, not -50"], id="attn_logit_softcapping: negative"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      attention_chunk_size: 8192\n")], ["13:29: kinds.slides.attention.attention_chunk_size: cannot be beside a sliding_window"], id="attention_chunk_size beside a window"),
    pytest.param([("      sliding_window: 32\n", "      attention_chunk_size: 0\n")], ["13:29: kinds.slides.attention.attention_chunk_size: must be at least 1, not 0"], id="attention_chunk_size: zero"),
    pytest.param([("      sliding_window: 32\n", "      sink_tokens: 4\n")], ["13:20: kinds.slides.attention.sink_tokens: needs a sliding_window"], id="sink_tokens without a window"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      sink_tokens: -1\n")], ["13:20: kinds.slides.attention.sink_tokens: must be at least 1, not -1"], id="sink_tokens: negative"),
    pytest.param([("      intermediate_size: 128\n    block", "      intermediate_size: 128\n      hidden_act: gelu_tanh\n    block")], ["36:19: kinds.recurs.mlp.hidden_act: 'gelu_tanh' is not one of silu, gelu, gelu_pytorch_tanh, relu, relu2, quick_gelu, xielu (did you mean gelu_pytorch_tanh, gelu?)"], id="hidden_act: close"),
    pytest.param([("      moe_intermediate_size: 32\n", "      moe_intermediate_size: 32\n      hidden_act: 3\n")], ["27:19: kinds.mixes.experts.hidden_act: expected one of silu, gelu, gelu_pytorch_tanh, relu, relu2, quick_gelu, xielu, not 3"], id="hidden_act: number"),
    pytest.param([("      moe_intermediate_size: 32\n", "      moe_intermediate_size: 32\n      swiglu:\n        limit: 0\n")], ["28:16: kinds.mixes.experts.swiglu.limit: must be above 0 and at most 1,000,000,000, not 0"], id="swiglu.limit: zero"),
    pytest.param([("      moe_intermediate_size: 32\n", "      moe_intermediate_size: 32\n      scoring_func: sigmod\n")], ["27:21: kinds.mixes.experts.scoring_func: 'sigmod' is not one of softmax, sigmoid, sqrtsoftplus (did you mean sigmoid?)"], id="scoring_func: close"),
    pytest.param([("      moe_intermediate_size: 32\n", "      moe_intermediate_size: 32\n      topk_method: best\n")], ["27:20: kinds.mixes.experts.topk_method: 'best' is not one of greedy, group_limited_greedy, noaux_tc, sparsemixer"], id="topk_method: unknown"),
    pytest.param([("      moe_intermediate_size: 32\n", "      moe_intermediate_size: 32\n      topk_method: noaux_tc\n      n_group: 3\n")], ["24:20: kinds.mixes.experts.num_experts: must be a multiple of n_group (3), not 8"], id="n_group: does not divide"),
    pytest.param([("      moe_intermediate_size: 32\n", "      moe_intermediate_size: 32\n      n_group: 4\n")], ["27:16: kinds.mixes.experts.n_group: needs a topk_method that chooses groups"], id="n_group: greedy"),
    pytest.param([("      moe_intermediate_size: 32\n", "      moe_intermediate_size: 32\n      topk_method: noaux_tc\n      n_group: 8\n      topk_group: 4\n")], ["28:16: kinds.mixes.experts.n_group: must leave two experts or more in a group"], id="n_group: of one"),
    pytest.param([("      moe_intermediate_size: 32\n", "      moe_intermediate_size: 32\n      topk_method: noaux_tc\n      n_group: 4\n      topk_group: 5\n")], ["29:19: kinds.mixes.experts.topk_group: must be at most n_group (4), not 5"], id="topk_group: more than there are"),
    pytest.param([("num_experts_per_tok: 2", "num_experts_per_tok: 3"), ("      moe_intermediate_size: 32\n", "      moe_intermediate_size: 32\n      topk_method: noaux_tc\n      n_group: 4\n")], ["25:28: kinds.mixes.experts.num_experts_per_tok: must be at most the 2 experts of topk_group groups, not 3"], id="topk_group: too few for the experts chosen"),
    pytest.param([("      moe_intermediate_size: 32\n", "      moe_intermediate_size: 32\n      norm_topk_prob: 1\n")], ["27:23: kinds.mixes.experts.norm_topk_prob: expected true or false, not 1"], id="norm_topk_prob: number"),
    pytest.param([("      moe_intermediate_size: 32\n", "      moe_intermediate_size: 32\n      routed_scaling_factor: 0.0\n")], ["27:30: kinds.mixes.experts.routed_scaling_factor: must be above 0 and at most 1,000,000,000, not 0"], id="routed_scaling_factor: zero"),
    pytest.param([("max_position_embeddings: 128\n", "max_position_embeddings: 128\nnorm_eps: 0\n")], ["7:11: norm_eps: must be above 0 and at most 1,000,000,000, not 0"], id="norm_eps: zero"),
    pytest.param([("max_position_embeddings: 128\n", "max_position_embeddings: 128\nnorm_eps: 1e-6x\n")], ["7:11: norm_eps: expected a number, not '1e-6x'"], id="norm_eps: text"),
    pytest.param([("max_position_embeddings: 128\n", "max_position_embeddings: 128\nnorm_eps: null\n")], ["7:11: norm_eps: expected a number, not nothing"], id="norm_eps: null"),
    pytest.param([("max_position_embeddings: 128\n", "max_position_embeddings: 128\nnorm_epsilon: 1.0e-6\n")], ["7:1: 'norm_epsilon' is not a key known here (did you mean norm_eps?)"], id="norm_eps: misspelt"),
    pytest.param([("max_position_embeddings: 128\n", "max_position_embeddings: 128\nembedding_multiplier: -1.0\n")], ["7:23: embedding_multiplier: must be above 0 and at most 1,000,000,000, not -1"], id="embedding_multiplier: negative"),
    pytest.param([("max_position_embeddings: 128\n", "max_position_embeddings: 128\nfinal_logit_softcapping: true\n")], ["7:26: final_logit_softcapping: expected a number, not true"], id="final_logit_softcapping: true"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        factor: 8.0\n")], ["15:17: kinds.slides.attention.rope_parameters.factor: is not used with rope_type default"], id="a parameter the rope_type does not use"),
    pytest.param([("      head_dim: 16\n", "      head_dim: 16\n      rope_parameters:\n        rope_theta: 10000.0\n        rope_type: linear\n        factor: 8.0\n        truncate: false\n        mscale: 1.0\n")], ["17:19: kinds.slides.attention.rope_parameters.truncate: is not used with rope_type linear", "18:17: kinds.slides.attention.rope_parameters.mscale: is not used with rope_type linear"], id="the parameters of another rope_type"),
]

WHOLE = [
    pytest.param("", ["1:1: the file is empty: expected a mapping such as 'name: value'"], id="empty"),
    pytest.param("# nothing\n", ["1:1: the file is empty: expected a mapping such as 'name: value'"], id="a comment"),
    pytest.param("- a\n- b\n", ["1:1: expected a mapping, not a list"], id="a list"),
    pytest.param("tiny\n", ["1:1: expected a mapping, not 'tiny'"], id="a word"),
    pytest.param("3\n", ["1:1: expected a mapping, not 3"], id="a number"),
    pytest.param("null\n", ["1:1: expected a mapping, not nothing"], id="null"),
    pytest.param("{}\n", ["1:1: 'name' is required", "1:1: 'source' is required", "1:1: 'torch_dtype' is required", "1:1: 'hidden_size' is required", "1:1: 'vocab_size' is required", "1:1: 'max_position_embeddings' is required", "1:1: 'kinds' is required", "1:1: 'layers' is required"], id="an empty mapping"),
    pytest.param("name: a\n---\nname: b\n", ["2:1: a second document starts here: one file holds one"], id="two documents"),
    pytest.param("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", ["1:65: nested deeper than 64 levels"], id="nested too deep"),
    pytest.param('name: "a\n', ["1:7: this quote is never closed"], id="an unclosed quote"),
    pytest.param("name: [a\n", ["2:1: expected ',' or ']' ('[' opened at line 1)"], id="an unclosed bracket"),
    pytest.param("%YAML 1.1\n---\nname: a\n", ["1:1: directives (%) are not allowed: remove the line"], id="a directive"),
    pytest.param("name: \u0000\n", ["1:7: NUL byte: this is not a text file"], id="a NUL byte"),
    pytest.param("name: \u001b\n", ["1:7: unprintable character U+001B: remove it"], id="a control character"),
]
# fmt: on


@pytest.fixture
def mistakes(tmp_path, monkeypatch, refused):
    """A function from the text of a model file to its mistakes, as the command line tells them."""
    monkeypatch.chdir(tmp_path)

    def of(text):
        (tmp_path / "m.yaml").write_text(text)
        lines = refused("models", "show", "./m.yaml")
        assert all(line.startswith("m.yaml:") for line in lines)
        return [line.removeprefix("m.yaml:") for line in lines]

    return of


def edited(text, edits):
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def test_the_file_without_mistakes_is_read(tmp_path, command):
    (tmp_path / "m.yaml").write_text(TINY)
    status, out, lines = command("models", "show", str(tmp_path / "m.yaml"))
    assert (status, lines) == (0, [])
    assert out.startswith("tiny\n")


@pytest.mark.parametrize(("edits", "expected"), EDITS)
def test_edited(edits, expected, mistakes):
    known = {"{keys}": ModelFile.model_fields, "{mixers}": MIXERS, "{formats}": [str(len(PACKED_FORMATS))]}
    for word, names in known.items():
        expected = [line.replace(word, ", ".join(names)) for line in expected]
    assert mistakes(edited(TINY, edits)) == expected


@pytest.mark.parametrize(("text", "expected"), WHOLE)
def test_whole_file(text, expected, mistakes):
    assert mistakes(text) == expected


def test_only_the_first_hundred_mistakes_are_told(mistakes):
    lines = mistakes(TINY + "".join(f"k{number}: 1\n" for number in range(20_000)))
    assert len(lines) == 101
    assert lines[-1].endswith(": 19,900 more mistakes are not shown")


def test_null_means_absent_where_a_key_is_optional(tmp_path, command):
    text = TINY.replace("sliding_window: 32", "sliding_window: null") + "learned_positions: null\n"
    (tmp_path / "m.yaml").write_text(text)
    status, _, lines = command("models", "show", str(tmp_path / "m.yaml"))
    assert (status, lines) == (0, [])
