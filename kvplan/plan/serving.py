"""Serving: a prompt's first token, and the steady state of requests that replace each other.

In a closed loop a request that ends makes room for a new one, whose prompt is read in the same passes that
make the others' tokens, as vLLM and TensorRT-LLM do: those passes read the weights once for both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.work import Step, decode_step, prefill_step
from kvplan.errors import UsageError
from kvplan.formula import formula
from kvplan.plan.roofline import Roofline
from kvplan.plan.step_time import Times
from kvplan.units import Amount, Unit, maximum

# Of the roofline's estimates against public measurements: docs/accuracy.md, python benchmarks/accuracy.py
ESTIMATE_MEDIAN_ERROR = 0.11
ESTIMATE_P90_ERROR = 0.31


@formula(
    Unit.REQUESTS, "while a request makes its tokens, each other one ends and is replaced, once on average"
)
def prompts_per_pass(concurrency: Amount, replicas: int, stages: int, output_tokens: int) -> Amount:
    """Prompts that a request sees read in one pass, on average: its own is none of them."""
    return maximum(concurrency / replicas - 1, 0) / (output_tokens * stages)


@formula(Unit.TOKENS, "from the prompt to the last token, half the tokens are there on average")
def mean_context_tokens(prompt_tokens: int, output_tokens: int) -> Amount:
    """Cached tokens of a request while it makes its own, on average."""
    return prompt_tokens + output_tokens / 2


@formula(
    Unit.TOKENS_PER_SECOND, "every request makes its tokens in the time to its first and to each other one"
)
def closed_loop_tokens_per_s(
    concurrency: Amount, output_tokens: int, first_token_s: Amount, token_s: Amount
) -> Amount:
    """Tokens that all requests of a closed loop make in a second."""
    return concurrency * output_tokens / (first_token_s + (output_tokens - 1) * token_s)


@formula(Unit.USD, "GPU-hours of the time that a million tokens take")
def usd_per_million_tokens(usd_per_gpu_hour: Amount, gpus: int, tokens_per_s: Amount) -> Amount:
    """Dollars that a million tokens cost."""
    return usd_per_gpu_hour * gpus * 1_000_000 / (3_600 * tokens_per_s)


def time_to_first_token(roofline: Roofline, prompt_tokens: int, cached_tokens: int = 0) -> Times:
    """Return how long one prompt takes alone, ``cached_tokens`` of it being there: no queue, no network."""
    return roofline.prefill_times(1, prompt_tokens, cached_tokens)


@dataclass(frozen=True, slots=True)
class SteadyState:
    """A closed loop of equal requests, once it has settled.

    Args:
        concurrency: requests in it, over the whole deployment.
        output_tokens: tokens each makes.
        gpus: accelerators of the deployment.
        first_token: time from a request's start to its first token; queueing is not in it.
        each_token: time from a token to the next one (TPOT), prompts of others included.
    """

    concurrency: int
    output_tokens: int
    gpus: int
    first_token: Times
    each_token: Times

    @property
    def tokens_per_s(self) -> Amount:
        """Tokens that are expected in a second, of all requests."""
        each = self.each_token.estimate_s
        first = maximum(self.first_token.estimate_s, each)
        return closed_loop_tokens_per_s(self.concurrency, self.output_tokens, first, each)

    @property
    def most_tokens_per_s(self) -> Amount:
        """Tokens that cannot be passed in a second, of all requests."""
        each = self.each_token.bound_s
        return closed_loop_tokens_per_s(self.concurrency, self.output_tokens, each, each)

    @property
    def tokens_per_s_and_gpu(self) -> Amount:
        """Tokens that are expected in a second, for each accelerator."""
        return self.tokens_per_s / self.gpus

    @property
    def tokens_per_s_and_request(self) -> Amount:
        """Tokens that one request is expected to make in a second, once it has its first."""
        return 1 / self.each_token.estimate_s


def steady_state(roofline: Roofline, concurrency: int, prompt_tokens: int, output_tokens: int) -> SteadyState:
    """Return what a closed loop of equal requests settles to, all of them running.

    Whether they fit in memory is :func:`~kvplan.plan.capacity.plan_capacity`'s to say.

    Raises:
        UsageError: fewer than one request or prompt token, or no token after the first.
    """
    least = (("concurrency", concurrency, 1), ("prompt", prompt_tokens, 1), ("output", output_tokens, 2))
    for name, value, fewest in least:
        if value < fewest:
            raise UsageError(f"{name} must be at least {fewest}, not {value}")
    cut = roofline.deployment.parallelism
    decode = decode_step(concurrency, mean_context_tokens(prompt_tokens, output_tokens))
    prompts = prompts_per_pass(concurrency, cut.data, cut.pipeline, output_tokens)
    return SteadyState(
        concurrency=concurrency,
        output_tokens=output_tokens,
        gpus=cut.gpus,
        first_token=time_to_first_token(roofline, prompt_tokens),
        each_token=_each_token(roofline, decode, prompt_tokens, float(prompts)),
    )


def _each_token(roofline: Roofline, decode: Step, prompt_tokens: int, prompts: float) -> Times:
    """Return the times of one pass on average, of which some read prompts too.

    Expected: prompts come whole, or as chunks, and several in a pass only where one a pass does not keep up.
    Bound: they come as smoothly as suits best.
    """
    alone = roofline.times((decode, 1))
    if not prompts:
        return alone
    cut, chunk = roofline.deployment.parallelism, roofline.deployment.chunk_tokens
    together = max(1, min(round(prompts), chunk // prompt_tokens))
    reading, share = Times(), 0.0
    for step, count in roofline.prefill(together * cut.data, prompt_tokens):
        passes = count * prompts / together
        reading += roofline.mixed(decode, step).scaled(passes)
        share += passes
    smooth = replace(prefill_step(prompts * cut.data, prompt_tokens), token_ranks=cut.context)
    return replace(alone.scaled(1 - share) + reading, bound_s=roofline.mixed(decode, smooth).bound_s)
