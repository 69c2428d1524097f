"""Growth: bytes by hand, pools as planned, and a title that is true of odd ones too."""

import pytest

from kvplan.charts import Limit
from kvplan.plan.charts.growth import growth_chart

# 32 layers x 8 heads x 128 x (keys and values) x 2 bytes.
LLAMA_TOKEN_BYTES = 131_072


def lines(chart):
    (panel,) = chart.panels
    return {line.name: dict(zip(line.x, line.y, strict=True)) for line in panel.lines}


def limits(chart):
    return chart.panels[0].limits


def test_bytes_of_a_request_are_those_of_its_tokens(named):
    found = lines(growth_chart([named("bf16", "llama-3.1-8b"), named("fp8", "llama-3.1-8b", kv="fp8")]))
    assert found["bf16"][1024] == 1024 * LLAMA_TOKEN_BYTES
    assert found["bf16"][131072] == 16 * 2**30
    assert found["fp8"][131072] == 8 * 2**30
    assert min(found["bf16"]) == 1024
    # Whole blocks of 16 tokens, between doublings too.
    assert all(height % (16 * LLAMA_TOKEN_BYTES) == 0 for height in found["bf16"].values())


def test_every_token_is_counted_where_blocks_are_of_one(named):
    found = lines(growth_chart([named("bf16", "llama-3.1-8b", block=1)]))["bf16"]
    assert found == {context: context * LLAMA_TOKEN_BYTES for context in found}


def test_a_window_stops_growing(named):
    found = lines(growth_chart([named("window", "mistral-7b-v0.1")]))["window"]
    assert found[2048] == 2048 * LLAMA_TOKEN_BYTES
    # The window of 4,096 tokens lies in 256 blocks, or in parts of 257.
    assert {found[at] for at in found if at > 4112} == {257 * 16 * LLAMA_TOKEN_BYTES}


def test_curves_of_models_end_at_their_own_limits(named):
    chart = growth_chart([named("llama", "llama-3.1-8b"), named("mistral", "mistral-7b-v0.1")])
    assert {name: max(line) for name, line in lines(chart).items()} == {"llama": 131072, "mistral": 32768}
    assert chart.notes == ("curves end at the longest context allowed",)
    assert chart.title.startswith("llama: a request of 32k takes 4.0 GiB of cache (mistral: 514 MiB); ")


def test_the_pool_is_a_limit_by_the_name_of_its_accelerator(named):
    one = named("as planned", "llama-3.1-8b")
    assert limits(growth_chart([one])) == (Limit("pool of h100-sxm", float(one.of.stages[0].pool.number)),)
    eight = named("as planned", "llama-3.1-8b", tensor=8)
    assert limits(growth_chart([eight]))[0].name == "pool of each of 8 h100-sxm"


def test_pools_of_several_accelerators_are_drawn(named):
    several = [named(gpu, "llama-3.1-8b", gpu) for gpu in ("rtx4090", "h100-sxm", "t4")]
    chart = growth_chart([named("as planned", "llama-3.1-8b")], several)
    pools = [one.of.stages[0].pool.number for one in several]
    assert [limit.name for limit in limits(chart)] == ["pool of rtx4090", "pool of h100-sxm"]
    assert [limit.at for limit in limits(chart)] == [float(pool) for pool in pools[:2]]
    assert pools[2] == 0
    assert chart.notes == ("no room for any cache: t4",)


def test_of_many_pools_of_one_accelerator_the_ends_are_drawn(named):
    plans = [named(weights, "llama-3.1-8b", weights=weights) for weights in ("bf16", "fp8", "int4")]
    pools = [one.of.stages[0].pool.number for one in plans]
    assert pools == sorted(pools)
    assert limits(growth_chart(plans)) == (
        Limit("smallest pool of h100-sxm", float(pools[0])),
        Limit("largest pool of h100-sxm", float(pools[2])),
    )


@pytest.mark.parametrize(
    ("model", "options", "title"),
    [
        ("llama-3.1-8b", {}, "A request of 128k takes 16.0 GiB of cache; h100-sxm has room for 3"),
        (
            "llama-3.1-8b",
            {"tensor": 8},
            "A request of 128k takes 2.0 GiB of cache; 8 x h100-sxm have room for 33",
        ),
        ("llama-3.1-70b", {}, "A request of 128k takes 40.0 GiB of cache; h100-sxm has no room for it"),
        ("gpt2", {"max_tokens": 1}, "A request of 1 takes 576 KiB of cache; h100-sxm has room for"),
        ("gpt2", {}, "A request of 1k takes 36.0 MiB of cache; h100-sxm has room for"),
    ],
)
def test_the_title_is_true(named, model, options, title):
    assert growth_chart([named("as planned", model, **options)]).title.startswith(title)


def test_the_title_says_how_long_a_request_can_get_where_that_is_less_than_asked(named):
    one = named("as planned", "llama-3.1-8b", "rtx4090")
    reach = max(at for at in range(16, 131072, 16) if one.of.fits(1, at))
    assert growth_chart([one]).title.endswith(f"; rtx4090 has room for {reach:,} tokens")
