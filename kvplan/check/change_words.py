"""Changes of perplexity: which are small, and how they are told."""

from __future__ import annotations

# A change that most would not notice. A fall is no gain: it is another model's luck.
SMALL_CHANGE = 0.01


def in_percent(change: float) -> str:
    """Return a share as text in percent: ``+0.14%``, ``+1.4%``, ``+105%``; small ones with more digits."""
    size = abs(change)
    digits = 2 if size < 0.00995 else 1 if size < 0.0995 else 0
    return f"{change:+z,.{digits}%}"
