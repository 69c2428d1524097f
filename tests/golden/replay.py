"""The golden cases, and the same runs on the bundled engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvplan.allocation import Allocation
from kvplan.arch.model import Model
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder, Logits
from kvplan.specs.config_json import import_config
from kvplan.specs.families.common import Identity
from kvplan.specs.strict_json import read_json
from kvplan.storage import kv_format

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in (HERE / "configs").glob("*.json")))
# Two sequences of different lengths, so that nothing hides in equal ones.
PROMPT_TOKENS = (21, 13)
STEPS = 64
MAX_TOKENS = max(PROMPT_TOKENS) + STEPS

Array = NDArray[np.float32]


class Tokens(NamedTuple):
    """What is fed: a prompt per sequence, then one token per step and sequence, whatever the logits say."""

    prompts: tuple[NDArray[np.int64], ...]
    steps: NDArray[np.int64]


class CaseLogits(NamedTuple):
    """Of all prompt tokens, sequences in order (tokens, vocab), and of steps (steps, sequences, vocab)."""

    prompts: Array
    steps: Array

    def largest(self) -> float:
        """Return the largest absolute logit."""
        return float(max(np.abs(self.prompts).max(), np.abs(self.steps).max()))

    def difference(self, other: CaseLogits) -> float:
        """Return the largest difference from another run, relative to this one's largest logit.

        Raises:
            ValueError: the other one's logits are not of the same tokens.
        """
        if [rows.shape for rows in self] != [rows.shape for rows in other]:
            raise ValueError("the logits of two runs have different shapes")
        apart = [np.abs(mine - theirs).max() for mine, theirs in zip(self, other, strict=True)]
        return float(max(apart)) / self.largest()


class Case(NamedTuple):
    """Tokens, transformers' logits of them, and the seed of tokens and weights."""

    tokens: Tokens
    logits: CaseLogits
    seed: int


def config_path(name: str) -> Path:
    """Return where a case's config.json is."""
    return HERE / "configs" / f"{name}.json"


def vectors_path(name: str) -> Path:
    """Return where a case's tokens and logits are."""
    return HERE / "vectors" / f"{name}.npz"


def read_model(name: str) -> Model:
    """Return a case's model, imported from its config.json."""
    return import_config(read_json(config_path(name)), Identity(name, "tests/golden"))


def model_type(name: str) -> str:
    """Return a case's family, as its config.json names it."""
    return str(json.loads(config_path(name).read_text(encoding="utf-8"))["model_type"])


def random_tokens(vocab_size: int, seed: int) -> Tokens:
    """Return tokens as good as any others."""
    state = np.random.RandomState(seed)
    prompts = tuple(state.randint(vocab_size, size=length) for length in PROMPT_TOKENS)
    return Tokens(prompts, state.randint(vocab_size, size=(STEPS, len(PROMPT_TOKENS))))


def save(case: Case, name: str, versions: Sequence[str]) -> None:
    """Write a case, and the versions of what made it."""
    np.savez_compressed(
        vectors_path(name),
        prompt_tokens=np.concatenate(case.tokens.prompts).astype(np.int16),
        step_tokens=case.tokens.steps.astype(np.int16),
        prompt_logits=case.logits.prompts,
        step_logits=case.logits.steps,
        seed=case.seed,
        versions=versions,
    )


def read_case(name: str) -> Case:
    """Return a case as it was written."""
    with np.load(vectors_path(name)) as stored:
        prompts = np.split(stored["prompt_tokens"].astype(np.int64), np.cumsum(PROMPT_TOKENS)[:-1])
        tokens = Tokens(tuple(prompts), stored["step_tokens"].astype(np.int64))
        return Case(tokens, CaseLogits(stored["prompt_logits"], stored["step_logits"]), int(stored["seed"]))


def engine_logits(
    model: Model,
    weights: Mapping[str, Array],
    tokens: Tokens,
    allocation: Allocation,
    *,
    chunk: int = MAX_TOKENS,
    decode: bool = True,
) -> CaseLogits:
    """Return the engine's logits: prompts as one batch in pieces of ``chunk``, then steps of one batch.

    ``decode`` tells the engine that a step is one, as its users do.
    """
    decoder, counter = Decoder(model, dict(weights), MAX_TOKENS), Counter()
    sequences = range(len(tokens.prompts))
    cache = Cache(model, kv_format("fp32"), allocation, max_tokens=MAX_TOKENS, sequences=len(sequences))
    ids = [cache.add() for _ in sequences]
    of_prompts: list[list[Array]] = [[] for _ in sequences]
    for start in range(0, max(PROMPT_TOKENS), chunk):
        fed = [i for i in sequences if start < PROMPT_TOKENS[i]]
        pieces = [tokens.prompts[i][start : start + chunk] for i in fed]
        batch = [(ids[i], piece) for i, piece in zip(fed, pieces, strict=True)]
        rows = decoder.forward(cache, batch, counter, logits=Logits.EVERY)
        ends = np.cumsum([len(piece) for piece in pieces])
        for i, found in zip(fed, np.split(rows, ends[:-1]), strict=True):
            of_prompts[i].append(found)
    of_steps = [
        decoder.forward(cache, [(ids[i], step[i : i + 1]) for i in sequences], counter, decode=decode)
        for step in tokens.steps
    ]
    return CaseLogits(np.concatenate([np.concatenate(rows) for rows in of_prompts]), np.stack(of_steps))
