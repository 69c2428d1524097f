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
from inspect import signature
from typing import Any

import numpy as np
import torch
import transformers
from remote_keys import IN_NATIVE_KEYS
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
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BambaForCausalLM,
    DynamicCache,
    MiniMaxForCausalLM,
)
from transformers.models.minimax.modeling_minimax import MiniMaxCache
from weights import golden_weights

from kvplan.allocation import Paged
from kvplan.arch.experts import HASH_TABLE
from kvplan.arch.model import Model
from kvplan.checkpoint.names import names_of
from kvplan.checkpoint.names.released import Root, file_tensors

# Remote code that is the same architecture as a class of transformers itself.
SAME_AS = {
    "baichuan": "llama",
    "glm4v_moe_text": "glm4_moe",
    "kimi_k2": "deepseek_v3",
    "mimo": "qwen2",
    "minimax_m3": "minimax_m3_vl_text",
}
# Classes with an encoder of images that are the only ones with these text models: it is taken out.
WRAPPED_IN = {
    "glm4v_text": "glm4v",
    "mllama_text_model": "mllama",
    "qwen2_5_vl_text": "qwen2_5_vl",
    "qwen2_vl_text": "qwen2_vl",
    "qwen3_vl_moe_text": "qwen3_vl_moe",
    "qwen3_vl_text": "qwen3_vl",
}
_SMALL_ENCODER = {"depth": 1, "num_hidden_layers": 1, "num_global_layers": 1, "image_size": 28}
_ENCODERS = ("visual", "vision_model", "multi_modal_projector")
# A case whose routers choose by a hair under seed 0 has another one.
SEEDS = {
    "jamba": 3,
    "minimax": 2,
    "qwen3-5-moe": 1,
    "qwen3-next": 6,
    "olmo-hybrid-unrotated": 1,
    "zamba2-untied": 3,
    "zamba2-unrotated": 1,
}
# Falcon's eager attention adds the slopes twice: to the scores and to the mask.
SDPA = ("falcon-alibi",)
AS_COMMITTED = 1e-5
AS_ENGINE = 1e-4
AS_ITSELF = 1e-5


def native_config(name: str) -> dict[str, Any]:
    """Return a case's config as the class of transformers reads it that is the same architecture."""
    given = json.loads(config_path(name).read_text(encoding="utf-8"))
    given = IN_NATIVE_KEYS.get(given["model_type"], dict)(given)
    given["model_type"] = SAME_AS.get(given["model_type"], given["model_type"])
    return given


def hf_model(name: str, model: Model, weights: dict[str, Array]) -> torch.nn.Module:
    """Return transformers' model of a case, loaded from what a released file would hold of these weights."""
    given = native_config(name)
    names = names_of(given["model_type"], model)
    root = Root("model.language_model") if given["model_type"] in WRAPPED_IN else None
    found = _unfilled(name, given)
    made_there = {k: held for k, held in found.state_dict().items() if k.endswith(names.unused)}
    tensors = file_tensors(names, model, weights, root)
    found = loaded(found, {k: torch.tensor(array) for k, array in tensors.items()} | made_there)
    # Dynamic frequencies are those of the longest run so far: kvplan has one set for a whole run.
    found.eval()(input_ids=torch.zeros((1, MAX_TOKENS), dtype=torch.int64), use_cache=False)
    return found


def _unfilled(name: str, given: dict[str, Any]) -> torch.nn.Module:
    """Return the model of a case; a text model that is inside another class, without that one's encoder."""
    kind, auto = given["model_type"], AutoModelForCausalLM
    if kind in WRAPPED_IN:
        tied = given.get("tie_word_embeddings", False)
        given = {"text_config": given, "vision_config": _SMALL_ENCODER, "tie_word_embeddings": tied}
        kind, auto = WRAPPED_IN[kind], AutoModelForImageTextToText
    config = CONFIG_MAPPING[kind].from_dict(given)
    config._experts_implementation = "eager"
    attention = "sdpa" if name in SDPA else "eager"
    return auto.from_config(config, attn_implementation=attention, dtype=torch.float32)


def loaded(unfilled: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Return the model with the tensors of a file, read as transformers reads one; its encoder is taken out.

    Raises:
        ValueError: a tensor of the text model is missing, or of another shape; one is none of it.
    """
    attention = unfilled.config._attn_implementation
    found, told = type(unfilled).from_pretrained(
        None,
        config=unfilled.config,
        state_dict=tensors,
        attn_implementation=attention,
        dtype=torch.float32,
        output_loading_info=True,
    )
    missing = [key for key in told["missing_keys"] if not set(_ENCODERS) & set(key.split("."))]
    if wrong := [*missing, *told["unexpected_keys"], *told["mismatched_keys"]]:
        raise ValueError(f"not the same tensors: {sorted(map(str, wrong))}")
    for part in _ENCODERS:
        if hasattr(found.base_model, part):
            delattr(found.base_model, part)
    return found


def _behind(found: torch.nn.Module, cache: Any) -> dict[str, Any]:
    """Return the arguments that say what is cached already."""
    if "cache_params" in signature(found.forward).parameters:
        return {"cache_params": cache, "use_cache": True}
    given = {"past_key_values": cache, "use_cache": True}
    if isinstance(found, BambaForCausalLM) and cache.get_seq_length():
        # It counts from 0 in every call otherwise.
        given["position_ids"] = torch.tensor([[cache.get_seq_length()]])
    return given


@torch.inference_mode()
def hf_logits(found: torch.nn.Module, tokens: Tokens) -> CaseLogits:
    """Return the logits of each sequence run by itself: its prompt at once, then token by token."""
    of_prompts, of_steps = [], []
    for prompt, steps in zip(tokens.prompts, tokens.steps.T, strict=True):
        cache = MiniMaxCache() if isinstance(found, MiniMaxForCausalLM) else DynamicCache(config=found.config)
        pieces = [prompt, *steps[:, None]]
        rows = [
            found(input_ids=torch.from_numpy(piece)[None], **_behind(found, cache)).logits[0]
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
            # A table of experts is no matter of rounding.
            if not key.endswith(HASH_TABLE)
            else array
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
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
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
