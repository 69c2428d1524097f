"""What cache formats cost a model, against the bytes they take."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.charts import Axis, Chart, Dot, Dots, Hue, Spacing
from kvplan.check.change_words import in_percent
from kvplan.check.quality import Quality
from kvplan.check.quality_report import Price, cheapest, price_in_words
from kvplan.units import Unit

# Where what costs nothing, or less, stands on an axis that has no nothing.
FLOOR = 1e-4


def quality_chart(quality: Quality, found: Sequence[Price], text: str) -> Chart:
    """Return every format by its bytes and its price; the float32 reference, which has none, is left out."""
    tokens = quality.windows * quality.protocol.scored
    partial = ", partial" if quality.partial else ""
    return Chart(
        kind="quality",
        title=_title(found),
        subject=f"{quality.model.name} · {tokens:,} tokens of {text}{partial}",
        panels=(
            Dots(
                Axis("KV cache of a token", Unit.BYTES_PER_TOKEN, Spacing.DOUBLING),
                Axis("more perplexity than with a float32 cache", Unit.SHARE, Spacing.TENFOLD),
                tuple(_dot(price) for price in found[1:]),
                best="better: left and down",
            ),
        ),
        notes=tuple(_notes(quality, found)),
    )


def _dot(price: Price) -> Dot:
    hue = Hue.KV if price.format.window is None else Hue.ATTENTION
    name = f"{price.format.name}: {in_percent(price.change.value)}"
    return Dot(name, price.savings.kv_bytes_per_token.amount, max(price.change.value, FLOOR), hue=hue)


def _title(found: Sequence[Price]) -> str:
    best = cheapest(found)
    return "No format here is sure to keep perplexity within 1%" if best is None else price_in_words(best)


def _notes(quality: Quality, found: Sequence[Price]) -> list[str]:
    notes = [
        f"bytes: of a request of {quality.protocol.context + quality.protocol.stride:,} tokens, for each"
    ]
    low = [price.format.name for price in found[1:] if price.change.value < FLOOR]
    if low:
        notes.append(f"less than {FLOOR:.2%} is drawn as that: {', '.join(low)}")
    return notes
