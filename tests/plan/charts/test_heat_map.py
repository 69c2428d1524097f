"""The heat map: a figure exactly where it fits, and the best of them in the title."""

import pytest

from kvplan.plan.charts.heat_map import heat_map_chart


@pytest.mark.parametrize(
    ("model", "gpu", "options"),
    [
        ("llama-3.1-8b", "rtx4090", {}),
        ("gpt2", "t4", {}),
        ("llama-3.1-70b", "h100-sxm", {"tensor": 2, "data": 2}),
    ],
)
def test_cells_are_tokens_a_second_of_each_gpu_where_they_fit(plan, timed, model, gpu, options):
    capacity = plan(model, gpu, **options)
    roofline = timed(capacity)
    (panel,) = heat_map_chart(capacity, roofline).panels
    gpus = options.get("tensor", 1) * options.get("data", 1)
    found = 0
    for batch, row, heights in zip(panel.rows, panel.cells, panel.heights, strict=True):
        for context, cell, took in zip(panel.columns, row, heights, strict=True):
            seconds = float(roofline.times(roofline.decode(int(batch), int(context))).estimate_s)
            assert took == seconds
            assert (cell is not None) == capacity.fits(int(batch), int(context))
            if cell is not None:
                assert cell == pytest.approx(batch / seconds / gpus)
                found += 1
    assert 0 < found < len(panel.rows) * len(panel.columns)
    assert panel.rows[-1] == capacity.max_batch(int(panel.columns[0]))


def test_the_title_names_the_best_cell(plan, timed):
    capacity = plan("llama-3.1-8b")
    chart = heat_map_chart(capacity, timed(capacity))
    (panel,) = chart.panels
    best = max(cell for row in panel.cells for cell in row if cell)
    assert chart.title.startswith(f"Up to {best:,.0f} tokens/s from each GPU: 441 requests of 1k, ")
    took = 441 / best * 1e3
    assert chart.title.endswith(f"{took:.3g} ms a token")


def test_levels_have_cells_on_both_sides(plan, timed):
    capacity = plan("llama-3.1-8b")
    (panel,) = heat_map_chart(capacity, timed(capacity)).panels
    pairs = [pair for row in zip(panel.cells, panel.heights, strict=True) for pair in zip(*row, strict=True)]
    reached = [took for cell, took in pairs if cell]
    assert panel.levels == (0.01, 0.02)
    assert all(min(reached) < level < max(reached) for level in panel.levels)
    assert min(reached) > 0.005
    assert max(reached) < 0.03


def test_where_nothing_fits_no_cell_has_a_figure(plan, timed):
    capacity = plan("llama-3.1-70b", "t4")
    chart = heat_map_chart(capacity, timed(capacity))
    (panel,) = chart.panels
    assert {cell for row in panel.cells for cell in row} == {None}
    assert panel.levels == ()
    assert chart.title == "Not one request of 1k fits"
