"""Quantisation as compressed-tensors writes it: groups of modules, each with what their weights become."""

from __future__ import annotations

from dataclasses import replace

from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.quantization.kv_cache import kv_cache_format
from kvplan.specs.quantization.rules import Names, Quantization, Rule, Scope, exceptions, known_format

_LINEAR = "Linear"
# How a format lays out what kinds of numbers: (type, bits).
_LAYOUTS = {
    "float-quantized": {("float", 8)},
    "naive-quantized": {("float", 8), ("int", 8)},
    "int-quantized": {("int", 8)},
    "pack-quantized": {("int", 4), ("int", 8)},
    "mxfp4-pack-quantized": {("float", 4)},
    "nvfp4-pack-quantized": {("float", 4)},
    "mxfp8-quantized": {("float", 8)},
}
MIXED = "mixed-precision"
# The library writes these keys into every file; Kimi's own writer leaves them out.
_OF_THE_LIBRARY = frozenset(("version", "global_compression_ratio"))


def compressed_tensors(config: Config) -> Quantization:
    """Return what a quantisation by compressed-tensors says.

    Raises:
        SpecError: a key of it, or a combination, is not understood.
    """
    layout = config.text("format")
    groups = config.inner("config_groups")
    rules = [rule for name in groups.names() for rule in _group(groups.inner(name), layout)]
    if _OF_THE_LIBRARY.isdisjoint(config.names()):
        rules = [_of_kimi(rule) for rule in rules]
    # A name is nearer than a class, whatever the order of the groups.
    rules.sort(key=lambda rule: isinstance(rule.modules, Names))
    status = config.text("quantization_status", default="compressed")
    if status not in ("compressed", "frozen"):
        config.refuse("quantization_status", f"{shown(status)}: the files are not quantised")
    for key in ("sparsity_config", "transform_config"):
        inner = config.optional_inner(key)
        if inner is not None:
            inner.only("format", "dense", "sparse weights")
            inner.harmless("ignore", "targets", "registry_requires_subclass", "sparsity_structure")
            inner.finish()
    config.harmless("global_compression_ratio", "version", "run_compressed", "compression_config")
    return Quantization((*rules, *exceptions(config, "ignore")), kv_cache_format(config))


def _of_kimi(rule: Rule) -> Rule:
    return replace(rule, format="int4-kimi") if rule.format == "int4-sym-g32" else rule


def _group(config: Config, layout: str) -> list[Rule]:
    own = config.text("format") or layout
    if own not in _LAYOUTS:
        understood = ", ".join((*_LAYOUTS, MIXED))
        key = "format" if config.has("format") else None
        config.refuse(key, f"format {shown(own)} is not understood ({understood} are)")
    weights = config.inner("weights")
    inputs = config.optional_inner("input_activations")
    kind = (weights.text("type", default="int"), weights.integer("num_bits"))
    if kind not in _LAYOUTS[own]:
        weights.refuse("num_bits", f"{kind[0]} of {kind[1]} bits is not understood as {own}")
    # The output of a layer is not stored, nor how its input is rounded.
    config.harmless("output_activations")
    stored = _format(weights, kind, own, quantised_inputs=inputs is not None, static=_static(inputs))
    weights.only("dynamic", False, "weights are quantised in the files")
    weights.harmless(
        "observer", "observer_kwargs", "scale_dtype", "zp_dtype", "group_size", "block_structure"
    )
    weights.finish()
    targets = config.words("targets")
    config.finish()
    named = tuple(target for target in targets if target != _LINEAR)
    rules = [Rule(stored, Scope.LINEAR_AND_HEAD)] if _LINEAR in targets else []
    return [*rules, Rule(stored, Names(config, "targets", named))] if named else rules


def _static(inputs: Config | None) -> bool:
    """Whether the files have a scale of a layer's inputs: of ``local`` ones they have the tensor's."""
    if inputs is None:
        return False
    if inputs.is_text("dynamic"):
        inputs.only("dynamic", "local", "how inputs are rounded")
        return True
    return not inputs.flag("dynamic", False)


def _format(
    weights: Config, kind: tuple[str, int], layout: str, *, quantised_inputs: bool, static: bool
) -> str:
    group = weights.whole_number("group_size", default=0)
    strategy = weights.text("strategy", default="group" if group > 0 else "channel" if group else "tensor")
    symmetric, order = weights.flag("symmetric", True), weights.text("actorder")
    said = f"{layout}: {kind[0]} of {kind[1]} bits, {strategy} of {group}, symmetric {symmetric}"
    match kind:
        case ("float", 8):
            name = _float8(weights, strategy, group, static=static)
        case ("float", 4):
            inputs = {16: ("nvfp4-static", "nvfp4-a16"), 32: ("mxfp4", "mxfp4-a16")}
            name = inputs.get(group, ("", ""))[0 if quantised_inputs else 1]
        case ("int", 8) if layout != "pack-quantized":
            name = {"channel": "int8", "tensor": "int8-tensor"}.get(strategy, "")
        case _:
            zeros = "sym" if symmetric else "asym"
            by_group = "-actorder" if order == "group" else ""
            name = f"int{kind[1]}-{zeros}{by_group}-{f'g{group}' if strategy == 'group' else 'row'}"
            name = name if strategy in ("group", "channel") else ""
    if not symmetric and "asym" not in name:
        name = ""
    return known_format(weights, "num_bits", name, said)


def _float8(weights: Config, strategy: str, group: int, *, static: bool) -> str:
    match strategy:
        case "tensor":
            return "fp8-static" if static else "fp8"
        case "channel":
            return "fp8-row"
        case "block":
            return "fp8-block" if weights.integers("block_structure") == [128, 128] else ""
        case "group":
            return "mxfp8" if group == 32 else ""
    return ""
