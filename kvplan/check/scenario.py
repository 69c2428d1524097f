"""What a simulation runs: requests of different lengths, and how their cache is kept."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from kvplan.allocation import Allocation
from kvplan.arch.model import Model
from kvplan.errors import UsageError
from kvplan.storage import KvFormat
from kvplan.units import ceil_div

# Room for a contiguous request is whole tiles of this many tokens.
TILE = 64
# The shortest prompt is this share of the longest.
SHORTEST = 16


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run of requests.

    Args:
        prompt_tokens: length of each request's prompt.
        new_tokens: tokens each one adds; the last is never cached.
        chunk_tokens: tokens of a prompt read in one step at most.
        seed: of the weights and the prompts.
        kv: storage of keys, values and latents.
        allocation: how cache memory is handed out.
    """

    prompt_tokens: tuple[int, ...]
    new_tokens: int
    chunk_tokens: int
    seed: int
    kv: KvFormat
    allocation: Allocation

    @property
    def longest(self) -> int:
        """Tokens of the longest request when it ends."""
        return max(self.prompt_tokens) + self.new_tokens


def mixed_lengths(batch: int, longest: int, seed: int) -> tuple[int, ...]:
    """Return ``batch`` prompt lengths up to the longest, which is the last.

    The others are drawn so that each doubling of the length is as likely as the next.
    """
    import numpy as np  # here, so that a run can be refused without it

    doublings = np.random.default_rng(seed).uniform(0, log2(min(longest, SHORTEST)), batch - 1)
    drawn = (longest / 2**doublings).astype(np.int64)
    return (*sorted(drawn.tolist()), longest)


def room_for(longest: int) -> int:
    """Return the tokens a contiguous cache takes for a request of this length."""
    return int(ceil_div(longest, TILE)) * TILE


def require_positions(model: Model, longest: int) -> None:
    """Raise UsageError where a request gets longer than the model has positions for."""
    if longest > model.max_position_embeddings:
        limit = f"{model.max_position_embeddings:,} positions of {model.name}"
        raise UsageError(
            f"{longest:,} tokens are more than the {limit}", hint="a smaller --prompt-tokens or --tokens"
        )
