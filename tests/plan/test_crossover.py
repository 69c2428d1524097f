"""The batch at which an operator turns compute-bound, and at which cache outweighs weights."""

from dataclasses import replace

import pytest

from kvplan.hardware.device import DensePeaks
from kvplan.plan.crossover import (
    LARGEST_BATCH,
    compute_bound_batch,
    kv_overtakes_weights,
    ridge_flops_per_byte,
)
from kvplan.storage import SIXTEEN_BIT, weight_format

PROJECTIONS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


def test_ridges_of_an_h100(gpu):
    """989.4 and 1,978.9 TFLOP/s over 3.35 TB/s."""
    h100 = gpu("h100-sxm")
    assert ridge_flops_per_byte(h100, SIXTEEN_BIT) == pytest.approx(295.34, abs=0.01)
    assert ridge_flops_per_byte(h100, weight_format("fp8").multiplied_in) == pytest.approx(590.72, abs=0.01)
    assert ridge_flops_per_byte(h100, weight_format("int4").multiplied_in) == pytest.approx(295.34, abs=0.01)


@pytest.mark.parametrize(
    ("device", "weights", "expected"),
    [
        ("h100-sxm", "bf16", 296),  # a weight of 2 bytes does 2 operations a request: 295.34
        ("h100-sxm", "fp8", 296),  # half the bytes, twice the rate
        ("h100-sxm", "int4", 77),  # 4.15625 bits with scales of groups, and 16-bit products
        ("a100-sxm-80gb", "bf16", 154),  # 312 / 2.039 = 153.02
        ("tpu-v5e", "bf16", 241),  # 197 / 0.819 = 240.5; the book says 240
    ],
)
def test_projections_turn_compute_bound_at_the_ridge(device, weights, expected, roofline_of, gpu):
    roofline = roofline_of("llama-3.1-8b", device, weights=weights)
    for name in PROJECTIONS:
        found = compute_bound_batch(roofline, name, 4_096)
        if weights == "int4":
            assert found == pytest.approx(expected, abs=1)
        else:
            assert found == expected


def test_the_book_says_half_of_it_for_weights_of_a_byte(roofline_of, gpu):
    """How to Scale Your Model, chapter 7: int8 weights multiplied in bf16 on a TPU v5e: 120."""
    device = replace(gpu("tpu-v5e"), peak_dense=DensePeaks(bf16_tflops=197.0))
    roofline = roofline_of("llama-3.1-8b", device, weights="fp8")
    assert {compute_bound_batch(roofline, name, 1) for name in PROJECTIONS} == {121}  # 120.27


@pytest.mark.parametrize("kv", ["bf16", "fp8", "int4"])
def test_attention_never_turns_compute_bound(kv, roofline_of):
    roofline = roofline_of("llama-3.1-8b", kv=kv)
    for context in (1, 4_096, 131_000):
        assert compute_bound_batch(roofline, "attention", context) is None


def test_latent_attention_is_compute_bound_from_the_first_request_where_ridges_are_low(roofline_of):
    """128 heads share a latent: 241.8 operations a byte; an A100's ridge is 153, an H200's 206."""
    assert compute_bound_batch(roofline_of("deepseek-v3", "a100-sxm-80gb"), "attention", 4_096) == 1
    assert compute_bound_batch(roofline_of("deepseek-v3", "h100-sxm"), "attention", 4_096) is None


def test_verified_tokens_count_like_requests(roofline_of):
    """Five tokens each: 295.34 / 5 = 59.07."""
    roofline = roofline_of("llama-3.1-8b")
    assert compute_bound_batch(roofline, "o_proj", 4_096, 5) == 60


@pytest.mark.parametrize("model", ["llama-3.1-8b", "mixtral-8x7b", "deepseek-v3", "gemma-3-27b"])
@pytest.mark.parametrize("cut", [{}, {"tensor": 4}, {"data": 2}, {"pipeline": 2}])
def test_one_request_less_is_still_memory_bound(model, cut, roofline_of):
    roofline = roofline_of(model, "h200-sxm", **cut)
    ridge = 989.4e12 / 4.8e12
    for timed in roofline.timed(roofline.decode(1, 99)):
        if not timed.work.flops:
            continue
        found = compute_bound_batch(roofline, timed.name, 99)

        def intensities(batch, name=timed.name):
            (again,) = (t for t in roofline.timed(roofline.decode(batch, 99)) if t.name == name)
            return [part.work.flops / part.work.memory_bytes for part in again.parts]

        if found is None:
            assert min(intensities(LARGEST_BATCH)) < ridge
        else:
            assert min(intensities(found)) >= ridge
            assert found == 1 or min(intensities(found - 1)) < ridge


def test_cache_overtakes_weights(roofline_of):
    """Llama-3.1-8B at 4,096 tokens: 15,009,849,344 bytes of weights, 4,097 x 131,072 a request: 27.95."""
    roofline = roofline_of("llama-3.1-8b")
    assert kv_overtakes_weights(roofline, 4_096) == 28
    assert kv_overtakes_weights(roofline, 1) == 59_106  # 15,009,849,344 / (2 x 131,072 - 8,192) = 59,105.1
    assert kv_overtakes_weights(roofline, 131_071) == 1


@pytest.mark.parametrize("model", ["mixtral-8x7b", "gemma-3-27b", "qwen3-next-80b-a3b", "deepseek-v3"])
@pytest.mark.parametrize("context", [100, 8_000, 100_000])
def test_one_request_less_reads_more_weights_than_cache(model, context, roofline_of):
    roofline = roofline_of(model, "h200-sxm", tensor=2)
    found = kv_overtakes_weights(roofline, context)
    assert found is not None
    for batch, passed in ((found, True), (found - 1, False)):
        if batch:
            work = roofline.work(roofline.decode(batch, context))
            assert (work.kv_read_bytes > work.weight_bytes) == passed
