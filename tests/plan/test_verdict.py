"""The sentence that decides."""

import pytest

from kvplan.plan.verdict import verdict


@pytest.mark.parametrize(
    ("name", "device", "options", "asked", "fits", "text"),
    [
        # 56 x 1 GiB - 59,196,930,457 bytes = 932,611,687 = 0.87 GiB.
        (
            "llama-3.1-8b",
            "h100-sxm",
            {},
            (8_192, 1),
            True,
            "Fits. 55 requests of 8k; the 56th needs 0.87 GiB more.",
        ),
        # 64 GiB - 59,196,930,457 bytes = 8.87 GiB.
        (
            "llama-3.1-8b",
            "h100-sxm",
            {},
            (8_192, 64),
            False,
            "Does not fit: 64 requests of 8k need 8.87 GiB more; 55 would fit. "
            "It fits on 2 of these GPUs (--gpus 2 --tp 2).",
        ),
        (
            "llama-3.1-8b",
            "h100-sxm",
            {},
            (200_000, 1),
            False,
            "Does not fit: 200,000 tokens are more than the 131,072 that llama-3.1-8b was made for "
            "(max_position_embeddings).",
        ),
        (
            "llama-3.1-8b",
            "h100-sxm",
            {},
            (None, 1),
            True,
            "Fits. 1 request of up to 131,072 tokens, the longest allowed.",
        ),
    ],
)
def test_sentences(name, device, options, asked, fits, text, plan):
    found = verdict(plan(name, device, **options), *asked)
    assert (found.yes, found.text) == (fits, text)


def test_weights_that_do_not_fit(plan):
    found = verdict(plan("llama-3.1-70b", "h100-sxm"), 4_096, 1)
    assert not found.yes
    assert found.text.startswith("Does not fit: weights, activations and overhead take ")
    # 141,107,412,992 bytes of weights over 2 are 70.6 GB of the 77.0 GB planned on each.
    assert found.text.endswith("It fits on 2 of these GPUs (--gpus 2 --tp 2).")


def test_verdict_agrees_with_the_plan(representative, plan):
    for device in ("rtx4090", "h100-sxm"):
        capacity = plan(representative, device)
        for context in (1_000, 4_096, 1 << 20):
            for batch in (1, 50):
                assert verdict(capacity, context, batch).yes == capacity.fits(batch, context)
        longest = verdict(capacity, None, 1)
        assert longest.yes == (capacity.max_context(1) > 0)
