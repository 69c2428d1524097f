"""``kvplan check``: does a plan hold."""

from __future__ import annotations

from typing import Annotated

import typer

from kvplan.cli.options import AnswerOptions, Explain, exit_where_no
from kvplan.cli.spread import spread


@spread
def check(
    plans: Annotated[list[str], typer.Argument(metavar="PLAN...", help="Plan files: kvplan schema plan.")],
    *,
    explain: Explain = "",
    answer: AnswerOptions,
) -> None:
    """Check that plans hold: what each requires, what there is, and the margin. Exits 1 where one does not.

    Example: kvplan check plan.yaml
    """
    from kvplan.api.check import check_plan
    from kvplan.api.plan import files_of_plan, load_plan

    answer.require_known()
    folder = answer.folder()
    loaded = [load_plan(plan, specs=folder) for plan in plans]
    reports = [check_plan(plan, specs=folder) for plan in loaded]
    files = [file for plan in loaded for file in files_of_plan(plan, specs=folder)]
    answer.show_all_of(list(dict.fromkeys(files)), reports, explain=explain)
    for report in reports:
        exit_where_no(report)
