"""Where a step's time goes: bands that add up to it, and a title that brute force agrees with."""

import pytest

from kvplan.charts import Hue
from kvplan.plan.charts.step_time import step_time_chart

MODELS = [
    ("llama-3.1-8b", {}, {"weights", "KV cache", "small kernels, host"}),
    ("gpt-oss-120b", {}, {"weights", "experts", "KV cache", "small kernels, host"}),
    ("llama-3.1-70b", {"tensor": 4}, {"weights", "KV cache", "exchange", "small kernels, host"}),
    (
        "qwen3-next-80b-a3b",
        {"tensor": 4},
        {"weights", "experts", "KV cache", "states", "exchange", "small kernels, host"},
    ),
]


def chart_of(capacity, roofline, batch=8, context=4096):
    return step_time_chart(roofline, batch, context, capacity.max_batch(context), capacity.max_context(batch))


@pytest.mark.parametrize(("model", "options", "bands"), MODELS)
def test_bands_add_up_to_the_step(plan, timed, model, options, bands):
    capacity = plan(model, **options)
    roofline = timed(capacity)
    by_batch, by_context = chart_of(capacity, roofline).panels
    assert {band.name for band in by_batch.bands} == bands
    for panel, step in (
        (by_batch, lambda at: roofline.decode(int(at), 4096)),
        (by_context, lambda at: roofline.decode(8, int(at))),
    ):
        for index, at in enumerate(panel.at):
            whole = sum(band.heights[index] for band in panel.bands)
            assert whole == pytest.approx(float(roofline.times(step(at)).estimate_s))


def test_each_band_is_what_its_name_says(plan, timed):
    capacity = plan("qwen3-next-80b-a3b", tensor=4)
    panel, _ = chart_of(capacity, timed(capacity)).panels
    assert {band.name: band.hue for band in panel.bands} == {
        "weights": Hue.WEIGHTS,
        "experts": Hue.EXPERTS,
        "KV cache": Hue.KV,
        "states": Hue.STATE,
        "exchange": Hue.COLLECTIVES,
        "small kernels, host": Hue.LAUNCH,
    }


def test_stacks_go_as_far_as_fits(plan, timed):
    capacity = plan("llama-3.1-8b")
    by_batch, by_context = chart_of(capacity, timed(capacity)).panels
    assert (by_batch.at[0], by_batch.at[-1]) == (1, 110)
    assert capacity.fits(110, 4096)
    assert not capacity.fits(111, 4096)
    assert capacity.fits(8, int(by_context.at[-1]))
    assert not capacity.fits(8, int(by_context.at[-1]) + 1)


def test_the_title_says_from_where_on_the_cache_takes_most(plan, timed):
    capacity = plan("llama-3.1-8b")
    chart = chart_of(capacity, timed(capacity))
    panel, _ = chart.panels
    weights, cache = (dict(zip(panel.at, band.heights, strict=True)) for band in panel.bands[:2])
    turn = min(at for at in panel.at if cache[at] > weights[at])
    assert turn > 1
    assert (
        chart.title
        == f"From {turn:.0f} requests of 4k on, the KV cache takes the largest part of a decode step"
    )


def test_the_title_says_where_one_takes_most_all_along(plan, timed):
    capacity = plan("gpt-oss-120b")
    chart = chart_of(capacity, timed(capacity))
    panel, _ = chart.panels
    last = {band.name: band.heights[-1] for band in panel.bands}
    share = last["experts"] / sum(last.values())
    most = f"{share:.0%} with {panel.at[-1]:.0f} requests of 4k"
    assert chart.title == f"Experts take the largest part of every decode step, {most}"


def test_where_nothing_fits_times_are_as_if_it_did(plan, timed):
    capacity = plan("llama-3.1-70b", "t4")
    chart = chart_of(capacity, timed(capacity))
    assert [panel.at[-1] for panel in chart.panels] == [8, 4096]
    assert chart.notes[-1] == "fewer requests fit than are drawn: times as if there were room"
    assert "8 requests of 4k" in chart.title
