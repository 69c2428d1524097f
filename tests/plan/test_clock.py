"""Times of operators on an accelerator made up of round figures, and rates that are not there."""

from dataclasses import replace

import pytest

from kvplan.arch.work import decode_step, prefill_step
from kvplan.errors import UsageError
from kvplan.hardware.device import DensePeaks, Device, Interconnect, Memory
from kvplan.hardware.efficiency import AllReduceFit, Kernel, KernelFit, Peak
from kvplan.plan.step_time import Limit, Times

# 1 TB/s, 100 TFLOP/s in 16 bits and 200 in FP8, a link of 100 GB/s; every kernel starts in 10 us, moves at
# half the bandwidth and multiplies at a quarter of the peak.
KINDS = (
    (Kernel.GEMM, "bf16", Peak.BF16, 0.0),
    (Kernel.GEMM, "fp8", Peak.FP8, 0.0),
    (Kernel.DECODE_ATTENTION, "bf16", Peak.BF16, 0.0),
    (Kernel.PREFILL_ATTENTION, "bf16", Peak.BF16, 500.0),
    (Kernel.EXPERTS, "bf16", Peak.BF16, 0.0),
)
ROUND = Device(
    name="round",
    label="Round figures",
    vendor="nvidia",
    architecture="none",
    source="a test",
    memory=Memory("HBM", 1_000, 1_000.0),
    peak_dense=DensePeaks(bf16_tflops=100.0, fp8_tflops=200.0),
    interconnect=Interconnect(100.0),
    confidence="high",
    efficiency=tuple(
        KernelFit(kernel, name, 10.0, 0.5, 0.25, "a test", peak=peak, ramp_tokens=ramp)
        for kernel, name, peak, ramp in KINDS
    ),
    all_reduce=(AllReduceFit(2, 5.0, 0.5, "a test"),),
)


def times(roofline, *steps):
    return {timed.name: timed.times for timed in roofline.timed(*steps)}


def test_a_product_that_memory_limits(roofline_of):
    """32 output projections of 4,096 x 4,096: 1,073,741,824 bytes, and 4 x 2 x 8,192 of activations each."""
    roofline = roofline_of("llama-3.1-8b", ROUND)
    found = times(roofline, roofline.decode(4, 1))["o_proj"]
    moved = 1_073_741_824 + 32 * 4 * 2 * 8_192
    assert found.bound_s == pytest.approx(1_073_741_824 / 1e12, rel=1e-12)
    assert found.memory_s == pytest.approx(moved / 0.5e12, rel=1e-12)
    assert (found.compute_s, found.network_s) == (0, 0)
    assert found.launch_s == pytest.approx(320e-6, rel=1e-12)
    assert found.estimate_s == pytest.approx(moved / 0.5e12 + 320e-6, rel=1e-12)
    assert found.limit is Limit.MEMORY


def test_a_product_that_operations_limit(roofline_of):
    roofline = roofline_of("llama-3.1-8b", ROUND)
    found = times(roofline, roofline.decode(1_000, 1))["o_proj"]
    done = 2 * 1_000 * 32 * 4_096 * 4_096
    assert found.bound_s == pytest.approx(done / 100e12, rel=1e-12)
    assert found.compute_s == pytest.approx(done / 25e12, rel=1e-12)
    assert found.memory_s == 0
    assert found.limit is Limit.COMPUTE


def test_packed_weights_multiply_at_their_own_rate(roofline_of):
    roofline = roofline_of("llama-3.1-8b", ROUND, weights="fp8")
    found = times(roofline, roofline.decode(4_000, 1))
    done = 2 * 4_000 * 32 * 4_096 * 4_096
    assert found["o_proj"].bound_s == pytest.approx(done / 200e12, rel=1e-12)
    assert found["o_proj"].compute_s == pytest.approx(done / 50e12, rel=1e-12)
    head = 2 * 4_000 * 128_256 * 4_096
    assert found["lm_head"].bound_s == pytest.approx(head / 100e12, rel=1e-12), "the head stays in bf16"


def test_decode_attention_moves_its_cache(roofline_of):
    roofline = roofline_of("llama-3.1-8b", ROUND)
    found = times(roofline, roofline.decode(8, 9_999))["attention"]
    read = 8 * 10_000 * 131_072
    assert found.bound_s == pytest.approx(read / 1e12, rel=1e-12)
    assert found.memory_s == pytest.approx((read + 32 * 8 * 2 * 8_192) / 0.5e12, rel=1e-12)
    assert found.launch_s == pytest.approx(320e-6, rel=1e-12)


def test_prefill_attention_works_as_if_the_prompt_were_longer(roofline_of):
    roofline = roofline_of("llama-3.1-8b", ROUND)
    found = times(roofline, *roofline.prefill(1, 5_000, 1_000))["attention"]
    done = 32 * 32 * 512 * sum(range(1_001, 5_001))
    assert found.bound_s == pytest.approx(done / 100e12, rel=1e-12)
    assert found.compute_s == pytest.approx(done * (1 + 500 / 5_000) / 25e12, rel=1e-12)


def test_glue_is_bound_by_what_it_must_read_and_waits_for_launches(roofline_of):
    """12 us a layer and 300 us a step are constants for every accelerator."""
    roofline = roofline_of("llama-3.1-8b", ROUND)
    found = times(roofline, roofline.decode(2, 1))
    assert found["norms"].bound_s == pytest.approx(32 * 2 * 8_192 / 1e12, rel=1e-12)
    assert found["norms"].launch_s == pytest.approx(32 * 12e-6, rel=1e-12)
    assert found["host"] == Times(launch_s=pytest.approx(300e-6, rel=1e-12))
    assert found["embedding"].launch_s == found["kv_write"].launch_s == 0
    assert found["kv_write"].bound_s == pytest.approx(2 * 131_072 / 1e12, rel=1e-12)
    assert found["embedding"].memory_s == pytest.approx(2 * 2 * 8_192 / 0.5e12, rel=1e-12)


def test_a_sum_over_two_gpus(roofline_of):
    roofline = roofline_of("llama-3.1-8b", ROUND, tensor=2)
    found = times(roofline, roofline.decode(1, 1))["all_reduce"]
    assert found.bound_s == pytest.approx(65 * 8_192 / 100e9, rel=1e-12)
    assert found.network_s == pytest.approx(65 * 8_192 / 50e9, rel=1e-12), "2 x 1/2 of it, at half the link"
    assert found.launch_s == pytest.approx(65 * 5e-6, rel=1e-12)


def test_the_time_of_a_step_is_that_of_its_operators(roofline_of):
    roofline = roofline_of("llama-3.1-8b", ROUND, tensor=2)
    parts, whole = times(roofline, roofline.decode(9, 99)), roofline.times(roofline.decode(9, 99))
    for name in Times.__slots__:
        assert getattr(whole, name) == pytest.approx(sum(getattr(t, name) for t in parts.values()), rel=1e-12)
    done = whole.memory_s + whole.compute_s + whole.network_s + whole.launch_s
    assert whole.estimate_s == done


def test_times_scale_and_say_what_most_of_them_is():
    one = Times(1.0, 2.0, 3.0, 4.0, 5.0)
    assert one.scaled(2) == Times(2.0, 4.0, 6.0, 8.0, 10.0)
    assert one + one == one.scaled(2)
    assert one.estimate_s == 14
    assert one.limit is Limit.LATENCY
    assert Times(network_s=1.0, memory_s=0.5).limit is Limit.NETWORK


# ------------------------------------------------------------------ rates


def test_integer_weights_run_in_16_bits_where_integers_are_slower(roofline_of, gpu):
    """B300: 153.5 TOP/s in INT8, 2,250 TFLOP/s in bf16."""
    peaks = gpu("b300-sxm").peak_dense
    assert (peaks.int8_tops, peaks.bf16_tflops) == (153.5, 2_250)
    roofline = roofline_of("llama-3.1-8b", "b300-sxm", weights="int8")
    found = times(roofline, roofline.decode(50_000, 1))["o_proj"]
    assert found.bound_s == pytest.approx(2 * 50_000 * 32 * 4_096**2 / 2_250e12, rel=1e-12)
    assert found.bound_s < found.estimate_s


def test_integers_do_not_run_at_the_rate_of_a_stand_in(roofline_of):
    """There is no INT8 rate: weights are unpacked, and products reach the 81% measured for that."""
    roofline = roofline_of("llama-3.1-8b", ROUND, weights="int8")
    found = times(roofline, roofline.decode(50_000, 1))["o_proj"]
    done = 2 * 50_000 * 32 * 4_096**2
    assert found.bound_s == pytest.approx(done / 100e12, rel=1e-12)
    assert found.compute_s == pytest.approx(done / 81e12, rel=1e-12)


def test_a_gpu_without_bf16_multiplies_in_fp16(roofline_of):
    roofline = roofline_of("llama-3.1-8b", "t4")
    found = times(roofline, roofline.decode(10_000, 1))["o_proj"]
    assert found.bound_s == pytest.approx(2 * 10_000 * 32 * 4_096**2 / 65e12, rel=1e-12)


def test_single_precision_runs_at_its_own_rate(roofline_of):
    """A100: 156 TFLOP/s in TF32."""
    roofline = roofline_of("gpt2", "a100-sxm-80gb", weights="fp32", kv="fp32")
    found = times(roofline, *roofline.prefill(8, 1_000))["down_proj"]
    done = 2 * 8_000 * 12 * 4 * 768**2
    assert found.bound_s == pytest.approx(done / 156e12, rel=1e-12)
    assert found.bound_s < found.estimate_s


def test_no_matrix_unit_no_time(roofline_of):
    with pytest.raises(UsageError, match="tpu-v5e has no matrix unit for tf32, fp32") as refused:
        roofline_of("gpt2", "tpu-v5e", weights="fp32", kv="fp32")
    assert "a peak in its file" in refused.value.hint
    nothing = replace(ROUND, peak_dense=DensePeaks(fp32_tflops=10.0))
    with pytest.raises(UsageError, match="16-bit rate"):
        roofline_of("llama-3.1-8b", nothing)


def test_no_link_no_exchange(roofline_of):
    lonely = replace(ROUND, interconnect=Interconnect())
    with pytest.raises(UsageError, match="no link of round to other GPUs is known") as refused:
        roofline_of("llama-3.1-8b", lonely, tensor=2)
    assert refused.value.hint == "link_gb_per_s_per_direction in its file"
    roofline_of("llama-3.1-8b", lonely, data=2)  # replicas do not talk


def test_without_a_link_of_its_own_a_gpu_talks_over_the_hosts_bus(roofline_of):
    roofline = roofline_of(
        "llama-3.1-8b", replace(ROUND, interconnect=Interconnect(None, "Gen4 x16")), tensor=4
    )
    found = times(roofline, roofline.decode(1, 1))["all_reduce"]
    assert found.bound_s == pytest.approx(65 * 8_192 / 32e9, rel=1e-12)
    assert found.launch_s == pytest.approx(65 * 12e-6, rel=1e-12), "constants of PCIe, not of NVLink"


def test_a_step_has_the_laws_its_estimate_is_the_sum_of(roofline_of):
    roofline = roofline_of("llama-3.1-8b", ROUND, tensor=2)
    for step in (decode_step(7, 99), decode_step(5_000, 99), prefill_step(1, 3_000)):
        for operator, timing in roofline.operators:
            if operator.runs_in(step):
                whole = sum(law.at(step) for law in timing.estimated(step))
                assert timing.at(step).estimate_s == pytest.approx(whole, rel=1e-12)
