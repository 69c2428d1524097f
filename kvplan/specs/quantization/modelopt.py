"""Quantisation as NVIDIA modelopt writes it, in config.json or in a hf_quant_config.json beside it."""

from __future__ import annotations

from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.quantization.kv_cache import kv_cache_format
from kvplan.specs.quantization.rules import Names, Quantization, Rule, Scope, exceptions

# quant_algo, and the scales its tensors have (modelopt, torch/export/quant_utils.py; vLLM, modelopt.py).
ALGORITHMS = {
    "FP8": "fp8-static",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8-row",
    "FP8_PB_WO": "fp8-block",
    "NVFP4": "nvfp4-static",
    "W4A16_NVFP4": "nvfp4-a16",
    "MXFP8": "mxfp8",
}
_GROUPS = {"nvfp4-static": 16, "nvfp4-a16": 16, "mxfp8": 32, "fp8-block": 128}


def modelopt(config: Config) -> Quantization:
    """Return what a quantisation by modelopt says.

    Raises:
        SpecError: an algorithm, or another key of it, is not understood.
    """
    # The same said again in compressed-tensors' words.
    config.harmless("config_groups", "producer")
    if config.text("quant_algo") == "MIXED_PRECISION":
        stored = quantized_layers(config)
        config.harmless("group_size")
    else:
        stored = (Rule(_algorithm(config), _scope(config)),)
    plain = exceptions(config, "ignore", "exclude_modules")
    return Quantization((*stored, *plain), kv_cache_format(config))


def beside(config: Config) -> Quantization:
    """Return what a hf_quant_config.json says.

    Raises:
        SpecError: as :func:`modelopt`.
    """
    inner = config.inner("quantization")
    for part in (config, inner):
        part.only("quant_method", "modelopt", "the quantisation of another program")
    found = modelopt(inner)
    config.harmless("producer")
    inner.finish()
    config.finish()
    return found


def quantized_layers(config: Config) -> tuple[Rule, ...]:
    """Return the rules of a map from modules to their own algorithms.

    Raises:
        SpecError: there is none, or an algorithm in it is not understood.
    """
    layers = config.inner("quantized_layers")
    found: dict[str, list[str]] = {}
    for name in layers.names():
        entry = layers.inner(name)
        found.setdefault(_algorithm(entry), []).append(name)
        entry.finish()
    return tuple(
        Rule(stored, Names(layers, "", tuple(names), listed=False)) for stored, names in found.items()
    )


def _scope(config: Config) -> Scope:
    """Return what is quantised but for exceptions; without a list of them modelopt's own leave the head."""
    listed = config.has("ignore") or config.has("exclude_modules")
    return Scope.LINEAR_AND_HEAD if listed else Scope.LINEAR


def _algorithm(config: Config) -> str:
    name = config.text("quant_algo")
    stored = ALGORITHMS.get(name.upper())
    if stored is None:
        understood = ", ".join((*ALGORITHMS, "MIXED_PRECISION"))
        config.refuse("quant_algo", f"{shown(name)} is not understood ({understood} are)")
    group = config.optional_integer("group_size")
    if group is not None and group != _GROUPS.get(stored, group):
        config.refuse("group_size", f"{name} in groups of {group} is not understood")
    return stored
