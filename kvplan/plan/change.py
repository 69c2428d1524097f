"""What ``kvplan compare`` changes in a setup, one thing at a time, written as ``kv=fp8`` or ``tp=2``.

A change that does not go with a setup raises UsageError with the reason, which is shown in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from kvplan.allocation import Allocation, Contiguous, Paged
from kvplan.arch.retention import PerRequest, Unfinished
from kvplan.arch.what_if import (
    default_kv_heads_steps,
    with_kv_heads,
    with_latent_attention,
    with_window,
)
from kvplan.errors import UsageError, unknown
from kvplan.hardware.link import host_bytes_per_s
from kvplan.plan.setup import Setup, Speculation
from kvplan.storage import AsReleased, KvFormat, WeightFormat, WeightStorage, kv_format, weight_format
from kvplan.units import parse_count, short_count

V = TypeVar("V")

BLOCK_TOKENS = 16
MOST_DRAFTED = 64
MOST_RANKS = 4096
# DeepSeek's.
LATENT_RANK = 512


@dataclass(frozen=True, slots=True)
class Kind(Generic[V]):
    """One thing that can be changed.

    Args:
        key: what stands before the equals sign.
        takes: what stands behind it, for people.
        read: the value meant by what is typed; raises ValueError or UsageError where there is none.
        label: what a person reads, given the value.
        apply: the setup with it; raises UsageError where it does not go with the setup.
        what_if: it makes another model, that would have to be trained.
    """

    key: str
    takes: str
    read: Callable[[str], V]
    label: Callable[[V], str]
    apply: Callable[[Setup, V], Setup]
    what_if: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One thing changed to a value; ``text`` is how that is typed."""

    kind: Kind[Any]
    text: str
    value: Any

    @property
    def name(self) -> str:
        """How it is typed: ``kv=fp8``."""
        return f"{self.kind.key}={self.text}" if self.text else self.kind.key

    @property
    def label(self) -> str:
        """What a person reads."""
        return self.kind.label(self.value)

    def applied(self, setup: Setup) -> Setup:
        """Return the setup with it; raises UsageError where it does not go with the setup."""
        return self.kind.apply(setup, self.value)


def parse_changes(text: str) -> tuple[Change, ...]:
    """Return the changes of ``kv=fp8,weights=int4``, in order.

    Raises:
        UsageError: a key is not known, or named twice, or its value cannot be read.
    """
    found: list[Change] = []
    for part in text.split(","):
        change = _parsed(part.strip())
        if any(other.kind is change.kind for other in found):
            raise UsageError(f"{text[:60]!r} changes {change.kind.key} twice")
        found.append(change)
    return tuple(found)


def _parsed(text: str) -> Change:
    key, _, value = (piece.strip() for piece in text.partition("="))
    kind = next((kind for kind in KINDS if kind.key == key), None)
    if kind is None:
        raise unknown("change", key, [kind.key for kind in KINDS])
    try:
        return Change(kind, value, kind.read(value))
    except ValueError as error:
        raise UsageError(f"{kind.key}: {error}", hint=f"{kind.key}={kind.takes}") from None


# ------------------------------------------------------------------ storage


def _kv(setup: Setup, storage: KvFormat) -> Setup:
    if storage == setup.deployment.kv:
        raise UsageError(f"keys and values are {storage.name} already")
    if all(isinstance(run.slot.retention, PerRequest) for run in setup.model.slot_runs()):
        raise UsageError(f"{setup.model.name} caches no keys and values")
    allocation = setup.deployment.allocation
    if isinstance(allocation, Paged):
        allocation = _paged(storage, allocation.block_tokens)
    return replace(setup, deployment=replace(setup.deployment, kv=storage, allocation=allocation))


def _paged(storage: KvFormat, block_tokens: int) -> Paged:
    """Return blocks of so many tokens, or of one group of keys where those would not be whole groups."""
    group = storage.key_group_tokens
    return Paged(group if group and block_tokens % group else block_tokens)


def _weights(setup: Setup, storage: WeightFormat) -> Setup:
    now = setup.deployment.weights
    if storage == now:
        raise UsageError(f"weights are {now.name} already")
    if _as_many_bits(storage, now):
        raise UsageError(f"weights are {now.name} already, as many bits")
    return replace(setup, deployment=replace(setup.deployment, weights=storage))


def _as_many_bits(storage: WeightFormat, now: WeightStorage) -> bool:
    """Whether two formats differ in their scales only: the same tensors, bits and number formats."""
    if isinstance(now, AsReleased):
        return False
    alike = storage.applies_to == now.applies_to and storage.multiplied_in == now.multiplied_in
    return alike and storage.bits == now.bits > 0


# ------------------------------------------------------------------ memory


def _allocation_word(text: str) -> str:
    if text not in ("paged", "contiguous"):
        raise ValueError(f"{text[:20]!r} is no allocation")
    return text


def _alloc(setup: Setup, how: str) -> Setup:
    d = setup.deployment
    if how == ("paged" if isinstance(d.allocation, Paged) else "contiguous"):
        raise UsageError(f"the cache is {how} already")
    allocation: Allocation = Contiguous(d.max_tokens) if how == "contiguous" else _paged(d.kv, BLOCK_TOKENS)
    return replace(setup, deployment=replace(d, allocation=allocation))


def _chunk(setup: Setup, tokens: int) -> Setup:
    now = setup.deployment.chunk_tokens
    if tokens >= now:
        raise UsageError(f"prompts are read {now:,} tokens at a time already")
    return replace(setup, deployment=replace(setup.deployment, chunk_tokens=tokens))


def _offload(setup: Setup, percent: int) -> Setup:
    device = setup.deployment.device
    if host_bytes_per_s(device) is None:
        raise UsageError(f"how fast {device.name} reads its host's memory is not known")
    if not any(setup.keeps_every_token(run.slot) for run in setup.model.slot_runs()):
        raise UsageError(f"no layer of {setup.model.name} keeps every token")
    return replace(setup, load=replace(setup.load, host_percent=percent))


# ------------------------------------------------------------------ the way it is served


def _ranks(text: str) -> int:
    return parse_count(text, MOST_RANKS)


def _tp(setup: Setup, ranks: int) -> Setup:
    cut = setup.deployment.parallelism
    if ranks == cut.tensor:
        raise UsageError(f"tensor parallel is {ranks} already")
    sharing = ranks * cut.data * cut.context if cut.expert > 1 else 1
    changed = replace(cut, tensor=ranks, expert=sharing)
    return replace(setup, deployment=replace(setup.deployment, parallelism=changed))


def _prefix(setup: Setup, percent: int) -> Setup:
    if any(isinstance(run.slot.retention, PerRequest | Unfinished) for run in setup.model.slot_runs()):
        name = setup.model.name
        raise UsageError(f"{name}'s states would have to be kept for a prefix: not modelled")
    return replace(setup, load=replace(setup.load, shared_percent=percent))


def _speculation(text: str) -> Speculation:
    drafted, at, acceptance = text.partition("@")
    if not at:
        raise ValueError(f"{text[:20]!r} is not tokens@acceptance")
    return Speculation(parse_count(drafted, MOST_DRAFTED), _percent(acceptance))


def _spec(setup: Setup, speculation: Speculation) -> Setup:
    if any(isinstance(run.slot.retention, Unfinished) for run in setup.model.slot_runs()):
        raise UsageError(f"what {setup.model.name} keeps to take compressed guesses back is not modelled")
    return replace(setup, load=replace(setup.load, speculation=speculation))


# ------------------------------------------------------------------ another model


def _kv_heads(setup: Setup, heads: int) -> Setup:
    return replace(setup, model=with_kv_heads(setup.model, heads))


def _rank(text: str) -> int:
    return parse_count(text) if text else LATENT_RANK


def _mla(setup: Setup, rank: int) -> Setup:
    return replace(setup, model=with_latent_attention(setup.model, rank))


def _window(setup: Setup, tokens: int) -> Setup:
    return replace(setup, model=with_window(setup.model, tokens))


# ------------------------------------------------------------------ words


def _percent(text: str) -> int:
    """Return a share in percent: ``50%`` is 50."""
    digits = text.removesuffix("%")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and 1 <= int(digits) <= 99):
        raise ValueError(f"{text[:20]!r} is not a share from 1% to 99%")
    return int(digits)


def _guesses(one: Speculation) -> str:
    plural = "" if one.draft_tokens == 1 else "es"
    return f"speculation, {one.draft_tokens} guess{plural} at {one.acceptance_percent}%"


KINDS: tuple[Kind[Any], ...] = (
    Kind("kv", "FORMAT", kv_format, lambda kv: f"KV {kv.name}", _kv),
    Kind("weights", "FORMAT", weight_format, lambda weights: f"weights {weights.name}", _weights),
    Kind("alloc", "paged|contiguous", _allocation_word, lambda how: f"{how} cache", _alloc),
    Kind("chunk", "N", parse_count, lambda n: f"prefill chunks of {short_count(n)}", _chunk),
    Kind("tp", "N", _ranks, lambda n: f"TP {n}", _tp),
    Kind("prefix", "SHARE", _percent, lambda share: f"prefix caching, {share}% shared", _prefix),
    Kind("spec", "N@SHARE", _speculation, _guesses, _spec),
    Kind("offload", "SHARE", _percent, lambda share: f"{share}% of KV in host memory", _offload),
    Kind("kv_heads", "N", parse_count, lambda n: f"{n} KV head{'' if n == 1 else 's'}", _kv_heads, True),
    Kind("mla", "[RANK]", _rank, lambda n: f"latent attention of rank {n}", _mla, True),
    Kind("window", "N", parse_count, lambda n: f"sliding window {short_count(n)}", _window, True),
)


def usual_changes(setup: Setup) -> tuple[tuple[Change, ...], ...]:
    """Return the changes that are compared when none are asked for: each alone, then some together.

    What has no effect alone is left out of those together.
    """
    tensor = 2 * setup.deployment.parallelism.tensor
    other = "paged" if isinstance(setup.deployment.allocation, Contiguous) else "contiguous"
    heads = default_kv_heads_steps(setup.model) or (1,)
    alone = [
        "kv=fp8",
        "kv=int8",
        "kv=int4",
        "kv=int4-kivi",
        "weights=fp8",
        "weights=int4",
        f"alloc={other}",
        "chunk=2k",
        f"tp={tensor}",
        "prefix=50%",
        "spec=4@70%",
        "offload=50%",
        *(f"kv_heads={n}" for n in dict.fromkeys((heads[0], heads[-1]))),
        "mla",
        "window=4k",
    ]
    together = ["weights=fp8,kv=fp8", "weights=int4,kv=fp8", f"weights=fp8,kv=fp8,tp={tensor}"]
    stacks = (tuple(one for one in parse_changes(text) if _goes_with(one, setup)) for text in together)
    found = (*(parse_changes(text) for text in alone), *(stack for stack in stacks if stack))
    return tuple(dict.fromkeys(found))


def _goes_with(change: Change, setup: Setup) -> bool:
    try:
        change.applied(setup)
    except UsageError:
        return False
    return True
