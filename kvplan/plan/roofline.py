"""A model under a deployment as operators with times: a decode step, and the steps of a prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.model import Model
from kvplan.arch.work import NO_WORK, Step, Work, decode_step, prefill_step
from kvplan.errors import UsageError
from kvplan.plan.clock import Clock
from kvplan.plan.cutting import refuse_impossible
from kvplan.plan.deployment import Deployment
from kvplan.plan.operator import Operator
from kvplan.plan.operators import stage_operators
from kvplan.plan.rank import rank_of
from kvplan.plan.stages import pipeline_stages
from kvplan.plan.step_time import Times, Timing
from kvplan.units import Amount, ceil_div

# Chunks of one prompt; each is reckoned by itself, in some milliseconds.
MOST_CHUNKS = 2_048


@dataclass(frozen=True, slots=True)
class Part:
    """Equal layers' share of an operator: its work and times in a step done ``count`` times."""

    operator: Operator
    timing: Timing
    step: Step
    count: int

    @property
    def work(self) -> Work:
        """What it multiplies and moves."""
        return self.operator.work(self.step).times(self.count)

    @property
    def times(self) -> Times:
        """How long it takes."""
        return self.timing.at(self.step).scaled(self.count)


@dataclass(frozen=True, slots=True)
class Timed:
    """An operator's work and times, added up over equal layers, steps and pipeline stages."""

    name: str
    label: str
    parts: tuple[Part, ...]

    @property
    def work(self) -> Work:
        """What it multiplies and moves."""
        return sum((part.work for part in self.parts), start=NO_WORK)

    @property
    def times(self) -> Times:
        """How long it takes."""
        return sum((part.times for part in self.parts), start=Times())


@dataclass(frozen=True, slots=True)
class Roofline:
    """Operators of every pipeline stage with the laws of their times on the accelerators they run on.

    Batches are those of the whole deployment: replicas share them evenly, and in decode each cuts its share
    into as many micro-batches as it has pipeline stages. Work is that of a micro-batch on one GPU of every
    stage.
    """

    model: Model
    deployment: Deployment
    operators: tuple[tuple[Operator, Timing], ...]

    def timed(self, *steps: tuple[Step, int]) -> tuple[Timed, ...]:
        """Return the operators of steps, each done so many times; operators of one name are one."""
        found: dict[str, list[Part]] = {}
        for step, count in steps:
            each = self._micro_batch(step)
            for operator, timing in self.operators:
                if operator.runs_in(each):
                    found.setdefault(operator.name, []).append(Part(operator, timing, each, count))
        return tuple(Timed(name, parts[0].operator.label, tuple(parts)) for name, parts in found.items())

    def times(self, *steps: tuple[Step, int]) -> Times:
        """Return the times of steps, each done so many times."""
        return sum((timed.times for timed in self.timed(*steps)), start=Times())

    def work(self, *steps: tuple[Step, int]) -> Work:
        """Return the work of steps on one GPU of every stage."""
        return sum((timed.work for timed in self.timed(*steps)), start=NO_WORK)

    def decode(self, batch: Amount, context: Amount, new_tokens: Amount = 1) -> tuple[Step, int]:
        """Return one decode step of a batch."""
        return decode_step(batch, context, new_tokens), 1

    def prefill(self, batch: int, prompt: int, cached: int = 0) -> tuple[tuple[Step, int], ...]:
        """Return the steps that read the prompts of a replica, ``cached`` tokens of each being there.

        Short prompts share a step, long ones take several: none has more than ``chunk_tokens`` tokens.

        Raises:
            UsageError: a prompt takes more steps than anyone would wait for.
        """
        new, chunk = prompt - cached, self.deployment.chunk_tokens
        requests = ceil_div(batch, self.deployment.parallelism.data)
        assert isinstance(requests, int)
        share = batch / (self.deployment.parallelism.data * requests)
        if new <= chunk:
            together = min(requests, chunk // new)
            full, rest = divmod(requests, together)
            whole = [(self._read(together, new, cached, share, last=True), full)]
            return tuple(whole + ([(self._read(rest, new, cached, share, last=True), 1)] if rest else []))
        starts = range(cached, prompt, chunk)
        if len(starts) > MOST_CHUNKS:
            raise UsageError(
                f"a prompt of {prompt:,} tokens takes {len(starts):,} chunks of {chunk:,}: "
                f"more than {MOST_CHUNKS:,}, each reckoned by itself",
                hint="a larger --chunk",
            )
        return tuple(
            (self._read(1, min(chunk, prompt - start), start, share, last=start + chunk >= prompt), requests)
            for start in starts
        )

    def prefill_times(self, batch: int, prompt: int, cached: int = 0) -> Times:
        """Return how long reading the prompts takes: pipeline stages work on several chunks at once."""
        steps = self.prefill(batch, prompt, cached)
        stages = self.deployment.parallelism.pipeline
        if stages == 1:
            return self.times(*steps)
        filling = self.times((steps[0][0], 1))
        return self.times(*steps).scaled(1 / stages) + filling.scaled(1 - 1 / stages)

    def mixed(self, decode: Step, prefill: Step) -> Times:
        """Return the times of one pass that adds a token to some requests and reads prompts of others.

        Products, experts and exchanges take the tokens of both at once, so weights are read once for both;
        what touches a cache takes each kind by itself. Prompts may be a part of one, spread over passes.
        """
        one = self._micro_batch(decode)
        other = replace(prefill, batch=prefill.batch / self.deployment.parallelism.data)
        both, times = _together(one, other), Times()
        for operator, timing in self.operators:
            steps = (one, other) if operator.tells_requests_apart else (both,)
            times = sum((timing.at(step) for step in steps if operator.runs_in(step)), start=times)
        return times

    def _read(self, batch: int, new: int, context: int, share: float, *, last: bool) -> Step:
        replicas, ranks = self.deployment.parallelism.data, self.deployment.parallelism.context
        step = prefill_step(batch * replicas, new, context, last=last)
        return replace(step, token_ranks=ranks, replica_share=share)

    def _micro_batch(self, step: Step) -> Step:
        cut = self.deployment.parallelism
        ways = cut.data * cut.pipeline if step.absorbed else cut.data
        if ways == 1:
            return step
        fullest = -(-step.batch // ways)
        return replace(step, batch=fullest, replica_share=step.replica_share * step.batch / (ways * fullest))


def _together(decode: Step, prefill: Step) -> Step:
    """Return the tokens of two steps as one step, for operators that do not tell requests apart."""
    tokens = decode.tokens + prefill.tokens
    return Step(tokens, 1, 0, logits=(decode.logit_rows + prefill.logit_rows) / tokens)


def plan_roofline(model: Model, deployment: Deployment) -> Roofline:
    """Return the operators of a model under a deployment.

    Raises:
        UsageError: the model cannot be cut or packed that way, or a rate of the accelerator is not known.
    """
    cut = deployment.parallelism
    refuse_impossible(model, cut.tensor, deployment.weights, cut.expert)
    rank = rank_of(model, deployment)
    stages = pipeline_stages(model, cut.pipeline)
    clock = Clock(deployment.device)
    operators = (operator for stage in stages for operator in stage_operators(rank, stage))
    return Roofline(model, deployment, tuple((one, clock.timing(one)) for one in operators))
