"""The options that describe a deployment, and the deployment they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from kvplan.cli.options import (
    byte_size,
    complete_gpus,
    complete_models,
    count,
    optional_count,
    utilization,
    whole_number,
)
from kvplan.errors import UsageError, unknown

if TYPE_CHECKING:
    from kvplan.allocation import Allocation
    from kvplan.arch.model import Model
    from kvplan.hardware.device import Device
    from kvplan.plan.deployment import Deployment

ALLOCATIONS = ("paged", "contiguous")
LARGEST_CHUNK = 1 << 24
LARGEST_BLOCK = 1 << 16
LARGEST_LENGTH = 1 << 31
LARGEST_SPECULATION = 1024

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name (kvplan models list), a YAML file, a config.json, or a folder with one.",
        autocompletion=complete_models,
    ),
]
Gpu = Annotated[
    str,
    typer.Option(
        "--gpu",
        metavar="NAME",
        help="A name (kvplan gpus list) or a YAML file.",
        autocompletion=complete_gpus,
    ),
]
Gpus = Annotated[
    str,
    typer.Option(metavar="N", help="Number of GPUs; tensor parallel unless --pp, --dp or --cp take some."),
]
Tp = Annotated[str, typer.Option("--tp", metavar="N", help="Tensor parallel ranks.")]
Pp = Annotated[str, typer.Option("--pp", metavar="N", help="Pipeline parallel stages.")]
Dp = Annotated[str, typer.Option("--dp", metavar="N", help="Data parallel replicas.")]
Ep = Annotated[
    str,
    typer.Option(
        "--ep",
        metavar="N",
        help="Expert parallel ranks: 1, or all GPUs of a stage (tp x dp x cp) share experts.",
    ),
]
Cp = Annotated[
    str, typer.Option("--cp", metavar="N", help="Context parallel ranks that share the tokens of a request.")
]
Weights = Annotated[
    str,
    typer.Option(
        metavar="FORMAT", help="Storage of weights: bf16, fp8, int4, q4_k... As released if absent."
    ),
]
Kv = Annotated[
    str,
    typer.Option(
        "--kv",
        metavar="FORMAT",
        help="Storage of keys and values: bf16, fp16, fp32, fp8, int8, int4, int8-kivi, int4-kivi. "
        "If absent, what the released files ask for, else the model's dtype.",
    ),
]
State = Annotated[
    str,
    typer.Option(
        metavar="LAYOUT",
        help="Storage of states and index keys: transformers, vllm, vllm-fp32, sglang.",
    ),
]
LatentCache = Annotated[
    str,
    typer.Option(
        "--latent-cache",
        metavar="FORM",
        help="What is cached of latent attention: latent, or expanded to every head's key and value.",
    ),
]
SpeculativeTokens = Annotated[
    str,
    typer.Option(
        "--speculative-tokens",
        metavar="N",
        help="Guessed tokens a step checks: recurrent state is kept behind each; a vLLM --state only.",
    ),
]
Alloc = Annotated[str, typer.Option(metavar="HOW", help="paged, or contiguous to --max-length.")]
BlockSize = Annotated[str, typer.Option(metavar="N", help="Tokens in a block of the paged cache.")]
MaxLength = Annotated[
    str, typer.Option(metavar="N", help="Longest context allowed; the model's own limit if absent.")
]
Chunk = Annotated[str, typer.Option(metavar="N", help="Tokens of the largest prefill step.")]
MemoryUtilization = Annotated[
    str, typer.Option(metavar="SHARE", help="Share of each GPU's memory to plan with: 0.9 or 90%.")
]
Overhead = Annotated[
    str,
    typer.Option(metavar="SIZE", help="Runtime's own memory on each GPU: 1.5GiB. Typical figures if absent."),
]


def cached_as(model: Model, form: str) -> Model:
    """Return the model with its latent attention cached in this form.

    Raises:
        UsageError: there is no such form, or the model has no latents to expand.
    """
    from kvplan.arch.latent_cache import LATENT_CACHES, with_expanded_cache

    if form not in LATENT_CACHES:
        raise unknown("latent cache", form, LATENT_CACHES)
    return with_expanded_cache(model) if form == "expanded" else model


@dataclass(frozen=True, slots=True)
class DeploymentOptions:
    """The values of the options as they were typed; empty where absent."""

    gpus: str
    tp: str
    pp: str
    dp: str
    weights: str
    kv: str
    state: str
    alloc: str
    block_size: str
    max_length: str
    chunk: str
    memory_utilization: str
    overhead: str
    ep: str = ""
    cp: str = ""
    speculative_tokens: str = "0"

    def deployment(self, model: Model, device: Device) -> Deployment:
        """Return the deployment these values mean for a model.

        Raises:
            UsageError: a value cannot be read, or does not go with the model or another value.
        """
        from kvplan.plan.deployment import Deployment, parallelism
        from kvplan.storage import kv_format, state_layout, weight_format

        longest = self._longest_context(model)
        guessed = whole_number("--speculative-tokens", self.speculative_tokens, LARGEST_SPECULATION)
        return Deployment(
            device=device,
            parallelism=parallelism(
                optional_count("--gpus", self.gpus),
                optional_count("--tp", self.tp),
                optional_count("--pp", self.pp),
                optional_count("--dp", self.dp),
                optional_count("--ep", self.ep),
                optional_count("--cp", self.cp),
            ),
            weights=weight_format(self.weights) if self.weights else model.as_released(),
            kv=kv_format(self.kv or model.kv_format or model.dtype),
            state=state_layout(self.state).speculating(guessed),
            allocation=self._allocation(longest),
            max_tokens=longest,
            utilization_bp=utilization(self.memory_utilization),
            chunk_tokens=count("--chunk", self.chunk, LARGEST_CHUNK),
            overhead_bytes=byte_size("--overhead", self.overhead),
        )

    def _longest_context(self, model: Model) -> int:
        """Return the longest context a request may have.

        ``--max-length`` may pass the model's own limit, as rotary positions can be stretched; learned
        ones end where their table does.
        """
        asked = optional_count("--max-length", self.max_length, LARGEST_LENGTH)
        if asked is None:
            return model.max_position_embeddings
        if model.learned_positions and asked > model.learned_positions:
            learned = f"{model.learned_positions:,} positions {model.name} has learned"
            raise UsageError(f"--max-length: {asked:,} is more than the {learned}")
        return asked

    def _allocation(self, longest: int) -> Allocation:
        from kvplan.allocation import Contiguous, Paged

        if self.alloc not in ALLOCATIONS:
            raise unknown("allocation", self.alloc, ALLOCATIONS)
        block_tokens = count("--block-size", self.block_size, LARGEST_BLOCK)
        return Paged(block_tokens) if self.alloc == "paged" else Contiguous(longest)
