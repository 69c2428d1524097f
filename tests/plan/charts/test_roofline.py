"""Operators under the roof: none above it, nothing counted twice, and only roofs the plan multiplies at."""

import pytest

from kvplan.charts import Hue
from kvplan.plan.charts.roofline import roofline_chart

MODELS = [
    ("llama-3.1-8b", "h100-sxm", {}),
    ("gemma-3-12b", "h100-sxm", {}),
    ("deepseek-v2-lite", "h100-sxm", {}),
    ("gpt-oss-120b", "h100-sxm", {}),
    ("qwen3-next-80b-a3b", "h200-sxm", {"tensor": 2}),
]


def panel_of(plan, timed, model, gpu="h100-sxm", batch=8, context=4096, **options):
    capacity = plan(model, gpu, **options)
    return roofline_chart(timed(capacity), batch, context, capacity.max_batch(context)).panels[0]


@pytest.mark.parametrize(("model", "gpu", "options"), MODELS)
def test_nothing_is_faster_than_its_roof(plan, timed, model, gpu, options):
    panel = panel_of(plan, timed, model, gpu, **options)
    highest = max(panel.roofs, key=lambda roof: roof.flops_per_s)
    for dot in (*panel.dots, *panel.path):
        assert dot.y <= highest.at(dot.x) * 1.0001, dot.name


@pytest.mark.parametrize(("model", "gpu", "options"), MODELS)
def test_dots_have_the_work_and_time_of_the_step(plan, timed, model, gpu, options):
    capacity = plan(model, gpu, **options)
    roofline = timed(capacity)
    panel = panel_of(plan, timed, model, gpu, **options)
    for hue, steps in ((Hue.DECODE, (roofline.decode(8, 4096),)), (Hue.PREFILL, roofline.prefill(1, 4096))):
        dots = [dot for dot in panel.dots if dot.hue is hue]
        whole = float(roofline.times(*steps).estimate_s)
        work = roofline.work(*steps)
        # What is left out takes little time and multiplies little.
        assert sum(dot.weight for dot in dots) <= 1
        assert sum(dot.y * dot.weight * whole for dot in dots) == pytest.approx(float(work.flops), rel=0.03)
        assert len({dot.name for dot in dots}) == len(dots)


def test_alike_operators_are_one_dot(plan, timed):
    names = [dot.name for dot in panel_of(plan, timed, "llama-3.1-8b").dots]
    assert sorted(names) == ["decode: attention", "decode: weights", "prefill: attention", "prefill: weights"]


def test_kinds_of_attention_are_apart_where_their_places_are(plan, timed):
    names = [dot.name for dot in panel_of(plan, timed, "gpt-oss-120b").dots]
    assert "decode: attention, full" in names
    assert "decode: attention, window 128" in names


def test_decode_of_weights_stands_at_a_flop_a_byte_for_each_request(plan, timed):
    # 2 operations a weight of 2 bytes, for each of 8 requests; activations are not counted here.
    dots = {dot.name: dot for dot in panel_of(plan, timed, "llama-3.1-8b").dots}
    assert dots["decode: weights"].x == pytest.approx(8, rel=0.01)
    # 32 query heads on 8 of keys and values: 4 times 2 operations a 2-byte element.
    assert dots["decode: attention"].x == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize(
    ("weights", "kv", "roofs"),
    [
        ("bf16", "bf16", [("bf16 dense", 989e12)]),
        ("fp8", "bf16", [("fp8 dense", 1979e12), ("bf16 dense", 989e12)]),
    ],
)
def test_roofs_are_the_rates_that_are_multiplied_at(plan, timed, weights, kv, roofs):
    panel = panel_of(plan, timed, "llama-3.1-8b", weights=weights, kv=kv)
    found = [(roof.name, roof.flops_per_s) for roof in panel.roofs]
    assert [name for name, _ in found] == [name for name, _ in roofs]
    assert [rate for _, rate in found] == pytest.approx([rate for _, rate in roofs], rel=0.001)
    assert {roof.bytes_per_s for roof in panel.roofs} == {3350e9}


def test_the_path_goes_from_one_request_to_as_many_as_fit(plan, timed):
    capacity = plan("llama-3.1-8b")
    roofline = timed(capacity)
    panel = panel_of(plan, timed, "llama-3.1-8b")
    assert [dot.name for dot in panel.path if dot.name] == ["batch 1", "batch 8", "batch 110"]
    last = panel.path[-1]
    work = roofline.work(roofline.decode(110, 4096))
    assert last.x == pytest.approx(float(work.flops / work.memory_bytes))
    assert all(low.x < high.x for low, high in zip(panel.path, panel.path[1:], strict=False))


def test_the_title_says_how_far_below_the_ridge_and_what_sets_the_speed(plan, timed):
    capacity = plan("llama-3.1-8b")
    roofline = timed(capacity)
    work = roofline.work(roofline.decode(1, 4096))
    times = 989e12 / 3.35e12 / float(work.flops / work.memory_bytes)
    title = roofline_chart(roofline, 1, 4096, 110).title
    assert title == f"Decode of 1 request of 4k is {times:.3g} times below the ridge: memory sets its speed"
