"""Memory bars: parts that add up to what is planned, and the sentence about what is left."""

import pytest

from kvplan.charts import Hue
from kvplan.plan.charts.memory import memory_chart


@pytest.mark.parametrize("gpu", ["h100-sxm", "rtx4090"])
def test_parts_add_up_to_what_is_planned(named, gpu):
    one = named("as planned", "llama-3.1-8b", gpu)
    (bar,) = memory_chart([one]).panels[0].bars
    assert [(name, hue) for name, hue, _ in bar.parts] == [
        ("weights", Hue.WEIGHTS),
        ("activations", Hue.ACTIVATIONS),
        ("runtime's own", Hue.OVERHEAD),
        ("cache pool", Hue.KV),
    ]
    # 8,030,261,248 parameters of 2 bytes.
    assert bar.parts[0][2] == 16_060_522_496
    assert sum(size for _, _, size in bar.parts) == bar.limit


def test_where_nothing_is_left_the_bar_passes_its_limit(named):
    one = named("as planned", "llama-3.1-70b")
    chart = memory_chart([one])
    (bar,) = chart.panels[0].bars
    over = sum(size for _, _, size in bar.parts) - bar.limit
    assert over == one.of.stages[0].shortfall.number > 0
    assert bar.parts[3][2] == 0
    assert (
        chart.title
        == f"No room for a cache: weights and the rest take {over / 2**30:.1f} GiB more than is planned"
    )


def test_the_title_names_the_option_that_leaves_most(named):
    plans = [named("bf16", "llama-3.1-8b"), named("KV fp8", "llama-3.1-8b", kv="fp8")]
    assert memory_chart(plans).title == "55.1 GiB of 71.7 GiB (77%) is left for the cache"
    plans.append(named("weights fp8", "llama-3.1-8b", weights="fp8"))
    left = plans[-1].of.stages[0].pool.number / 2**30
    assert memory_chart(plans).title.endswith(f"; weights fp8: {left:.1f} GiB left")


def test_of_several_gpus_the_one_loaded_most_is_drawn(named):
    one = named("as planned", "llama-3.1-70b", pipeline=4)
    chart = memory_chart([one])
    assert chart.panels[0].bars[0].parts[0][2] == one.of.most_loaded.weights.number
    assert chart.subject.endswith(" · the GPU loaded most")
