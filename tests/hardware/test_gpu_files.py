"""The bundled accelerators: facts with sources, dense peaks, memory as a driver reports it."""

import pytest

GIB, MIB = 1 << 30, 1 << 20

# Dense FP8 is twice dense BF16 where a chip has both, but for these. Gaudi 3 runs both at one rate; TPU v6e
# has no FP8 of its own; NVIDIA's L40S datasheet says 362.05 and 733; the rest is rounding in datasheets.
OTHER_FP8_RATES = {"gaudi3": 1.0, "tpu-v6e": 1.0, "l40s": 733 / 362.05}


def test_enough_of_them(gpu):
    from kvplan.specs.catalog import bundled_folder

    names = sorted(path.stem for path in (bundled_folder() / "gpus").glob("*.yaml"))
    assert len(names) >= 30
    assert sum(gpu(name).memory.driver_mib is not None for name in names) >= 30
    assert {gpu(name).vendor for name in names} == {"nvidia", "amd", "google", "intel"}


def test_name_and_source(gpu_name, gpu):
    device = gpu(gpu_name)
    assert device.name == gpu_name
    assert len(device.source) > 10
    assert device.confidence in {"high", "medium"}
    if device.price_per_hour is not None:
        assert device.price_per_hour.source
        assert 0 < device.price_per_hour.low_usd <= device.price_per_hour.high_usd


def test_driver_memory_is_a_little_below_what_is_sold(gpu_name, gpu):
    """A board sold with 80 GB carries 80 GiB or a little less, and the driver keeps some of it."""
    memory = gpu(gpu_name).memory
    if memory.driver_mib is None:
        assert memory.driver_source == ""
        assert gpu(gpu_name).memory_bytes == memory.sold_gb * 10**9
        return
    assert memory.driver_source
    assert gpu(gpu_name).memory_bytes == memory.driver_mib * MIB
    assert 0.85 * memory.sold_gb * GIB <= memory.driver_mib * MIB <= memory.sold_gb * GIB
    if memory.torch_gib is not None:
        # What is left for torch is less again, but not by a twentieth.
        assert 0.95 * memory.driver_mib * MIB <= memory.torch_gib * GIB <= 1.001 * memory.driver_mib * MIB


def test_fp8_is_twice_bf16(gpu_name, gpu):
    peaks = gpu(gpu_name).peak_dense
    if peaks.fp8_tflops is None or peaks.bf16_tflops is None:
        assert gpu_name not in OTHER_FP8_RATES
        return
    expected = OTHER_FP8_RATES.get(gpu_name, 2.0)
    assert peaks.fp8_tflops / peaks.bf16_tflops == pytest.approx(expected, rel=0.003)


@pytest.mark.parametrize(
    ("name", "bf16", "fp8", "with_sparsity"),
    [
        ("h100-sxm", 989.4, 1_978.9, 3_958),
        ("h200-sxm", 989.4, 1_978.9, 3_958),
        ("h100-pcie", 756.5, 1_513, 3_026),
        ("a100-sxm-80gb", 312, None, 624),
        ("l4", 121, 242.5, 485),
        ("mi300x", 1_307.4, 2_614.9, 5_229.8),
        ("rtx4090", 165.2, 330.3, 660.6),
        ("b200-sxm", 2_250, 4_500, 9_000),
    ],
)
def test_peaks_are_dense(name, bf16, fp8, with_sparsity, gpu):
    peaks = gpu(name).peak_dense
    assert (peaks.bf16_tflops, peaks.fp8_tflops) == (bf16, fp8)
    assert with_sparsity not in (peaks.bf16_tflops, peaks.fp16_tflops, peaks.fp8_tflops)


@pytest.mark.parametrize(
    ("name", "mib"),
    [
        ("h100-sxm", 81_559),
        ("a100-sxm-80gb", 81_920),
        ("a100-sxm-40gb", 40_960),
        ("rtx4090", 24_564),
        ("rtx3090", 24_576),
        ("t4", 15_360),
        ("h200-sxm", 143_771),
        ("l40s", 46_068),
    ],
)
def test_what_nvidia_smi_prints(name, mib, gpu):
    assert gpu(name).memory.driver_mib == mib


def test_bandwidth(gpu):
    # GB/s: HBM3 5 x 1,024 bit, GDDR6X 384 bit at 21 Gbit/s = 1,008, HBM2e of the A100 80 GB 2,039.
    assert gpu("h100-sxm").memory.bandwidth_gb_per_s == 3_350
    assert gpu("rtx4090").memory.bandwidth_gb_per_s == 1_008
    assert gpu("a100-sxm-80gb").memory.bandwidth_gb_per_s == 2_039
    assert gpu("t4").memory.bandwidth_gb_per_s == 320
