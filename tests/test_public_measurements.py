"""Bounds and estimates against published measurements, as benchmarks/accuracy.py judges them."""

import statistics
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import accuracy  # noqa: E402
from public_cases import DATA, LEFT_OUT, Regime  # noqa: E402

from kvplan.plan.serving import ESTIMATE_MEDIAN_ERROR, ESTIMATE_P90_ERROR  # noqa: E402

GOAL = 0.12


@pytest.fixture(scope="module")
def judged():
    """Return every judged time and every judged throughput."""
    return accuracy.judge()


@pytest.fixture(scope="module")
def latencies(judged):
    """Return every judged time."""
    return judged[0]


def test_every_published_row_is_judged_or_left_out_by_name(judged):
    rows = yaml.safe_load((DATA / "perf_public.yaml").read_text(encoding="utf-8"))["rows"]
    judged_ids = [row.case.id for rows in judged for row in rows]
    assert len(rows) == 492
    assert sorted(judged_ids + list(LEFT_OUT)) == sorted(row["id"] for row in rows)
    assert len(LEFT_OUT) <= 7


def test_no_time_was_measured_below_its_bound(latencies):
    assert [row.case.id for row in latencies if row.bound_s > row.case.measured] == []


def test_no_throughput_was_measured_above_its_ceiling(judged):
    assert [row.case.id for row in judged[1] if row.case.measured > row.most_tokens_per_s] == []


def test_bounds_are_near_enough_to_say_something(latencies):
    """A bound of nothing would hold as well: some single streams read weights at 0.9 of the memory's rate."""
    single = [row.bound_share for row in latencies if row.case.regime is Regime.SINGLE_STREAM]
    assert statistics.median(single) > 0.6
    assert max(single) > 0.85


def test_the_median_error_of_estimates_is_within_the_goal(latencies):
    for regime in sorted({row.case.regime.value for row in latencies}):
        same = [row for row in latencies if row.case.regime.value == regime]
        print(f"{regime}: {len(same)} rows, median error {accuracy.median_error(same):.1%}")
    assert len(latencies) == 329
    assert accuracy.median_error(latencies) <= GOAL


def test_time_per_token_under_load_is_within_the_goal(latencies):
    loops = [row for row in latencies if row.case.regime is Regime.CLOSED_LOOP]
    assert len(loops) == 136
    assert accuracy.median_error(loops) <= GOAL


def test_rows_that_llama_cpp_constants_were_not_fitted_to_are_within_the_goal(latencies):
    others = [row for row in latencies if row.case.is_ggml and row.case.number % 2]
    assert len(others) == 74
    assert accuracy.median_error(others) <= GOAL


def test_the_errors_that_commands_print_are_the_measured_ones(latencies):
    own = [row for row in latencies if not row.case.is_ggml]
    assert round(accuracy.median_error(own), 2) == ESTIMATE_MEDIAN_ERROR
    assert round(accuracy.p90_error(own), 2) == ESTIMATE_P90_ERROR


def test_the_page_shows_what_the_command_prints(judged):
    page = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    generated = page.split(accuracy.BEGIN)[1].split(accuracy.END)[0].strip()
    assert generated == accuracy.tables(*judged)


def test_measurements_are_read_as_their_metric_says(latencies):
    """Hand figures: a rate of one stream, of a batch, of a prompt, of a whole static batch on two GPUs."""
    measured = {row.case.id: row.case.measured for row in latencies}
    assert measured["e2e-0764"] == pytest.approx(0.0103878)  # tpot_ms 10.3878
    assert measured["e2e-0001"] == pytest.approx(1 / 72.79)  # decode_tok_s, one stream
    assert measured["e2e-0319"] == pytest.approx(32 / 422.45)  # 32 streams, 422.45 tokens/s in all
    assert measured["e2e-0012"] == pytest.approx(1024 / 3556.67)  # prefill_tok_s of 1,024 tokens
    assert measured["e2e-0591"] == pytest.approx(1024 * 128 / (2 * 2657.0))  # per GPU, of two


def test_the_bound_of_one_stream_is_weights_and_cache_at_full_bandwidth(latencies):
    """Llama-3-8B in F16 on an RTX 4090: 8.03e9 weights less the embedding, and 4,096 tokens of cache."""
    (row,) = (row for row in latencies if row.case.id == "e2e-0038")
    weights = 2 * (8_030_261_248 - 128_256 * 4_096)
    cache = 4_096 * 131_072
    assert row.bound_s == pytest.approx((weights + cache) / 1008e9, rel=0.002)
