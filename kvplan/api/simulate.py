"""The plan of a run beside the run itself: on a model scaled down, or on one with its own weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypedDict

from kvplan.allocation import Allocation, Contiguous, Paged
from kvplan.api.given import files_of
from kvplan.api.given_text import GivenText
from kvplan.api.load import ModelLike, load_model, model_file
from kvplan.api.report import Report
from kvplan.api.run_memory import fits_memory, logits_bytes, require_memory, run_bytes
from kvplan.api.silence import silent
from kvplan.arch.latent_cache import cached_as
from kvplan.arch.model import Model
from kvplan.arch.scale_down import scaled_down
from kvplan.charts import Chart
from kvplan.check.scenario import Scenario, mixed_lengths, require_positions, room_for
from kvplan.checks import require_whole
from kvplan.errors import UsageError, unknown
from kvplan.plan.deploy import ALLOCATIONS, LARGEST_BLOCK, LARGEST_DEGREE
from kvplan.plan.requests import Request
from kvplan.plan.run import predict_run
from kvplan.specs.catalog import Found
from kvplan.storage import KvFormat, kv_format

if TYPE_CHECKING:
    from typing import Unpack

    from kvplan.check.simulation import Simulation

LARGEST_BATCH = 256
LARGEST_PROMPT = 1 << 16
LARGEST_TOKENS = 1 << 12
LARGEST_HIDDEN = 1 << 13
LARGEST_SEED = 1 << 31


class SimulateOptions(TypedDict, total=False):
    """What a run can be asked for.

    ``batch`` requests (4) of different lengths; ``prompt_tokens`` (512) of the longest prompt; ``tokens``
    (32) that each adds; ``seed`` (0) of weights, prompts and lengths; ``cache``: ``paged``, or
    ``contiguous``; ``kv``: storage of keys and values, or its name; ``latent_cache``: ``latent``, or
    ``expanded``; ``block_size`` (64): tokens of a block; ``chunk`` (256): tokens of a prompt read at once;
    ``layers``: one of every kind, at least 4, if absent; ``hidden``: width, 256 if absent.

    With ``prompt``, a text, or ``text``, a file of it, a checkpoint runs whole, with its own weights: it
    reads the first ``prompt_tokens`` (512) tokens, and adds ``tokens`` (32), or fewer if a stop token comes.
    ``batch``, ``seed``, ``layers`` and ``hidden`` are then of no use, and refused.
    """

    prompt: str | None
    text: str | os.PathLike[str] | None
    batch: int | None
    prompt_tokens: int
    tokens: int
    seed: int | None
    cache: str
    kv: KvFormat | str | None
    latent_cache: str
    block_size: int
    chunk: int
    layers: int | None
    hidden: int | None


def simulate(
    model: ModelLike,
    *,
    on_step: Callable[[str], None] = silent,
    on_text: Callable[[str], None] | None = None,
    **options: Unpack[SimulateOptions],
) -> Report:
    """Run a model on the bundled engine, and set the plan beside what was counted.

    ``kvplan.simulate("llama-3.1-8b", kv="int8")`` scales it down; ``kvplan.simulate("./SmolLM2-135M",
    prompt="Once upon a time")`` continues a text. The verdict says whether every figure agrees.

    Args:
        model: a name, a file, a folder, or a model.
        on_step: called with what goes on, whenever something else does.
        on_text: called with every piece of a text as it is made; the report shows it then no more.
        options: see :class:`SimulateOptions`.

    Raises:
        UsageError: a name is not known, a value cannot be, or the run is too large for this machine.
        SpecError: mistakes in a file.
        FileError: a file cannot be read.
    """
    run = _Run.of(options)
    file = model_file(model)
    if run.text is None:
        planned = run.of_model(load_model(file))
        run.require_possible(planned)
        done, files = run.simulation(planned, on_step), files_of("model", file)
    else:
        done = run.continuation(run.text, file, on_step, on_text)
        files = (*files_of("model", file), *run.text.echo)
    from kvplan.check.simulation_report import simulation_report
    from kvplan.check.speed import measure_speed

    on_step("measuring this machine")
    report = simulation_report(done, measure_speed(done.measurement), files)
    return Report.of(report, {"simulate": lambda: _chart(done)})


def simulate_all(
    models: Iterable[ModelLike],
    *,
    on_step: Callable[[str], None] = silent,
    **options: Unpack[SimulateOptions],
) -> Report:
    """Do so with several models, one after the other: a line for each.

    Raises:
        UsageError: as :func:`simulate`, before any model is run; the message names the model.
        SpecError: mistakes in a file.
        FileError: a file cannot be read.
    """
    run = _Run.of(options)
    if run.text is not None:
        raise UsageError(f"{run.text.option}: a text is read by one model", hint="kvplan simulate MODEL")
    planned = [run.of_model(load_model(model)) for model in models]
    if not planned:
        raise UsageError("there is no model to simulate")
    for one in planned:
        run.require_possible_by_name(one)
    done = [run.simulation(one, partial(_step_of, on_step, one.name)) for one in planned]
    from kvplan.check.simulation_report import all_report

    return Report.of(all_report(done), {})


@dataclass(frozen=True, slots=True)
class _Run:
    """A run as it was asked for; what goes with every model was looked at, what goes with one was not."""

    text: GivenText | None
    batch: int
    prompt_tokens: int
    tokens: int
    seed: int
    kv: KvFormat | str | None
    latent_cache: str
    allocation: Allocation
    chunk: int
    layers: int | None
    hidden: int | None

    @classmethod
    def of(cls, options: SimulateOptions) -> _Run:
        """Return the run that options mean; raises UsageError where one cannot be."""
        prompt = require_whole("prompt_tokens", options.get("prompt_tokens", 512), LARGEST_PROMPT)
        tokens = require_whole("tokens", options.get("tokens", 32), LARGEST_TOKENS)
        block = require_whole("block_size", options.get("block_size", 64), LARGEST_BLOCK)
        batch, seed = options.get("batch"), options.get("seed")
        return cls(
            text=_text(options),
            batch=require_whole("batch", 4 if batch is None else batch, LARGEST_BATCH),
            prompt_tokens=prompt,
            tokens=tokens,
            seed=require_whole("seed", 0 if seed is None else seed, LARGEST_SEED, least=0),
            kv=options.get("kv"),
            latent_cache=options.get("latent_cache", "latent"),
            allocation=_allocation(options.get("cache", "paged"), block, prompt + tokens),
            chunk=require_whole("chunk", options.get("chunk", 256), LARGEST_PROMPT),
            layers=_optional("layers", options.get("layers"), LARGEST_DEGREE),
            hidden=_optional("hidden", options.get("hidden"), LARGEST_HIDDEN),
        )

    def of_model(self, model: Model) -> Model:
        """Return a model as it is cached in this run."""
        return cached_as(model, self.latent_cache)

    def require_possible(self, model: Model) -> None:
        """Plan the run with every request as long as the longest, to refuse it before the engine is loaded.

        Raises:
            UsageError: it does not go with the model, or is too large for this machine.
        """
        require_positions(model, self.prompt_tokens + self.tokens)
        scaled = scaled_down(model, layers=self.layers, hidden_size=self.hidden)
        requests = [Request(self.prompt_tokens, self.tokens)] * self.batch
        kv = self._kv(model)
        plan = predict_run(scaled, requests, kv, self.allocation, self.chunk)
        # Weights are drawn, then arranged.
        needed = plan.weights_bytes.number + run_bytes(scaled, requests, kv, plan)
        require_memory(
            f"{model.name} at this scale", needed, "a smaller --hidden, --layers, --batch or --prompt-tokens"
        )

    def require_possible_by_name(self, model: Model) -> None:
        """Do so for one of several models, and name it where it is refused."""
        try:
            self.require_possible(model)
        except UsageError as error:
            if model.name in error.message:
                raise
            raise UsageError(f"{model.name}: {error.message}", hint=error.hint) from None

    def simulation(self, model: Model, on_step: Callable[[str], None]) -> Simulation:
        """Run a model."""
        from kvplan.check.simulation import simulate

        lengths = mixed_lengths(self.batch, self.prompt_tokens, self.seed)
        scenario = Scenario(lengths, self.tokens, self.chunk, self.seed, self._kv(model), self.allocation)
        return simulate(model, scenario, on_step, layers=self.layers, hidden_size=self.hidden)

    def continuation(
        self,
        text: GivenText,
        file: Found | Model,
        on_step: Callable[[str], None],
        on_text: Callable[[str], None] | None,
    ) -> Simulation:
        """Run a model with its own weights on a text.

        Raises:
            UsageError: it has no weights, the run does not go with it, or is too large for this machine.
            SpecError: mistakes in a file.
            FileError: a file cannot be read.
        """
        checkpoint = text.checkpoint(file)
        model = self.of_model(checkpoint.model)
        tokenizer = checkpoint.tokenizer()
        prompt = text.prompt(tokenizer, self.prompt_tokens)
        from kvplan.check.text_run import as_it_runs, continue_text

        kv, ran, length = self._kv(model), as_it_runs(model), len(prompt.tokens)
        require_positions(model, length + self.tokens)
        allocation = self.allocation
        if isinstance(allocation, Contiguous):
            allocation = Contiguous(room_for(length + self.tokens))
        requests = [Request(length, self.tokens)]
        plan = predict_run(ran, requests, kv, allocation, self.chunk)
        needed = run_bytes(ran, requests, kv, plan)
        require_memory(
            f"{model.name} with its own weights", needed, f"without {text.option} it runs scaled down"
        )
        both = needed + plan.weights_bytes.number + logits_bytes(ran, requests)
        scenario = Scenario((length,), self.tokens, self.chunk, 0, kv, allocation)
        return continue_text(
            checkpoint, model, tokenizer, prompt, scenario, on_step, on_text, transformers=fits_memory(both)
        )

    def _kv(self, model: Model) -> KvFormat:
        return (
            self.kv if isinstance(self.kv, KvFormat) else kv_format(self.kv or model.kv_format or model.dtype)
        )


def _text(options: SimulateOptions) -> GivenText | None:
    """Return the text that was given, if one was; raises UsageError for options that do not go with it."""
    text = GivenText.of(options.get("prompt"), options.get("text"))
    if text is None:
        return None
    if options.get("batch") not in (None, 1):
        raise UsageError(f"--batch and {text.option}: a text is one request")
    if options.get("seed") is not None:
        raise UsageError(f"--seed and {text.option}: nothing is drawn, every token added is the best one")
    for scale in ("layers", "hidden"):
        if options.get(scale) is not None:
            raise UsageError(f"--{scale} and {text.option}: a model that reads a text is not scaled down")
    return text


def _allocation(cache: str, block_tokens: int, longest: int) -> Allocation:
    if cache not in ALLOCATIONS:
        raise unknown("cache", cache, ALLOCATIONS)
    return Paged(block_tokens) if cache == "paged" else Contiguous(room_for(longest))


def _optional(name: str, value: int | None, largest: int) -> int | None:
    return None if value is None else require_whole(name, value, largest)


def _step_of(on_step: Callable[[str], None], name: str, doing: str) -> None:
    on_step(f"{name}: {doing}")


def _chart(done: Simulation) -> Chart:
    from kvplan.check.charts.simulation import simulation_chart

    return simulation_chart(done)
