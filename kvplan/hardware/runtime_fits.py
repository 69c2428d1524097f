"""How fast runtimes with kernels of their own serve one request: constants fitted to published measurements.

The constants of :mod:`kvplan.hardware.efficiency` are of vLLM's, SGLang's and TensorRT-LLM's kernels.
llama.cpp has its own: they unpack weights as they multiply, and where memory is fast they set the pace
themselves: a multiprocessor takes in so much in a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kvplan.checks import require_amounts, require_text
from kvplan.errors import unknown


class Runtime(Enum):
    """A runtime, its time and what it runs on; the value is how it is named."""

    LLAMA_CPP_CUDA_2024 = "llama.cpp of May 2024 on CUDA"
    LLAMA_CPP_CUDA_2025 = "llama.cpp of 2025 on CUDA, with flash attention"
    LLAMA_CPP_METAL = "llama.cpp on Metal"


# What ``--runtime`` takes.
RUNTIMES = (
    ("llama.cpp", Runtime.LLAMA_CPP_CUDA_2025),
    ("llama.cpp-2024", Runtime.LLAMA_CPP_CUDA_2024),
    ("llama.cpp-metal", Runtime.LLAMA_CPP_METAL),
)


def runtime_named(name: str) -> Runtime:
    """Return the runtime that ``--runtime`` names; raises UsageError for an unknown one."""
    for known, runtime in RUNTIMES:
        if known == name:
            return runtime
    raise unknown("runtime", name, [known for known, _ in RUNTIMES])


@dataclass(frozen=True, slots=True)
class RuntimeFit:
    """Constants of a runtime over weights of some formats.

    Args:
        runtime: which.
        formats: what the weights are stored in.
        layer_us: what a layer takes however little it does: launches, norms and rotations.
        memory_share: of the datasheet's bandwidth at which weights are read, at most.
        multiprocessor_gb_per_s: weights that one multiprocessor takes in, at most.
        cache_share: of the datasheet's bandwidth at which keys and values are read.
        reads_per_head: every query head reads the keys and values it shares with others.
        compute_share: of the dense peak for 8-bit integers, else 16 bits, that products reach in prefill.
        attention_share: the same of attention.
        median_error: of decode against the half of the measurements that the fit was not made from.
        source: the measurements.
    """

    runtime: Runtime
    formats: tuple[str, ...]
    layer_us: float
    memory_share: float
    multiprocessor_gb_per_s: float
    cache_share: float
    reads_per_head: bool
    compute_share: float
    attention_share: float
    median_error: float
    source: str

    def __post_init__(self) -> None:
        require_text(self, "source")
        require_amounts(
            self,
            "layer_us",
            "memory_share",
            "multiprocessor_gb_per_s",
            "cache_share",
            "compute_share",
            "attention_share",
            "median_error",
        )


_XD = "XiongjieDai/GPU-Benchmarks-on-LLM-Inference"
_SPARK = "ggml-org/llama.cpp benches/dgx-spark.md"
_JG = "geerlingguy/ai-benchmarks"
_REFIT = "every other row: python benchmarks/refit_runtimes.py"
_2024, _2025 = f"{_XD}, {_REFIT}", f"{_SPARK} and {_JG}, {_REFIT}"
_METAL = f"{_XD} and {_JG}, {_REFIT}"

# Formats behind the first of a row were not in the fitted half: kernels of the first are like theirs.
RUNTIME_FITS: tuple[RuntimeFit, ...] = (
    RuntimeFit(Runtime.LLAMA_CPP_CUDA_2024, ("fp16",), 92, 0.88, 9.7, 0.24, False, 0.2, 0.017, 0.057, _2024),
    RuntimeFit(Runtime.LLAMA_CPP_CUDA_2024, ("q4_k",), 92, 0.92, 9.7, 0.24, False, 0.2, 0.017, 0.057, _2024),
    RuntimeFit(
        Runtime.LLAMA_CPP_CUDA_2025, ("mxfp4",), 24, 0.81, 7.6, 0.67, False, 0.072, 0.14, 0.087, _2025
    ),
    RuntimeFit(Runtime.LLAMA_CPP_CUDA_2025, ("q4_k",), 24, 1.0, 7.6, 0.67, False, 0.072, 0.14, 0.087, _2025),
    RuntimeFit(
        Runtime.LLAMA_CPP_CUDA_2025, ("q8_0", "q4_0"), 24, 0.82, 7.6, 0.67, False, 0.13, 0.14, 0.087, _2025
    ),
    RuntimeFit(Runtime.LLAMA_CPP_METAL, ("fp16",), 88, 0.98, 9.5, 0.3, True, 0.76, 0.21, 0.054, _METAL),
    RuntimeFit(
        Runtime.LLAMA_CPP_METAL,
        ("q4_k", "mxfp4", "q4_1"),
        88,
        0.71,
        9.5,
        0.3,
        True,
        0.64,
        0.074,
        0.054,
        _METAL,
    ),
)


def runtime_fit(runtime: Runtime, format: str) -> RuntimeFit:
    """Return a runtime's constants over weights of a format.

    Raises:
        UsageError: none were fitted.
    """
    own = [fit for fit in RUNTIME_FITS if fit.runtime is runtime]
    for fit in own:
        if format in fit.formats:
            return fit
    raise unknown(
        f"measured weight format of {runtime.value}", format, [name for fit in own for name in fit.formats]
    )
