"""Charts of every kind of panel with invented figures, so that pictures do not change with estimates."""

import pytest

from kvplan.charts import (
    Axis,
    Band,
    Bar,
    Bars,
    Chart,
    Curves,
    Dot,
    Dots,
    HeatMap,
    Hue,
    Limit,
    Line,
    Roof,
    Spacing,
    Stack,
    UnderRoof,
)
from kvplan.units import GIB, Unit

CONTEXTS = tuple(float(1 << power) for power in range(10, 18))
BATCHES = tuple(float(1 << power) for power in range(9))


def curves():
    grown = (("bf16", 131072), ("fp8", 65536), ("int4", 36864))
    lines = tuple(
        Line(f"a model, {name}", CONTEXTS, tuple(at * each for at in CONTEXTS)) for name, each in grown
    )
    short = Line("one that ends sooner", CONTEXTS[:6], tuple(min(at, 4096) * 131072 for at in CONTEXTS[:6]))
    return Curves(
        Axis("context", Unit.TOKENS, Spacing.DOUBLING),
        Axis("cache of one request", Unit.BYTES, Spacing.DOUBLING),
        (*lines, short),
        (
            Limit("pool of a small card", 5.5 * GIB),
            Limit("pool of a large card", 54.0 * GIB),
            Limit("longest allowed: 128k", 131072.0, upright=True),
        ),
        shaded="fits",
    )


def stack():
    return Stack(
        Axis("requests at once", Unit.REQUESTS, Spacing.DOUBLING),
        Axis("time of a step", Unit.SECONDS),
        BATCHES,
        (
            Band("weights", Hue.WEIGHTS, tuple(4.5e-3 for _ in BATCHES)),
            Band("KV cache", Hue.KV, tuple(batch * 1.6e-4 for batch in BATCHES)),
            Band("exchange", Hue.COLLECTIVES, tuple(3e-4 for _ in BATCHES)),
            Band("small kernels, host", Hue.LAUNCH, tuple(4e-4 for _ in BATCHES)),
        ),
        (Limit("asked for", 0.03),),
    )


def bars():
    def bar(name, weights, pool, limit):
        parts = (
            ("weights", Hue.WEIGHTS, weights * GIB),
            ("activations", Hue.ACTIVATIONS, 1.1 * GIB),
            ("runtime's own", Hue.OVERHEAD, 0.8 * GIB),
            ("cache pool", Hue.KV, pool * GIB),
        )
        return Bar(name, parts, limit * GIB)

    return Bars(
        Axis("memory of a GPU", Unit.BYTES),
        (
            bar("a large card", 15.0, 54.8, 71.7),
            bar("weights int4, KV int4-kivi, on a small card", 4.2, 15.6, 21.7),
            bar("a card too small", 15.0, 0.0, 13.5),
        ),
        "planned",
    )


def dots():
    found = (
        ("baseline", 1.0, 0.0007),
        ("KV fp8", 1.4, 0.012),
        ("KV int8", 1.41, 0.011),
        ("KV int4", 1.7, 0.06),
        ("weights fp8, KV fp8", 1.8, 0.05),
        ("2 GPUs", 1.05, 0.0007),
    )
    return Dots(
        Axis("tokens/s of each GPU against the baseline", Unit.TIMES),
        Axis("error of logits", Unit.SHARE, Spacing.TENFOLD),
        tuple(Dot(*one) for one in found),
        (Limit("too much", 0.1),),
        best="better: right and down",
    )


def diagonal():
    values = (4.0, 15.0, 1.6e6, 1.8e6, 3e7, 3.1e7, 4e9)
    return Dots(
        Axis("predicted (B, FLOP, blocks)", Unit.NONE, Spacing.TENFOLD),
        Axis("measured (B, FLOP, blocks)", Unit.NONE, Spacing.TENFOLD),
        tuple(Dot(f"figure {index}", value, value) for index, value in enumerate(values)),
        equal="measured = predicted",
    )


def under_roof():
    path = ((1, "batch 1"), (8, "batch 8"), (64, ""), (512, "batch 512"))
    return UnderRoof(
        (Roof("fp8 dense", 1979e12, 3.35e12), Roof("bf16 dense", 989e12, 3.35e12)),
        (
            Dot("decode: weights", 8.0, 22e12, 0.8, Hue.DECODE),
            Dot("decode: attention", 4.0, 9e12, 0.15, Hue.DECODE),
            Dot("prefill: weights", 4000.0, 800e12, 0.9, Hue.PREFILL),
            Dot("prefill: attention", 9000.0, 500e12, 0.1, Hue.PREFILL),
        ),
        tuple(Dot(name, batch * 0.9, min(batch * 2.4e12, 700e12)) for batch, name in path),
    )


def heat_map():
    seconds = tuple(tuple(5e-3 + batch * context * 4e-8 for context in CONTEXTS) for batch in BATCHES)
    return HeatMap(
        Axis("context of each", Unit.TOKENS),
        CONTEXTS,
        Axis("requests at once", Unit.REQUESTS),
        BATCHES,
        Axis("tokens/s of each GPU", Unit.TOKENS_PER_SECOND, Spacing.TENFOLD),
        tuple(
            tuple(
                batch / took if batch * context <= 900_000 else None
                for context, took in zip(CONTEXTS, row, strict=True)
            )
            for batch, row in zip(BATCHES, seconds, strict=True)
        ),
        "does not fit",
        Axis("time per token", Unit.SECONDS),
        (0.006, 0.01, 0.02, 0.03),
        seconds,
    )


PANELS = {
    "curves": curves,
    "stack": stack,
    "bars": bars,
    "dots": dots,
    "diagonal": diagonal,
    "under-roof": under_roof,
    "heat-map": heat_map,
}


def chart_of(*names):
    panels = tuple(PANELS[name]() for name in names)
    title = "A sentence that says in a few words what a reader should take from this picture"
    return Chart(names[0], title, "a model on 1 x a card · bf16 weights · one request", panels, ("a note",))


@pytest.fixture(scope="session")
def chart():
    """A function from names of panels to a chart of them."""
    return chart_of


@pytest.fixture
def written(monkeypatch):
    """A function from a figure to the words drawn on it, each with its box in pixels."""
    from matplotlib.text import Text

    found = []
    original = Text.draw

    def recorded(self, renderer):
        if self.get_visible() and self.get_text().strip():
            found.append((self.get_text(), self.get_window_extent(renderer)))
        return original(self, renderer)

    def words(figure):
        found.clear()
        monkeypatch.setattr(Text, "draw", recorded)
        figure.canvas.draw()
        monkeypatch.setattr(Text, "draw", original)
        return list(found)

    return words


@pytest.fixture
def crowded(written):
    """A function from a figure to the words that leave it or lie on others; empty where all can be read."""

    def wrong(figure):
        width, height = figure.canvas.get_width_height()
        words = written(figure)
        assert len(words) > 4
        found = [text for text, box in words if min(box.x0, box.y0) < 0 or box.x1 > width or box.y1 > height]
        for index, (text, box) in enumerate(words):
            for other, its in words[index + 1 :]:
                across = min(box.x1, its.x1) - max(box.x0, its.x0)
                up = min(box.y1, its.y1) - max(box.y0, its.y0)
                if across > 0.5 and up > 0.5:
                    found.append((text, other))
        return found

    return wrong
