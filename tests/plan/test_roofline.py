"""Bounds and estimates: limits that hold for any model, and worked problems of a book.

"The book" is Austin et al., How to Scale Your Model (jax-ml.github.io/scaling-book), chapters 7 (inference)
and 8 (serving LLaMA 3); its TPU v5e reads 8.1e11 or 8.2e11 bytes and multiplies 1.97e14 times a second.
"""

from dataclasses import replace
from math import lcm

import numpy as np
import pytest

from kvplan.arch.retention import Unfinished
from kvplan.arch.selected import TopBlocks
from kvplan.arch.work import Work
from kvplan.errors import UsageError
from kvplan.hardware.device import DensePeaks
from kvplan.plan.serving import steady_state
from kvplan.plan.step_time import Times

GPUS = ("h100-sxm", "b200-sxm", "a100-sxm-80gb", "mi300x", "l40s", "rtx4090")
# Models whose heads 8 ranks cannot share, and as many as can.
SMALLER = {
    "falcon-7b": 1,
    "recurrentgemma-2b": 2,
    **dict.fromkeys(("falcon-h1-7b", "gpt-neo-2.7b", "gpt2"), 4),
}
BATCHES = np.array([1.0, 2.0, 3.0, 7.0, 16.0, 64.0, 257.0, 1_024.0])[:, None]
CONTEXTS = np.array([1.0, 100.0, 1_023.0, 1_024.0, 4_095.0, 4_096.0, 5_000.0, 32_768.0, 131_071.0])
DENSE_AND_EXPERTS = ("llama-3.1-8b", "gemma-3-27b", "mixtral-8x7b", "deepseek-v3", "qwen3-next-80b-a3b")


def grid(value):
    return np.broadcast_to(value, (len(BATCHES), len(CONTEXTS)))


@pytest.mark.parametrize("device", GPUS)
def test_an_estimate_is_never_below_the_bound(representative, device, roofline_of):
    """For every operator, batch and context, on one GPU, and on as many as share every head."""
    for tensor in (1, SMALLER.get(representative, 8)):
        roofline = roofline_of(representative, device, tensor=tensor)
        decode = roofline.decode(BATCHES, CONTEXTS)
        for timed in (*roofline.timed(decode), *roofline.timed(*roofline.prefill(3, 5_000, 100))):
            assert np.all(timed.times.bound_s <= timed.times.estimate_s), timed.name
        assert np.all(roofline.times(decode).bound_s > 0)


@pytest.mark.parametrize("model", DENSE_AND_EXPERTS)
@pytest.mark.parametrize(
    "cut", [{"tensor": 2, "pipeline": 2}, {"data": 16}, {"context": 2}, {"data": 4, "expert": 4}]
)
@pytest.mark.parametrize("weights", ["bf16", "fp8", "int8", "nvfp4"])
def test_an_estimate_is_never_below_the_bound_however_cut_and_packed(model, cut, weights, roofline_of):
    if "expert" in cut and model in ("llama-3.1-8b", "gemma-3-27b"):
        cut = {"tensor": 4}
    for device in ("h200-sxm", "b300-sxm", "gaudi2"):
        roofline = roofline_of(model, device, weights=weights, kv="fp8", **cut)
        for step in (roofline.decode(BATCHES, CONTEXTS), *roofline.prefill(17, 9_000)):
            for timed in roofline.timed(step):
                assert np.all(timed.times.bound_s <= timed.times.estimate_s), timed.name


def test_more_requests_and_longer_ones_never_take_less(representative, roofline_of):
    roofline = roofline_of(representative)
    # The step that ends a run of tokens reads those that waited for it, and the first token of a block less
    # than the last of the one before: contexts of whole runs and blocks are compared.
    slots = [run.slot for run in roofline.model.slot_runs()]
    waiting = [slot.retention.ratio for slot in slots if isinstance(slot.retention, Unfinished)]
    chosen = [slot.selected.block_tokens for slot in slots if isinstance(slot.selected, TopBlocks)]
    runs = lcm(*waiting, *chosen)
    contexts = CONTEXTS // runs * runs
    times = roofline.times(roofline.decode(BATCHES, contexts))
    work = roofline.work(roofline.decode(BATCHES, contexts))
    for values in (times.bound_s, times.estimate_s, work.flops, work.memory_bytes):
        whole = grid(values)
        assert np.all(np.diff(whole, axis=0) >= 0)
        assert np.all(np.diff(whole, axis=1) >= 0)


@pytest.mark.parametrize("model", DENSE_AND_EXPERTS)
def test_smaller_formats_never_raise_the_bound(model, roofline_of):
    def bound(weights, kv):
        roofline = roofline_of(model, "h100-sxm", weights=weights, kv=kv)
        decode = grid(roofline.times(roofline.decode(BATCHES, CONTEXTS)).bound_s)
        return np.append(decode.ravel(), roofline.prefill_times(2, 9_000).bound_s)

    plain = bound("bf16", "bf16")
    for weights, kv in (("fp8", "bf16"), ("bf16", "fp8"), ("fp8", "fp8"), ("int8", "bf16"), ("bf16", "int8")):
        found = bound(weights, kv)
        assert np.all(found <= plain), (weights, kv)
        assert np.any(found < plain), (weights, kv)


def test_the_bound_is_the_sum_of_each_operators_longer_time(roofline_of):
    """Llama-3.1-8B on an H100, batch 8 at 4,096 tokens, by hand: 3.35e12 bytes a second limit all of it."""
    weights = (8_030_261_248 - 525_336_576) * 2 + 8 * 8_192
    cache = 8 * (4_097 + 1) * 131_072
    roofline = roofline_of("llama-3.1-8b")
    bound = roofline.times(roofline.decode(8, 4_096)).bound_s
    assert bound == pytest.approx((weights + cache) / 3.35e12, rel=1e-12)


def test_the_bound_of_a_long_prompt_is_its_operations(roofline_of):
    roofline = roofline_of("llama-3.1-8b")
    (step,) = roofline.prefill(1, 8_192)
    times = {timed.name: timed for timed in roofline.timed(step)}
    for name in ("qkv_proj", "attention", "o_proj", "gate_up_proj", "down_proj"):
        assert times[name].times.bound_s == pytest.approx(times[name].work.flops / 989.4e12, rel=1e-12)


# ------------------------------------------------------------------ the steps of prompts


@pytest.mark.parametrize(
    ("batch", "prompt", "cached", "chunk", "data", "expected"),
    [
        (1, 100, 0, 512, 1, [(1, 100, 0, 1, 1)]),
        (7, 100, 0, 512, 1, [(5, 100, 0, 1, 1), (2, 100, 0, 1, 1)]),
        (10, 100, 0, 512, 1, [(5, 100, 0, 1, 2)]),
        (3, 512, 0, 512, 1, [(1, 512, 0, 1, 3)]),
        (1, 513, 0, 512, 1, [(1, 512, 0, 0, 1), (1, 1, 512, 1, 1)]),
        (2, 1_300, 200, 512, 1, [(1, 512, 200, 0, 2), (1, 512, 712, 0, 2), (1, 76, 1_224, 1, 2)]),
        (4, 1_000, 900, 512, 1, [(4, 100, 900, 1, 1)]),
        (5, 100, 0, 512, 2, [(6, 100, 0, 1, 1)]),
        (1, 1_024, 0, 512, 3, [(3, 512, 0, 0, 1), (3, 512, 512, 1, 1)]),
    ],
)
def test_prompts_are_read_in_steps_of_no_more_than_a_chunk(
    batch, prompt, cached, chunk, data, expected, roofline_of
):
    """Requests of all replicas, new tokens, context, whether logits are made, and how often."""
    roofline = roofline_of("llama-3.2-1b", chunk=chunk, data=data)
    steps = roofline.prefill(batch, prompt, cached)
    assert [(s.batch, s.new_tokens, s.context, s.logits, count) for s, count in steps] == expected
    assert not any(step.absorbed for step, _ in steps)


@pytest.mark.parametrize("chunk", [64, 500, 999, 1_000, 8_192])
@pytest.mark.parametrize("model", ["llama-3.2-1b", "gemma-3-1b", "deepseek-v2-lite", "qwen3-next-80b-a3b"])
def test_chunks_multiply_what_the_whole_prompt_does(model, chunk, roofline_of):
    whole, cut = (roofline_of(model, "h200-sxm", chunk=size) for size in (8_192, chunk))
    one, many = (roofline.work(*roofline.prefill(2, 1_000)) for roofline in (whole, cut))
    assert many.attention_flops == one.attention_flops
    assert many.kv_read_bytes >= one.kv_read_bytes
    if model != "qwen3-next-80b-a3b":  # each step writes the whole state
        assert many.kv_write_bytes == one.kv_write_bytes
    if model != "deepseek-v2-lite":  # each chunk expands the latents before it once more
        assert many.matmul_flops == one.matmul_flops


def test_work_is_that_of_every_step(roofline_of):
    roofline = roofline_of("gemma-3-1b", chunk=300)
    steps = roofline.prefill(3, 1_000)
    by_hand = sum((roofline.work((step, 1)).times(count) for step, count in steps), start=Work())
    assert roofline.work(*steps) == by_hand
    in_time = sum((roofline.times((step, 1)).scaled(count) for step, count in steps), start=Times())
    for name in Times.__slots__:
        assert getattr(roofline.times(*steps), name) == pytest.approx(getattr(in_time, name), rel=1e-12)


def test_stages_of_a_pipeline_work_on_several_chunks_at_once(roofline_of):
    """10 chunks through 4 stages: 13 quarters of a step; the first chunk fills the pipeline."""
    roofline = roofline_of("llama-3.1-8b", pipeline=4, chunk=1_000)
    equal = roofline.prefill(10, 1_000)
    assert [count for _, count in equal] == [10]
    one = roofline.times((equal[0][0], 1))
    found = roofline.prefill_times(10, 1_000)
    assert found.bound_s == pytest.approx(3.25 * one.bound_s, rel=1e-12)
    assert found.estimate_s == pytest.approx(3.25 * one.estimate_s, rel=1e-12)
    alone = roofline_of("llama-3.1-8b", chunk=1_000)
    assert alone.prefill_times(10, 1_000) == alone.times(*alone.prefill(10, 1_000))


@pytest.mark.parametrize(
    "cut", [{}, {"context": 4}, {"tensor": 2, "pipeline": 2}, {"data": 4}, {"data": 4, "expert": 4}]
)
@pytest.mark.parametrize("prompt", [100, 30_000])
def test_a_closed_loop_is_no_faster_than_its_bound(cut, prompt, roofline_of):
    """Prompts that ranks share are shared in the bound too."""
    found = steady_state(roofline_of("mixtral-8x7b", **cut), 16, prompt, 50)
    assert found.each_token.bound_s <= found.each_token.estimate_s
    assert found.tokens_per_s <= found.most_tokens_per_s


# ------------------------------------------------------------------ the book's problems


@pytest.fixture
def v5e(gpu):
    """The book's TPU v5e: 8.1e11 bytes/s, and 1.97e14 operations/s in bf16 whatever weights are stored in."""
    device = gpu("tpu-v5e")
    assert (device.memory.bandwidth_gb_per_s, device.peak_dense.bf16_tflops) == (819, 197)
    return replace(
        device,
        memory=replace(device.memory, bandwidth_gb_per_s=810.0),
        peak_dense=DensePeaks(bf16_tflops=197.0),
    )


@pytest.mark.parametrize(("batch", "step_ms"), [(1, 4.98), (8, 12.13), (16, 20.30), (32, 36.65), (64, 69.33)])
def test_step_times_of_llama_2_13b_on_8_tpus(batch, step_ms, v5e, roofline_of):
    """Chapter 7, "Modeling throughput and latency for LLaMA 2-13B": the least time of a step at 8,192 tokens,
    every weight (26e9 bytes) and cache (6.7e9 bytes a request) read by 8 chips. The book's figures are
    (26e9 + batch x 6.7e9) / (8 x 8.2e11) within its rounding; a plan looks the embedding up, writes a token
    and sums over chips besides."""
    roofline = roofline_of("llama-2-13b", v5e, tensor=8)
    times = {timed.name: timed for timed in roofline.timed(roofline.decode(batch, 8_191))}
    memory = sum(timed.work.memory_bytes for timed in times.values())
    parameters, cache = 13_015_864_320, batch * 8_192 * 2 * 40 * 128 * 40 * 2
    table = 32_000 * 5_120
    by_hand = 2 * (parameters - table) + cache + batch * (cache // batch // 8_192)
    norms_and_rows = 8 * (81 * 5_120 * 2 + batch * 5_120 * 2) - 81 * 5_120 * 2
    assert memory * 8 == by_hand + norms_and_rows
    assert memory / 8.2e11 * 1e3 == pytest.approx(step_ms, rel=0.015)


def test_cache_of_llama_2_13b(roofline_of, v5e):
    """Chapter 7: 8192 x 40 x 128 x 40 x 2 x 2 = 6.7 GB for a sequence of 8,192 tokens in bf16."""
    roofline = roofline_of("llama-2-13b", v5e)
    read = roofline.work(roofline.decode(1, 8_191)).kv_read_bytes
    assert read == 8_192 * 40 * 128 * 40 * 2 * 2 == 6_710_886_400


def test_cache_of_llama_3_70b_in_bytes(roofline_of, gpu):
    """Chapter 8: 2 x 8 x 128 x 80 = 160 kiB a token in int8 (fp8 here: no scales); 5.3 GB for 32k tokens."""
    device = replace(gpu("tpu-v5e"), peak_dense=DensePeaks(bf16_tflops=197.0))
    roofline = roofline_of("llama-3.1-70b", device, kv="fp8")
    assert roofline.work(roofline.decode(1, 32_767)).kv_read_bytes == 32_768 * 160 * 1_024
    assert pytest.approx(5.3e9, rel=0.02) == 32_768 * 160 * 1_024


def test_the_least_step_of_llama_3_70b_in_int8(roofline_of, gpu):
    """Chapter 8: 8,192 tokens, batch 32, 8 chips: (70e9 + 160e3 x 8192 x 32) / (8 x 8.1e11) = 17 ms."""
    device = replace(gpu("tpu-v5e"), peak_dense=DensePeaks(bf16_tflops=197.0))
    roofline = roofline_of("llama-3.1-70b", device, weights="fp8", kv="fp8", tensor=8)
    work = roofline.work(roofline.decode(32, 8_192))
    assert work.memory_bytes / 8.1e11 == pytest.approx(17e-3, rel=0.05)


def test_large_batches_of_a_30b_model_are_limited_by_operations(roofline_of, v5e):
    """Chapter 7, pop quiz: int8 weights multiplied in bf16 on 16 chips. Batch 4: the time of weights and
    cache. Batch 256: cache over bandwidth and 2 x 256 x parameters over the peak. Qwen2.5-32B stands in for
    the book's 30e9 parameters and 100 kB a token; the sums are the same."""
    roofline = roofline_of("qwen2.5-32b", v5e, weights="fp8", kv="fp8", tensor=8)
    parameters = 64 * (2 * 5_120 * 5_120 + 2 * 5_120 * 1_024 + 3 * 5_120 * 27_648)
    head = 152_064 * 5_120
    for batch in (4, 256):
        times = {timed.name: timed.times for timed in roofline.timed(roofline.decode(batch, 8_191))}
        cache = batch * 8_192 * 2 * 8 * 128 * 64
        assert times["attention"].bound_s == pytest.approx(cache / (8 * 8.1e11), rel=1e-12)
        products = sum(times[n].bound_s for n in ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"))
        done, read = 2 * batch * parameters / (8 * 1.97e14), parameters / (8 * 8.1e11)
        assert products == pytest.approx(max(done, read), rel=1e-3)
        in_bf16 = max(2 * batch * head / (8 * 1.97e14), 2 * head / (8 * 8.1e11))
        assert times["lm_head"].bound_s == pytest.approx(in_bf16, rel=1e-3)


def test_a_prompt_of_more_chunks_than_anyone_waits_for_is_refused(roofline_of):
    roofline = roofline_of("llama-3.2-1b", chunk=512)
    assert len(roofline.prefill(1, 2_048 * 512)) == 2_048
    with pytest.raises(UsageError) as refused:
        roofline.prefill(1, 2_048 * 512 + 1)
    assert str(refused.value) == (
        "a prompt of 1,048,577 tokens takes 2,049 chunks of 512: more than 2,048, each reckoned by itself"
    )
    assert refused.value.hint == "a larger --chunk"
