"""A baseline against options: what each buys, and what it costs in accuracy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from kvplan.api.given import files_of, given, refuse_drafting
from kvplan.api.load import GpuLike, ModelLike
from kvplan.api.report import Report
from kvplan.api.silence import silent
from kvplan.charts import Chart
from kvplan.checks import require_whole
from kvplan.errors import UsageError
from kvplan.plan.change import Change, parse_changes, usual_changes
from kvplan.plan.deployment import Deployment
from kvplan.plan.setup import Load, Setup

if TYPE_CHECKING:
    from typing import Unpack

    from kvplan.api.given import PlanOptions
    from kvplan.check.comparison import Comparison

USUAL_CONTEXT = 8192
LARGEST_BATCH = 1 << 20


def compare(
    model: ModelLike,
    *,
    gpu: GpuLike | None = None,
    deployment: Deployment | None = None,
    batch: int = 16,
    context: int | None = None,
    changes: Iterable[str | tuple[Change, ...]] = (),
    only: bool = False,
    what_if: bool = False,
    measure: bool = True,
    quality: str | os.PathLike[str] | None = None,
    on_step: Callable[[str], None] = silent,
    **options: Unpack[PlanOptions],
) -> Report:
    """Compare ways to store, cut and serve a model: what each buys, and what it costs in accuracy.

    ``kvplan.compare("llama-3.1-8b", gpu="h100-sxm", context=32768, changes=["prefix=80%"])``

    Args:
        model: a name, a file, or a model.
        gpu: a name, a file, or an accelerator; ``options`` are those of :func:`kvplan.deploy`, and
            ``latent_cache``.
        deployment: a whole deployment, instead of ``gpu`` and ``options``.
        batch: requests at once.
        context: tokens of each; 8k, or the model's limit, if absent.
        changes: options of your own beside the usual ones, each as ``kv=fp8,weights=int4`` or read from that.
        only: compare ``changes`` and nothing else.
        what_if: also options that make another model: fewer KV heads, windows.
        measure: measure what other weights and models cost in accuracy, on the model scaled down.
        quality: a results file of ``kvplan quality``, whose prices of KV formats are quoted; that of
            SmolLM2-135M-Instruct, which comes with kvplan, if absent.
        on_step: called with what goes on, whenever something else does.

    Raises:
        UsageError: a name is not known, or a value cannot be.
        SpecError: mistakes in a file.
        FileError: a file cannot be read.
    """
    refuse_drafting(options)
    own = [parse_changes(one) if isinstance(one, str) else one for one in changes]
    if only and not own:
        raise UsageError("--only needs a --with", hint="--with kv=fp8")
    plan = given(model, gpu, deployment, options)
    setup = Setup(plan.model, plan.deployment, _load(plan.deployment.max_tokens, batch, context))
    tried = list(dict.fromkeys([*(() if only else usual_changes(setup)), *own]))
    from kvplan.check.comparison import compare as compared
    from kvplan.check.comparison_report import comparison_report
    from kvplan.check.measured_price import read_prices, results_file

    results = results_file(quality)
    prices = read_prices(results.path)
    done = compared(setup, tried, on_step, prices=prices, what_if=what_if or only, measured=measure)
    load = (("batch", setup.load.batch), ("context_tokens", setup.load.context))
    report = comparison_report(done, (*plan.files, *files_of("quality", results), *load))
    return Report.of(report, {"compare": lambda: _chart(done)})


def _load(longest: int, batch: int, context: int | None) -> Load:
    tokens = min(USUAL_CONTEXT, longest) if context is None else require_whole("context", context, 1 << 40)
    if tokens > longest:
        raise UsageError(
            f"--context: {tokens:,} tokens are more than the {longest:,} allowed", hint="--max-length"
        )
    return Load(require_whole("batch", batch, LARGEST_BATCH), tokens)


def _chart(done: Comparison) -> Chart:
    from kvplan.check.charts.compare import compare_chart

    return compare_chart(done)
