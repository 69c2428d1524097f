"""``kvplan simulate``: the plan of a run beside the run itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kvplan.cli.deployment import Kv, LatentCache, ModelName
from kvplan.cli.options import AnswerOptions, count, exit_where_no, optional_count, whole_number
from kvplan.cli.picture import PlotOptions
from kvplan.cli.plan_option import with_plan
from kvplan.cli.progress import Steps, progress
from kvplan.cli.spread import spread
from kvplan.cli.told_text import ToldText
from kvplan.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from kvplan.api.report import Report
    from kvplan.api.simulate import SimulateOptions
    from kvplan.specs.catalog import Found


@with_plan(without=("batch", "block_size", "chunk"))
@spread
def simulate(
    *,
    model: ModelName = "",
    all_models: Annotated[
        bool, typer.Option("--all", help="Simulate every model of --specs DIR, or every bundled one.")
    ] = False,
    prompt: Annotated[
        str, typer.Option(metavar="TEXT", help="A text for a checkpoint to continue, with its own weights.")
    ] = "",
    text: Annotated[
        str, typer.Option(metavar="FILE", help="A file whose text it continues: UTF-8, up to 16 MiB.")
    ] = "",
    batch: Annotated[
        str, typer.Option(metavar="N", help="Requests, of different lengths; 4 if absent, 1 of a text.")
    ] = "",
    prompt_tokens: Annotated[
        str, typer.Option(metavar="N", help="Tokens of the longest prompt; of a text, the first so many.")
    ] = "512",
    tokens: Annotated[
        str, typer.Option(metavar="N", help="Tokens each request adds; a text may end sooner.")
    ] = "32",
    seed: Annotated[
        str, typer.Option(metavar="N", help="Seed of random weights, prompts and lengths; 0 if absent.")
    ] = "",
    cache: Annotated[str, typer.Option(metavar="HOW", help="paged, or contiguous.")] = "paged",
    kv: Kv = "",
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
    picture: PlotOptions,
    answer: AnswerOptions,
) -> None:
    """Run a model on the bundled engine, and set the plan beside what was counted.

    It is scaled down, with random weights, and keeps what decides how a cache behaves. With --prompt or
    --text, a checkpoint runs whole and continues the text. Exits 1 where a figure differs.

    Example: kvplan simulate llama-3.1-8b --kv int8
    """
    from kvplan.api import simulate as api
    from kvplan.plan.deploy import LARGEST_BLOCK, LARGEST_DEGREE

    if bool(model) == all_models:
        what = "a model, or --all: not both" if model else "name a model, or say --all"
        raise UsageError(what, hint="kvplan simulate llama-3.1-8b")
    if all_models and picture.plot:
        raise UsageError("--plot is of one model", hint="kvplan simulate MODEL --plot FILE.svg")
    answer.require_known()
    picture.require_known()
    options: SimulateOptions = {
        "prompt": prompt or None,
        "text": text or None,
        "batch": optional_count("--batch", batch, api.LARGEST_BATCH),
        "prompt_tokens": count("--prompt-tokens", prompt_tokens, api.LARGEST_PROMPT),
        "tokens": count("--tokens", tokens, api.LARGEST_TOKENS),
        "seed": whole_number("--seed", seed, api.LARGEST_SEED) if seed else None,
        "cache": cache,
        "kv": kv or None,
        "latent_cache": latent_cache,
        "block_size": count("--block-size", block_size, LARGEST_BLOCK),
        "chunk": count("--chunk", chunk, api.LARGEST_PROMPT),
        "layers": optional_count("--layers", layers, LARGEST_DEGREE),
        "hidden": optional_count("--hidden", hidden, api.LARGEST_HIDDEN),
    }
    files = _files(model, answer.folder())
    with progress(quiet=answer.quiet) as steps:
        if all_models:
            report = api.simulate_all(files, on_step=steps, **options)
        elif answer.is_table and not explain:
            report = _told(steps, files[0], options)
        else:
            report = api.simulate(files[0], on_step=steps, **options)
        picture.save(report.chart, steps)
    answer.show_of(files, report, explain=explain)
    exit_where_no(report)


def _told(steps: Steps, model: Found, options: SimulateOptions) -> Report:
    """Simulate a model, and show the text it makes, if it does, while it makes it."""
    from kvplan.api.simulate import simulate

    told = ToldText(steps)
    try:
        return simulate(model, on_step=told.step, on_text=told.add, **options)
    finally:
        told.end()


def _files(name: str, folder: Path | None) -> list[Found]:
    """Return the files of the models to run: of the named one, or every one of ``--specs`` or bundled."""
    from kvplan.specs.catalog import find_model, names

    if name:
        return [find_model(name, folder)]
    known = names("models", folder).values()
    files = [file for file in known if folder is None or file.path.parent == folder / "models"]
    if not files:
        raise UsageError(f"--all: no model in {str(folder)[:80]!r}", hint="it holds models/*.yaml")
    return files
