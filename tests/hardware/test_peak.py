"""The rate of products by what their operands are stored in."""

from dataclasses import replace

import pytest

from kvplan.errors import UsageError
from kvplan.hardware.device import DensePeaks
from kvplan.hardware.peak import has_peak, peak_flops_per_s, peak_format
from kvplan.storage import KV_FORMATS, WEIGHT_FORMATS, kv_format, weight_format


@pytest.mark.parametrize(
    ("name", "storage", "format", "rate"),
    [
        ("h100-sxm", "bf16", "bf16", 989.4e12),
        ("h100-sxm", "fp8", "fp8", 1_978.9e12),
        ("h100-sxm", "fp8-block", "fp8", 1_978.9e12),
        ("h100-sxm", "int8", "int8", 1_978.9e12),
        ("h100-sxm", "int4", "bf16", 989.4e12),
        ("h100-sxm", "nvfp4", "fp8", 1_978.9e12),
        ("h100-sxm", "fp32", "tf32", 494.7e12),
        ("b200-sxm", "nvfp4", "fp4", 9_000e12),
        ("b200-sxm", "mxfp4", "fp4", 9_000e12),
        ("a100-sxm-80gb", "fp8", "bf16", 312e12),
        ("a100-sxm-80gb", "q4_k", "int8", 624e12),
        ("t4", "bf16", "fp16", 65e12),
        ("t4", "fp32", "fp32", 8.1e12),
        ("t4", "int8", "int8", 130e12),
        ("v100-sxm2-16gb", "int8", "fp16", 125e12),
        # Blackwell Ultra has 153.5 TOP/s left for integers
        ("b300-sxm", "int8", "bf16", 2_250e12),
        ("gb300", "q8_0", "bf16", 2_500e12),
        ("gaudi3", "fp8", "fp8", 1_835e12),
    ],
)
def test_the_fastest_unit_that_multiplies_a_format(name, storage, format, rate, gpu):
    formats = weight_format(storage).multiplied_in
    assert peak_format(gpu(name), formats) == format
    assert peak_flops_per_s(gpu(name), formats) == pytest.approx(rate, rel=1e-12)
    assert has_peak(gpu(name), formats)


def test_attention_over_bytes_may_run_in_bytes(gpu):
    assert peak_format(gpu("h100-sxm"), kv_format("fp8").multiplied_in) == "fp8"
    assert peak_format(gpu("h100-sxm"), kv_format("int8").multiplied_in) == "bf16"
    assert peak_format(gpu("a100-sxm-80gb"), kv_format("fp8").multiplied_in) == "bf16"


def test_smaller_numbers_are_never_slower(gpu_name, gpu):
    device = gpu(gpu_name)
    plain = peak_flops_per_s(device, ("bf16", "fp16"))
    for stored in (*WEIGHT_FORMATS, *KV_FORMATS):
        if stored.name != "fp32":
            assert peak_flops_per_s(device, stored.multiplied_in) >= plain


def test_a_unit_that_is_not_there_is_refused(gpu):
    v5e = gpu("tpu-v5e")
    assert not has_peak(v5e, ("tf32", "fp32"))
    with pytest.raises(UsageError) as refused:
        peak_flops_per_s(v5e, ("tf32", "fp32"))
    assert str(refused.value) == "tpu-v5e has no matrix unit for tf32, fp32: its speed cannot be told"
    assert refused.value.hint == "another GPU, or a peak in its file"


def test_equal_rates_keep_the_order(gpu):
    device = replace(gpu("h100-sxm"), peak_dense=DensePeaks(bf16_tflops=100, fp16_tflops=100, fp8_tflops=100))
    assert peak_format(device, ("fp8", "bf16", "fp16")) == "fp8"
