"""What to change, in sentences with the numbers behind them, the most worthwhile first.

Worth is the expected rate of a full machine for each GPU, against the baseline's, and of that the share of
most likely tokens that stay the same: with the KV format on a real model, with the weights on random ones.
KV that is not sure to cost a real model less than 1% of perplexity comes after all others; what costs more
than 5% is not advised: a smaller model would cost as much. Fewer than 8 bits come after all others too where
no real model was measured, as weights are: random ones cannot tell what few bits cost trained ones, whose
outliers they meet first. Of options that change the same things, the best is named; of several together that
are worth no more than some of them, those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvplan.check.change_words import SMALL_CHANGE, in_percent
from kvplan.check.measured_price import MeasuredPrice
from kvplan.hardware.link import GPUS_OF_A_BOX
from kvplan.plan.comparison import Outcome, Tried
from kvplan.plan.setup import Setup
from kvplan.storage import AsReleased, WeightStorage

if TYPE_CHECKING:
    from kvplan.check.price import EngineError

# Less than this is not worth a sentence: the estimate cannot tell it from nothing.
LEAST_GAIN = 1.05
MOST_SENTENCES = 5
# A rise of a real model's perplexity that rules an option out.
LARGEST_RISE = 0.05


@dataclass(frozen=True, slots=True)
class Compared:
    """An option beside the baseline.

    Args:
        tried: the option.
        kv: what its KV format costs a real model; ``None`` where that is not known.
        unquoted: why it is not; empty where it is.
        error: what its weights, or another model, cost with random weights; ``None`` where neither is another
            than was released, and where that was not measured.
        unmeasured: why it was not; empty where it was, or there was nothing to measure.
    """

    tried: Tried
    kv: MeasuredPrice | None = None
    unquoted: str = ""
    error: EngineError | None = None
    unmeasured: str = ""


@dataclass(frozen=True, slots=True)
class Advice:
    """One sentence, and the option it is about."""

    option: Compared
    text: str


def advise(baseline: Compared, options: tuple[Compared, ...]) -> tuple[Advice, ...]:
    """Return what is worth changing, the best first; options that make another model are left out."""
    known = [option for option in options if _can_be_advised(baseline, option)]
    helping = [option for option in known if _helps(baseline, option)]
    found = [option for option in helping if not _bettered(baseline, option, known)]
    found.sort(key=lambda option: (_costly(baseline, option), -_worth(baseline, option)))
    best = _best_of_each(baseline, found)[:MOST_SENTENCES]
    return tuple(Advice(option, _sentence(baseline, option)) for option in best)


def rate_of_gpu(compared: Compared) -> float:
    """Return the expected tokens/s of each GPU when full; 0 where nothing fits or it does not apply."""
    tried = compared.tried
    if tried.outcome is None or tried.setup is None:
        return 0.0
    return tried.outcome.full_tokens_per_s / tried.setup.deployment.parallelism.gpus


def gain(baseline: Compared, option: Compared) -> float | None:
    """Return an option's rate of each GPU over the baseline's; ``None`` where one of them holds nothing."""
    now, then = rate_of_gpu(baseline), rate_of_gpu(option)
    return then / now if now and then else None


# ------------------------------------------------------------------ what is worth a sentence


def _can_be_advised(baseline: Compared, option: Compared) -> bool:
    """Whether it applies, holds a request, leaves the model what it is and nearly as good, on known links."""
    setup, another = option.tried.setup, any(change.kind.what_if for change in option.tried.changes)
    in_a_box = setup is not None and setup.deployment.parallelism.gpus_that_talk <= GPUS_OF_A_BOX
    too_dear = bool(
        baseline.kv and option.kv and _rise(baseline.kv, option.kv.perplexity_change) > LARGEST_RISE
    )
    return bool(rate_of_gpu(option)) and not another and not too_dear and in_a_box


def _helps(baseline: Compared, option: Compared) -> bool:
    now = rate_of_gpu(baseline)
    if not now or _worth(baseline, option) >= LEAST_GAIN * now:
        return True
    return _sooner(_outcome(baseline), _outcome(option)) >= LEAST_GAIN


def _worth(baseline: Compared, option: Compared) -> float:
    """Return the rate of a full GPU, less the share of most likely tokens that change."""
    by_kv = _kept(baseline.kv.same_top1, option.kv.same_top1) if baseline.kv and option.kv else 1.0
    greedy = baseline.error.same_greedy if baseline.error else 1.0
    by_weights = _kept(greedy, option.error.same_greedy) if option.error else 1.0
    return rate_of_gpu(option) * by_kv * by_weights


def _kept(now: float, then: float) -> float:
    """Return the share that stays the same against the baseline's, whose own errors count against none."""
    return then / now if now else 1.0


def _rise(baseline: MeasuredPrice, change: float) -> float:
    """Return by how much perplexity rises above the baseline's, whose own change is free."""
    return (1 + change) / (1 + baseline.perplexity_change) - 1


def _bettered(baseline: Compared, option: Compared, others: Iterable[Compared]) -> bool:
    """Whether some of its changes without the rest are worth as much, as far as the estimate can tell."""
    mine, worth = set(option.tried.changes), _worth(baseline, option)
    return any(set(o.tried.changes) < mine and _worth(baseline, o) * LEAST_GAIN >= worth for o in others)


def _costly(baseline: Compared, option: Compared) -> bool:
    """Whether its KV may cost more than a little, or it has few bits of what is not known."""
    now, then = _setup(baseline).deployment, _setup(option).deployment
    rise = _rise(baseline.kv, option.kv.high) if baseline.kv and option.kv else None
    kv_costs = then.kv.bits < 8 if rise is None else rise > SMALL_CHANGE
    return (then.kv != now.kv and kv_costs) or (then.weights != now.weights and _bits(then.weights) < 8)


def _bits(storage: WeightStorage) -> float:
    """Return the bits of an element with its part of a tile's scales; of several formats, the base's."""
    storage = storage.base if isinstance(storage, AsReleased) else storage
    elements = storage.tile_columns * storage.tile_rows
    return storage.bits + (4 * storage.tile_half_bytes / elements if elements else 0)


def _best_of_each(baseline: Compared, options: Iterable[Compared]) -> list[Compared]:
    """Return the first of those that change the same things, those that cost more apart from the others."""
    found: dict[tuple[bool, frozenset[str]], Compared] = {}
    for option in options:
        keys = frozenset(change.kind.key for change in option.tried.changes)
        found.setdefault((_costly(baseline, option), keys), option)
    return list(found.values())


# ------------------------------------------------------------------ words


def _sentence(baseline: Compared, option: Compared) -> str:
    label = option.tried.label
    said = f"{label[0].upper()}{label[1:]}{_gpus(baseline, option)}{_rate(baseline, option)}"
    parts = [part for say in (_step, _requests, _first_token) if (part := say(baseline, option))]
    told = f"{said}: {_joined(parts)}" if parts else said
    behind = f"; {condition(option)}" if condition(option) else ""
    return f"{told}{_reason(baseline, option)}{behind}{_price(baseline, option)}"


def _gpus(baseline: Compared, option: Compared) -> str:
    now, then = (_setup(one).deployment.parallelism.gpus for one in (baseline, option))
    return f", on {then} GPU{_plural(then)} instead of {now}" if now != then else ""


def _rate(baseline: Compared, option: Compared) -> str:
    """Return what an option is ranked by, where that is not the baseline's."""
    times = gain(baseline, option)
    if times is None:
        return f" ({_outcome(option).full_tokens_per_s:,.0f} tokens/s when full)"
    if 1 / LEAST_GAIN < times < LEAST_GAIN:
        return ""
    return f" (x{times:.2f} tokens/s{' for each GPU' if _gpus(baseline, option) else ''})"


def _step(baseline: Compared, option: Compared) -> str:
    """Return how a step's time for a token changes, where both hold the batch."""
    now, then, batch = _outcome(baseline), _outcome(option), _setup(baseline).load.batch
    if min(now.max_batch, then.max_batch) < batch:
        return ""
    each = _token_s(then) / _token_s(now)
    if each <= 1 / LEAST_GAIN:
        return f"{1 - each:.0%} less time for a token at batch {batch:,}"
    return f"{each - 1:.0%} more time for a token at batch {batch:,}" if each >= LEAST_GAIN else ""


def _token_s(outcome: Outcome) -> float:
    return float(outcome.step.estimate_s) / outcome.tokens_per_step


def _requests(baseline: Compared, option: Compared) -> str:
    now, then = _outcome(baseline).max_batch, _outcome(option).max_batch
    some = f"{then:,} request{_plural(then)}"
    if not now:
        return f"{some} fit{'s' if then == 1 else ''}, where none does now"
    return f"{some} at once instead of {now:,}" if not 1 / LEAST_GAIN < then / now < LEAST_GAIN else ""


def _first_token(baseline: Compared, option: Compared) -> str:
    now, then = _outcome(baseline), _outcome(option)
    if not now.max_batch or 1 / LEAST_GAIN < _sooner(now, then) < LEAST_GAIN:
        return ""
    before, after = (_time(float(one.first_token.estimate_s)) for one in (now, then))
    return f"the first token after {after} instead of {before}"


def _sooner(now: Outcome, then: Outcome) -> float:
    return float(now.first_token.estimate_s) / float(then.first_token.estimate_s)


def _reason(baseline: Compared, option: Compared) -> str:
    """Return why an option of storage helps: what a step reads most of."""
    now, batch = _outcome(baseline), _setup(baseline).load.batch
    keys = {change.kind.key for change in option.tried.changes}
    if now.max_batch < batch or keys not in ({"kv"}, {"weights"}):
        return ""
    share, what = (now.kv_share, "KV") if keys == {"kv"} else (1 - now.kv_share, "weights")
    return f"; decode at batch {batch:,} reads {share:.0%} {what}"


def condition(option: Compared) -> str:
    """Return what has to be so in the requests themselves."""
    load = _setup(option).load
    said = []
    if load.shared_percent:
        said.append(f"if {load.shared_percent}% of each request is common to all")
    if load.speculation is not None:
        said.append(f"if {load.speculation.acceptance_percent}% of guesses are right")
    return " and ".join(said)


def _price(baseline: Compared, option: Compared) -> str:
    """Return what an option costs in accuracy, where that is not the baseline's own."""
    found = [quoted_price(option.kv)] if option.kv and option.kv != baseline.kv else []
    if option.error is not None and option.error != baseline.error:
        same = f"{option.error.same_greedy:.0%} of greedy tokens the same"
        found.append(f"random weights: logits off by {100 * option.error.logit_error:.2g}%, {same}")
    return "".join(f"; {one}" for one in found)


def quoted_price(price: MeasuredPrice) -> str:
    """Return what a KV format costs, in words, with the model it was measured on."""
    within = ", within its error" if price.low <= 0 <= price.high else ""
    return f"perplexity {in_percent(price.perplexity_change)} on {price.model}{within}"


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _plural(count: int) -> str:
    return "" if count == 1 else "s"


def _time(seconds: float) -> str:
    """Return a time to three digits, whole from a hundred on."""
    amount, unit = (seconds, "s") if seconds >= 0.9995 else (1e3 * seconds, "ms")
    return f"{amount:,.0f} {unit}" if amount >= 99.95 else f"{amount:.3g} {unit}"


def _outcome(compared: Compared) -> Outcome:
    assert compared.tried.outcome is not None
    return compared.tried.outcome


def _setup(compared: Compared) -> Setup:
    assert compared.tried.setup is not None
    return compared.tried.setup
