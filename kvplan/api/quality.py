"""What cache formats cost a real model on a real text, beside what they save."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kvplan import __version__
from kvplan.api.given import files_of
from kvplan.api.given_text import GivenText
from kvplan.api.load import GpuLike, gpu_file, load_gpu
from kvplan.api.report import Report
from kvplan.api.run_memory import require_memory
from kvplan.api.silence import silent
from kvplan.arch.model import Model
from kvplan.charts import Chart
from kvplan.checks import require_whole
from kvplan.errors import UsageError, unknown
from kvplan.plan.requests import Request
from kvplan.plan.run import predict_run
from kvplan.storage import kv_format
from kvplan.units import LARGEST_COUNT

if TYPE_CHECKING:
    from kvplan.check.quality import Protocol, Quality
    from kvplan.check.quality_formats import CacheFormat
    from kvplan.check.quality_report import Price
    from kvplan.checkpoint.checkpoint import Checkpoint
    from kvplan.engine.arrays import Tokens
    from kvplan.results import Scalar

USUAL_CONTEXT = USUAL_STRIDE = 512
USUAL_GREEDY = 64
USUAL_GPU = "h100-sxm"
LARGEST_CONTEXT = 1 << 20
WHEN = ("append", "prefill")


def quality(
    path: str | os.PathLike[str],
    text: str | os.PathLike[str],
    *,
    kv: str | Iterable[str] = (),
    context: int = USUAL_CONTEXT,
    stride: int = USUAL_STRIDE,
    tokens: int | None = None,
    when: str = "append",
    greedy: int = USUAL_GREEDY,
    gpu: GpuLike = USUAL_GPU,
    on_step: Callable[[str], None] = silent,
) -> Report:
    """Measure what cache formats cost a released model: perplexity, divergence, and texts that differ.

    ``kvplan.quality("model.gguf", "text.txt", kv=["int8", "int4-kivi", "window-256+4"])``. An interrupt
    (Ctrl-C) ends the run, and the report, which says so in its inputs, is of the windows that were read.

    Args:
        path: a folder with safetensors, a .safetensors file, or a .gguf file.
        text: a file of UTF-8 text.
        kv: formats, or one text with commas between them: storage, ``window-256``, ``window-256+4`` with sink
            tokens, or ``int8/window-256``; the usual ones if empty.
        context: tokens of each window that are read before any is scored.
        stride: tokens behind them, all but the first of which are scored.
        tokens: tokens to score at most; all that whole windows score if absent.
        when: ``append``, to quantise tokens as they are stored, or ``prefill``, the context once it is read.
        greedy: tokens each format writes greedily behind a context; 0 for none.
        gpu: what requests at once are counted on.
        on_step: called with what goes on, whenever something else does.

    Raises:
        UsageError: a value cannot be, the text is too short, or the model cannot take a format.
        SpecError: mistakes in a file.
        FileError: a file cannot be read.
        KeyboardInterrupt: before one window was read.
    """
    from kvplan.checkpoint.checkpoint import open_checkpoint

    on_step("opening the model")
    checkpoint = open_checkpoint(path)
    asked = _Asked(
        path=Path(path),
        text=Path(text),
        kv=kv if isinstance(kv, str) else ",".join(kv),
        context=require_whole("context", context, LARGEST_CONTEXT),
        stride=require_whole("stride", stride, LARGEST_CONTEXT, least=2),
        tokens=None if tokens is None else require_whole("tokens", tokens, LARGEST_COUNT),
        when=when,
        greedy=require_whole("greedy", greedy, LARGEST_CONTEXT, least=0),
        gpu=gpu,
    )
    return _measured(asked, checkpoint, on_step)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked for."""

    path: Path
    text: Path
    kv: str
    context: int
    stride: int
    tokens: int | None
    when: str
    greedy: int
    gpu: GpuLike

    def protocol(self, begin: tuple[int, ...] = ()) -> Protocol:
        """Return how windows are read."""
        from kvplan.check.quality import Protocol, When

        if self.when not in WHEN:
            raise unknown("time to quantise", self.when, WHEN)
        return Protocol(self.context, self.stride, When(self.when), self.greedy, begin)

    def command(self, gpu: str) -> str:
        """Return the command line that asks for it, of file names without their folders."""
        words = ["kvplan", "quality", self.path.name, "--text", self.text.name]
        words += ["--kv", self.kv] * bool(self.kv)
        words += ["--context", str(self.context), "--stride", str(self.stride)]
        words += [] if self.tokens is None else ["--tokens", str(self.tokens)]
        words += ["--when", self.when, "--greedy", str(self.greedy), "--gpu", gpu]
        return shlex.join(words)


def _measured(asked: _Asked, checkpoint: Checkpoint, on_step: Callable[[str], None]) -> Report:
    """Refuse what cannot be before the weights are read, which takes longest; then measure."""
    from kvplan.check.quality import measure_quality
    from kvplan.check.quality_formats import CacheFormat
    from kvplan.check.quality_report import prices, quality_report
    from kvplan.check.quality_savings import savings
    from kvplan.check.text_run import as_it_runs

    model, gpu = checkpoint.model, gpu_file(asked.gpu)
    device = load_gpu(gpu)
    _require_positions(model, asked.protocol())
    formats, left_out = _formats(asked, model)
    saved = savings(model, device, (CacheFormat(), *formats), asked.context + asked.stride)
    on_step("reading the text")
    begin, ids = _tokens(checkpoint, asked.text)
    protocol = asked.protocol(begin)
    windows = _windows(asked, protocol, len(ids))
    ran = as_it_runs(model)
    _require_memory(ran, protocol)
    on_step("reading the weights")
    done = measure_quality(ran, checkpoint.weights(), ids, formats, protocol, windows, on_step)
    found = prices(done, saved)
    inputs = (*_inputs(asked, done, device.name), *files_of("gpu", gpu))
    report = quality_report(done, found, device.label, asked.text.name, left_out, inputs)
    return Report.of(report, {"quality": lambda: _chart(done, found, asked.text.name)})


def _formats(asked: _Asked, model: Model) -> tuple[tuple[CacheFormat, ...], tuple[str, ...]]:
    """Return the formats to measure beside float32, and the names of usual ones that do not go."""
    from kvplan.check.quality_formats import (
        CacheFormat,
        is_possible,
        parse_formats,
        require_possible,
        usual_formats,
    )

    longest = asked.context + asked.stride
    if asked.kv:
        named = tuple(one for one in parse_formats(asked.kv) if one != CacheFormat())
        require_possible(model, named, longest)
        return named, ()
    usual = usual_formats(asked.context)
    taken = tuple(one for one in usual if is_possible(model, one, longest))
    return taken, tuple(one.name for one in usual if one not in taken)


def _require_positions(model: Model, protocol: Protocol) -> None:
    """Refuse windows longer than the model was made for; raises UsageError."""
    longest = model.max_position_embeddings
    if protocol.longest > longest:
        behind = "--greedy" if protocol.greedy > protocol.stride else "--stride"
        raise UsageError(
            f"--context and {behind}: {protocol.longest:,} tokens are more than the {longest:,} positions "
            f"{model.name} was made for"
        )


def _tokens(checkpoint: Checkpoint, text: Path) -> tuple[tuple[int, ...], Tokens]:
    """Return the tokens that the tokenizer begins every text with, and those of the text itself."""
    given = GivenText.of(None, text)
    assert given is not None
    tokenizer = checkpoint.tokenizer()
    ids, begin = tokenizer.encode(given.content), tuple(tokenizer.encode("").tolist())
    if tuple(ids[: len(begin)].tolist()) != begin:
        begin = ()
    return begin, ids[len(begin) :]


def _windows(asked: _Asked, protocol: Protocol, tokens: int) -> int:
    """Return how many windows of a text are read.

    Raises:
        UsageError: not one, for the text is too short or too few tokens are to be scored.
    """
    whole = protocol.windows(tokens)
    if len(protocol.begin) >= protocol.context:
        raise UsageError(f"--context: {protocol.context} tokens are all taken by what begins every text")
    if not whole:
        raise UsageError(
            f"the text is too short: it has {tokens + len(protocol.begin):,} tokens, and a window is of "
            f"{protocol.context:,} + {protocol.stride:,}",
            hint="a longer text, or less --context and --stride",
        )
    if asked.tokens is None:
        return whole
    most = asked.tokens // protocol.scored
    if not most:
        raise UsageError(
            f"--tokens: {asked.tokens:,} are fewer than the {protocol.scored:,} one window scores",
            hint=f"--tokens {protocol.scored}, or less --stride",
        )
    return min(whole, most)


def _require_memory(model: Model, protocol: Protocol) -> None:
    """Refuse a run that this machine has not half the memory for; raises UsageError."""
    from kvplan.check.quality import CHUNK_TOKENS
    from kvplan.check.quality_formats import ALLOCATION

    request = Request(protocol.context, protocol.longest - protocol.context)
    plan = predict_run(model, [request], kv_format("fp32"), ALLOCATION, CHUNK_TOKENS)
    # A fork beside the sequence; what the reference predicts, and some rows that are compared with it.
    caches = 2 * plan.cache_allocated_bytes.number
    predictions = 4 * model.vocab_size * (protocol.scored + 2 * CHUNK_TOKENS)
    needed = plan.weights_bytes.number + caches + predictions
    require_memory(f"{model.name} in float32", needed, "a smaller model, or less --context and --stride")


def _inputs(asked: _Asked, done: Quality, gpu: str) -> tuple[tuple[str, Scalar | list[int]], ...]:
    """Return what a report says it is from, and how it was made."""
    import numpy as np

    return (
        ("model", done.model.name),
        ("model_file", asked.path.name),
        ("model_sha256", _sha256(_files_of(asked.path))),
        ("text", asked.text.name),
        ("text_sha256", _sha256([asked.text])),
        ("tokens", done.windows * done.protocol.scored),
        ("windows", done.windows),
        ("context", asked.context),
        ("stride", asked.stride),
        ("when", asked.when),
        ("greedy", asked.greedy),
        ("partial", done.partial),
        ("date", datetime.now(UTC).date().isoformat()),
        ("command", asked.command(gpu)),
        ("version", __version__),
        ("python", platform.python_version()),
        ("numpy", np.__version__),
        ("gpu", gpu),
    )


def _files_of(path: Path) -> list[Path]:
    """Return the files a checkpoint is: itself, or weights, description and tokenizer in a folder."""
    if not path.is_dir():
        return [path]
    found = [*path.glob("*.safetensors"), path / "config.json", path / "tokenizer.json"]
    return sorted(file for file in found if file.is_file())


def _sha256(files: Iterable[Path]) -> str:
    """Return the SHA-256 of what files hold, one after another."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while part := content.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


def _chart(done: Quality, found: Sequence[Price], text: str) -> Chart:
    from kvplan.check.charts.quality import quality_chart

    return quality_chart(done, found, text)
