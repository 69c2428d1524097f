"""Logits of the same tokens by transformers, where that is installed: another implementation of the model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.arrays import Float
from kvplan.specs.document import printable

# Read by huggingface_hub and tqdm when they are imported.
_QUIET = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class BesideTransformers:
    """What transformers makes of the tokens a model has read.

    Args:
        difference: the largest absolute difference of a logit; ``None`` where it made none.
        told: its version, or why it made none.
    """

    difference: float | None
    told: str


def beside_transformers(path: Path, tokens: NDArray[np.int64], logits: Float) -> BesideTransformers:
    """Read tokens with the model at a path by transformers, in float32, and compare its logits.

    Args:
        path: a folder with safetensors, or a .gguf file.
        tokens: ``(n,)``.
        logits: ``(n, vocabulary)``, ours.
    """
    try:
        with _quiet():
            found, version = _logits(path, tokens)
    except ModuleNotFoundError as error:
        return BesideTransformers(None, f"{error.name} is not installed")
    except Exception as error:  # noqa: BLE001 - it knows other families and files: whatever it says is a reason
        words = printable(" ".join(str(error).split()))[:_LONGEST_REASON]
        return BesideTransformers(None, f"it says: {words or type(error).__name__}")
    told = f"transformers {version}"
    if found.shape != logits.shape:
        return BesideTransformers(float("inf"), f"{told} has logits of {found.shape[1]:,} tokens")
    return BesideTransformers(float(np.abs(found - logits).max()), told)


def _logits(path: Path, tokens: NDArray[np.int64]) -> tuple[Float, str]:
    """Return transformers' logits ``(n, vocabulary)`` and its version: the one place that imports it."""
    torch: Any = import_module("torch")
    transformers: Any = import_module("transformers")
    logs = transformers.utils.logging
    told = logs.get_verbosity()
    logs.set_verbosity(logs.CRITICAL)
    single = path.suffix.lower() == ".gguf"
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path if path.is_dir() else path.parent,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            **({"gguf_file": path.name} if single else {}),
        )
        with torch.inference_mode():
            found = model.eval()(torch.from_numpy(tokens)[None], use_cache=False).logits[0]
    finally:
        logs.set_verbosity(told)
    return found.float().numpy(), transformers.__version__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep it from the network, and from writing to standard error; the environment is then as before."""
    before = {name: value for name, value in os.environ.items() if name in _QUIET}
    os.environ.update(_QUIET)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in _QUIET:
            os.environ.pop(name, None)
        os.environ.update(before)
