"""FLOPs and bytes of real models by hand: matrices, heads, attention cores, states and experts."""

from dataclasses import replace

import pytest

from kvplan.allocation import Paged
from kvplan.plan.requests import Request
from kvplan.plan.run import predict_run
from kvplan.storage import kv_format


def predict(model, requests, kv="bf16", chunk=8_192, block=64):
    asked = [Request(*lengths) for lengths in requests]
    return predict_run(model, asked, kv_format(kv), Paged(block), chunk)


# Of Llama-3.1-8B's 8,030,261,248 parameters 525,336,576 are the embedding and 65 x 4,096 are norms.
LLAMA_MATRICES = 8_030_261_248 - 525_336_576 - 65 * 4_096
LLAMA_HEAD = 128_256 * 4_096


def test_llama_decode(bundled):
    decode = predict(bundled("llama-3.1-8b"), [(1_000, 2)]).decode
    assert decode.matmul_flops.number == 2 * LLAMA_MATRICES
    # One query of 32 heads and 1,001 keys: 2 x 128 for the scores, 2 x 128 for the values, 32 layers.
    assert decode.attention_flops.number == 32 * 1_001 * 32 * 4 * 128
    assert decode.cache_read_bytes.number == 1_001 * 131_072
    assert decode.cache_written_bytes.number == 131_072


def test_llama_prefill(bundled):
    prefill = predict(bundled("llama-3.1-8b"), [(1_000, 1)], chunk=300).prefill
    # Every token runs through the layers, only the last one through the head.
    assert prefill.matmul_flops.number == 2 * (1_000 * (LLAMA_MATRICES - LLAMA_HEAD) + LLAMA_HEAD)
    assert prefill.attention_flops.number == 32 * (1_000 * 1_001 // 2) * 32 * 4 * 128
    assert prefill.cache_read_bytes.number == (300 + 600 + 900 + 1_000) * 131_072
    assert prefill.cache_written_bytes.number == 1_000 * 131_072


def test_a_tied_head_is_multiplied_too(bundled):
    model = bundled("llama-3.2-1b")
    assert model.tie_word_embeddings
    decode = predict(model, [(10, 2)]).decode
    # 1,235,814,400 parameters with the embedding once: as the head it is multiplied; 33 norms are not.
    assert decode.matmul_flops.number == 2 * (1_235_814_400 - 33 * 2_048)


def test_mixtral_uses_two_of_eight_experts(bundled):
    decode = predict(bundled("mixtral-8x7b"), [(10, 2)]).decode
    attention = 2 * 4_096 * 4_096 + 2 * 1_024 * 4_096
    experts = 2 * 3 * 4_096 * 14_336 + 8 * 4_096
    assert decode.matmul_flops.number == 2 * (32 * (attention + experts) + 32_000 * 4_096)


def test_learned_positions_and_biases_are_not_multiplied(bundled):
    decode = predict(bundled("gpt2"), [(10, 2)]).decode
    assert decode.matmul_flops.number == 2 * (12 * 12 * 768 * 768 + 50_257 * 768)


def test_deepseek_v3(bundled):
    """128 heads, latent 512 + 64, heads of 128 + 64 and 128; 3 dense layers, 58 of 8 + 1 of 256 experts."""
    model = bundled("deepseek-v3")
    run = predict(model, [(100, 2)], chunk=64)
    expanding = 128 * (128 + 128) * 512
    attention = 7_168 * 1_536 + 1_536 * 128 * 192 + 7_168 * 576 + 128 * 128 * 7_168
    dense, expert = 3 * 7_168 * 18_432, 3 * 7_168 * 2_048
    layers = 61 * attention + 3 * dense + 58 * (9 * expert + 256 * 7_168)
    head = 129_280 * 7_168
    assert run.decode.matmul_flops.number == 2 * (layers + 61 * expanding + head)
    # Prefill expands every latent a step reads: 64 in the first, all 100 in the second.
    assert run.prefill.matmul_flops.number == 2 * (100 * layers + 61 * 164 * expanding + head)
    assert run.prefill.attention_flops.number == 2 * 61 * 5_050 * 128 * (192 + 128)
    assert run.decode.attention_flops.number == 2 * 61 * 101 * 128 * (2 * 512 + 64)
    assert run.prefill.cache_read_bytes.number == 164 * 70_272
    assert run.decode.cache_read_bytes.number == 101 * 70_272


def test_qwen3_next(bundled):
    """36 delta nets: 16 + 16 key heads of 128, 32 value heads of 128, 4 inputs of 8,192 channels."""
    run = predict(bundled("qwen3-next-80b-a3b"), [(100, 4)], chunk=64)
    a_token = 2 * 4 * 8_192 + 6 * 32 * 128 * 128
    pairs = 16 * 2 * 256 * 2
    assert run.prefill.attention_flops.number == 36 * 100 * a_token + 12 * 5_050 * pairs
    assert run.decode.attention_flops.number == 36 * 3 * a_token + 12 * (101 + 102 + 103) * pairs
    # The engine's state is float32: 4 columns of 8,192 channels and 32 x 128 x 128.
    state = 36 * (4 * 8_192 + 32 * 128 * 128) * 4
    assert run.state_bytes.number == state
    assert run.prefill.cache_read_bytes.number == 2 * state + 164 * 24_576
    assert run.prefill.cache_written_bytes.number == 2 * state + 100 * 24_576
    assert run.decode.cache_read_bytes.number == 3 * state + (101 + 102 + 103) * 24_576
    assert run.decode.cache_written_bytes.number == 3 * state + 3 * 24_576


def test_gpt_neo_looks_through_windows_at_a_cache_that_keeps_all(bundled):
    """16 layers see 256 tokens and 16 see all: 20 heads of 128, 10,240 bytes a token and layer."""
    run = predict(bundled("gpt-neo-2.7b"), [(1_000, 11)], chunk=400)
    heads = 16 * 20 * 4 * 128
    windowed = 256 * 257 // 2 + (1_000 - 256) * 256
    assert run.prefill.attention_flops.number == heads * (1_000 * 1_001 // 2 + windowed)
    assert run.decode.attention_flops.number == heads * (sum(range(1_001, 1_011)) + 10 * 256)
    # Steps from 400 and 800 see 255 tokens before their first; a decode step its own and 255.
    assert run.prefill.cache_read_bytes.number == 16 * 10_240 * (
        (400 + 800 + 1_000) + (400 + 400 + 255 + 200 + 255)
    )
    assert run.decode.cache_read_bytes.number == 16 * 10_240 * (sum(range(1_001, 1_011)) + 10 * 256)
    assert run.decode.cache_written_bytes.number == 32 * 10_240 * 10
    assert run.cache_live_bytes.number == 32 * 10_240 * 1_010


def test_a_model_may_look_through_windows_in_every_layer(bundled):
    model = bundled("gpt-neo-2.7b")
    nearby = replace(model, layers=(model.layers[1],) * 2)
    run = predict(nearby, [(1_000, 3)])
    assert run.decode.cache_written_bytes.number == 2 * 10_240 * 2
    assert run.decode.cache_read_bytes.number == 2 * 10_240 * 2 * 256


def test_gemma_windows(bundled):
    """21 layers see 4,096 tokens, 21 see all: 16 query heads of 256."""
    run = predict(bundled("gemma-2-9b"), [(6_000, 11)], chunk=2_048)
    heads = 21 * 16 * 4 * 256
    windowed = 4_096 * 4_097 // 2 + (6_000 - 4_096) * 4_096
    assert run.prefill.attention_flops.number == heads * (6_000 * 6_001 // 2 + windowed)
    assert run.decode.attention_flops.number == heads * (sum(range(6_001, 6_011)) + 10 * 4_096)
    # Steps from 0, 2,048 and 4,096 see at most 4,095 tokens before their first.
    assert run.prefill.cache_read_bytes.number == 21 * 8_192 * (
        (2_048 + 4_096 + 6_000) + (2_048 + 4_096 + 4_095 + 1_904)
    )


@pytest.mark.parametrize(
    ("name", "kv", "intensity"),
    [
        ("llama-2-7b", "bf16", 1.0),  # one query head for each of 2 x 128 elements of 2 bytes
        ("llama-3.1-8b", "bf16", 4.0),  # four
        ("llama-3.1-8b", "fp8", 8.0),
        ("llama-3.1-8b", "fp32", 2.0),
        ("llama-2-70b", "bf16", 8.0),
        ("falcon-7b", "bf16", 71.0),  # 71 query heads, one key
        ("gemma-2-9b", "bf16", 2.0),  # windows change both alike
        ("deepseek-v3", "bf16", 128 * 2 * 1_088 / (576 * 2)),
    ],
)
def test_decode_intensity(name, kv, intensity, bundled):
    run = predict(bundled(name), [(100, 50), (7_000, 3)], kv)
    assert run.decode_intensity.value == intensity


def test_intensity_of_no_decoding(bundled):
    run = predict(bundled("llama-3.1-8b"), [(100, 1)])
    assert run.decode_intensity.value is None
    assert [figure.number for figure in run.decode.figures()] == [0, 0, 0, 0]


def test_kivi_traffic(bundled):
    """8 heads: values 68 bytes, a waiting key 256, a complete group 64 x 64 + 512; 32 layers."""
    run = predict(bundled("llama-3.1-8b"), [(100, 31)], "int4-kivi", chunk=80)
    value, key, group = 8 * 68, 8 * 256, 8 * (64 * 64 + 512)
    assert run.prefill.cache_written_bytes.number == 32 * (100 * (value + key) + group)
    # Step one reads 80 values, a group and 16 keys; step two 100, a group and 36.
    assert run.prefill.cache_read_bytes.number == 32 * (180 * value + 2 * group + (16 + 36) * key)
    # Tokens 101 to 130: the second group is complete with the 128th.
    assert run.decode.cache_written_bytes.number == 32 * (30 * (value + key) + group)
    groups, waiting = 27 * 1 + 3 * 2, sum(range(37, 64)) + 0 + 1 + 2
    values = sum(range(101, 131))
    assert run.decode.cache_read_bytes.number == 32 * (values * value + groups * group + waiting * key)


def test_weights_of_a_decode_step(bundled):
    llama = predict(bundled("llama-3.1-8b"), [(10, 2)]).decode_step_weights_bytes
    assert llama.number == 4 * (8_030_261_248 - 525_336_576)
    assert llama.note == ""
    tied = predict(bundled("llama-3.2-1b"), [(10, 2)]).decode_step_weights_bytes
    assert tied.number == 4 * 1_235_814_400
    mixtral = predict(bundled("mixtral-8x7b"), [(10, 2)]).decode_step_weights_bytes
    experts = 32 * 8 * 3 * 4_096 * 14_336
    assert mixtral.number == 4 * (46_702_792_704 - 32_000 * 4_096 - experts)
    assert "routed experts are left out" in mixtral.note


def test_a_vision_tower_is_not_run(bundled):
    model = bundled("gemma-3-4b")
    assert model.towers
    blind = predict(replace(model, towers=()), [(10, 3)])
    seeing = predict(model, [(10, 3)])
    for phase in ("prefill", "decode"):
        numbers = [f.number for f in getattr(seeing, phase).figures()]
        assert numbers == [f.number for f in getattr(blind, phase).figures()]
