"""What is compared: a model under a deployment, and the load it is asked to carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.model import Model
from kvplan.arch.retention import Chunked, Compressed, Full, PerRequest, Sliding, Unfinished
from kvplan.arch.slot import CacheSlot
from kvplan.errors import UsageError
from kvplan.plan.deployment import Deployment


@dataclass(frozen=True, slots=True)
class Speculation:
    """Guessed tokens that a decode step verifies.

    Args:
        draft_tokens: tokens guessed before each step, by one more decoder layer and the model's head.
        acceptance_percent: how likely a guess is right, given that those before it are; below 100.
    """

    draft_tokens: int
    acceptance_percent: int


@dataclass(frozen=True, slots=True)
class Load:
    """The requests that are served.

    Args:
        batch: requests at once.
        context: tokens of each: a prompt as long, and a cache as long in decode.
        shared_percent: of each request's blocks, the share that holds a prefix common to all; below 100.
        speculation: guessed tokens; absent where every step adds one.
        host_percent: share of the growing cache that is kept in the host's memory and read from there.
    """

    batch: int
    context: int
    shared_percent: int = 0
    speculation: Speculation | None = None
    host_percent: int = 0

    @property
    def new_tokens(self) -> int:
        """Tokens a decode step passes through the layers for each request."""
        return 1 if self.speculation is None else 1 + self.speculation.draft_tokens


@dataclass(frozen=True, slots=True)
class Setup:
    """A model, its deployment and its load.

    Raises:
        UsageError: a prefix is shared where caches have no blocks to share.
    """

    model: Model
    deployment: Deployment
    load: Load

    def __post_init__(self) -> None:
        if self.load.shared_percent and isinstance(self.deployment.allocation, Contiguous):
            raise UsageError("a contiguous cache shares no prefix: each request has a place of its own")

    def shared_tokens(self, context: int) -> int:
        """Return the tokens that requests of this context have in common: whole blocks, never all of them."""
        match self.deployment.allocation:
            case Paged(block_tokens):
                blocks = -(-context // block_tokens)
                return blocks * self.load.shared_percent // 100 * block_tokens
            case Contiguous():
                return 0
            case _ as never:
                assert_never(never)

    def keeps_every_token(self, slot: CacheSlot) -> bool:
        """Whether a slot lets go of no token: full attention, or a window as long as the longest request."""
        longest = self.deployment.max_tokens
        match slot.retention:
            case Full() | Compressed():
                return True
            case Sliding(window):
                return window >= longest
            case Chunked(chunk):
                return chunk >= longest
            case Unfinished() | PerRequest():
                return False
            case _ as never:
                assert_never(never)
