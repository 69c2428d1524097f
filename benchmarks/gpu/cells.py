"""The (batch, context) pairs that are measured: those that kvplan says fit. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from prediction import Plan

from kvplan.units import gib, short_count

Cell = tuple[int, int]


def cells_that_fit(
    plan: Plan, batches: Sequence[int], contexts: Sequence[int], chunk_tokens: int
) -> tuple[list[Cell], list[str]]:
    """Ask kvplan which pairs fit; return them, and a sentence for each other one."""
    fitting, skipped = [], []
    for batch in batches:
        for context in contexts:
            planned = plan.memory(batch, context, chunk_tokens)
            if planned.fits:
                fitting.append((batch, context))
            else:
                needs = gib(planned.all_bytes)
                skipped.append(
                    f"batch {batch:,}, context {short_count(context)}: kvplan says it does not fit "
                    f"({needs} GiB to hold)"
                )
    return fitting, skipped
