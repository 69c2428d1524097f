"""Words broken into lines: as few as fit, about as long, and never within a part that fits by itself."""

import pytest

from kvplan.report.plots.text import balanced, folded, parted, width_inches, with_amount


def test_a_line_is_as_wide_as_it_is_drawn():
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    renderer = RendererAgg(10, 10, 150)
    for weight in ("normal", "bold"):
        font = FontProperties(family="DejaVu Sans", size=9, weight=weight)
        drawn, _, _ = renderer.get_text_width_height_descent("Llama-3.1 (TFLOP/s)", font, ismath=False)
        measured = width_inches("Llama-3.1 (TFLOP/s)", 9, bold=weight == "bold") * 150
        assert measured == pytest.approx(drawn, rel=0.02)


def test_lines_fit_and_are_about_as_long():
    text = "one two three four five six seven eight nine ten"
    whole = width_inches(text, 9)
    assert balanced(text, whole + 0.1, 9) == [text]
    lines = balanced(text, whole * 0.9, 9)
    assert " ".join(lines) == text
    assert len(lines) == 2
    assert max(width_inches(line, 9) for line in lines) < 0.65 * whole


def test_a_word_that_is_too_long_has_a_line_of_its_own():
    assert balanced("a " + "b" * 300 + " c", 2.0, 9) == ["a", "b" * 300, "c"]


def test_parts_stay_whole():
    parts = ["a model on a GPU", "bf16 weights", "one request"]
    width = width_inches("a model on a GPU · bf16 weights", 9) + 0.05
    assert parted(parts, " · ", width, 9) == ["a model on a GPU · bf16 weights", "one request"]


def test_long_names_are_folded_at_spaces_only():
    assert folded("weights int4, KV int4-kivi, on 2 GPUs") == "weights int4, KV\nint4-kivi, on 2 GPUs"
    assert folded("short\nname") == "short\nname"
    assert folded("") == ""


def test_a_figure_stands_behind_a_short_name_and_below_a_long_one():
    assert with_amount("planned", "71.7 GiB") == "planned: 71.7 GiB"
    assert with_amount("pool of each of 8 h200-sxm", "44 GiB") == "pool of each of 8 h200-sxm\n44 GiB"
