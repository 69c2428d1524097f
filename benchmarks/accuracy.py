"""How near bounds and estimates are to published measurements: prints the tables of docs/accuracy.md.

python benchmarks/accuracy.py             # tables
python benchmarks/accuracy.py --rows      # every row too
python benchmarks/accuracy.py --markdown  # writes the tables into docs/accuracy.md
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ggml_files import read_weight_bytes, roofline_of, runtime_of
from public_cases import LEFT_OUT, Case, Regime, read_cases

from kvplan.hardware.runtime_fits import runtime_fit
from kvplan.plan.capacity import plan_capacity
from kvplan.plan.deployment import Parallelism
from kvplan.plan.roofline import Roofline, plan_roofline
from kvplan.plan.runtime_step import decode_s, prefill_s
from kvplan.plan.serving import mean_context_tokens, steady_state, time_to_first_token
from kvplan.plan.step_time import Times
from kvplan.units import GB

PAGE = Path(__file__).resolve().parent.parent / "docs" / "accuracy.md"
BEGIN, END = "<!-- begin: python benchmarks/accuracy.py --markdown -->", "<!-- end -->"
PERCENT = 100
ALL_REQUESTS = 1 << 20  # so many that weights, read once for all, cost nothing


@dataclass(frozen=True, slots=True)
class Judged:
    """A measured time, and what was planned: seconds."""

    case: Case
    bound_s: float
    estimate_s: float

    @property
    def error(self) -> float:
        """How far the estimate is off, as a share of the measurement; negative where too short."""
        return self.estimate_s / self.case.measured - 1

    @property
    def bound_share(self) -> float:
        """The bound as a share of the measurement: above 1 it is wrong."""
        return self.bound_s / self.case.measured


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A measured throughput, and what cannot be passed: tokens a second of the whole deployment."""

    case: Case
    most_tokens_per_s: float

    @property
    def bound_share(self) -> float:
        """The measurement as a share of the ceiling: above 1 it is wrong."""
        return self.case.measured / self.most_tokens_per_s


def judged_latency(case: Case) -> Judged:
    """Return the bound and the estimate of a time."""
    roofline = plan_roofline(case.model, case.deployment)
    if not case.is_ggml:
        times = planned(case, roofline)
        return Judged(case, float(times.bound_s), float(times.estimate_s))
    times = planned(case, roofline_of(case))
    fit = runtime_fit(runtime_of(case), case.deployment.weights.name)
    if case.regime is Regime.PREFILL:
        steps = roofline.prefill(1, case.prompt + case.cached, case.cached)
        return Judged(case, float(times.bound_s), float(prefill_s(roofline, fit, *steps)))
    weight_bytes = read_weight_bytes(case, roofline)
    expected = decode_s(roofline, fit, case.batch, case.context, weight_bytes)
    return Judged(
        case, max(float(times.bound_s), ggml_bound_s(case, roofline, weight_bytes)), float(expected)
    )


def planned(case: Case, roofline: Roofline) -> Times:
    """Return the times that the roofline has for a row."""
    match case.regime:
        case Regime.CLOSED_LOOP:
            return steady_state(roofline, case.batch, case.prompt, case.output).each_token
        case Regime.SINGLE_STREAM | Regime.BATCH_DECODE:
            return roofline.times(roofline.decode(case.batch, case.context))
        case Regime.PREFILL:
            return time_to_first_token(roofline, case.prompt + case.cached, case.cached)
        case _:
            decode = roofline.times(roofline.decode(case.batch, case.context))
            return roofline.prefill_times(case.batch, case.prompt) + decode.scaled(case.output - 1)


def ggml_bound_s(case: Case, roofline: Roofline, weight_bytes: float) -> float:
    """Return the least time to read a mixed file once; of several requests' experts only one's are sure."""
    if case.batch > 1:
        return 0.0
    cache = float(roofline.work(roofline.decode(1, case.context)).kv_read_bytes)
    return (weight_bytes + cache) / (case.deployment.device.memory.bandwidth_gb_per_s * GB)


def ceiling(case: Case) -> Ceiling:
    """Return the tokens a second that cannot be passed.

    With known lengths: of as many requests as memory holds when nothing else is in it. With unknown ones: of
    any number of requests without prompts on accelerators that exchange nothing.
    """
    gpus = case.deployment.parallelism.gpus
    if case.regime is Regime.MLPERF:
        gpus = case.gpus
        alone = plan_roofline(case.model, replace(case.deployment, parallelism=Parallelism()))
        step = alone.times(alone.decode(ALL_REQUESTS, case.output / 2))
        return Ceiling(case, gpus * ALL_REQUESTS / float(step.bound_s))
    bare = replace(case.deployment, utilization_bp=10_000, overhead_bytes=0, chunk_tokens=256)
    held = int(mean_context_tokens(case.prompt, case.output))
    most = plan_capacity(case.model, bare).max_batch(held)
    roofline = plan_roofline(case.model, case.deployment)
    return Ceiling(case, float(steady_state(roofline, most, case.prompt, case.output).most_tokens_per_s))


def judge() -> tuple[list[Judged], list[Ceiling]]:
    """Return every judged row."""
    cases = read_cases()
    return (
        [judged_latency(case) for case in cases if case.regime.is_latency],
        [ceiling(case) for case in cases if not case.regime.is_latency],
    )


# ------------------------------------------------------------------ tables


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest of the values that so large a share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median_error(rows: Sequence[Judged]) -> float:
    """Return the median of |estimate / measured - 1|."""
    return statistics.median(abs(row.error) for row in rows)


def p90_error(rows: Sequence[Judged]) -> float:
    """Return what nine in ten of |estimate / measured - 1| do not exceed."""
    return percentile((abs(row.error) for row in rows), 0.9)


SOURCES = {
    "aic": "vLLM, TensorRT-LLM, SGLang: time per token under load",
    "t06": "TensorRT-LLM 0.5 and 0.6",
    "gf": "gpt-fast",
    "mlc": "MLC-LLM",
    "xd": "llama.cpp, May 2024",
    "sp": "llama.cpp on GB10, 2025",
    "jg": "llama.cpp and Ollama, 2025",
    "l2917": "llama.cpp on Metal, 2023",
}


def latency_table(rows: list[Judged]) -> Iterable[str]:
    """Iterate over the lines of the table of times."""
    yield "| what | measured with | rows | above the bound | bound / measured | median error | p90 | bias |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    groups: dict[tuple[str, str], list[Judged]] = {}
    for row in rows:
        groups.setdefault((row.case.regime.value, row.case.source), []).append(row)
    for (regime, source), same in sorted(groups.items()):
        yield latency_line(regime.replace("_", " "), SOURCES[source], same)
    for regime in sorted({row.case.regime.value for row in rows}):
        same = [row for row in rows if row.case.regime.value == regime]
        yield latency_line(f"**{regime.replace('_', ' ')}**", "all", same)
    by_roofline = [row for row in rows if not row.case.is_ggml]
    by_runtime = [row for row in rows if row.case.is_ggml]
    yield latency_line("**every time, estimated by the roofline**", "all but llama.cpp", by_roofline)
    yield latency_line("**every time, estimated by its runtime's constants**", "llama.cpp", by_runtime)
    yield latency_line("**every time**", "all", rows)


def latency_line(what: str, how: str, rows: list[Judged]) -> str:
    """Return one line of it."""
    held = sum(row.bound_share <= 1 for row in rows)
    return (
        f"| {what} | {how} | {len(rows)} | {held} of {len(rows)} "
        f"| {statistics.median(row.bound_share for row in rows):.2f} | {median_error(rows):.1%} "
        f"| {p90_error(rows):.0%} | {statistics.median(row.error for row in rows):+.1%} |"
    )


def halves_table(rows: list[Judged]) -> Iterable[str]:
    """Iterate over the lines of the table of llama.cpp's fitted half and the other one."""
    yield "| llama.cpp | rows fitted | median error | rows not fitted | median error |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, wanted in (("decode", False), ("prefill", True)):
        same = [r for r in rows if r.case.is_ggml and (r.case.regime is Regime.PREFILL) is wanted]
        fitted = [r for r in same if r.case.number % 2 == 0 and r.case.source != "l2917"]
        others = [r for r in same if r not in fitted]
        errors = (f"{len(half)} | {median_error(half):.1%}" for half in (fitted, others))
        yield f"| {name} | {' | '.join(errors)} |"


def loop_table(rows: list[Judged]) -> Iterable[str]:
    """Iterate over the lines of the table of closed loops, cut in several ways."""
    loops = [row for row in rows if row.case.regime is Regime.CLOSED_LOOP]
    yield "| time per token under load | rows | median error | p90 | bias |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    cuts: tuple[Callable[[Case], str], ...] = (
        lambda case: f"{case.model.name}, {case.deployment.weights.name}",
        lambda case: case.deployment.device.name,
        lambda case: case.engine.split()[0],
        lambda case: f"tensor parallel {case.deployment.parallelism.tensor}",
        lambda case: "up to 16 requests" if case.batch <= 16 else "more than 16 requests",
    )
    for cut in cuts:
        for name in sorted({cut(row.case) for row in loops}):
            same = [row for row in loops if cut(row.case) == name]
            bias = statistics.median(row.error for row in same)
            yield f"| {name} | {len(same)} | {median_error(same):.1%} | {p90_error(same):.0%} | {bias:+.1%} |"


def ceiling_table(rows: list[Ceiling]) -> Iterable[str]:
    """Iterate over the lines of the table of throughputs."""
    yield "| throughput | rows | under the ceiling | measured / ceiling, median | highest |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for regime in (Regime.MAX_THROUGHPUT, Regime.MLPERF):
        shares = [row.bound_share for row in rows if row.case.regime is regime]
        held = sum(share <= 1 for share in shares)
        yield (
            f"| {regime.value.replace('_', ' ')} | {len(shares)} | {held} of {len(shares)} "
            f"| {statistics.median(shares):.2f} | {max(shares):.2f} |"
        )


def left_out_lines() -> Iterable[str]:
    """Iterate over the rows that are not judged, by reason."""
    for reason, count in Counter(LEFT_OUT.values()).items():
        ids = ", ".join(row for row, why in LEFT_OUT.items() if why == reason)
        yield f"- {count}: {reason} ({ids})."


def tables(latencies: list[Judged], ceilings: list[Ceiling]) -> str:
    """Return the generated part of the page."""
    parts = (
        latency_table(latencies),
        loop_table(latencies),
        halves_table(latencies),
        ceiling_table(ceilings),
        ("Rows left out:", "", *left_out_lines()),
    )
    return "\n\n".join("\n".join(part) for part in parts)


def row_lines(latencies: list[Judged], ceilings: list[Ceiling]) -> Iterable[str]:
    """Iterate over a line for every row."""
    for row in latencies:
        case = row.case
        yield (
            f"{case.id} {case.source} {case.regime.value} {case.model.name} {case.deployment.weights.name} "
            f"{case.deployment.device.name} x{case.deployment.parallelism.gpus} batch {case.batch} "
            f"{case.prompt}+{case.output} measured {case.measured:.5g} s, bound {row.bound_share:.2f} of it, "
            f"estimate {row.error:+.0%}"
        )
    for top in ceilings:
        case = top.case
        yield (
            f"{case.id} {case.source} {case.regime.value} {case.model.name} {case.deployment.device.name} "
            f"{case.measured:.0f} tokens/s, {top.bound_share:.2f} of the ceiling"
        )


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", action="store_true", help="print every row too")
    parser.add_argument("--markdown", action="store_true", help="write the tables into docs/accuracy.md")
    asked = parser.parse_args()
    latencies, ceilings = judge()
    text = tables(latencies, ceilings)
    if asked.markdown:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
        return
    if asked.rows:
        print("\n".join(row_lines(latencies, ceilings)), end="\n\n")
    print(text)


if __name__ == "__main__":
    main()
