"""Where memory goes, how the cache grows, and what fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvplan.api.given import given
from kvplan.api.load import GpuLike, ModelLike
from kvplan.api.report import Report
from kvplan.checks import require_whole
from kvplan.plan.capacity import Capacity, plan_capacity
from kvplan.plan.capacity_report import capacity_report
from kvplan.plan.deployment import Deployment
from kvplan.units import LARGEST_COUNT

if TYPE_CHECKING:
    from typing import Unpack

    from kvplan.api.given import PlanOptions
    from kvplan.charts import Chart

USUAL_BATCHES = (1, 16, 64)


def capacity(
    model: ModelLike,
    *,
    gpu: GpuLike | None = None,
    deployment: Deployment | None = None,
    contexts: Sequence[int] = (),
    batches: Sequence[int] = (),
    **options: Unpack[PlanOptions],
) -> Report:
    """Say where GPU memory goes, how the KV cache grows, and what fits.

    ``kvplan.capacity("llama-3.1-8b", gpu="h100-sxm", gpus=2, kv="fp8", contexts=(4096,), batches=(1, 16))``

    Args:
        model: a name, a file, or a model.
        gpu: a name, a file, or an accelerator; ``options`` are those of :func:`kvplan.deploy`,
            ``latent_cache`` and ``mtp``.
        deployment: a whole deployment, instead of ``gpu`` and ``options``.
        contexts: tokens of a request; a short, a middle and the longest context if absent.
        batches: requests at once; 1, 16 and 64 if absent.

    Raises:
        UsageError: a name is not known, or a value cannot be.
        SpecError: mistakes in a file.
        FileError: a file cannot be read.
    """
    wanted = [require_whole("contexts", tokens, LARGEST_COUNT) for tokens in contexts]
    held = [require_whole("batches", requests, LARGEST_COUNT) for requests in batches]
    plan = given(model, gpu, deployment, options)
    shown = wanted or _usual_contexts(plan.deployment.max_tokens)
    usual = None if held else shown[len(shown) // 2]
    planned = plan_capacity(plan.model, plan.deployment)
    report = capacity_report(
        planned,
        shown,
        held or USUAL_BATCHES,
        decide_context=max(wanted) if wanted else usual,
        decide_batch=max(held, default=1),
        inputs=(*plan.files, ("context_tokens", shown), ("batch", held or list(USUAL_BATCHES))),
    )
    context = max(wanted) if wanted else shown[len(shown) // 2]
    return Report.of(
        report,
        {
            "frontier": lambda: _frontier(planned, context),
            "growth": lambda: _growth(planned),
            "memory": lambda: _memory(planned),
        },
    )


def _usual_contexts(longest: int) -> list[int]:
    """Return a short, a middle and the longest context: 4k, 32k and 128k for a 128k model."""
    return list(dict.fromkeys(max(1, longest // part) for part in (32, 4, 1)))


def _frontier(planned: Capacity, context: int) -> Chart:
    from kvplan.plan.charts.frontier import frontier_chart
    from kvplan.plan.charts.words import Named

    return frontier_chart([Named(planned.model.name, planned)], context)


def _growth(planned: Capacity) -> Chart:
    from kvplan.plan.charts.growth import growth_chart
    from kvplan.plan.charts.words import Named

    return growth_chart([Named(planned.model.name, planned)])


def _memory(planned: Capacity) -> Chart:
    from kvplan.plan.charts.memory import memory_chart
    from kvplan.plan.charts.words import Named

    return memory_chart([Named(planned.model.name, planned)])
