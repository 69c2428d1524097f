"""Compare what kvplan makes of GGUF files of every architecture it reads with transformers, now.

    pip install -e '.[checkpoint,reference]' accelerate
    python tests/golden/gguf_files.py [CASE ...]

For each, transformers makes a small model, its tensors are written as llama.cpp's convert_hf_to_gguf.py
writes them, under the names that the package gguf maps them to, and kvplan's engine runs the file: with
float32 tensors its logits must be those of the model that was written, and in other types those of
transformers' own reading of the file, where that reads the architecture as it is. Exit status 1 where not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from gguf_cases import CASES, CONTEXT, FROM_ONE, VOCABULARY, Array, Case, write
from numpy.typing import NDArray
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from kvplan.allocation import Paged
from kvplan.checkpoint.checkpoint import open_checkpoint
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder, Logits
from kvplan.storage import kv_format

TOKENS = 48
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")
AS_THERE = 1e-4


def made_model(case: Case) -> torch.nn.Module:
    """Return transformers' model of a case, with weights that leave no term without an effect."""
    config = CONFIG_MAPPING[case.model_type].from_dict(case.config)
    config._experts_implementation = "eager"
    torch.manual_seed(0)
    found = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for name, weight in found.state_dict(keep_vars=True).items():
            spread = 0.3 if weight.dim() < 2 else weight.shape[-1] ** -0.5
            drawn = torch.randn(weight.shape) * spread
            if name.endswith(("A_log", ".D")):
                drawn = drawn.abs()
            elif weight.dim() == 1 and name.endswith("weight") and case.model_type not in FROM_ONE:
                drawn = 1 + drawn
            weight.copy_(drawn)
    return found.eval()


def held(model: torch.nn.Module) -> dict[str, Array]:
    """Return what a released file of a model holds, by its names; a tied head is left out."""
    tensors = model.state_dict()
    head = tensors.get("lm_head.weight")
    others = {tensor.data_ptr() for name, tensor in tensors.items() if name != "lm_head.weight"}
    if head is not None and head.data_ptr() in others:
        del tensors["lm_head.weight"]
    released = revert_weight_conversion(model, tensors)
    return {name: tensor.numpy() for name, tensor in released.items()}


@torch.inference_mode()
def their_logits(model: torch.nn.Module, tokens: NDArray[np.int64]) -> Array:
    """Return transformers' logits of every token."""
    return model(input_ids=torch.from_numpy(tokens)[None]).logits[0].numpy()


def our_logits(path: Path, tokens: NDArray[np.int64]) -> Array:
    """Return the engine's logits of every token."""
    checkpoint = open_checkpoint(path)
    decoder = Decoder(checkpoint.model, checkpoint.weights(), CONTEXT)
    cache = Cache(checkpoint.model, kv_format("fp32"), Paged(16), CONTEXT, 1)
    return decoder.forward(cache, [(cache.add(), tokens)], Counter(), logits=Logits.EVERY)


def differences(name: str, case: Case, folder: Path) -> Iterator[tuple[str, float]]:
    """Iterate over the largest difference of logits in each type of tensors, relative to the largest."""
    model = made_model(case)
    tokens = np.random.RandomState(0).randint(VOCABULARY, size=TOKENS)
    for kind in TYPES:
        path = folder / f"{name}-{kind}.gguf"
        write(path, name, held(model), kind)
        ours = our_logits(path, tokens)
        if kind == "F32":
            yield "F32, of the model itself", _apart(their_logits(model, tokens), ours)
        if case.transformers_reads_it:
            read = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
            )
            yield f"{kind}, as transformers reads it", _apart(their_logits(read.eval(), tokens), ours)


def _apart(theirs: Array, ours: Array) -> float:
    return float(np.abs(theirs - ours).max() / np.abs(theirs).max())


def main() -> int:
    """Compare the cases that are named, or all; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    chosen = parser.parse_args().cases or list(CASES)
    failed = False
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for what, apart in differences(name, CASES[name], Path(folder)):
                good = apart <= AS_THERE
                failed = failed or not good
                print(f"{'as there' if good else 'OTHERWISE':9}  {name:18}  {apart:8.1e}  {what}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
