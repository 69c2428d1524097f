"""What to change, in sentences with the numbers behind them, the most worthwhile first.

Worth is the expected rate of a full machine for each GPU, against the baseline's, and of that the share of
greedy tokens that stay the same. Fewer than 8 bits come after all others: random weights cannot tell what
they cost trained ones, whose outliers they meet first. Of options that change the same things, the best is
named; of several together that are worth no more than some of them, those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kvplan.check.price import EngineError
from kvplan.hardware.link import GPUS_OF_A_BOX
from kvplan.plan.comparison import Outcome, Tried
from kvplan.plan.setup import Setup
from kvplan.storage import AsReleased, WeightStorage

# Less than this is not worth a sentence: the estimate cannot tell it from nothing.
LEAST_GAIN = 1.05
MOST_SENTENCES = 5


@dataclass(frozen=True, slots=True)
class Compared:
    """An option beside the baseline.

    Args:
        tried: the option.
        error: what it costs in accuracy; ``None`` where that was not measured.
        unpriced: why it was not; empty where it was.
    """

    tried: Tried
    error: EngineError | None
    unpriced: str = ""


@dataclass(frozen=True, slots=True)
class Advice:
    """One sentence, and the option it is about."""

    option: Compared
    text: str


def advise(baseline: Compared, options: tuple[Compared, ...]) -> tuple[Advice, ...]:
    """Return what is worth changing, the best first; options that make another model are left out."""
    known = [option for option in options if _can_be_advised(option)]
    helping = [option for option in known if _helps(baseline, option)]
    found = [option for option in helping if not _bettered(baseline, option, known)]
    found.sort(key=lambda option: (_few_bits(baseline, option), -_worth(baseline, option)))
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


def _can_be_advised(option: Compared) -> bool:
    """Whether it applies, holds a request, leaves the model what it is, and keeps to known links."""
    setup, another = option.tried.setup, any(change.kind.what_if for change in option.tried.changes)
    in_a_box = setup is not None and setup.deployment.parallelism.gpus_that_talk <= GPUS_OF_A_BOX
    return bool(rate_of_gpu(option)) and not another and in_a_box


def _helps(baseline: Compared, option: Compared) -> bool:
    now = rate_of_gpu(baseline)
    if not now or _worth(baseline, option) >= LEAST_GAIN * now:
        return True
    return _sooner(_outcome(baseline), _outcome(option)) >= LEAST_GAIN


def _worth(baseline: Compared, option: Compared) -> float:
    """Return the rate of a full GPU, less the share of greedy tokens that change."""
    if option.error is None or baseline.error is None:
        return rate_of_gpu(option)
    return rate_of_gpu(option) * option.error.same_greedy / baseline.error.same_greedy


def _bettered(baseline: Compared, option: Compared, others: Iterable[Compared]) -> bool:
    """Whether some of its changes without the rest are worth as much, as far as the estimate can tell."""
    mine, worth = set(option.tried.changes), _worth(baseline, option)
    return any(set(o.tried.changes) < mine and _worth(baseline, o) * LEAST_GAIN >= worth for o in others)


def _few_bits(baseline: Compared, option: Compared) -> bool:
    """Whether it stores anything else in fewer than 8 bits."""
    now, then = _setup(baseline).deployment, _setup(option).deployment
    few_of_kv = then.kv != now.kv and then.kv.bits < 8
    return few_of_kv or (then.weights != now.weights and _bits(then.weights) < 8)


def _bits(storage: WeightStorage) -> float:
    """Return the bits of an element with its part of a tile's scales; of several formats, the base's."""
    storage = storage.base if isinstance(storage, AsReleased) else storage
    elements = storage.tile_columns * storage.tile_rows
    return storage.bits + (4 * storage.tile_half_bytes / elements if elements else 0)


def _best_of_each(baseline: Compared, options: Iterable[Compared]) -> list[Compared]:
    """Return the first of those that change the same things, those of few bits apart from the others."""
    found: dict[tuple[bool, frozenset[str]], Compared] = {}
    for option in options:
        keys = frozenset(change.kind.key for change in option.tried.changes)
        found.setdefault((_few_bits(baseline, option), keys), option)
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
    error = option.error
    if error is None or error == baseline.error:
        return ""
    same = f"{error.same_greedy:.0%} of greedy tokens the same"
    return f"; logits off by {100 * error.logit_error:.2g}%, {same}"


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
