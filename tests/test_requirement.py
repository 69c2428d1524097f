"""The sentences of requirements: what they mean, and where the word is that is wrong."""

import pytest

from kvplan.requirement import Metric, SentenceError, parse_requirement

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "metric", "required", "batch", "context"),
    [
        ("fits", Metric.FITS, 1, None, None),
        ("fits at batch 4 context 8k", Metric.FITS, 1, 4, 8192),
        ("max_context >= 32k at batch 16", Metric.MAX_CONTEXT, 32768, 16, None),
        ("max_context >= 32000", Metric.MAX_CONTEXT, 32000, None, None),
        ("max_context >= 1M tokens", Metric.MAX_CONTEXT, 1 << 20, None, None),
        ("max_batch >= 64 at context 8k", Metric.MAX_BATCH, 64, None, 8192),
        ("max_batch >= 1 request", Metric.MAX_BATCH, 1, None, None),
        ("kv_pool >= 40 GiB", Metric.KV_POOL, 40 * GIB, None, None),
        ("kv_pool >= 1.5GiB", Metric.KV_POOL, 3 * GIB // 2, None, None),
        ("weights <= 16 GB", Metric.WEIGHTS, 16_000_000_000, None, None),
        ("ttft <= 2 s", Metric.TTFT, 2.0, None, None),
        ("ttft <= 1.5s at context 4k", Metric.TTFT, 1.5, None, 4096),
        ("tpot <= 30 ms", Metric.TPOT, 0.03, None, None),
        ("tpot<=30ms at context 2k batch 3", Metric.TPOT, 0.03, 3, 2048),
        ("tpot <= 900 us", Metric.TPOT, 0.0009, None, None),
        ("tokens_per_s >= 1000", Metric.TOKENS_PER_S, 1000.0, None, None),
        ("tokens_per_s >= 99.5 tokens/s", Metric.TOKENS_PER_S, 99.5, None, None),
        ("cost <= 0.5 USD/Mtok", Metric.COST, 0.5, None, None),
        ("  tpot   <=  30   ms  ", Metric.TPOT, 0.03, None, None),
    ],
)
def test_a_sentence_is_read(text, metric, required, batch, context):
    found = parse_requirement(text)
    assert (found.metric, found.required) == (metric, required)
    assert (found.batch, found.context) == (batch, context)
    assert found.text == " ".join(text.split())
    assert isinstance(found.required, int) is isinstance(required, int)


# Each with a caret under the first character of the word that is wrong.
WRONG = [
    ("max_contxt >= 32k", "^", "did you mean max_context?"),
    ("latency <= 3 s", "^", "expected one of fits, max_context, max_batch, kv_pool, weights, ttft, tpot"),
    ("TPOT <= 3 s", "^", "did you mean tpot?"),
    ("", "^", "expected a requirement such as 'tpot <= 30 ms'"),
    ("fits well", "     ^", "yes or no"),
    ("fits >= 3", "     ^", "yes or no"),
    ("tpot", "    ^", "expected '<=' behind tpot: tpot <= 30 ms"),
    ("tpot 30 ms", "     ^", "expected '<='"),
    ("tpot < 30 ms", "     ^", "expected '<='"),
    ("tpot >= 30 ms", "     ^", "expected '<='"),
    ("max_batch <= 3", "          ^", "expected '>=' behind max_batch: max_batch >= 64"),
    ("tpot <=", "       ^", "expected a value behind '<='"),
    ("tpot <= at batch 3", "                  ^", "expected a value"),
    ("tpot <= 30", "        ^", "the unit is missing: expected s, ms or us"),
    ("tpot <= 30 sec", "        ^", "'sec' is no unit of time"),
    ("tpot <= 30 ms or so", "        ^", "'30 ms or so' is not a time"),
    ("tpot <= 0 ms", "        ^", "must be above 0"),
    ("tpot <= -3 ms", "        ^", "is not a time"),
    ("tokens_per_s >= 1k", "                ^", "'k' is no unit of a rate"),
    ("cost <= 0.5", "        ^", "the unit is missing: expected USD/Mtok"),
    ("cost <= 0.5 EUR/Mtok", "        ^", "'EUR/Mtok' is no unit of cost"),
    ("kv_pool >= 40", "           ^", "'40' has no unit"),
    ("kv_pool >= 40 TiBs", "           ^", "is not a size"),
    ("kv_pool >= 0 GiB", "           ^", "must be above 0"),
    ("max_context >= 32kk", "               ^", "is not a count"),
    ("max_context >= 0.5", "               ^", "is not a whole number"),
    ("max_context >= 32k requests", "               ^", "is not a count"),
    ("max_context >= 32k at batch", "                           ^", "expected a count behind 'batch'"),
    ("max_context >= 32k at batch many", "                            ^", "'many' is not a count"),
    ("max_context >= 32k at batch 0", "                            ^", "out of range"),
    ("max_context >= 32k at", "                     ^", "expected 'batch N' or 'context N'"),
    ("max_context >= 32k at 16", "                      ^", "expected 'batch N' or 'context N'"),
    (
        "max_context >= 32k at context 4k",
        "                      ^",
        "max_context has no context: 'at batch N'",
    ),
    ("max_batch >= 3 at batch 4", "                  ^", "max_batch has no batch: 'at context N'"),
    ("ttft <= 2 s at batch 4", "               ^", "ttft has no batch"),
    ("kv_pool >= 1 GiB at batch 4", "                    ^", "kv_pool is the same at every load"),
    ("weights <= 1 GiB at", "                   ^", "weights is the same at every load"),
    ("fits at batch 1 batch 2", "                ^", "batch is said twice"),
    ("fits at batch 1 and context 2", "                ^", "expected 'batch N' or 'context N'"),
]


@pytest.mark.parametrize(("text", "caret", "message"), WRONG, ids=[text for text, _, _ in WRONG])
def test_a_mistake_is_told_where_it_is(text, caret, message):
    with pytest.raises(SentenceError) as caught:
        parse_requirement(text)
    assert message in caught.value.message
    assert caught.value.offset == caret.index("^")


def test_the_workload_fills_what_a_sentence_leaves_open():
    found = parse_requirement("tpot <= 30 ms at batch 2").at((16,), (8192,), priced=False)
    assert (found.batch, found.context) == (2, 8192)
    assert found.name == "tpot_at_batch_2_context_8192"
    pool = parse_requirement("kv_pool >= 1 GiB").at((16,), (8192,), priced=False)
    assert (pool.batch, pool.context, pool.name) == (None, None, "kv_pool")
    longest = parse_requirement("max_context >= 1k").at((16,), (8192, 4096), priced=False)
    assert (longest.batch, longest.context) == (16, None)


@pytest.mark.parametrize(
    ("text", "batches", "contexts", "message"),
    [
        ("fits", (), (8192,), "fits at which batch? say 'at batch N': the workload has none"),
        ("fits", (1, 2), (8192,), "fits at which batch? say 'at batch N': the workload has 2"),
        (
            "tpot <= 1 s at batch 1",
            (),
            (1, 2, 3),
            "tpot at which context? say 'at context N': the workload has 3",
        ),
        ("cost <= 1 USD/Mtok", (1,), (1,), "cost needs a price: 'price', US dollars for a GPU and hour"),
    ],
)
def test_what_stays_open_is_refused(text, batches, contexts, message):
    with pytest.raises(SentenceError) as caught:
        parse_requirement(text).at(batches, contexts, priced=False)
    assert caught.value.message == message
    assert caught.value.offset == 0
