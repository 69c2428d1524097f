"""Weight bytes of whole models by hand."""

import pytest

from kvplan.errors import UsageError
from kvplan.plan.weights import parameter_count
from kvplan.storage import TensorRole


def weights_of(plan, name, storage="", **cut):
    (stage,) = plan(name, weights=storage, **cut).stages
    return stage.weights


def test_llama_bf16(plan):
    assert weights_of(plan, "llama-3.1-8b").number == 16_060_522_496  # 2 x 8,030,261,248
    assert weights_of(plan, "llama-3.1-8b", "fp32").number == 32_121_044_992


def test_llama_int4_as_awq_stores_it(plan):
    # A layer's matrices have 218,103,808 elements: 109,051,904 bytes of nibbles, and 1,703,936 groups of 128
    # with 2.5 bytes: 4,259,840. Two norms of 4,096 in bf16: 16,384. Sum 113,328,128; 32 layers 3,626,500,096.
    # Embedding and head stay bf16: 2 x 525,336,576 x 2 = 2,101,346,304. The last norm 8,192.
    assert weights_of(plan, "llama-3.1-8b", "int4").number == 3_626_500_096 + 2_101_346_304 + 8_192
    # GPTQ adds g_idx, 4 bytes per input column: (6 x 4,096 + 14,336) x 4 = 155,648 a layer.
    assert weights_of(plan, "llama-3.1-8b", "int4-gptq").number == 5_727_854_592 + 32 * 155_648


def test_llama_gguf(plan):
    # q8_0 is 34 bytes for 32. Matrices, embedding and head have 8,029,995,008 elements; norms are float32.
    assert weights_of(plan, "llama-3.1-8b", "q8_0").number == 8_029_995_008 * 34 // 32 + 65 * 4_096 * 4
    # q4_k is 144 bytes for 256.
    assert weights_of(plan, "llama-3.1-8b", "q4_k").number == 8_029_995_008 * 144 // 256 + 65 * 4_096 * 4


def test_gpt_oss_20b_as_released(plan):
    # mxfp4, 4.25 bits, for the experts only. Their matrices, a layer: 32 x 3 x 2,880 x 2,880 = 796,262,400
    # elements: 398,131,200 bytes of nibbles + 24,883,200 scales = 423,014,400.
    # Their biases: 32 x 8,640 x 2 = 552,960.
    # The rest of a layer in bf16: q, o 2 x 4,096 x 2,880; k, v 2 x 512 x 2,880; their biases 8,000; 64 sinks;
    # norms 5,760; router 92,160 + 32: 26,648,096 x 2 = 53,296,192.
    # Sum 476,863,552; 24 layers 11,444,725,248.
    # Embedding and head: 2 x 201,088 x 2,880 x 2 = 2,316,533,760; the last norm 5,760.
    assert weights_of(plan, "gpt-oss-20b").number == 11_444_725_248 + 2_316_533_760 + 5_760
    assert (
        weights_of(plan, "gpt-oss-20b").number == 13_761_264_768
    )  # model.safetensors.index.json, total_size


def test_deepseek_v3_as_released(plan):
    # fp8 with a float32 scale per 128 x 128 block. Every expert matrix is 2,048 x 7,168 = 16 x 56 blocks:
    # 14,680,064 + 896 x 4 = 14,683,648 bytes; 3 matrices x 256 experts + 3 of the shared one.
    experts = 771 * 14_683_648
    # q_a 1,536 x 7,168, 12 x 56 blocks; q_b 24,576 x 1,536, 192 x 12; kv_a 576 x 7,168, 5 x 56 (the last
    # short); kv_b 32,768 x 512, 256 x 4; o 7,168 x 16,384, 56 x 128.
    attention = 11_010_048 + 37_748_736 + 4_128_768 + 16_777_216 + 117_440_512
    attention += 4 * (672 + 2_304 + 280 + 1_024 + 7_168)
    # Norms in bf16: two of 7,168, of the compressed query 1,536, of the latent 512.
    norms = 2 * (2 * 7_168 + 1_536 + 512)
    # Router 256 x 7,168 in bf16, its correction bias 256 in float32.
    router = 2 * 256 * 7_168 + 4 * 256
    # Dense first layers: three of 18,432 x 7,168, 144 x 56 blocks each.
    dense = 3 * (132_120_576 + 4 * 8_064)
    outer = 2 * (2 * 129_280 * 7_168 + 7_168)
    expected = 61 * (attention + norms) + 58 * (experts + router) + 3 * dense + outer
    assert weights_of(plan, "deepseek-v3").number == expected


def test_a_tied_head_is_stored_once(plan):
    assert weights_of(plan, "gpt2", "fp32").number == 4 * 124_439_808
    assert weights_of(plan, "gemma-2-9b").number == 2 * 9_241_705_984


def test_plain_models_take_their_dtype(model_name, bundled, plan):
    """Buffers are no parameters: those of towers are stored like their weights, all others in float32."""
    model = bundled(model_name)
    (stage,) = plan(model_name, weights="bf16").stages
    buffers = sum(
        w.elements * n * (2 if w.role is TensorRole.TOWER else 4) for w, n in model.weights() if not w.trained
    )
    assert stage.weights.number == 2 * parameter_count(model).number + buffers


def test_every_format_is_smaller_than_bf16_and_larger_than_its_elements(representative, plan, bundled):
    elements = parameter_count(bundled(representative)).number
    for name in "fp8 fp8-block fp8-row int8 int4 int4-gptq nf4 nvfp4 q8_0 q4_k q2_k".split():
        found = weights_of(plan, representative, name).number
        assert elements * 2 // 8 < found < 2.01 * elements, name


def test_a_format_for_experts_is_refused_where_there_are_none(plan):
    with pytest.raises(UsageError) as error:
        plan("llama-3.1-8b", weights="mxfp4")
    assert error.value.message == "mxfp4 stores expert matrix weights only, and llama-3.1-8b has none"


def test_parts_name_every_tensor(plan, walk, bundled):
    figure = weights_of(plan, "gemma-3-4b")
    names = {q.name for q in walk(figure)}
    assert {w.name for w, _ in bundled("gemma-3-4b").weights()} <= names
