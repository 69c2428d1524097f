"""Measure a GPU beside what kvplan says of it, and print Markdown tables of both.

    pip install -e '.[gpu]'
    python benchmarks/gpu/measure.py --gpu h100-sxm -o table.md
    python benchmarks/gpu/measure.py --device cpu --smoke      # a trial of the scripts, on any machine

Memory bandwidth, the model's matrix products, decode attention, and the whole model with random weights.
Nothing is downloaded. The exit status is 1 where a time is below kvplan's bound, or where bytes that have to
be equal are not. See README.md here.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from card import Card, read_card, require_idle, require_same
from cells import cells_that_fit
from fit import efficiency_yaml
from prediction import Plan
from report import TimeRow, Topic, document, mistakes
from sizes import llama_sizes

import kvplan
from kvplan.arch.model import Model
from kvplan.arch.scale_down import scaled_down
from kvplan.errors import ExitStatus, FileError, KvplanError, UsageError
from kvplan.hardware.device import Device
from kvplan.specs.catalog import find_gpu, find_model, load_gpu, load_model
from kvplan.units import GIB, MIB, gib, parse_count


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured: requests, contexts, rows of products, tokens of a prefill step, bytes of a copy."""

    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    rows: tuple[int, ...]
    chunk_tokens: int
    copy_bytes: int


FULL = Sizes((1, 8, 32), (1024, 4096, 16384), (1, 8, 64, 512, 4096), 8192, GIB)
SMOKE = Sizes((1, 2), (32, 64), (1, 8), 64, MIB)


def main() -> int:
    """Measure, print, and return the exit status."""
    arguments = _parser().parse_args()
    try:
        return run(arguments)
    except KvplanError as error:
        print("error: " + "\n       ".join(error.lines()), file=sys.stderr)
        return int(error.exit_status)


def run(arguments: argparse.Namespace) -> int:
    """Do what the options ask.

    Raises:
        UsageError: an option that cannot be, or a card that is not the one named.
        FileError: the table cannot be written.
    """
    device, model = _asked_device(arguments), _asked_model(arguments)
    card = None if arguments.device == "cpu" else _asked_card(arguments, device)
    facts = _machine_facts(arguments, device, card)
    topics, blocks = _measured(arguments, Plan(_sixteen_bit(model, device), device), card)
    text = document(_title(arguments, model, device), facts, topics)
    text += "".join(f"\n```yaml\n{block}\n```\n" for block in blocks)
    print(text, end="", flush=True)
    if arguments.output:
        _write(Path(arguments.output), text)
    return int(ExitStatus.ANSWER_IS_NO if mistakes(topics) else ExitStatus.SUCCESS)


def _measured(arguments: argparse.Namespace, plan: Plan, card: Card | None) -> tuple[list[Topic], list[str]]:
    """Return the tables and, with ``--fit``, the block of constants."""
    import attention
    import bandwidth
    import decoding
    import gemm
    import torch
    from stopwatch import CpuStopwatch, CudaStopwatch, Stopwatch

    stopwatch: Stopwatch = CpuStopwatch() if card is None else CudaStopwatch(card.l2_bytes)
    sizes, llama = _sizes(arguments), llama_sizes(plan.model)
    dtype = torch.float16 if plan.model.dtype == "fp16" else torch.bfloat16
    cells, left_out = cells_that_fit(plan, sizes.batches, sizes.contexts, sizes.chunk_tokens)
    torch.manual_seed(0)
    with torch.no_grad():
        _say("memory bandwidth")
        copied = bandwidth.measure(stopwatch, plan, sizes.copy_bytes)
        _say("matrix products")
        products = gemm.measure(stopwatch, plan, llama, sizes.rows, dtype)
        _say("decode attention")
        attended, kernels = attention.measure(stopwatch, plan, llama, cells, dtype)
        _say("the whole model")
        memory, steps = decoding.measure(
            stopwatch, plan, llama, kernels, dtype, sizes.chunk_tokens, fuse=arguments.compile
        )
    steps = replace(steps, skipped=(*left_out, *attended.skipped))
    blocks = []
    if arguments.fit:
        source = f"benchmarks/gpu/measure.py, {datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}"
        blocks = [efficiency_yaml(plan, _time_rows(products), _time_rows(attended), source)]
    return [copied, products, attended, memory, steps], blocks


def _title(arguments: argparse.Namespace, model: Model, device: Device) -> str:
    """Return the heading; that of a trial says that it is one."""
    if arguments.smoke:
        where = "the CPU" if arguments.device == "cpu" else device.label
        return f"A trial of the scripts: {model.name} scaled down, on {where}. These times say nothing"
    return f"{model.name} on {device.label}, measured and planned"


def _time_rows(topic: Topic) -> list[TimeRow]:
    return [row for row in topic.rows if isinstance(row, TimeRow)]


def _asked_device(arguments: argparse.Namespace) -> Device:
    if not arguments.gpu and not arguments.smoke:
        raise UsageError(
            "--gpu is missing: which card is this?", hint="kvplan gpus list, or your own YAML file"
        )
    return load_gpu(find_gpu(arguments.gpu or "h100-sxm"))


def _asked_model(arguments: argparse.Namespace) -> Model:
    """Return the model, scaled down for a trial."""
    if arguments.device == "cpu" and not arguments.smoke:
        raise UsageError(
            "the CPU has no plan to be compared with", hint="--device cpu --smoke tries the scripts"
        )
    model = load_model(find_model(arguments.model))
    llama_sizes(model)
    return scaled_down(model) if arguments.smoke else model


def _sixteen_bit(model: Model, device: Device) -> Model:
    """Return the model in bf16, or in fp16 where the card multiplies in no bf16."""
    return replace(model, dtype="bf16" if device.peak_dense.bf16_tflops else "fp16")


def _sizes(arguments: argparse.Namespace) -> Sizes:
    """Return what is asked for, and what stands where nothing is."""
    usual = SMOKE if arguments.smoke else FULL
    return replace(
        usual,
        batches=_counts(arguments.batches) or usual.batches,
        contexts=_counts(arguments.contexts) or usual.contexts,
        rows=_counts(arguments.rows) or usual.rows,
    )


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(parse_count(one.strip()) for one in text.split(",")) if text else ()
    except ValueError as error:
        raise UsageError(str(error)) from error


def _asked_card(arguments: argparse.Namespace, device: Device) -> Card:
    """Return the card that is here, if it is the one that was named and nobody else uses it.

    Raises:
        UsageError: it is not, and ``--force`` is not given; or there is none.
    """
    found = read_card(device)
    if not arguments.force:
        require_same(device, found)
        require_idle(found)
    return found


def _machine_facts(arguments: argparse.Namespace, device: Device, card: Card | None) -> list[tuple[str, str]]:
    """Return what a reader has to know of the machine."""
    import platform

    import torch
    import transformers

    software = (
        f"torch {torch.__version__}, transformers {transformers.__version__}, kvplan {kvplan.__version__}"
    )
    facts = [
        ("date", f"{datetime.now(UTC):%Y-%m-%d}"),
        ("command", "python benchmarks/gpu/measure.py " + " ".join(sys.argv[1:])),
        ("software", f"{software}, CUDA {torch.version.cuda or 'none'}, Python {platform.python_version()}"),
    ]
    if card is None:
        return [*facts, ("card", f"none; the plan is for {device.name}")]
    if arguments.force:
        facts.append(("forced", f"the plan is for {device.name}, whatever card this is, idle or not"))
    return [*facts, ("card", f"{card.name}, {gib(card.memory_bytes)} GiB to torch"), *card.facts]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write '{path}': {error.strerror}") from error


def _say(what: str) -> None:
    print(f"measuring {what} ...", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--gpu", default="", metavar="NAME", help="kvplan's name of this card, or a YAML file"
    )
    parser.add_argument("--model", default="llama-3.1-8b", help="a model with a Llama's layers")
    parser.add_argument("--batches", default="", metavar="N,N", help="requests; 1,8,32 if absent")
    parser.add_argument("--contexts", default="", metavar="N,N", help="cached tokens; 1k,4k,16k if absent")
    parser.add_argument("--rows", default="", metavar="N,N", help="rows of products; 1,8,64,512,4k if absent")
    parser.add_argument("--compile", action="store_true", help="fuse norms and rotations with torch.compile")
    parser.add_argument("--fit", action="store_true", help="print constants for the card's kvplan file")
    parser.add_argument("--force", action="store_true", help="go on where the card is not the one named")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--smoke", action="store_true", help="a small model, small sizes: does all of it run?"
    )
    parser.add_argument("-o", "--output", default="", metavar="FILE", help="write the tables there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
