"""The requests of a run: how long each is, and figures summed over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kvplan.formula import formula
from kvplan.results import Quantity, computed, fact, total
from kvplan.units import Count, Unit


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, and how many tokens are made after it."""

    prompt_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            raise ValueError(f"a request has at least one prompt and one output token: {self}")


@formula(Unit.TOKENS, "the first output token comes from prefill, every other one from a step of its own")
def decoded_tokens(output_tokens: Count) -> Count:
    """Tokens of a request that run through the model one at a time."""
    return output_tokens - 1


@formula(Unit.TOKENS, "the last output token is never run through the model, so never cached")
def cached_tokens(prompt_tokens: Count, output_tokens: Count) -> Count:
    """Tokens of a request in the cache when it ends."""
    return prompt_tokens + output_tokens - 1


@formula(Unit.NONE, "requests of equal lengths have equal figures")
def of_alike_requests(requests: Count, each: Count) -> Count:
    """A figure of several requests of equal lengths."""
    return requests * each


@dataclass(frozen=True, slots=True)
class Alike:
    """Requests of equal lengths.

    Args:
        name: which they are: ``request_1``, ``requests_2_5_6``.
        count: how many.
        prompt, decoded, cached: tokens of each.
    """

    name: str
    count: Quantity
    prompt: Quantity
    decoded: Quantity
    cached: Quantity


def alike_requests(requests: Sequence[Request]) -> tuple[Alike, ...]:
    """Group requests of equal lengths, in the order of their first appearance.

    Raises:
        ValueError: there are none.
    """
    if not requests:
        raise ValueError("a run has at least one request")
    places: dict[Request, list[int]] = {}
    for number, request in enumerate(requests, start=1):
        places.setdefault(request, []).append(number)
    return tuple(_alike(request, numbers) for request, numbers in places.items())


def over_requests(name: str, several: Sequence[Alike], figure: Callable[[Alike], Quantity]) -> Quantity:
    """Return a figure summed over requests; those of equal lengths make one part."""
    parts = tuple(_of_all(alike, figure(alike)) for alike in several)
    return total(name, parts[0].unit, parts)


def _of_all(alike: Alike, each: Quantity) -> Quantity:
    if alike.count.number == 1:
        return each
    product = computed(alike.name, of_alike_requests, alike.count, replace(each, name="each"))
    return replace(product, unit=each.unit)


def _alike(request: Request, numbers: Sequence[int]) -> Alike:
    prompt = fact("prompt_tokens", request.prompt_tokens, "asked for", Unit.TOKENS)
    output = fact("output_tokens", request.output_tokens, "asked for", Unit.TOKENS)
    word = "request" if len(numbers) == 1 else "requests"
    return Alike(
        name=f"{word}_{'_'.join(map(str, numbers))}",
        count=fact("requests", len(numbers), "asked for", Unit.REQUESTS),
        prompt=prompt,
        decoded=computed("decoded_tokens", decoded_tokens, output),
        cached=computed("cached_tokens", cached_tokens, prompt, output),
    )
