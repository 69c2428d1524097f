"""``kvplan capacity``: does it fit, how long a context, how many requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kvplan.cli.options import (
    Color,
    Debug,
    Format,
    Json,
    Output,
    Quiet,
    Specs,
    Verbose,
    byte_size,
    chosen_format,
    complete_gpus,
    complete_models,
    count,
    counts,
    optional_count,
    output_path,
    specs_folder,
    utilization,
)
from kvplan.errors import ExitStatus, UsageError, unknown

if TYPE_CHECKING:
    from kvplan.arch.model import Model
    from kvplan.plan.deployment import Allocation
    from kvplan.results import Scalar
    from kvplan.specs.catalog import Found

ALLOCATIONS = ("paged", "contiguous")
DEFAULT_BATCHES = [1, 16, 64]
LARGEST_CHUNK = 1 << 24
LARGEST_BLOCK = 1 << 16
LARGEST_LENGTH = 1 << 31


def capacity(
    model: Annotated[
        str,
        typer.Argument(
            help="A name (kvplan models list), a YAML file, a config.json, or a folder with one.",
            autocompletion=complete_models,
        ),
    ],
    gpu: Annotated[
        str,
        typer.Option("--gpu", help="A name (kvplan gpus list) or a YAML file.", autocompletion=complete_gpus),
    ],
    gpus: Annotated[
        str, typer.Option(help="Number of GPUs; tensor parallel unless --pp or --dp take some.")
    ] = "",
    tp: Annotated[str, typer.Option("--tp", help="Tensor parallel ranks.")] = "",
    pp: Annotated[str, typer.Option("--pp", help="Pipeline parallel stages.")] = "",
    dp: Annotated[str, typer.Option("--dp", help="Data parallel replicas.")] = "",
    weights: Annotated[
        str, typer.Option(help="Storage of weights: bf16, fp8, int4, q4_k... As released if absent.")
    ] = "",
    kv: Annotated[
        str, typer.Option("--kv", help="Storage of keys and values: bf16, fp16, fp32, fp8, int8, int4.")
    ] = "",
    state: Annotated[
        str, typer.Option(help="Storage of recurrent state: transformers, vllm, vllm-fp32.")
    ] = "transformers",
    context: Annotated[str, typer.Option(help="Contexts in tokens: 4k,32k,128k. k is 1,024.")] = "",
    batch: Annotated[str, typer.Option(help="Requests at once: 1,16,64 or 1..64 (doubling).")] = "",
    alloc: Annotated[str, typer.Option(help="paged or contiguous (to --max-length).")] = "paged",
    block_size: Annotated[str, typer.Option(help="Tokens in a block of the paged cache.")] = "16",
    max_length: Annotated[
        str, typer.Option(help="Longest context allowed; the model's own limit if absent.")
    ] = "",
    chunk: Annotated[str, typer.Option(help="Tokens of the largest prefill step.")] = "8192",
    memory_utilization: Annotated[
        str, typer.Option(help="Share of each GPU's memory to plan with: 0.9.")
    ] = "0.9",
    overhead: Annotated[
        str, typer.Option(help="Runtime's own memory per GPU: 1.5GiB. Typical figures if absent.")
    ] = "",
    explain: Annotated[
        str, typer.Option(metavar="[FIGURE]", help="Derive one figure, a section, or all of them.")
    ] = "",
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when it does not fit.")] = False,
    format: Format = "table",
    json: Json = False,
    output: Output = "",
    specs: Specs = "",
    color: Color = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Say where GPU memory goes, how the KV cache grows, and what fits.

    Example: kvplan capacity llama-3.1-8b --gpu h100-sxm --context 4k,32k --batch 1,16
    """
    from kvplan.cli.reporting import show_report, spec_notes
    from kvplan.plan.capacity import plan_capacity
    from kvplan.plan.capacity_report import capacity_report
    from kvplan.plan.deployment import Deployment, parallelism
    from kvplan.specs.catalog import find_gpu, find_model, load_gpu, load_model
    from kvplan.storage import kv_format, state_layout, weight_format

    shown = chosen_format(format, json)
    contexts, batches = _asked("--context", context), _asked("--batch", batch)
    degrees = parallelism(
        optional_count("--gpus", gpus),
        optional_count("--tp", tp),
        optional_count("--pp", pp),
        optional_count("--dp", dp),
    )
    block_tokens, utilization_bp = (
        count("--block-size", block_size, LARGEST_BLOCK),
        utilization(memory_utilization),
    )
    chunk_tokens, overhead_bytes = count("--chunk", chunk, LARGEST_CHUNK), byte_size("--overhead", overhead)
    max_length_asked = optional_count("--max-length", max_length, LARGEST_LENGTH)
    folder = specs_folder(specs)
    model_file, gpu_file = find_model(model, folder), find_gpu(gpu, folder)
    planned, device = load_model(model_file), load_gpu(gpu_file)
    longest = _longest_context(planned, max_length_asked)
    deployment = Deployment(
        device=device,
        parallelism=degrees,
        weights=weight_format(weights or planned.weight_format or planned.dtype),
        kv=kv_format(kv or planned.dtype),
        state=state_layout(state),
        allocation=_allocation(alloc, block_tokens, longest),
        max_tokens=longest,
        utilization_bp=utilization_bp,
        chunk_tokens=chunk_tokens,
        overhead_bytes=overhead_bytes,
    )
    spec_notes((model_file, gpu_file), quiet=quiet, verbose=verbose)
    shown_contexts = contexts or _default_contexts(longest)
    usual = None if batches else shown_contexts[len(shown_contexts) // 2]
    report = capacity_report(
        plan_capacity(planned, deployment),
        shown_contexts,
        batches or DEFAULT_BATCHES,
        decide_context=max(contexts) if contexts else usual,
        decide_batch=max(batches, default=1),
        inputs=_echo(model_file, gpu_file, shown_contexts, batches or DEFAULT_BATCHES),
    )
    show_report(report, shown, output_path(output), explain=explain, color=color)
    if check and report.verdict is not None and not report.verdict.fits:
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)


def _asked(option: str, text: str) -> list[int]:
    return counts(option, text) if text else []


def _default_contexts(longest: int) -> list[int]:
    """Return a short, a middle and the longest context: 4k, 32k and 128k for a 128k model."""
    return list(dict.fromkeys(max(1, longest // part) for part in (32, 4, 1)))


def _longest_context(model: Model, asked: int | None) -> int:
    """Return the longest context a request may have.

    ``--max-length`` may pass the model's own limit, as rotary positions can be stretched; learned ones
    end where their table does.
    """
    if asked is None:
        return model.max_position_embeddings
    if model.learned_positions and asked > model.learned_positions:
        learned = f"{model.learned_positions:,} positions {model.name} has learned"
        raise UsageError(f"--max-length: {asked:,} is more than the {learned}")
    return asked


def _allocation(name: str, block_tokens: int, longest: int) -> Allocation:
    from kvplan.plan.deployment import Contiguous, Paged

    if name not in ALLOCATIONS:
        raise unknown("allocation", name, ALLOCATIONS)
    return Paged(block_tokens) if name == "paged" else Contiguous(longest)


def _echo(
    model: Found, gpu: Found, contexts: list[int], batches: list[int]
) -> tuple[tuple[str, Scalar | list[int]], ...]:
    from kvplan.specs.catalog import digest

    return (
        ("model_file", model.label),
        ("model_sha256", digest(model.path)),
        ("gpu_file", gpu.label),
        ("gpu_sha256", digest(gpu.path)),
        ("context_tokens", contexts),
        ("batch", batches),
    )
