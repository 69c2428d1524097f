"""Changes of perplexity in words: as many digits as tell them apart."""

import pytest

from kvplan.check.change_words import in_percent


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (0.00046, "+0.05%"),
        (-0.00046, "-0.05%"),
        (-0.00004, "+0.00%"),
        (0.0099, "+0.99%"),
        (0.00996, "+1.0%"),
        (-0.012, "-1.2%"),
        (0.0996, "+10%"),
        (1.152, "+115%"),
        (48.2067, "+4,821%"),
    ],
)
def test_a_change_in_percent(change, words):
    assert in_percent(change) == words
