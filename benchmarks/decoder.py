"""The whole decoder beside transformers: same weights, same machine, one thread, in one run.

    python benchmarks/decoder.py --alone
    pip install -e '.[reference]' && python benchmarks/decoder.py

Each round times one greedy decode step of every candidate in turn, and with them what a bound is made of:
reading as many bytes as the step does, and a product of large matrices. The table shows medians of CPU time,
so that other jobs on the machine count less, and ratios of medians of the same rounds.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
# The kernels this processor is for, not those the surroundings ask for.
os.environ.pop("OPENBLAS_CORETYPE", None)

import argparse
from collections.abc import Callable
from statistics import median
from time import thread_time

import numpy as np

from kvplan.allocation import Paged
from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.rotary import RopeParameters
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder
from kvplan.engine.random_weights import random_weights
from kvplan.storage import kv_format

CONTEXT, VOCABULARY = 512, 32_000
# The first rounds, where every candidate still asks for its memory, do not count.
WARM_UP, ROUNDS = 3, 21
SGEMM_SIZE = 1024
# hidden size, layers, query heads, KV heads, head_dim, feed-forward width, batch sizes
MODELS = {
    "56M": (512, 8, 8, 4, 64, 1408, (1, 4, 16)),
    "125M": (768, 12, 12, 4, 64, 2048, (1, 16)),
}


def model(name: str) -> Model:
    """Return a Llama of one of the sizes."""
    hidden, layers, heads, kv_heads, head_dim, width, _ = MODELS[name]
    mixer = Attention(heads, kv_heads, head_dim, rope_parameters=RopeParameters(10_000.0))
    return Model(name, "a benchmark", "fp32", hidden, VOCABULARY, 2048, (Layer(mixer, MLP(width)),) * layers)


def engine_step(described: Model, batch: int) -> tuple[Callable[[], np.ndarray], Callable[[], Counter]]:
    """Return a function that decodes one token of every sequence, and what its last call counted."""
    longest = CONTEXT + 1 + WARM_UP + ROUNDS
    decoder = Decoder(described, random_weights(described, 0), longest)
    cache = Cache(described, kv_format("fp32"), Paged(64), longest, batch)
    prompts = np.random.default_rng(1).integers(0, VOCABULARY, (batch, CONTEXT))
    sequences = [cache.add() for _ in range(batch)]
    logits = np.concatenate(
        [decoder.forward(cache, [(s, p)], Counter()) for s, p in zip(sequences, prompts, strict=True)]
    )
    state = {"tokens": logits.argmax(axis=1), "counter": Counter()}

    def step() -> np.ndarray:
        state["counter"] = Counter()
        new = [(s, state["tokens"][i : i + 1]) for i, s in enumerate(sequences)]
        found = decoder.forward(cache, new, state["counter"], decode=True)
        state["tokens"] = found.argmax(axis=1)
        return found

    return step, lambda: state["counter"]


def transformers_step(described: Model, batch: int, attention: str) -> Callable[[], np.ndarray]:
    """Return a function that decodes one token of every sequence with transformers."""
    import torch
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    mixer, mlp = described.layers[0].mixer, described.layers[0].mlp
    assert isinstance(mixer, Attention)
    assert isinstance(mlp, MLP)
    config = LlamaConfig(
        hidden_size=described.hidden_size,
        num_hidden_layers=len(described.layers),
        num_attention_heads=mixer.num_attention_heads,
        num_key_value_heads=mixer.num_key_value_heads,
        head_dim=mixer.head_dim,
        intermediate_size=mlp.intermediate_size,
        vocab_size=VOCABULARY,
        rms_norm_eps=described.norm_eps,
        attn_implementation=attention,
    )
    network = LlamaForCausalLM(config).eval().float()
    ours = random_weights(described, 0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(ours[name.removeprefix("model.")]))
    prompts = torch.from_numpy(np.random.default_rng(1).integers(0, VOCABULARY, (batch, CONTEXT)))
    cache = DynamicCache()
    with torch.inference_mode():
        logits = network(prompts, past_key_values=cache, logits_to_keep=1).logits[:, -1]
    state = {"tokens": logits.argmax(dim=1)}

    def step() -> np.ndarray:
        with torch.inference_mode():
            found = network(state["tokens"][:, None], past_key_values=cache).logits[:, -1]
        state["tokens"] = found.argmax(dim=1)
        return found.numpy()

    return step


def yardsticks(read_nbytes: int) -> dict[str, Callable[[], np.ndarray]]:
    """Return functions that read so many bytes once, and that multiply two large matrices."""
    data, left = np.ones(read_nbytes // 4, np.float32), np.ones((SGEMM_SIZE, SGEMM_SIZE), np.float32)
    product = np.empty_like(left)
    return {"read": lambda: data.max(), "sgemm": lambda: np.matmul(left, left, out=product)}


def bound_s(counter: Counter, read_s: float, sgemm_s: float) -> float:
    """Return the least seconds of a step: weights and cache are each read, or multiplied, at full speed."""
    per_byte = read_s / (counter.weights_read_bytes + counter.cache_read_bytes)
    per_flop = sgemm_s / (2 * SGEMM_SIZE**3)
    weights = max(counter.weights_read_bytes * per_byte, counter.matmul_flops * per_flop)
    return weights + max(counter.cache_read_bytes * per_byte, counter.attention_flops * per_flop)


def take_turns(candidates: dict[str, Callable[[], np.ndarray]]) -> tuple[dict[str, float], float]:
    """Return each candidate's median seconds, and by how much kvplan's logits differ from sdpa's at most."""
    seconds: dict[str, list[float]] = {kind: [] for kind in candidates}
    difference = 0.0
    for _ in range(WARM_UP + ROUNDS):
        found = {}
        for kind, run in candidates.items():
            began = thread_time()
            found[kind] = run()
            seconds[kind].append(thread_time() - began)
        if "sdpa" in found:
            difference = max(difference, float(np.abs(found["kvplan"] - found["sdpa"]).max()))
    return {kind: median(measured[WARM_UP:]) for kind, measured in seconds.items()}, difference


def rows(name: str, batch: int, peers: bool) -> None:
    """Time one model at one batch size and print its line."""
    described = model(name)
    ours, counted = engine_step(described, batch)
    candidates = {"kvplan": ours}
    if peers:
        candidates |= {kind: transformers_step(described, batch, kind) for kind in ("sdpa", "eager")}
    for step in candidates.values():
        step()
    candidates |= yardsticks(counted().weights_read_bytes + counted().cache_read_bytes)
    seconds, difference = take_turns(candidates)
    ours_s, bound = seconds["kvplan"], bound_s(counted(), seconds["read"], seconds["sgemm"])
    line = f"{name:>5} {batch:>3} {ours_s * 1e3:>9.2f} {batch / ours_s:>9.0f} {bound / ours_s:>8.0%}"
    if peers:
        theirs = min(seconds[kind] for kind in ("sdpa", "eager"))
        line += f" {theirs * 1e3:>13.2f} {theirs / ours_s:>7.2f} {difference:>12.1e}"
    print(line, flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alone", action="store_true", help="without transformers")
    alone = parser.parse_args().alone
    if not alone:
        try:
            import transformers  # noqa: F401 - whether it is there decides the table
        except ImportError:
            print("transformers is not installed: the engine alone")
            alone = True
    head = f"{'model':>5} {'B':>3} {'ms/step':>9} {'tokens/s':>9} {'of bound':>8}"
    print(head if alone else f"{head} {'transformers':>13} {'x':>7} {'logits differ':>12}")
    for name, (*_, batches) in MODELS.items():
        for batch in batches:
            rows(name, batch, not alone)


if __name__ == "__main__":
    main()
