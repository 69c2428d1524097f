"""Published measurements as things to plan: which model, deployment and lengths each row is about.

What a source leaves open is settled here, and why:

- Rows of src aic with 4 to 512 requests of 1k or 8k tokens are taken to be SemiAnalysis InferenceX's
  (https://github.com/SemiAnalysisAI/InferenceX), whose recipes say: Llama with an fp8 cache; gpt-oss with an
  fp8 cache on B200 and 16 bits on H100 and H200; passes of 8,192 tokens in vLLM and 16,384 in TensorRT-LLM.
- TensorRT-LLM's fp8 and nvfp4 checkpoints cache in fp8; "model default" is bf16; llama.cpp caches in fp16.
- A GGUF file is a mixture: experts are in their own format, and what is left of the file is spread evenly
  over the other matrices.
- TensorRT-LLM keeps room for the whole of a request before it starts it, vLLM for what it has so far.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path

import yaml

from kvplan.allocation import Paged
from kvplan.arch.model import Model
from kvplan.hardware.device import Device
from kvplan.plan.capacity import plan_capacity
from kvplan.plan.deployment import Deployment, Parallelism
from kvplan.specs.catalog import find_gpu, find_model, load_gpu, load_model
from kvplan.storage import kv_format, state_layout, weight_format

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
LONGEST = 1 << 20
_MILLI = 1e-3


class Regime(Enum):
    """What was measured; the value is its name in the data."""

    CLOSED_LOOP = "serving_closed_loop"
    SINGLE_STREAM = "single_stream_decode"
    BATCH_DECODE = "batch_decode"
    PREFILL = "prefill"
    STATIC_BATCH = "static_batch_e2e"
    MAX_THROUGHPUT = "max_throughput"
    MLPERF = "mlperf"

    @property
    def is_latency(self) -> bool:
        """Whether a time was measured, and not only tokens a second at an unknown batch."""
        return self not in (Regime.MAX_THROUGHPUT, Regime.MLPERF)


@dataclass(frozen=True, slots=True)
class Case:
    """A published measurement, and what it is of.

    Args:
        id: its row.
        source: its source's key.
        number: how many rows of the source were before it.
        regime: what was measured.
        engine: the runtime, as the source names it.
        model: the model.
        deployment: the accelerators, how the model is cut, and its formats.
        gpus: accelerators, however they are used.
        batch: requests that run together: 1, or as many as the row says and memory holds; 0 where unknown.
        prompt: tokens of a prompt, 0 where unknown.
        output: tokens each request makes.
        cached: tokens of a prompt that were there before.
        file_bytes: of the weight file, where published.
        measured: seconds where the regime is a latency, else tokens a second of the whole deployment.
    """

    id: str
    source: str
    number: int
    regime: Regime
    engine: str
    model: Model
    deployment: Deployment
    gpus: int
    batch: int
    prompt: int
    output: int
    cached: int
    file_bytes: int | None
    measured: float

    @property
    def context(self) -> float:
        """Cached tokens of a request while it makes its own, on average."""
        return self.prompt + self.output / 2

    @property
    def is_ggml(self) -> bool:
        """Whether llama.cpp, or what is built on it, ran it."""
        return "llama.cpp" in self.engine


MODELS = {
    "DeepSeek-R1-0528": "deepseek-v3",
    "DeepSeek-R1-Distill-14B": "qwen2.5-14b",
    "Falcon-180B": "falcon-180b",
    "GPT-J 6B": str(DATA / "perf_models" / "gpt-j-6b.yaml"),
    "Llama-2-13B": "llama-2-13b",
    "Llama-2-70B": "llama-2-70b",
    "Llama-2-7B": "llama-2-7b",
    "Llama-3-70B": "llama-3.1-70b",
    "Llama-3-8B": "llama-3.1-8b",
    "Llama-3.1-405B": "llama-3.1-405b",
    "Llama-3.1-405B-Instruct": "llama-3.1-405b",
    "Llama-3.1-70B": "llama-3.1-70b",
    "Llama-3.1-8B": "llama-3.1-8b",
    "Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "Llama-3.2-3B": "llama-3.2-3b",
    "Llama-3.3-70B-Instruct": "llama-3.3-70b",
    "Llama-7B": "llama-2-7b",
    "Mixtral-8x7B": "mixtral-8x7b",
    "Qwen2.5-Coder-7B": "qwen2.5-7b",
    "Qwen3-235B-A22B": "qwen3-235b-a22b",
    "Qwen3-30B-A3B": "qwen3-30b-a3b",
    "Qwen3-Coder-30B-A3B": "qwen3-30b-a3b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "deepseek-r1": "deepseek-v3",
    "gemma-3-4b-it": "gemma-3-4b",
    "gpt-oss-120b": "gpt-oss-120b",
    "gpt-oss-20b": "gpt-oss-20b",
    "gpt-oss-20b (MoE)": "gpt-oss-20b",
    "llama2-70b-99": "llama-2-70b",
    "llama3.1-405b": "llama-3.1-405b",
    "llama3.1-8b": "llama-3.1-8b",
    "llama3_1-405b": "llama-3.1-405b",
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "mixtral-8x7b": "mixtral-8x7b",
    "openai/gpt-oss-120b": "gpt-oss-120b",
}
GPUS = {
    "A100 80GB (PCIe links)": "a100-pcie-80gb",
    "A100 80GB PCIe": "a100-pcie-80gb",
    "A100 80GB SXM": "a100-sxm-80gb",
    "A40": "a40",
    "B200": "b200-sxm",
    "GB10 (DGX Spark)": "gb10",
    "GB200": "gb200",
    "GB300": "gb300",
    "H100 PCIe": "h100-pcie",
    "H100 SXM": "h100-sxm",
    "H200 NVL": "h200-nvl",
    "H200 SXM": "h200-sxm",
    "L40S": "l40s",
    "M1 Max": "m1-max",
    "M2 Ultra": "m2-ultra",
    "M3 Max": "m3-max",
    "M3 Ultra": "m3-ultra",
    "MI250X (1 GCD)": "mi250x-gcd",
    "MI300X": "mi300x",
    "MI325X": "mi325x",
    "MI355X": "mi355x",
    "RTX 3070": "rtx3070",
    "RTX 3080 10GB": "rtx3080",
    "RTX 3080 Ti": "rtx3080-ti",
    "RTX 3090": "rtx3090",
    "RTX 3090 Ti": "rtx3090-ti",
    "RTX 4000 Ada": "rtx4000-ada",
    "RTX 4070 Ti": "rtx4070-ti",
    "RTX 4080": "rtx4080",
    "RTX 4090": "rtx4090",
    "RTX 5000 Ada": "rtx5000-ada",
    "RTX 6000 Ada": "rtx6000-ada",
    "RTX A6000": "rtx-a6000",
    "RTX PRO 6000 Server": "rtx-pro-6000-server",
}
# Weights and cache of each label.
FORMATS = {
    "F16": ("fp16", "fp16"),
    "MXFP4": ("mxfp4", "fp16"),
    "Q4_0(QAT)": ("q4_0", "fp16"),
    "Q4_1": ("q4_1", "fp16"),
    "Q4_K_M": ("q4_k", "fp16"),
    "Q4_K_M (default tag)": ("q4_k", "fp16"),
    "Q8_0": ("q8_0", "fp16"),
    "4-bit": ("int4", "fp16"),
    "bf16": ("bf16", "bf16"),
    "fp16": ("fp16", "fp16"),
    "fp4": ("nvfp4", "fp8"),
    "fp8": ("fp8", "fp8"),
    "int4-g32": ("int4", "bf16"),
    "int8": ("int8", "bf16"),
    "model default": ("bf16", "bf16"),
    "mxfp4": ("nvfp4", "fp8"),
    "mxfp4 weights, fp4 act": ("mxfp4", "fp8"),
    "mxfp4 weights, fp8 act": ("mxfp4", "fp8"),
    "nvfp4": ("nvfp4", "fp8"),
}
# Files of the same name elsewhere in the data: rows that give no size are taken to be of these.
FILES = {("gpt-oss-20b", "mxfp4"): 12_101_070_356, ("gpt-oss-120b", "mxfp4"): 63_372_242_452}
# Llama-3-8B Q4_K_M, 4,917,737,553 bytes, over the same in plain q4_k.
Q4_K_M_OVER_Q4_K = 1.0885

_TOO_MANY = "512 requests wait four times as long as they run: how many of them ran together is not known"
LEFT_OUT = {
    "e2e-1007": _TOO_MANY,
    "e2e-1011": _TOO_MANY,
    "e2e-1013": _TOO_MANY,
    "e2e-1023": _TOO_MANY,
    "e2e-0236": "prefill on M3 Max: no rate of its products is published",
    "e2e-0613": "the source does not say whether tokens are per GPU",
    "e2e-0614": "the source does not say whether tokens are per GPU",
}


def read_cases() -> tuple[Case, ...]:
    """Return every row that is judged."""
    rows = yaml.safe_load((DATA / "perf_public.yaml").read_text(encoding="utf-8"))["rows"]
    seen: dict[str, int] = {}
    cases = []
    for row in rows:
        number = seen[row["src"]] = seen.get(row["src"], -1) + 1
        if row["id"] not in LEFT_OUT:
            cases.append(_case(row, number))
    return tuple(cases)


def _case(row: dict, number: int) -> Case:
    regime = Regime("mlperf" if row["regime"].startswith("mlperf") else row["regime"])
    weights, kv = _formats(row)
    prompt = row.get("isl", 0) if isinstance(row.get("isl", 0), int) else 0
    output = round(row.get("osl", 1))
    case = Case(
        id=row["id"],
        source=row["src"],
        number=number,
        regime=regime,
        engine=row["engine"],
        model=_model(MODELS[row["model"]]),
        deployment=Deployment(
            device=_gpu(GPUS[row["gpu"]]),
            parallelism=_parallelism(row),
            weights=weight_format(weights),
            kv=kv_format(kv),
            state=state_layout("vllm"),
            allocation=Paged(16),
            max_tokens=LONGEST,
            chunk_tokens=8_192 if row["engine"].startswith("vllm") else 16_384,
        ),
        gpus=row["n_gpus"],
        batch=row.get("batch") or _number(row.get("concurrency")),
        prompt=prompt,
        output=output,
        cached=row.get("kv_depth_before", 0),
        file_bytes=row.get("weights_bytes") or FILES.get((MODELS[row["model"]], weights)),
        measured=_measured(row, regime),
    )
    return replace(case, batch=min(case.batch, _room(case))) if regime is Regime.CLOSED_LOOP else case


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _formats(row: dict) -> tuple[str, str]:
    if "gpt-oss" in row["model"] and row["src"] == "aic":
        return "mxfp4", "fp8" if row["gpu"] == "B200" else "bf16"
    if "gpt-oss" in row["model"] and row["src"] == "jg":
        return "mxfp4", "fp16"
    return FORMATS[row["precision"]]


def _parallelism(row: dict) -> Parallelism:
    gpus, how = row["n_gpus"], row.get("parallel", "")
    if how.startswith("DEP"):
        return Parallelism(data=gpus, expert=gpus)
    if how == "layer-split" or "PP" in how:
        return Parallelism(pipeline=gpus)
    return Parallelism(tensor=gpus if how.startswith("TP") else 1)


def _measured(row: dict, regime: Regime) -> float:
    value, metric = row["value"], row["metric"]
    tokens = row.get("batch", 1) * row["osl"] if regime is Regime.STATIC_BATCH else row.get("batch", 1)
    match metric:
        case "tpot_ms" | "ttft_ms":
            return value * _MILLI
        case "prefill_tok_s":
            return row["isl"] / value
        case "output_tok_s_per_gpu":
            per_s = value * row["n_gpus"]
        case _:
            per_s = value
    return tokens / per_s if regime.is_latency else per_s


def _room(case: Case) -> int:
    """Return how many requests the memory holds."""
    whole = not case.engine.startswith("vllm")
    held = case.prompt + (case.output if whole else case.output // 2)
    return plan_capacity(case.model, case.deployment).max_batch(held)


@cache
def _model(name: str) -> Model:
    return load_model(find_model(name))


@cache
def _gpu(name: str) -> Device:
    own = DATA / "perf_gpus" / f"{name}.yaml"
    return load_gpu(find_gpu(str(own) if own.is_file() else name))
