"""The options that describe a deployment, and the values they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

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

if TYPE_CHECKING:
    from kvplan.api.given import PlanOptions

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name (kvplan models list), a YAML file, a config.json or a folder with one, or a GGUF file.",
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
Kv = Annotated[
    str,
    typer.Option(
        "--kv",
        metavar="FORMAT",
        help="Storage of keys and values: bf16, fp16, fp32, fp8, int8, int4, int2, int8-kivi, int4-kivi, "
        "int2-kivi. If absent, what the released files ask for, else the model's dtype.",
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


@dataclass(frozen=True, slots=True)
class DeploymentOptions:
    """The options that say how a model is cut and stored, as they were typed; empty where absent."""

    gpus: Annotated[
        str,
        typer.Option(
            metavar="N", help="Number of GPUs; tensor parallel unless --pp, --dp or --cp take some."
        ),
    ] = ""
    tp: Annotated[str, typer.Option(metavar="N", help="Tensor parallel ranks.")] = ""
    pp: Annotated[str, typer.Option(metavar="N", help="Pipeline parallel stages.")] = ""
    dp: Annotated[str, typer.Option(metavar="N", help="Data parallel replicas.")] = ""
    ep: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Expert parallel ranks: 1, or all GPUs of a stage (tp x dp x cp) share experts.",
        ),
    ] = ""
    cp: Annotated[
        str, typer.Option(metavar="N", help="Context parallel ranks that share the tokens of a request.")
    ] = ""
    weights: Annotated[
        str,
        typer.Option(
            metavar="FORMAT", help="Storage of weights: bf16, fp8, int4, q4_k... As released if absent."
        ),
    ] = ""
    kv: Kv = ""
    state: Annotated[
        str,
        typer.Option(
            metavar="LAYOUT",
            help="Storage of states and index keys: transformers, vllm, vllm-fp32, sglang.",
        ),
    ] = "transformers"
    latent_cache: LatentCache = "latent"
    mtp: Annotated[
        bool,
        typer.Option(
            "--mtp", help="Hold the layers that predict further tokens, to draft with: memory alone."
        ),
    ] = False
    speculative_tokens: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Guessed tokens a step checks: recurrent state is kept behind each; a vLLM --state only.",
        ),
    ] = "0"
    alloc: Annotated[str, typer.Option(metavar="HOW", help="paged, or contiguous to --max-length.")] = "paged"
    block_size: Annotated[str, typer.Option(metavar="N", help="Tokens in a block of the paged cache.")] = "16"
    max_length: Annotated[
        str, typer.Option(metavar="N", help="Longest context allowed; the model's own limit if absent.")
    ] = ""
    chunk: Annotated[str, typer.Option(metavar="N", help="Tokens of the largest prefill step.")] = "8192"
    memory_utilization: Annotated[
        str, typer.Option(metavar="SHARE", help="Share of each GPU's memory to plan with: 0.9 or 90%.")
    ] = "0.9"
    overhead: Annotated[
        str,
        typer.Option(
            metavar="SIZE", help="Runtime's own memory on each GPU: 1.5GiB. Typical figures if absent."
        ),
    ] = ""

    def typed(self) -> PlanOptions:
        """Return the values that are meant.

        Raises:
            UsageError: one cannot be read.
        """
        from kvplan.plan.deploy import (
            LARGEST_BLOCK,
            LARGEST_CHUNK,
            LARGEST_DEGREE,
            LARGEST_LENGTH,
            LARGEST_SPECULATION,
        )

        return {
            "gpus": optional_count("--gpus", self.gpus, LARGEST_DEGREE),
            "tp": optional_count("--tp", self.tp, LARGEST_DEGREE),
            "pp": optional_count("--pp", self.pp, LARGEST_DEGREE),
            "dp": optional_count("--dp", self.dp, LARGEST_DEGREE),
            "ep": optional_count("--ep", self.ep, LARGEST_DEGREE),
            "cp": optional_count("--cp", self.cp, LARGEST_DEGREE),
            "weights": self.weights or None,
            "kv": self.kv or None,
            "state": self.state,
            "latent_cache": self.latent_cache,
            "mtp": self.mtp,
            "speculative_tokens": whole_number(
                "--speculative-tokens", self.speculative_tokens, LARGEST_SPECULATION
            ),
            "allocation": self.alloc,
            "block_size": count("--block-size", self.block_size, LARGEST_BLOCK),
            "max_length": optional_count("--max-length", self.max_length, LARGEST_LENGTH),
            "chunk": count("--chunk", self.chunk, LARGEST_CHUNK),
            "memory_utilization": utilization(self.memory_utilization),
            "overhead_bytes": byte_size("--overhead", self.overhead),
        }

    def given(self) -> PlanOptions:
        """Return the values that are not the usual ones; raises UsageError where one cannot be read."""
        usual, said = DeploymentOptions().typed(), self.typed()
        return cast("PlanOptions", {name: value for name, value in said.items() if value != usual.get(name)})
