"""A runtime's own step times by hand, and its constants."""

from dataclasses import replace

import pytest

from kvplan.allocation import Paged
from kvplan.errors import UsageError
from kvplan.hardware.runtime_fits import RUNTIME_FITS, Runtime, RuntimeFit, runtime_fit
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.plan.roofline import plan_roofline
from kvplan.plan.runtime_step import decode_s, prefill_s
from kvplan.storage import kv_format, state_layout, weight_format


@pytest.fixture
def plan_of(bundled, gpu):
    def make(device="rtx4090", stages=1):
        deployment = Deployment(
            gpu(device),
            Parallelism(pipeline=stages),
            weight_format("fp16"),
            kv_format("fp16"),
            state_layout("vllm"),
            Paged(16),
            max_tokens=8_192,
        )
        return plan_roofline(bundled("llama-3.1-8b"), deployment)

    return make


def fit(**changes):
    known = {
        "runtime": Runtime.LLAMA_CPP_CUDA_2024,
        "formats": ("fp16",),
        "layer_us": 100.0,
        "memory_share": 0.5,
        "multiprocessor_gb_per_s": 100.0,
        "cache_share": 0.25,
        "reads_per_head": False,
        "compute_share": 0.2,
        "attention_share": 0.1,
        "median_error": 0.1,
        "source": "a test",
    }
    return RuntimeFit(**{**known, **changes})


def test_a_decode_step_by_hand(plan_of):
    """32 layers of 100 us, 10 GB at half of 1,008 GB/s, 1,001 tokens of cache at a quarter of it."""
    expected = 32 * 100e-6 + 10e9 / 504e9 + 1001 * 131_072 / 252e9
    assert decode_s(plan_of(), fit(), 1, 1000, 10e9) == pytest.approx(expected)


def test_multiprocessors_can_be_slower_than_memory(plan_of):
    """128 of them take in 128 GB/s at 1 GB/s each."""
    expected = 32 * 100e-6 + 10e9 / 128e9 + 1001 * 131_072 / 252e9
    assert decode_s(plan_of(), fit(multiprocessor_gb_per_s=1.0), 1, 1000, 10e9) == pytest.approx(expected)


def test_heads_that_share_keys_may_each_read_them(plan_of):
    """Llama-3.1-8B has 32 query heads for 8 pairs of keys and values: four times the bytes."""
    expected = 32 * 100e-6 + 10e9 / 504e9 + 4 * 1001 * 131_072 / 252e9
    assert decode_s(plan_of(), fit(reads_per_head=True), 1, 1000, 10e9) == pytest.approx(expected)


def test_without_a_file_the_weights_are_the_formats(plan_of):
    """All weights but the embedding, of which one row is read; norms are in 16 bits too."""
    weights = 2 * (8_030_261_248 - 128_256 * 4_096 + 4_096)
    expected = 32 * 100e-6 + weights / 504e9 + 131_072 / 252e9
    assert decode_s(plan_of(), fit(), 1, 0) == pytest.approx(expected, rel=1e-6)


def test_a_model_split_over_accelerators_is_walked_in_turn(plan_of):
    assert decode_s(plan_of(stages=4), fit(), 1, 1000) == pytest.approx(decode_s(plan_of(), fit(), 1, 1000))


def test_a_prompt_by_hand(plan_of):
    """660.6 TOPS of 8-bit integers, a fifth of it for products, a tenth for attention."""
    roofline = plan_of()
    matrices, head = 32 * 4096 * (4096 + 2 * 1024 + 4096 + 3 * 14336), 128_256 * 4096
    products = 2 * (matrices * 1024 + head)
    attention = 4 * 4096 * 32 * 1024 * 1025 / 2
    expected = products / (0.2 * 660.6e12) + attention / (0.1 * 660.6e12)
    assert prefill_s(roofline, fit(), *roofline.prefill(1, 1024)) == pytest.approx(expected)


def test_every_constant_has_its_source_and_is_found_by_its_formats():
    for known in RUNTIME_FITS:
        assert "benchmarks/refit_runtimes.py" in known.source
        assert all(runtime_fit(known.runtime, name) is known for name in known.formats)


def test_an_unfitted_format_is_refused():
    with pytest.raises(UsageError, match=r"of llama\.cpp on Metal"):
        runtime_fit(Runtime.LLAMA_CPP_METAL, "q2_k")


def test_unknown_multiprocessors_are_refused(plan_of):
    roofline = plan_of()
    device = replace(roofline.deployment.device, sm_count=None)
    unknown = replace(roofline, deployment=replace(roofline.deployment, device=device))
    with pytest.raises(UsageError, match="multiprocessors of rtx4090"):
        decode_s(unknown, fit(), 1, 0)
