"""Options beside a baseline: what each buys, as planned, and what each costs in accuracy.

What a KV format costs is quoted from a run over a real model; what other weights or another model cost is
measured here, on the model scaled down with random weights and a float32 cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvplan.arch.entry import Entry
from kvplan.arch.retention import PerRequest
from kvplan.check.advice import Compared
from kvplan.check.measured_price import MeasuredPrice, MeasuredPrices
from kvplan.errors import UsageError
from kvplan.plan.change import Change
from kvplan.plan.comparison import Tried, try_changes
from kvplan.plan.setup import Setup

if TYPE_CHECKING:
    from kvplan.arch.model import Model
    from kvplan.check.price import EngineError, PriceBench
    from kvplan.storage import WeightStorage


@dataclass(frozen=True, slots=True)
class Comparison:
    """A baseline and the options beside it, in the order they were asked for, and the prices quoted."""

    setup: Setup
    prices: MeasuredPrices
    baseline: Compared
    options: tuple[Compared, ...]


def compare(
    setup: Setup,
    options: Sequence[tuple[Change, ...]],
    on_step: Callable[[str], None],
    *,
    prices: MeasuredPrices,
    what_if: bool,
    measured: bool,
) -> Comparison:
    """Try every option on a setup, alone, and say what those that apply cost in accuracy.

    Args:
        setup: the baseline.
        options: what each changes.
        on_step: called with what goes on, whenever something else does.
        prices: what KV formats cost, to be quoted.
        what_if: also options that make another model.
        measured: measure what weights and other models cost.

    Raises:
        UsageError: the baseline itself cannot be planned.
    """
    baseline = try_changes(setup, (), what_if=what_if)
    if baseline.outcome is None:
        raise UsageError(baseline.reason)
    tried = [try_changes(setup, changes, what_if=what_if) for changes in options]
    errors = _Errors(setup.model, on_step, measured)
    found = [_priced(setup.model, one, prices, errors) for one in (baseline, *tried)]
    return Comparison(setup, prices, found[0], tuple(found[1:]))


def _priced(model: Model, tried: Tried, prices: MeasuredPrices, errors: _Errors) -> Compared:
    """Return an option with both of its prices, or with the reasons why it has none."""
    if tried.setup is None:
        return Compared(tried, unquoted=tried.reason, unmeasured=tried.reason)
    changed = tried.setup
    quoted = _quoted(model, changed, prices)
    weights = None if changed.deployment.weights == model.as_released() else changed.deployment.weights
    other = None if changed.model.layers == model.layers else changed.model
    error = errors.of(tried.label, weights, other)
    return Compared(
        tried,
        quoted if isinstance(quoted, MeasuredPrice) else None,
        quoted if isinstance(quoted, str) else "",
        None if isinstance(error, str) else error,
        error if isinstance(error, str) else "",
    )


def _quoted(model: Model, setup: Setup, prices: MeasuredPrices) -> MeasuredPrice | str:
    """Return the price of a setup's KV format, or why there is none; ``model`` is the baseline's."""
    if all(isinstance(run.slot.retention, PerRequest) for run in setup.model.slot_runs()):
        return f"{setup.model.name} caches no keys and values"
    if _entries(setup.model) != _entries(model):
        return "not measured: the changed model needs other weights, trained for it"
    name = setup.deployment.kv.name
    how = f"kvplan quality MODEL --text FILE --kv {name} measures it"
    return prices.of(name) or f"{name} KV was not measured on {prices.model}: {how}"


def _entries(model: Model) -> set[Entry]:
    return {run.slot.entry for run in model.slot_runs()}


class _Errors:
    """What weights and other models cost with random weights, those that compute alike measured once."""

    def __init__(self, model: Model, on_step: Callable[[str], None], measured: bool) -> None:
        self._model, self._on_step, self._measured = model, on_step, measured
        self._bench: PriceBench | str | None = None
        self._known: dict[tuple[WeightStorage | None, Model | None], EngineError | str] = {}

    def of(self, label: str, weights: WeightStorage | None, model: Model | None) -> EngineError | str | None:
        """Return the error, or the reason why there is none; ``None`` where both are as released."""
        if weights is None and model is None:
            return None
        if not self._measured:
            return "not measured: --no-measure"
        if self._bench is None:
            self._bench = self._ready_bench()
        if isinstance(self._bench, str):
            return self._bench
        self._on_step(f"measuring {label}")
        if (weights, model) not in self._known:
            self._known[weights, model] = self._error(self._bench, weights, model)
        return self._known[weights, model]

    @staticmethod
    def _error(bench: PriceBench, weights: WeightStorage | None, model: Model | None) -> EngineError | str:
        try:
            return bench.price(weights, model)
        except UsageError as error:
            return error.message

    def _ready_bench(self) -> PriceBench | str:
        # The engine is not loaded where nothing runs on it.
        from kvplan.check.price import PriceBench

        self._on_step("running the model scaled down")
        try:
            return PriceBench(self._model)
        except UsageError as error:
            return error.message
