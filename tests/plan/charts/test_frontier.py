"""The frontier: n requests fit and n + 1 do not, at every point and, where they are few, between."""

from itertools import pairwise

import pytest

from kvplan.plan.charts.frontier import EXACT_REQUESTS, frontier_chart


def points(chart, index=0):
    line = chart.panels[0].lines[index]
    return [(int(x), int(y)) for x, y in zip(line.x, line.y, strict=True)]


@pytest.mark.parametrize(
    ("model", "gpu", "options"),
    [
        ("llama-3.1-8b", "h100-sxm", {}),
        ("llama-3.1-8b", "rtx4090", {"kv": "int4"}),
        ("mistral-7b-v0.1", "rtx4090", {}),
        ("gemma-3-12b", "h100-sxm", {"tensor": 2, "data": 2}),
        ("gpt2", "t4", {}),
        ("qwen3-next-80b-a3b", "h100-sxm", {"tensor": 4}),
        ("deepseek-v2-lite", "h100-sxm", {"pipeline": 2}),
    ],
)
def test_every_point_is_the_edge_of_what_fits(named, model, gpu, options):
    capacity = named("as planned", model, gpu, **options).of
    found = points(frontier_chart([named("as planned", model, gpu, **options)], 1024))
    for context, most in found:
        assert capacity.fits(most, context)
        assert not capacity.fits(most + 1, context)
    for (before, more), (after, fewer) in pairwise(found):
        assert before < after
        if more <= EXACT_REQUESTS and more != fewer:
            assert after == before + 1, "a step down is between two contexts side by side"


def test_between_its_points_the_curve_is_exact_where_requests_are_few(named):
    capacity = named("as planned", "llama-3.1-8b").of
    found = points(frontier_chart([named("as planned", "llama-3.1-8b")], 1024))
    checked = 0
    for (before, more), (after, fewer) in pairwise(found):
        if more == fewer <= EXACT_REQUESTS:
            for context in range(before, after, 997):
                assert capacity.fits(more, context)
                assert not capacity.fits(more + 1, context)
                checked += 1
    assert checked > 50


def test_a_curve_ends_where_not_one_fits(named):
    one = named("as planned", "llama-3.1-8b", "rtx4090")
    last, most = points(frontier_chart([one], 1024))[-1]
    assert most == 1
    assert one.of.fits(1, last)
    assert not one.of.fits(1, last + 1)


def test_there_is_a_curve_for_every_option_and_the_first_is_shaded(named):
    options = [named("bf16", "llama-3.1-8b"), named("fp8", "llama-3.1-8b", kv="fp8")]
    chart = frontier_chart(options, 32768)
    (panel,) = chart.panels
    assert [line.name for line in panel.lines] == ["bf16", "fp8"]
    assert panel.shaded == "fits"
    # 55.1 GiB over 4 GiB each, and over 2 GiB.
    assert chart.title == "13 requests of 32k fit; fp8: 27"
    assert [(limit.name, limit.at, limit.upright) for limit in panel.limits] == [
        ("longest allowed: 128k", 131072.0, True)
    ]


def test_what_holds_nothing_is_told_and_not_shaded(named):
    options = [named("bf16", "llama-3.1-8b", "t4"), named("int4", "llama-3.1-8b", "t4", weights="int4")]
    chart = frontier_chart(options, 8192)
    (panel,) = chart.panels
    assert [line.name for line in panel.lines] == ["int4"]
    assert panel.shaded == ""
    assert chart.notes == ("not one request fits: bf16",)
    assert chart.title == f"Not one request of 8k fits; int4: {options[1].of.max_batch(8192)}"


def test_where_nothing_holds_anything_that_is_all_it_says(named):
    chart = frontier_chart([named("bf16", "llama-3.1-70b", "t4")], 8192)
    (panel,) = chart.panels
    assert (panel.lines, panel.limits, panel.empty) == ((), (), "not one request fits")
    assert chart.title == "Not one request of 8k fits"


def test_titles_of_one_and_of_one_alone(named):
    one = named("as planned", "llama-3.1-8b", "rtx4090")
    assert one.of.max_batch(32768) == 1
    assert frontier_chart([one], 32768).title == "1 request of 32k fits"
    assert frontier_chart([named("as planned", "gpt2", "t4")], 32768).title.endswith(
        " requests of 1k fit at once"
    )
