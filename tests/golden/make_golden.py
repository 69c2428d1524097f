"""Make the golden logits with transformers, or compare them and the engine with transformers now.

    pip install torch==2.13.0 transformers==5.23.0
    python tests/golden/make_golden.py [--check] [NAME ...]

Without ``--check`` the vectors are written. With it they are made again and compared with the committed ones
and with the engine's; the exit status is 1 where they differ.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import torch
import transformers
from names import hf_tensors
from replay import (
    MAX_TOKENS,
    NAMES,
    Array,
    Case,
    CaseLogits,
    Tokens,
    config_path,
    engine_logits,
    random_tokens,
    read_case,
    read_model,
    save,
)
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, DynamicCache
from weights import golden_weights

from kvplan.allocation import Paged
from kvplan.arch.model import Model

# Remote code that is the same architecture as a class of transformers itself.
SAME_AS = {"kimi_k2": "deepseek_v3"}
# A case whose routers choose by a hair under seed 0 has another one.
SEEDS = {"qwen3-next": 6}
AS_COMMITTED = 1e-5
AS_ENGINE = 1e-4
AS_ITSELF = 1e-5


def hf_model(name: str, model: Model, weights: dict[str, Array]) -> torch.nn.Module:
    """Return transformers' model of a case with every parameter and buffer filled."""
    given = json.loads(config_path(name).read_text(encoding="utf-8"))
    given["model_type"] = SAME_AS.get(given["model_type"], given["model_type"])
    config = CONFIG_MAPPING[given["model_type"]].from_dict(given)
    config._experts_implementation = "eager"
    found = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    fill(found, hf_tensors(given["model_type"], model, weights), weights)
    # Dynamic frequencies are those of the longest run so far: kvplan has one set for a whole run.
    found.eval()(input_ids=torch.zeros((1, MAX_TOKENS), dtype=torch.int64), use_cache=False)
    return found


def fill(found: torch.nn.Module, tensors: dict[str, Array], weights: dict[str, Array]) -> None:
    """Copy tensors into a model of transformers; there is exactly one for each place, and none is left."""
    places = {id(place): name for name, place in reversed(found.state_dict(keep_vars=True).items())}
    if tensors.keys() != set(places.values()):
        raise ValueError(f"not the same tensors: {sorted(tensors.keys() ^ set(places.values()))}")
    if sum(t.size for t in tensors.values()) != sum(w.size for w in weights.values()):
        raise ValueError("a tensor is used twice or not at all")
    wanted = found.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, array in tensors.items():
            if wanted[name].shape != array.shape:
                raise ValueError(f"{name}: {tuple(wanted[name].shape)} is wanted, {array.shape} is given")
            wanted[name].copy_(torch.from_numpy(np.ascontiguousarray(array)))


@torch.inference_mode()
def hf_logits(found: torch.nn.Module, tokens: Tokens) -> CaseLogits:
    """Return the logits of each sequence run by itself: its prompt at once, then token by token."""
    of_prompts, of_steps = [], []
    for prompt, steps in zip(tokens.prompts, tokens.steps.T, strict=True):
        cache = DynamicCache(config=found.config)
        pieces = [prompt, *steps[:, None]]
        rows = [
            found(input_ids=torch.from_numpy(piece)[None], past_key_values=cache, use_cache=True).logits[0]
            for piece in pieces
        ]
        of_prompts.append(rows[0].numpy())
        of_steps.append(torch.cat(rows[1:]).numpy())
    return CaseLogits(np.concatenate(of_prompts), np.stack(of_steps, axis=1))


@torch.inference_mode()
def uncached_logits(found: torch.nn.Module, tokens: Tokens) -> CaseLogits:
    """Return the same logits out of one run per sequence without a cache."""
    of_prompts, of_steps = [], []
    for prompt, steps in zip(tokens.prompts, tokens.steps.T, strict=True):
        fed = torch.from_numpy(np.concatenate([prompt, steps]))[None]
        rows = found(input_ids=fed, use_cache=False).logits[0].numpy()
        of_prompts.append(rows[: len(prompt)])
        of_steps.append(rows[len(prompt) :])
    return CaseLogits(np.concatenate(of_prompts), np.stack(of_steps, axis=1))


def live(name: str, model: Model, weights: dict[str, Array], tokens: Tokens) -> CaseLogits:
    """Return transformers' logits of a case.

    Raises:
        ValueError: without a cache they are others.
    """
    found = hf_model(name, model, weights)
    logits = hf_logits(found, tokens)
    apart = logits.difference(uncached_logits(found, tokens))
    if not apart < AS_ITSELF:
        raise ValueError(f"{name}: transformers differs from itself without a cache by {apart:.1e}")
    return logits


def refuse_a_close_call(name: str, model: Model, weights: dict[str, Array], tokens: Tokens) -> None:
    """Refuse a case that weights changed by a millionth would change by what is asked of the engine.

    A router that chooses between almost equal experts is no ground to compare two libraries on.

    Raises:
        ValueError: it is such a case.
    """
    logits = hf_logits(hf_model(name, model, weights), tokens)
    for seed in range(4):
        state = np.random.RandomState(seed)
        shaken = {
            key: (array * (1 + 1e-6 * state.standard_normal(array.shape))).astype(np.float32)
            for key, array in weights.items()
        }
        apart = logits.difference(hf_logits(hf_model(name, model, shaken), tokens))
        if not apart < AS_ENGINE:
            raise ValueError(f"{name}: a close call ({apart:.1e}): give it another seed")


def write(name: str) -> None:
    """Write a case's vectors."""
    seed, model = SEEDS.get(name, 0), read_model(name)
    tokens, weights = random_tokens(model.vocab_size, seed), golden_weights(model, seed)
    logits = live(name, model, weights, tokens)
    refuse_a_close_call(name, model, weights, tokens)
    versions = [f"{module.__name__} {module.__version__}" for module in (torch, transformers, np)]
    save(Case(tokens, logits, seed), name, versions)
    print(f"{name:<24} largest logit {logits.largest():6.2f}", flush=True)


def check(name: str) -> bool:
    """Print how far the committed logits and the engine's are from transformers'; return whether near."""
    case, model = read_case(name), read_model(name)
    weights = golden_weights(model, case.seed)
    logits = live(name, model, weights, case.tokens)
    from_committed = logits.difference(case.logits)
    from_engine = logits.difference(engine_logits(model, weights, case.tokens, Paged(16)))
    near = from_committed < AS_COMMITTED and from_engine < AS_ENGINE
    verdict = "" if near else "   DIFFERS"
    print(f"{name:<24} {from_committed:>10.1e} {from_engine:>10.1e}{verdict}", flush=True)
    return near


def main() -> int:
    """Write or check the named cases, all by default."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing, exit 1 on a difference")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = arguments.names or NAMES
    if not arguments.check:
        for name in names:
            write(name)
        return 0
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {MAX_TOKENS} tokens at most")
    print(f"{'largest difference from':<24} {'committed':>10} {'engine':>10}")
    near = [check(name) for name in names]
    return 0 if all(near) else 1


if __name__ == "__main__":
    sys.exit(main())
