"""Refit the constants of kvplan/hardware/runtime_fits.py from the published llama.cpp measurements.

    python benchmarks/refit_runtimes.py

Of each source every other row, from its first on, is fitted so that the mean of |log(fitted / measured)| is
least; the printed errors are of the other rows. Constants start at round figures and are changed at random, a
change being kept where it fits better; the random numbers are the same in every run.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from ggml_files import read_weight_bytes, runtime_of
from public_cases import Case, Regime, read_cases

from kvplan.hardware.runtime_fits import Runtime, RuntimeFit
from kvplan.plan.roofline import Roofline, plan_roofline
from kvplan.plan.runtime_step import decode_s, prefill_s

DECODE = (Regime.SINGLE_STREAM, Regime.BATCH_DECODE)
STAND_INS = {"q4_0": "q8_0", "q4_1": "q4_k", "mxfp4": "q4_k"}  # where a format is in the other half only
ALONE = "l2917"  # the one row of a release much older than all others
TRIES = 2_000

Row = tuple[Case, Roofline, float]
Times = Callable[[RuntimeFit, Row], float]


def expected_decode_s(fit: RuntimeFit, row: Row) -> float:
    """Return the seconds of a decode row."""
    case, roofline, weight_bytes = row
    return float(decode_s(roofline, fit, case.batch, case.context, weight_bytes))


def expected_prefill_s(fit: RuntimeFit, row: Row) -> float:
    """Return the seconds of a prefill row."""
    case, roofline, _ = row
    return float(prefill_s(roofline, fit, *roofline.prefill(1, case.prompt + case.cached, case.cached)))


def fitted(
    start: dict[str, RuntimeFit], rows: list[Row], shared: list[str], own: list[str], times: Times
) -> dict[str, RuntimeFit]:
    """Return the constants of each format, some shared by all of them, that fit best."""
    random = np.random.default_rng(0)
    best, least = start, loss(start, rows, times)
    for number in range(TRIES):
        size = 0.2 * 0.5 ** (number * 5 // TRIES)
        drawn = {name: changed(best, name, random, size) for name in shared}
        tried = {
            name: replace(
                fit,
                **drawn,
                **{one: min(1.0, getattr(fit, one) * np.exp(random.normal(0, size))) for one in own},
            )
            for name, fit in best.items()
        }
        now = loss(tried, rows, times)
        if now < least:
            best, least = tried, now
    return best


def changed(fits: dict[str, RuntimeFit], name: str, random: np.random.Generator, size: float) -> float:
    """Return a shared constant changed a little; shares stay shares."""
    value = getattr(next(iter(fits.values())), name) * np.exp(random.normal(0, size) * random.integers(2))
    return min(1.0, value) if name.endswith("share") else value


def loss(fits: dict[str, RuntimeFit], rows: Iterable[Row], times: Times) -> float:
    """Return the mean of |log(expected / measured)|."""
    return float(np.mean([abs(np.log(times(fits[format_of(row)], row) / row[0].measured)) for row in rows]))


def rounded(fit: RuntimeFit) -> RuntimeFit:
    """Return the constants with two digits, as they are stored."""
    names = (
        "layer_us",
        "memory_share",
        "multiprocessor_gb_per_s",
        "cache_share",
        "compute_share",
        "attention_share",
    )
    return replace(fit, **{name: float(f"{getattr(fit, name):.2g}") for name in names})


def refit(runtime: Runtime, rows: list[Row]) -> tuple[RuntimeFit, ...]:
    """Return a runtime's constants over each format."""
    half = [row for row in rows if row[0].number % 2 == 0]
    fits = with_prefill(with_decode(runtime, half), half)
    fits = {name: rounded(replace(fit, formats=(name,))) for name, fit in fits.items()}
    for name in sorted({format_of(row) for row in rows} - fits.keys()):
        near = STAND_INS[name]
        fits[near] = replace(fits[near], formats=(*fits[near].formats, name))
    error = round(decode_error(fits, [row for row in rows if row[0].number % 2]), 3)
    return tuple(replace(fit, median_error=error) for fit in fits.values())


def with_decode(runtime: Runtime, rows: list[Row]) -> dict[str, RuntimeFit]:
    """Return the constants that decode steps are made of, fitted."""
    decode = [row for row in rows if row[0].regime in DECODE and row[0].source != ALONE]
    reads_per_head = runtime is Runtime.LLAMA_CPP_METAL
    start = RuntimeFit(runtime, (), 50, 0.8, 9, 0.4, reads_per_head, 0.2, 0.2, 1, "not fitted yet")
    fits = dict.fromkeys(sorted({format_of(row) for row in decode}), start)
    shared = ["layer_us", "cache_share", "multiprocessor_gb_per_s"]
    return fitted(fits, decode, shared, ["memory_share"], expected_decode_s)


def with_prefill(fits: dict[str, RuntimeFit], rows: list[Row]) -> dict[str, RuntimeFit]:
    """Return the constants with those of prefill fitted too; a format without rows goes by another."""
    prefill = [row for row in rows if row[0].regime is Regime.PREFILL]
    reading = {name: fits[name] for name in sorted({format_of(row) for row in prefill})}
    reading = fitted(reading, prefill, ["attention_share"], ["compute_share"], expected_prefill_s)
    first = next(iter(reading.values()))
    return {
        name: replace(
            fit,
            compute_share=reading.get(name, first).compute_share,
            attention_share=first.attention_share,
        )
        for name, fit in fits.items()
    }


def decode_error(fits: dict[str, RuntimeFit], rows: list[Row]) -> float:
    """Return the median error over rows of decode."""
    by_format = {name: fit for fit in fits.values() for name in fit.formats}
    decode = [row for row in rows if row[0].regime in DECODE]
    return statistics.median(
        abs(expected_decode_s(by_format[format_of(row)], row) / row[0].measured - 1) for row in decode
    )


def format_of(row: Row) -> str:
    """Return what a row's weights are stored in."""
    return row[0].deployment.weights.name


def main() -> None:
    """Print the constants as they stand in the module."""
    rows = [
        (case, roofline, read_weight_bytes(case, roofline))
        for case in read_cases()
        if case.is_ggml
        for roofline in [plan_roofline(case.model, case.deployment)]
    ]
    for runtime, same in itertools.groupby(
        sorted(rows, key=lambda row: runtime_of(row[0]).value), key=lambda row: runtime_of(row[0])
    ):
        for fit in refit(runtime, list(same)):
            print(fit)


if __name__ == "__main__":
    main()
