"""Options beside a baseline: what each buys, as planned, and what each costs, as measured on the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvplan.check.advice import Compared
from kvplan.check.price import PriceBench, PriceVariant
from kvplan.errors import UsageError
from kvplan.plan.change import Change
from kvplan.plan.comparison import Tried, try_changes
from kvplan.plan.setup import Setup


@dataclass(frozen=True, slots=True)
class Comparison:
    """A baseline and the options beside it, in the order they were asked for."""

    setup: Setup
    baseline: Compared
    options: tuple[Compared, ...]


def compare(
    setup: Setup,
    options: Sequence[tuple[Change, ...]],
    on_step: Callable[[str], None],
    *,
    what_if: bool,
    measured: bool,
) -> Comparison:
    """Try every option on a setup, alone, and measure what those that apply cost in accuracy.

    Raises:
        UsageError: the baseline itself cannot be planned.
    """
    baseline = try_changes(setup, (), what_if=what_if)
    if baseline.outcome is None:
        raise UsageError(baseline.reason)
    tried = [try_changes(setup, changes, what_if=what_if) for changes in options]
    if not measured:
        return Comparison(setup, _unpriced(baseline), tuple(_unpriced(one) for one in tried))
    prices = _Prices(setup, on_step)
    return Comparison(setup, prices.of(baseline), tuple(prices.of(one) for one in tried))


def _unpriced(tried: Tried) -> Compared:
    return Compared(tried, None, "not measured: --no-measure")


class _Prices:
    """What options cost, those that compute alike measured once."""

    def __init__(self, setup: Setup, on_step: Callable[[str], None]) -> None:
        self._setup, self._on_step = setup, on_step
        self._bench: PriceBench | str = self._measured_bench()
        self._known: dict[PriceVariant, Compared] = {}

    def of(self, tried: Tried) -> Compared:
        """Return an option with its price, or with the reason why it has none."""
        if tried.setup is None:
            return Compared(tried, None, tried.reason)
        if isinstance(self._bench, str):
            return Compared(tried, None, self._bench)
        self._on_step(f"measuring {tried.label}")
        variant = self._variant(tried.setup)
        if variant not in self._known:
            self._known[variant] = self._priced(tried, self._bench, variant)
        known = self._known[variant]
        return Compared(tried, known.error, known.unpriced)

    def _priced(self, tried: Tried, bench: PriceBench, variant: PriceVariant) -> Compared:
        try:
            return Compared(tried, bench.price(variant))
        except UsageError as error:
            return Compared(tried, None, error.message)

    def _measured_bench(self) -> PriceBench | str:
        self._on_step("running the model scaled down")
        try:
            return PriceBench(self._setup.model)
        except UsageError as error:
            return error.message

    def _variant(self, changed: Setup) -> PriceVariant:
        model = None if changed.model.layers == self._setup.model.layers else changed.model
        return PriceVariant(changed.deployment.kv, changed.deployment.weights, model)
