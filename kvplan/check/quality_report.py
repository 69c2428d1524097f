"""The answer of ``kvplan quality``: what each cache format costs a model, and what it saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low

import numpy as np

from kvplan.check.change_words import SMALL_CHANGE, in_percent
from kvplan.check.perplexity import BLOCK_TOKENS, Estimate, perplexity, perplexity_change
from kvplan.check.quality import Quality, When, WindowScores
from kvplan.check.quality_formats import CacheFormat
from kvplan.check.quality_savings import Savings
from kvplan.results import Column, Quantity, Report, Scalar, Table, Verdict
from kvplan.units import Unit, short_count

RARE = 0.99


@dataclass(frozen=True, slots=True)
class Price:
    """What one format costs, over all windows.

    Args:
        format: which.
        savings: what it saves.
        perplexity: of the tokens scored.
        change: by which share that differs from the reference's.
        divergence: mean Kullback-Leibler divergence from the reference, nats a token.
        rare_divergence: what 1 token in 100 is above.
        same_top1: share of tokens for which the likeliest token is the reference's.
        greedy: tokens of a greedy text that are the reference's, the median of the windows; absent where at
            least half of them never differ, or none was written.
    """

    format: CacheFormat
    savings: Savings
    perplexity: Estimate
    change: Estimate
    divergence: float
    rare_divergence: float
    same_top1: float
    greedy: int | None


def prices(quality: Quality, savings: Sequence[Savings]) -> tuple[Price, ...]:
    """Return the reference's price, which is none, and that of every format.

    Args:
        quality: what was measured.
        savings: of the reference, and of each format.
    """
    first, *others = savings
    free = Estimate(0.0, 0.0, 0.0)
    reference = Price(CacheFormat(), first, perplexity(quality.reference), free, 0.0, 0.0, 1.0, None)
    found = zip(quality.formats, others, quality.scores, strict=True)
    return (reference, *(_price(quality, one, saved, scores) for one, saved, scores in found))


def _price(quality: Quality, one: CacheFormat, saved: Savings, scores: Sequence[WindowScores]) -> Price:
    losses = [window.losses for window in scores]
    divergences = np.concatenate([window.divergences for window in scores])
    never = quality.protocol.greedy
    greedy = median_low(never if window.greedy is None else window.greedy for window in scores)
    return Price(
        one,
        saved,
        perplexity(losses),
        perplexity_change(losses, quality.reference),
        max(0.0, float(divergences.mean())),  # rounding can pass below nothing
        max(0.0, float(np.quantile(divergences, RARE))),
        float(np.concatenate([window.same_top for window in scores]).mean()),
        None if greedy == never else greedy,
    )


def quality_report(
    quality: Quality,
    found: Sequence[Price],
    gpu: str,
    text: str,
    left_out: Sequence[str],
    inputs: tuple[tuple[str, Scalar | list[int]], ...],
) -> Report:
    """Return the whole answer.

    Args:
        quality: what was measured.
        found: what it means, see :func:`prices`.
        gpu: what requests are counted on, in words.
        text: what the text is called.
        left_out: formats that were not measured, for the model cannot take them.
        inputs: what was asked, echoed.
    """
    return Report(
        command="quality",
        heading=_heading(quality, text),
        sections=(_table(quality, found),),
        verdict=_verdict(quality, found, gpu),
        notes=tuple(_notes(quality, found, gpu, left_out)),
        inputs=inputs,
    )


def _heading(quality: Quality, text: str) -> str:
    protocol, tokens = quality.protocol, quality.windows * quality.protocol.scored
    windows = f"{quality.windows:,} window{'' if quality.windows == 1 else 's'}"
    cut = f"{windows} of {protocol.context:,} + {protocol.stride:,}"
    partial = ", partial" if quality.partial else ""
    return (
        f"{quality.model.name}  the price of cache formats   on {tokens:,} tokens of {text}: {cut}{partial}"
    )


# ------------------------------------------------------------------ the table


def _table(quality: Quality, found: Sequence[Price]) -> Table:
    requests = f"requests\nof {short_count(quality.model.max_position_embeddings)}"
    nats, greedy = Unit.NATS_PER_TOKEN, "same\ngreedy" if quality.protocol.greedy else ""
    return Table(
        "formats",
        "Each format against a float32 cache",
        (
            _column("name", "format", Unit.NONE, [p.format.name for p in found]),
            _of("kv_bytes_per_token", "KV B\nper token", [p.savings.kv_bytes_per_token for p in found], 1),
            _of("saved", "fewer\nbytes", [p.savings.saved for p in found]),
            _column("perplexity", "perplexity", Unit.PERPLEXITY, [p.perplexity.value for p in found], 3),
            _column("perplexity_low", "", Unit.PERPLEXITY, [p.perplexity.low for p in found]),
            _column("perplexity_high", "", Unit.PERPLEXITY, [p.perplexity.high for p in found]),
            _column("perplexity_change", "change", Unit.CHANGE, [p.change.value for p in found]),
            _column("perplexity_change_low", "low", Unit.CHANGE, [p.change.low for p in found], 2),
            _column("perplexity_change_high", "high", Unit.CHANGE, [p.change.high for p in found], 2),
            _column("kl_divergence", "KL\nmean", nats, [p.divergence for p in found], 4),
            _column("kl_divergence_p99", "KL\n99th", nats, [p.rare_divergence for p in found], 7),
            _column("same_top1", "same\ntop 1", Unit.SHARE, [p.same_top1 for p in found], 5),
            _column("greedy_tokens", greedy, Unit.TOKENS, [p.greedy for p in found], 6),
            _of("max_batch", requests, [p.savings.max_batch for p in found]),
        ),
    )


def _of(name: str, label: str, cells: Sequence[Quantity], priority: int = 0) -> Column:
    return Column(name, label, tuple(cells), priority)


def _column(name: str, label: str, unit: Unit, values: Sequence[Scalar], priority: int = 0) -> Column:
    """Return a column of measured figures; one without a label is for machines."""
    return Column(name, label, tuple(Quantity(name, value, unit) for value in values), priority, bool(label))


# ------------------------------------------------------------------ the sentence that decides


def _verdict(quality: Quality, found: Sequence[Price], gpu: str) -> Verdict:
    key = "within_1_percent"
    if any(price.change.high is None for price in found):
        scored = quality.windows * quality.protocol.scored
        return Verdict(False, f"{scored:,} tokens are too few to tell what a format costs", key)
    best = cheapest(found)
    if best is None:
        return Verdict(False, "No format of fewer bytes than bf16 is sure to keep perplexity within 1%", key)
    limit = short_count(quality.model.max_position_embeddings)
    held = f"{best.savings.max_batch.number:,} requests of {limit} on one {gpu}"
    return Verdict(True, f"{price_in_words(best)}: {held}", key)


def cheapest(found: Sequence[Price]) -> Price | None:
    """Return the format of fewest bytes whose change is surely small: to both ends of its interval.

    Of several, the one that diverges least.
    """
    sure = [price for price in found if price.savings.saved.amount > 1 and _is_small(price.change)]
    bytes_then_cost = [(price.savings.kv_bytes_per_token.number, price.divergence) for price in sure]
    return sure[bytes_then_cost.index(min(bytes_then_cost))] if sure else None


def _is_small(change: Estimate) -> bool:
    ends = (change.low, change.high)
    return all(end is not None and abs(end) <= SMALL_CHANGE for end in ends)


def price_in_words(price: Price) -> str:
    """Return what a format saves and costs: ``int8 takes 1.9x fewer bytes than bf16 for +0.1% ...``."""
    change, surely = price.change, ""
    if change.low is not None and change.high is not None:
        surely = f" ({in_percent(change.low)} to {in_percent(change.high)})"
    return (
        f"{price.format.name} takes {price.savings.saved.amount:.1f}x fewer bytes than bf16 for "
        f"{in_percent(change.value)} perplexity{surely}"
    )


# ------------------------------------------------------------------ notes


def _notes(quality: Quality, found: Sequence[Price], gpu: str, left_out: Sequence[str]) -> Iterator[str]:
    protocol, longest = quality.protocol, quality.model.max_position_embeddings
    if quality.partial:
        yield f"partial: interrupted after {quality.windows:,} of {quality.asked:,} windows"
    yield (
        "change: of perplexity against the float32 cache, on the same tokens; low, high: its 95% confidence "
        f"interval, of means of {BLOCK_TOKENS} tokens in a row"
    )
    yield "KL: divergence from the float32 cache's predictions in nats: its mean, and its 99th percentile"
    if protocol.greedy:
        yield (
            f"same greedy: of {protocol.greedy:,} tokens written greedily behind a context, those before the "
            "first that differs, the median of the windows; -: not within them"
        )
    yield _when(protocol.when)
    yield (
        f"KV B per token: of a request of {protocol.context + protocol.stride:,} tokens; fewer bytes: than "
        f"bf16 with every token kept; requests: of {short_count(longest)} tokens at once on one {gpu}, "
        "weights as released"
    )
    if any(price.format.window is not None for price in found):
        yield (
            "window: in bf16 where nothing else is said; a token sees no others, and their positions stay: "
            "what a model pays that was not trained for it"
        )
    if left_out:
        yield f"left out, as this model's cache cannot be kept so in so few tokens: {', '.join(left_out)}"


def _when(when: When) -> str:
    match when:
        case When.APPEND:
            return (
                "quantised as tokens are stored, as a server does; keys scaled by groups once theirs is full"
            )
        case When.PREFILL:
            return "quantised once, behind the context; what is stored after it is float32"
