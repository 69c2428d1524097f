"""``kvplan simulate``: the plan of a run beside the run itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from kvplan.cli.deployment import ALLOCATIONS, LARGEST_BLOCK, LatentCache, ModelName, cached_as
from kvplan.cli.options import (
    Color,
    Debug,
    Format,
    Json,
    Output,
    Quiet,
    Specs,
    Verbose,
    chosen_format,
    count,
    optional_count,
    output_path,
    specs_folder,
    whole_number,
)
from kvplan.cli.progress import progress
from kvplan.cli.streams import terminal
from kvplan.errors import ExitStatus, UsageError, unknown

if TYPE_CHECKING:
    from kvplan.allocation import Allocation
    from kvplan.arch.model import Model
    from kvplan.check.scenario import Scenario
    from kvplan.check.simulation import Simulation
    from kvplan.results import Report
    from kvplan.specs.catalog import Found
    from kvplan.storage import KvFormat

LARGEST_BATCH = 256
LARGEST_PROMPT = 1 << 16
LARGEST_TOKENS = 1 << 12
LARGEST_HIDDEN = 1 << 13
LARGEST_SEED = 1 << 31


def simulate(
    model: ModelName = "",
    all_models: Annotated[
        bool, typer.Option("--all", help="Simulate every model of --specs DIR, or every bundled one.")
    ] = False,
    batch: Annotated[str, typer.Option(metavar="N", help="Requests, of different lengths.")] = "4",
    prompt: Annotated[str, typer.Option(metavar="N", help="Tokens of the longest prompt.")] = "512",
    tokens: Annotated[str, typer.Option(metavar="N", help="Tokens each request adds.")] = "32",
    seed: Annotated[str, typer.Option(metavar="N", help="Seed of weights, prompts and lengths.")] = "0",
    cache: Annotated[str, typer.Option(metavar="HOW", help="paged, or contiguous.")] = "paged",
    kv: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="Storage of keys and values: bf16, fp16, fp32, fp8, int8, int4, int8-kivi, int4-kivi. "
            "What the released files ask for, else the model's dtype, if absent.",
        ),
    ] = "",
    latent_cache: LatentCache = "latent",
    block_size: Annotated[
        str, typer.Option(metavar="N", help="Tokens in a block of the paged cache.")
    ] = "64",
    chunk: Annotated[str, typer.Option(metavar="N", help="Tokens of a prompt read at once.")] = "256",
    layers: Annotated[
        str, typer.Option(metavar="N", help="Layers; one of every kind, at least 4, if absent.")
    ] = "",
    hidden: Annotated[str, typer.Option(metavar="N", help="Width; 256 if absent.")] = "",
    explain: Annotated[
        str, typer.Option(metavar="[FIGURE]", help="Derive one predicted figure, or all of them.")
    ] = "",
    format: Format = "table",
    json: Json = False,
    output: Output = "",
    specs: Specs = "",
    color: Color = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Run a model scaled down on the bundled engine, and set the plan beside what was counted.

    The scaled model keeps what decides how a cache behaves. Exits 1 where a figure differs.

    Example: kvplan simulate llama-3.1-8b --kv int8
    """
    from kvplan.cli.reporting import show_report, spec_notes

    if bool(model) == all_models:
        what = "a model, or --all: not both" if model else "name a model, or say --all"
        raise UsageError(what, hint="kvplan simulate llama-3.1-8b")
    shown = chosen_format(format, json)
    terminal(color)  # an unknown setting is refused before anything runs
    longest = count("--prompt", prompt, LARGEST_PROMPT)
    added = count("--tokens", tokens, LARGEST_TOKENS)
    block_tokens = count("--block-size", block_size, LARGEST_BLOCK)
    asked = _Asked(
        batch=count("--batch", batch, LARGEST_BATCH),
        prompt=longest,
        tokens=added,
        seed=whole_number("--seed", seed, LARGEST_SEED),
        kv=kv,
        allocation=_allocation(cache, block_tokens, longest + added),
        chunk=count("--chunk", chunk, LARGEST_PROMPT),
        layers=optional_count("--layers", layers),
        hidden=optional_count("--hidden", hidden, LARGEST_HIDDEN),
    )
    files, models = _models(model, specs)
    models = [cached_as(planned, latent_cache) for planned in models]
    for planned in models:
        _require_possible(asked, planned, named=all_models)
    spec_notes(files, quiet=quiet, verbose=verbose)
    with progress(quiet=quiet) as steps:
        report = _all(asked, models, steps) if all_models else _one(asked, models[0], files[0], steps)
    show_report(report, shown, output_path(output), explain=explain, color=color)
    if report.verdict is not None and not report.verdict.yes:
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)


def _models(name: str, specs: str) -> tuple[list[Found], list[Model]]:
    """Return the models to run and their files: the named one, or every one of ``--specs`` or bundled."""
    from kvplan.specs.catalog import find_model, load_model, names

    folder = specs_folder(specs)
    if name:
        files = [find_model(name, folder)]
    else:
        known = names("models", folder).values()
        files = [file for file in known if folder is None or file.path.parent == folder / "models"]
    if not files:
        raise UsageError(f"--all: no model in {specs[:80]!r}", hint="it holds models/*.yaml")
    return files, [load_model(file) for file in files]


def _allocation(cache: str, block_tokens: int, longest: int) -> Allocation:
    from kvplan.allocation import Contiguous, Paged
    from kvplan.check.scenario import room_for

    if cache not in ALLOCATIONS:
        raise unknown("cache", cache, ALLOCATIONS)
    return Paged(block_tokens) if cache == "paged" else Contiguous(room_for(longest))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A run as it was asked for; what goes with every model was looked at, what goes with one was not."""

    batch: int
    prompt: int
    tokens: int
    seed: int
    kv: str
    allocation: Allocation
    chunk: int
    layers: int | None
    hidden: int | None

    def require_possible(self, model: Model) -> None:
        """Plan the run with every request as long as the longest, to refuse it before the engine is loaded.

        Raises:
            UsageError: it does not go with the model, or is too large for this machine.
        """
        from kvplan.arch.scale_down import scaled_down
        from kvplan.check.scenario import require_positions
        from kvplan.plan.requests import Request
        from kvplan.plan.run import predict_run

        require_positions(model, self.prompt + self.tokens)
        scaled = scaled_down(model, layers=self.layers, hidden_size=self.hidden)
        requests = [Request(self.prompt, self.tokens)] * self.batch
        plan = predict_run(scaled, requests, self._kv(model), self.allocation, self.chunk)
        # Weights are drawn, then arranged; a second cache, of float32, tells what storage costs.
        needed = 2 * plan.weights_bytes.number + plan.cache_allocated_bytes.number
        needed += 4 * plan.cache_live_bytes.number if self._kv(model).name != "fp32" else 0
        _require_memory(model, needed)

    def scenario(self, model: Model) -> Scenario:
        """Return the run on a model."""
        from kvplan.check.scenario import Scenario, mixed_lengths

        lengths = mixed_lengths(self.batch, self.prompt, self.seed)
        kv = self._kv(model)
        return Scenario(lengths, self.tokens, self.chunk, self.seed, kv, self.allocation)

    def simulation(self, model: Model, steps: Callable[[str], None]) -> Simulation:
        """Run a model."""
        from kvplan.check.simulation import simulate

        return simulate(model, self.scenario(model), steps, layers=self.layers, hidden_size=self.hidden)

    def _kv(self, model: Model) -> KvFormat:
        from kvplan.storage import kv_format

        return kv_format(self.kv or model.kv_format or model.dtype)


def _require_possible(asked: _Asked, model: Model, *, named: bool) -> None:
    """Refuse a run on a model, naming the model where it is one of several."""
    try:
        asked.require_possible(model)
    except UsageError as error:
        if not named or model.name in error.message:
            raise
        raise UsageError(f"{model.name}: {error.message}", hint=error.hint) from None


def _require_memory(model: Model, needed: int) -> None:
    """Raise UsageError where a run takes more than half of this machine's memory, if that can be known."""
    from kvplan.units import gib

    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return
    if 2 * needed > memory:
        raise UsageError(
            f"{model.name} at this scale takes {gib(needed)} GiB, more than half of this machine's memory",
            hint="a smaller --hidden, --layers, --batch or --prompt",
        )


def _one(asked: _Asked, model: Model, file: Found, steps: Callable[[str], None]) -> Report:
    done = asked.simulation(model, steps)
    from kvplan.check.simulation_report import simulation_report
    from kvplan.check.speed import measure_speed

    steps("measuring this machine")
    return simulation_report(done, measure_speed(done.measurement), file)


def _all(asked: _Asked, models: list[Model], steps: Callable[[str], None]) -> Report:
    done = [asked.simulation(model, partial(_step_of, steps, model.name)) for model in models]
    from kvplan.check.simulation_report import all_report

    return all_report(done)


def _step_of(steps: Callable[[str], None], name: str, doing: str) -> None:
    steps(f"{name}: {doing}")
