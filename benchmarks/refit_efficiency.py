"""Refit the constants of kvplan/hardware/efficiency.py and gpus/*.yaml to published kernel timings.

    pip download --no-deps aiconfigurator-core==0.12.0
    python benchmarks/refit_efficiency.py aiconfigurator_core-0.12.0-*.whl [--yaml]

The wheel (NVIDIA, Apache-2.0) holds Parquet tables of kernels timed alone, in replayed CUDA graphs, on idle
GPUs. Reading them takes pyarrow, which nothing else of kvplan needs. For each GPU, kind of kernel and format

    time = launch + max(bytes / (memory_share x bandwidth), FLOPs / (compute_share x dense peak))

is fitted to half of the rows, drawn at random, so that the mean of |log(fitted / measured)| is least. Errors
are those of the other half, with the constants as rounded. Datasheet figures come from gpus/*.yaml. It
prints a Markdown table, or with --yaml the blocks of the accelerator files and the pooled constants.

Which rows count, and why:

- Of one shape the fastest runtime counts (vLLM, SGLang, TensorRT-LLM): a plan is for a well-chosen kernel,
  and a runtime that is slow on a shape soon takes another's kernel for it.
- Weights and caches that fit in L2 are not read from memory when a graph is replayed. A row counts only where
  a replay goes through at least twice the L2 cache. A prompt's queries and keys do come from L2 when it is
  served, just made: of prefill attention, rows that multiplication bounds count as well.
- Tables known to be wrong are left out, each where its kind of kernel is read below.
- Pooled constants weigh each generation of GPUs the same. Their errors are the median over generations, each
  judged by constants made without it: what to expect of a GPU that nobody measured.
- The package's end-to-end measurements are for judging whole plans; they are not read.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import itertools
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from kvplan.hardware.device import Device
from kvplan.hardware.efficiency import AllReduceFit, Kernel, KernelFit, Peak
from kvplan.hardware.peak import has_peak, peak_flops_per_s
from kvplan.specs.catalog import Found, load_gpu
from kvplan.units import MIB

SOURCE = "aiconfigurator-core 0.12.0 (PyPI): python benchmarks/refit_efficiency.py WHEEL --yaml"
TABLES = "aiconfigurator_core/systems/data"
FEWEST_ROWS = 100
MOST_ROWS = 6_000  # of one fit: more change no digit


@dataclass(frozen=True)
class Measured:
    """A GPU of the tables: its folder there, our name, the generation, and its link if only PCIe joins it."""

    folder: str
    name: str
    generation: str
    pcie_gb_per_s: float = 0.0

    def device(self) -> Device:
        """Return the accelerator file's facts."""
        path = Path(__file__).parents[1] / "gpus" / f"{self.name}.yaml"
        return load_gpu(Found(path.name, path))


GPUS = (
    Measured("a100_sxm", "a100-sxm-80gb", "Ampere"),
    Measured("l40s", "l40s", "Ada", pcie_gb_per_s=32),
    Measured("h100_sxm", "h100-sxm", "Hopper"),
    Measured("h200_sxm", "h200-sxm", "Hopper"),
    Measured("b200_sxm", "b200-sxm", "Blackwell"),
    Measured("b300_sxm", "b300-sxm", "Blackwell"),
    Measured("gb200", "gb200", "Blackwell"),
    Measured("gb300", "gb300", "Blackwell"),
    Measured("rtx_pro_6000_server", "rtx-pro-6000-server", "Blackwell RTX", pcie_gb_per_s=64),
)


# ------------------------------------------------------------------ the fit


@dataclass(frozen=True)
class Samples:
    """Measured calls, and what each would take at the datasheet's rates, in microseconds.

    ``prompt_tokens`` is the length that prefill attention's ramp is compared with; 1 elsewhere.
    """

    memory_us: np.ndarray
    compute_us: np.ndarray
    measured_us: np.ndarray
    prompt_tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.measured_us)

    def at(self, index: np.ndarray) -> Samples:
        """Return some of them."""
        return Samples(*(getattr(self, field.name)[index] for field in fields(self)))

    def bound_us(self) -> np.ndarray:
        """Return the pure roofline."""
        return np.maximum(self.memory_us, self.compute_us)


def joined(parts: list[Samples]) -> Samples:
    """Return samples one after another."""
    return Samples(
        *(np.concatenate([getattr(p, field.name) for p in parts] or [[]]) for field in fields(Samples))
    )


@dataclass(frozen=True)
class Constants:
    """What is fitted; a share's limit is 1 but for links, which a switch that adds up can beat."""

    launch_us: float
    memory_share: float
    compute_share: float
    ramp_tokens: float = 0.0

    def time_us(self, samples: Samples) -> np.ndarray:
        """Return the time of each call."""
        compute = samples.compute_us * (1 + self.ramp_tokens / samples.prompt_tokens)
        return self.launch_us + np.maximum(
            samples.memory_us / self.memory_share, compute / self.compute_share
        )

    def rounded(self) -> Constants:
        """Return them with the digits that the data support."""
        launch = round(self.launch_us, 1 if self.launch_us < 10 else 0)
        memory, compute = (max(0.01, round(share, 2)) for share in (self.memory_share, self.compute_share))
        return Constants(launch, memory, compute, round(self.ramp_tokens, -1))


LEAST = Constants(2.0, 0.001, 0.001, 1.0)  # an empty kernel in a replayed graph takes about 2 us
MOST = Constants(2_000.0, 1.0, 1.0, 10_000.0)
STARTS = tuple(Constants(*start, 500.0) for start in itertools.product((4, 30), (0.3, 0.8), (0.3, 0.6)))


def fit(samples: Samples, ramp: bool = False, least: Constants = LEAST, most: Constants = MOST) -> Constants:
    """Return the constants with the least mean of ``|log(time / measured)|``, from several starts."""
    count = 4 if ramp else 3
    low, high = (np.log(_vector(limit)[:count]) for limit in (least, most))
    log_measured = np.log(samples.measured_us)

    def loss(point: np.ndarray) -> float:
        return float(np.abs(np.log(Constants(*np.exp(point)).time_us(samples)) - log_measured).mean())

    ends = [_descend(loss, np.log(_vector(start)[:count]), low, high) for start in STARTS]
    return Constants(*(float(c) for c in np.exp(min(ends, key=loss))))


def _vector(constants: Constants) -> np.ndarray:
    return np.array([getattr(constants, field.name) for field in fields(constants)])


def _descend(
    loss: Callable[[np.ndarray], float], start: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Return where steps along every axis and diagonal, halved when none helps, come to rest."""
    directions = [np.array(d) for d in itertools.product((-1, 0, 1), repeat=len(start)) if any(d)]
    at, step = np.clip(start, low, high), 0.5
    least = loss(at)
    while step > 1e-3:
        tried = [np.clip(at + step * direction, low, high) for direction in directions]
        losses = [loss(point) for point in tried]
        if min(losses) < least:
            least, at = min(losses), tried[int(np.argmin(losses))]
        else:
            step /= 2
    return at


def halves(samples: Samples) -> tuple[Samples, Samples]:
    """Return two halves, drawn at random but the same each time; the first, to fit, of at most MOST_ROWS."""
    order = np.random.default_rng(0).permutation(len(samples))
    middle = len(order) // 2
    return samples.at(order[:middle][:MOST_ROWS]), samples.at(order[middle:])


def errors(time_us: np.ndarray, measured_us: np.ndarray) -> tuple[float, float]:
    """Return the median and the 90th percentile of ``|time / measured - 1|``."""
    found = np.abs(time_us / measured_us - 1)
    return float(np.median(found)), float(np.quantile(found, 0.9))


# ------------------------------------------------------------------ the tables


@dataclass(frozen=True)
class Table:
    """One Parquet table's rows of one format, as columns of numbers."""

    folder: str
    runtime: str
    version: str
    columns: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.columns["latency"])

    def key(self, names: tuple[str, ...]) -> np.ndarray:
        """Return these columns side by side; one that the table lacks is 0."""
        return np.stack([self.columns.get(name, np.zeros(len(self))) for name in names], axis=1)


class Wheel:
    """The tables in the package's wheel."""

    def __init__(self, path: Path) -> None:
        self.archive = zipfile.ZipFile(path)

    def tables(self, folder: str, pattern: str, labels: dict[str, str]) -> Iterator[Table]:
        """Iterate over a GPU's tables of a kind, with the rows whose labels match whole expressions."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        for path in sorted(fnmatch.filter(self.archive.namelist(), f"{TABLES}/{folder}/{pattern}.parquet")):
            rows = pq.read_table(io.BytesIO(self.archive.read(path)))
            for column in labels.keys() & set(rows.column_names):
                known = {text for text in rows[column].unique().to_pylist() if text is not None}
                wanted = [text for text in known if re.fullmatch(labels[column], text)]
                rows = rows.filter(pc.is_in(rows[column], pc.pa.array(wanted, pc.pa.string())))
            numbers = [name for name in rows.column_names if name in NUMBERS]
            columns = {name: pc.cast(rows[name], "float64").to_numpy() for name in numbers}
            yield Table(folder, *path.split("/")[-3:-1], columns)


NUMBERS = frozenset(
    "latency m n k batch_size num_heads num_key_value_heads head_dim isl step window_size num_tokens "
    "hidden_size inter_size topk num_experts moe_tp_size moe_ep_size num_gpus message_size".split()
)


# ------------------------------------------------------------------ the kinds of kernel


@dataclass(frozen=True)
class Format:
    """A number format: its labels in the tables, bytes of an element, and the rate it is multiplied at.

    Generations are those whose servers run it that way; all where none is named.
    """

    name: str
    labels: dict[str, str]
    element_bytes: float
    peak: Peak
    generations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """What calls read, write and multiply, the bytes that a replay goes through, and which rows to use."""

    bytes: np.ndarray
    flops: np.ndarray
    replayed_bytes: np.ndarray
    usable: np.ndarray | bool = True


@dataclass(frozen=True)
class Family:
    """A kind of kernel: where its tables are, what names a shape in them, and the work of a call."""

    kernel: Kernel
    pattern: str
    shape: tuple[str, ...]
    work: Callable[[Table, Format, Device], Work]
    formats: tuple[Format, ...]

    @property
    def ramp(self) -> bool:
        """Whether its efficiency grows with the prompt."""
        return self.kernel is Kernel.PREFILL_ATTENTION


def gemm_work(table: Table, format: Format, device: Device) -> Work:
    """A weight of n x k read once; m inputs and outputs in 16 bits.

    Runtimes time copies of a weight in turn: SGLang and vLLM six, vLLM's nvfp4 one, TensorRT-LLM 1.0 five,
    later ones what fills L2 but at most five. Left out: vLLM's fp8-block rows, which ran without graphs, and
    SGLang 0.5.6, whose weights stayed in L2.
    """
    m, n, k = table["m"], table["n"], table["k"]
    weight = n * k * format.element_bytes
    copies: float | np.ndarray = 6
    if table.runtime == "trtllm":
        copies = 5 if table.version == "1.0.0" else np.clip(np.ceil(l2_bytes(device) / weight), 1, 5)
    elif (table.runtime, format.name) == ("vllm", "nvfp4"):
        copies = 1
    wrong = table.version == "0.5.6.post2" or (table.runtime, format.name) == ("vllm", "fp8-block")
    return Work(weight + 2 * m * (n + k), 2 * m * n * k, copies * weight, not wrong)


def decode_work(table: Table, format: Format, device: Device) -> Work:
    """Every cached key and value read once; queries and results in 16 bits.

    Full attention with heads of 128. Left out: TensorRT-LLM 1.0 on A100, which had keys only.
    """
    batch, heads, dim = table["batch_size"], table["num_heads"], table["head_dim"]
    tokens = table["isl"] + table["step"]
    cache = 2 * batch * tokens * table["num_key_value_heads"] * dim * format.element_bytes
    wrong = (table.folder, table.runtime) == ("a100_sxm", "trtllm")
    return Work(
        cache + 4 * batch * heads * dim,
        4 * batch * heads * tokens * dim,
        cache,
        full_attention(table) & (not wrong),
    )


def prefill_work(table: Table, format: Format, device: Device) -> Work:
    """The causal triangle; queries, keys and values read once in their format, results written in 16 bits.

    Full attention with heads of 128.
    """
    batch, heads, dim, tokens = table["batch_size"], table["num_heads"], table["head_dim"], table["isl"]
    read = (heads + 2 * table["num_key_value_heads"]) * format.element_bytes
    moved = batch * tokens * dim * (read + 2 * heads)
    return Work(moved, 2 * batch * heads * tokens * (tokens + 1) * dim, moved, full_attention(table))


def full_attention(table: Table) -> np.ndarray:
    """Return which rows have no window, and heads of 128."""
    return (table["head_dim"] == 128) & (table.key(("window_size",))[:, 0] == 0)


def latent_work(table: Table, format: Format, device: Device) -> Work:
    """Latents of 512 and keys of 64 read once for all heads; queries and results in 16 bits.

    Left out: SGLang's fp8 latents on Hopper, which another kernel unpacks to bf16 first.
    """
    batch, heads, tokens = table["batch_size"], table["num_heads"], table["isl"] + table["step"]
    cache = batch * tokens * (512 + 64) * format.element_bytes
    flops = 2 * batch * heads * tokens * (576 + 512)
    hopper = table.folder in ("h100_sxm", "h200_sxm")
    wrong = hopper and (table.runtime, format.name) == ("sglang", "fp8")
    return Work(cache + 2 * batch * heads * (576 + 512), flops, cache, not wrong)


def experts_work(table: Table, format: Format, device: Device) -> Work:
    """Three matrices of each expert that some token picked, no two picks the same while there are others.

    All experts on one GPU, with gates: Nemotron's have none, and are told by their shapes. Left out: vLLM
    0.19's int4, whose kernel reached less than a third of what 0.24's does.
    """
    tokens, hidden, inner = table["num_tokens"], table["hidden_size"], table["inter_size"]
    picks = tokens * table["topk"]
    one = 3 * hidden * inner / table["moe_tp_size"]
    weights = np.minimum(table["num_experts"], picks) * one * format.element_bytes
    gated = (table["topk"] != 22) & ~((hidden == 2688) & (inner == 1856))
    wrong = (table.runtime, table.version, format.name) == ("vllm", "0.19.0", "int4")
    usable = gated & (table["moe_ep_size"] == 1) & (not wrong)
    return Work(weights + 4 * tokens * hidden, 2 * picks * one, weights, usable)


def l2_bytes(device: Device) -> float:
    """Return the size of the L2 cache; vendors write MB for MiB."""
    assert device.l2_mb is not None
    return device.l2_mb * MIB


_16 = "bfloat16|float16"
_SIXTEEN_BIT_MXFP4 = ("Ampere", "Ada", "Hopper", "Blackwell RTX")
# TensorRT-LLM's "min_latency" kernels beat the roofline three times over: they did other work.
_MOE = {"distribution": "balanced", "kernel_source": "(?!.*(min_latency|nongated)).*"}
FAMILIES = (
    Family(
        Kernel.GEMM,
        "gemm/*/*/gemm_perf",
        ("m", "n", "k"),
        gemm_work,
        (
            Format("bf16", {"gemm_dtype": _16}, 2, Peak.BF16),
            Format("fp8", {"gemm_dtype": "fp8"}, 1, Peak.FP8),
            Format("fp8-block", {"gemm_dtype": "fp8_block"}, 1 + 4 / 128**2, Peak.FP8),
            Format("nvfp4", {"gemm_dtype": "nvfp4"}, 9 / 16, Peak.FP4),
            Format("int8", {"gemm_dtype": "sq"}, 1, Peak.INT8),
            Format("w8a16", {"gemm_dtype": "int8_wo"}, 1, Peak.BF16),
            Format("int4", {"gemm_dtype": "int4_wo"}, 1 / 2, Peak.BF16),
        ),
    ),
    Family(
        Kernel.DECODE_ATTENTION,
        "attention/*/*/generation_attention_perf",
        ("batch_size", "num_heads", "num_key_value_heads", "isl", "step"),
        decode_work,
        (
            Format("bf16", {"kv_cache_dtype": _16}, 2, Peak.BF16),
            Format("fp8", {"kv_cache_dtype": "fp8"}, 1, Peak.BF16),
        ),
    ),
    Family(
        Kernel.PREFILL_ATTENTION,
        "attention/*/*/context_attention_perf",
        ("batch_size", "num_heads", "num_key_value_heads", "isl"),
        prefill_work,
        (
            Format("bf16", {"attn_dtype": _16, "kv_cache_dtype": _16}, 2, Peak.BF16),
            Format("fp8", {"kv_cache_dtype": "fp8"}, 1, Peak.FP8),
        ),
    ),
    Family(
        Kernel.LATENT_ATTENTION,
        "mla/*/*/generation_mla_perf",
        ("batch_size", "num_heads", "isl", "step"),
        latent_work,
        (
            Format("bf16", {"kv_cache_dtype": _16}, 2, Peak.BF16),
            Format("fp8", {"kv_cache_dtype": "fp8"}, 1, Peak.FP8),
        ),
    ),
    Family(
        Kernel.EXPERTS,
        "moe/*/*/moe_perf",
        ("hidden_size", "inter_size", "topk", "num_experts", "num_tokens", "moe_tp_size"),
        experts_work,
        (
            Format("bf16", {"moe_dtype": _16, **_MOE}, 2, Peak.BF16),
            Format("fp8", {"moe_dtype": "fp8", **_MOE}, 1, Peak.FP8),
            Format("fp8-block", {"moe_dtype": "fp8_block", **_MOE}, 1 + 4 / 128**2, Peak.FP8),
            Format("nvfp4", {"moe_dtype": "nvfp4", **_MOE}, 9 / 16, Peak.FP4),
            # vLLM and TensorRT-LLM multiply gpt-oss in FP8 on Blackwell servers, in 16 bits elsewhere.
            Format("mxfp4", {"moe_dtype": "w4a16_mxfp4", **_MOE}, 17 / 32, Peak.BF16, _SIXTEEN_BIT_MXFP4),
            Format("mxfp4", {"moe_dtype": "w4a8_mxfp4_mxfp8", **_MOE}, 17 / 32, Peak.FP8, ("Blackwell",)),
            Format("int4", {"moe_dtype": "int4_wo", **_MOE}, 1 / 2 + 2 / 128, Peak.BF16),
        ),
    ),
)
# These run a fallback that was not written for them, which says nothing of another GPU.
NOT_POOLED = {
    ("Ada", Kernel.GEMM, "fp8-block"),
    *(
        (generation, Kernel.LATENT_ATTENTION, stored)
        for generation in ("Ampere", "Ada", "Blackwell RTX")
        for stored in ("bf16", "fp8")
    ),
}


def samples_of(wheel: Wheel, gpu: Measured, family: Family, format: Format) -> Samples:
    """Return a GPU's usable rows: of each shape the fastest."""
    device = gpu.device()
    rate = (format.peak.value,)
    keys, parts = [], []
    for table in wheel.tables(gpu.folder, family.pattern, format.labels) if has_peak(device, rate) else ():
        work, key = family.work(table, format, device), table.key(family.shape)
        memory_us = work.bytes / device.memory.bandwidth_gb_per_s / 1e3
        lengths = table["isl"] if family.ramp else np.ones(len(table))
        compute_us = work.flops / peak_flops_per_s(device, rate) * 1e6
        samples = Samples(memory_us, compute_us, table["latency"] * 1e3, lengths)
        cold = work.replayed_bytes >= 2 * l2_bytes(device)
        keep = work.usable & (cold | family.ramp & (samples.compute_us > samples.memory_us))
        if family.kernel is Kernel.EXPERTS:
            keep &= routed_as_counted(samples, key, keep)
        keys.append(key[keep])
        parts.append(samples.at(keep))
    return fastest(keys, parts)


def routed_as_counted(samples: Samples, key: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Return which rows are of models none of whose kept rows beats the roofline.

    Others picked fewer experts than we count: DeepSeek's router limits groups, and equal scores may tie.
    """
    models, which = np.unique(key[:, :4], axis=0, return_inverse=True)
    beats = keep & (samples.bound_us() > samples.measured_us)
    return np.bincount(which.ravel(), beats, len(models))[which.ravel()] == 0


def fastest(keys: list[np.ndarray], parts: list[Samples]) -> Samples:
    """Return of each key the sample that took least."""
    together = joined(parts)
    if not len(together):
        return together
    order = np.argsort(together.measured_us, kind="stable")
    _, first = np.unique(np.concatenate(keys)[order], axis=0, return_index=True)
    return together.at(order[first])


def all_reduce_samples(wheel: Wheel, gpu: Measured) -> dict[int, Samples]:
    """Return for each number of ranks the fastest sum of each size; ``memory_us`` is a ring's, at link rate.

    Left out: calls outside graphs, and SGLang 0.5.12 on L40S: another machine, up to ten times as fast.
    """
    link_gb_per_s = gpu.device().interconnect.link_gb_per_s_per_direction or gpu.pcie_gb_per_s
    labels = {"kernel_source": "(?!.*eager).*", "op_name": "all_reduce", "nccl_dtype": "half"}
    keys, parts = [], []
    for table in itertools.chain(
        wheel.tables(gpu.folder, "comm/*/*/custom_allreduce_perf", labels),
        wheel.tables(gpu.folder, "comm/*/*/nccl_perf", labels),
    ):
        if (table.folder, table.version) == ("l40s", "0.5.12"):
            continue
        ranks, sent = table["num_gpus"], 2 * table["message_size"]  # counted in 16-bit elements
        memory_us = 2 * (ranks - 1) / ranks * sent / link_gb_per_s / 1e3
        keys.append(table.key(("num_gpus", "message_size")))
        parts.append(Samples(memory_us, np.zeros(len(table)), table["latency"] * 1e3, ranks))
    found = fastest(keys, parts)
    return {int(n): found.at(found.prompt_tokens == n) for n in np.unique(found.prompt_tokens)}


# ------------------------------------------------------------------ results


@dataclass(frozen=True)
class Result:
    """A fit, and beside it what the pure roofline would have missed by."""

    gpu: str
    fit: KernelFit
    rows: int
    roofline_error: float
    beaten: int

    def markdown(self) -> str:
        """Return its row of the table."""
        f = self.fit
        assert f.median_error is not None
        assert f.p90_error is not None
        return (
            f"| {self.gpu} | {f.kernel.value} | {f.format} | {f.launch_us:g} | {f.memory_share:.2f} | "
            f"{f.compute_share:.2f} of {f.peak.value} | {f.ramp_tokens:g} | {self.rows:,} | {self.beaten} | "
            f"{self.roofline_error:.0%} | {f.median_error:.1%} | {f.p90_error:.0%} |"
        )

    def yaml(self) -> str:
        """Return its entry in an accelerator file."""
        f = self.fit
        ramp = f"ramp_tokens: {f.ramp_tokens:g}, " if f.ramp_tokens else ""
        return (
            f"  - {{kernel: {f.kernel.value}, format: {f.format}, launch_us: {f.launch_us:g}, "
            f"memory_share: {f.memory_share:g}, compute_share: {f.compute_share:g}, peak: {f.peak.value},\n"
            f"     {ramp}median_error: {f.median_error:g}, p90_error: {f.p90_error:g},\n"
            f'     source: "{f.source}"}}'
        )

    def python(self) -> str:
        """Return its entry in ``UNIVERSAL``."""
        f = self.fit
        ramp = f", ramp_tokens={f.ramp_tokens:g}" if f.ramp_tokens else ""
        return (
            f'    KernelFit(Kernel.{f.kernel.name}, "{f.format}", {f.launch_us:g}, {f.memory_share:g}, '
            f"{f.compute_share:g}, _POOLED, {f.median_error:g}{ramp}, peak=Peak.{f.peak.name}, "
            f"p90_error={f.p90_error:g}),"
        )


MARKDOWN_HEAD = (
    "| GPU | kernel | format | launch us | memory share | compute share | ramp tokens | rows | "
    "rows faster than the roofline | roofline median error | median error | p90 error |\n" + "|---" * 12 + "|"
)


def result(gpu: str, family: Family, format: Format, constants: Constants, judges: Samples) -> Result:
    """Return constants with their errors on samples."""
    median, p90 = errors(constants.time_us(judges), judges.measured_us)
    found = KernelFit(
        family.kernel,
        format.name,
        constants.launch_us,
        constants.memory_share,
        constants.compute_share,
        SOURCE,
        round(median, 3),
        constants.ramp_tokens,
        format.peak,
        round(p90, 2),
    )
    return Result(gpu, found, len(judges), errors(judges.bound_us(), judges.measured_us)[0], 0)


def beaten(samples: Samples) -> int:
    """Return how many samples took less than the roofline allows."""
    return int((samples.bound_us() > samples.measured_us).sum())


def own(gpu: str, family: Family, format: Format, samples: Samples) -> Result:
    """Return what half of the samples say, judged by the other half."""
    half, other = halves(samples)
    found = result(gpu, family, format, fit(half, family.ramp).rounded(), other)
    return replace(found, rows=len(samples), beaten=beaten(samples))


def pooled(family: Family, format: Format, generations: dict[str, Samples]) -> Result:
    """Return what all generations together say, each judged by constants made without it."""
    if len(generations) == 1:
        return own("pooled", family, format, *generations.values())
    each = min(MOST_ROWS // 4, *map(len, generations.values()))
    draw = np.random.default_rng(0)
    parts = {name: s.at(draw.permutation(len(s))[:each]) for name, s in generations.items()}
    judged = [
        result(name, family, format, _fit_all(parts, family, without=name), samples)
        for name, samples in generations.items()
    ]
    everything = joined(list(generations.values()))
    found = result("pooled", family, format, _fit_all(parts, family), everything)
    stated = replace(
        found.fit,
        median_error=round(float(np.median([one.fit.median_error for one in judged])), 3),
        p90_error=round(float(np.median([one.fit.p90_error for one in judged])), 2),
    )
    return replace(found, fit=stated, beaten=beaten(everything))


def _fit_all(parts: dict[str, Samples], family: Family, without: str = "") -> Constants:
    return fit(joined([part for name, part in parts.items() if name != without]), family.ramp).rounded()


def kernel_results(wheel: Wheel, family: Family, format: Format) -> Iterator[Result]:
    """Iterate over every GPU's fit of a format, and the pooled one unless a single generation runs it."""
    pool: dict[str, list[Samples]] = {}
    for gpu in GPUS:
        if format.generations and gpu.generation not in format.generations:
            continue
        samples = samples_of(wheel, gpu, family, format)
        if len(samples) < FEWEST_ROWS:
            continue
        yield own(gpu.name, family, format, samples)
        if (gpu.generation, family.kernel, format.name) not in NOT_POOLED:
            pool.setdefault(gpu.generation, []).append(samples)
    if pool and len(format.generations) != 1:
        yield pooled(family, format, {name: joined(parts) for name, parts in pool.items()})


LEAST_LINK, MOST_LINK = Constants(1.0, 0.001, 1.0), Constants(2_000.0, 4.0, 1.0)


def all_reduce_result(ranks: int, samples: Samples) -> AllReduceFit:
    """Return the fit of a sum over ranks."""
    half, other = halves(samples)
    found = fit(half, least=LEAST_LINK, most=MOST_LINK).rounded()
    median, _ = errors(found.time_us(other), other.measured_us)
    return AllReduceFit(ranks, found.launch_us, found.memory_share, SOURCE, round(median, 3))


def all_reduce_results(wheel: Wheel) -> Iterator[tuple[str, AllReduceFit]]:
    """Iterate over every GPU's fits, then those of all that a link joins, and of all on PCIe."""
    pools: dict[tuple[str, int], list[Samples]] = {}
    for gpu in GPUS:
        for ranks, samples in all_reduce_samples(wheel, gpu).items():
            yield gpu.name, all_reduce_result(ranks, samples)
            pools.setdefault(("pooled PCIe" if gpu.pcie_gb_per_s else "pooled link", ranks), []).append(
                samples
            )
    for (name, ranks), parts in sorted(pools.items()):
        if len(parts) > 1:
            yield name, all_reduce_result(ranks, joined(parts))


def all_reduce_yaml(found: AllReduceFit) -> str:
    """Return an entry in an accelerator file."""
    return (
        f"  - {{ranks: {found.ranks}, launch_us: {found.launch_us:g}, link_share: {found.link_share:g}, "
        f'median_error: {found.median_error:g},\n     source: "{found.source}"}}'
    )


# ------------------------------------------------------------------ what is printed


def print_markdown(kernels: list[Result], sums: list[tuple[str, AllReduceFit]]) -> None:
    """Print two tables: kernels, and all-reduces."""
    print(MARKDOWN_HEAD)
    for one in kernels:
        print(one.markdown())
    print("\n| GPU | ranks | launch us | link share | median error |\n" + "|---" * 5 + "|")
    for name, one in sums:
        error = f"{one.median_error:.1%}"
        print(f"| {name} | {one.ranks} | {one.launch_us:g} | {one.link_share:.2f} | {error} |")


def print_yaml(kernels: list[Result], sums: list[tuple[str, AllReduceFit]]) -> None:
    """Print the blocks of each accelerator file, and behind them the pooled constants, as Python."""
    for gpu in GPUS:
        print(f"# {gpu.name}.yaml\nefficiency:")
        print("\n".join(one.yaml() for one in kernels if one.gpu == gpu.name))
        print("all_reduce:")
        print("\n".join(all_reduce_yaml(one) for name, one in sums if name == gpu.name))
    print("# pooled")
    print("\n".join(one.python() for one in kernels if one.gpu == "pooled"))
    for name, one in sums:
        if name.startswith("pooled"):
            constants = f"{one.ranks}, {one.launch_us:g}, {one.link_share:g}, _POOLED, {one.median_error:g}"
            print(f"    AllReduceFit({constants}),  # {name}")


def main() -> None:
    """Read the wheel, fit, print."""
    parser = argparse.ArgumentParser(description="refit kernel efficiency to published timings")
    parser.add_argument("wheel", type=Path, help="aiconfigurator_core-0.12.0-*.whl")
    parser.add_argument("--yaml", action="store_true", help="print the blocks of gpus/*.yaml")
    arguments = parser.parse_args()
    wheel = Wheel(arguments.wheel)
    pairs = [(family, stored) for family in FAMILIES for stored in family.formats]
    kernels = [found for family, stored in pairs for found in kernel_results(wheel, family, stored)]
    sums = list(all_reduce_results(wheel))
    (print_yaml if arguments.yaml else print_markdown)(kernels, sums)


if __name__ == "__main__":
    main()
