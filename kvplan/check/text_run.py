"""A text read and continued by a released model with its own weights, and the plan beside the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.model import Model
from kvplan.check.beside_transformers import BesideTransformers, beside_transformers
from kvplan.check.continuation import Continuation, shown_text
from kvplan.check.measurement import Progress, measure
from kvplan.check.scenario import Scenario
from kvplan.check.simulation import COUNTED, Check, Simulation, beside_plan
from kvplan.checkpoint.checkpoint import Checkpoint
from kvplan.checkpoint.tokenizer import Tokenizer
from kvplan.engine.arrays import Float
from kvplan.engine.generation import Request
from kvplan.results import fact

# Logits of two implementations in float32 are this close: those of released models are up to about 50.
TRANSFORMERS_TOLERANCE = 1e-3

OnText = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """A text for a model to read.

    Args:
        text: what is read.
        tokens: its tokens, ``(n,)``.
        whole_tokens: tokens of the text it is the beginning of.
    """

    text: str
    tokens: NDArray[np.int64]
    whole_tokens: int


def continue_text(
    checkpoint: Checkpoint,
    model: Model,
    tokenizer: Tokenizer,
    prompt: Prompt,
    scenario: Scenario,
    on_step: Progress,
    on_text: OnText | None = None,
    *,
    transformers: bool = True,
) -> Simulation:
    """Run a checkpoint on a prompt until a stop token, and compare what was counted with the plan.

    Args:
        checkpoint: the weights.
        model: its description, as it is cached.
        tokenizer: the checkpoint's.
        prompt: what is read.
        scenario: how much is added at most, and how the cache is kept.
        on_step: called with a word for what goes on; not while text is told.
        on_text: called with every piece of the text when it is made; pieces are whole characters.
        transformers: whether the logits are compared with transformers', where that is installed.

    Raises:
        UsageError: the weights are not those of the model.
        FileError: they cannot be read.
    """
    ran = as_it_runs(model)
    on_step("reading the weights")
    request = Request(prompt.tokens, scenario.new_tokens, tokenizer.stop_tokens)
    telling = _Telling(tokenizer, prompt, on_step, on_text)
    found: list[BesideTransformers] = []

    def compare(tokens: NDArray[np.int64], logits: Float) -> None:
        on_step("comparing logits with transformers")
        found.append(beside_transformers(checkpoint.path, tokens, logits))

    measurement = measure(
        ran,
        checkpoint.weights(),
        [request],
        scenario,
        telling.step,
        on_token=None if on_text is None else telling.token,
        on_logits=compare if transformers else None,
    )
    (tokens,) = measurement.tokens
    stopped = tokens[-1] in tokenizer.stop_tokens
    text = _text(tokenizer, prompt, tokens[:-1] if stopped else tokens)
    (beside,) = found or [BesideTransformers(None, "both models do not fit this machine's memory")]
    done = beside_plan(model, ran, scenario, measurement)
    read = shown_text(prompt.text)
    continuation = Continuation(read, prompt.whole_tokens, text, stopped, on_text is not None, beside)
    return replace(done, continuation=continuation, checks=(*done.checks, *_checks(beside)))


def as_it_runs(model: Model) -> Model:
    """Return a model as the engine runs it: all layers in float32, without its towers."""
    return replace(model, dtype="fp32", towers=(), missing_towers=())


class _Telling:
    """Tells a text as its tokens come, and what is left of it when no more do: when a step is told again."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: Prompt, on_step: Progress, on_text: OnText | None
    ) -> None:
        self._stream = tokenizer.stream(prompt.tokens)
        self._stop_tokens, self._on_step, self._on_text = tokenizer.stop_tokens, on_step, on_text
        self._open = False

    def token(self, _: int, token: int) -> None:
        """Tell the text that is final with one more token."""
        self._open = True
        if token not in self._stop_tokens:
            self._tell(self._stream.add(token))

    def step(self, doing: str) -> None:
        """Tell what goes on, and before it the rest of the text."""
        if self._open:
            self._tell(self._stream.rest())
            self._open = False
        self._on_step(doing)

    def _tell(self, text: str) -> None:
        if text and self._on_text is not None:
            self._on_text(shown_text(text))


def _text(tokenizer: Tokenizer, prompt: Prompt, tokens: tuple[int, ...]) -> str:
    """Return the text of tokens behind a prompt."""
    stream = tokenizer.stream(prompt.tokens)
    return shown_text("".join([*map(stream.add, tokens), stream.rest()]))


def _checks(beside: BesideTransformers) -> tuple[Check, ...]:
    """Return the difference from transformers beside the largest that rounding makes."""
    if beside.difference is None:
        return ()
    tolerance = fact("transformers_logit_difference", TRANSFORMERS_TOLERANCE, "kvplan: float32 in two orders")
    measured = fact("measured", beside.difference, f"{COUNTED}; {beside.told}")
    return (Check("logits beside transformers'", tolerance, measured, at_most=True),)
