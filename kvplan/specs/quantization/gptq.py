"""Quantisation as AutoGPTQ, GPTQModel, Optimum and AutoRound write it for GPTQ's layout."""

from __future__ import annotations

from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.quantization.rules import Names, Quantization, Rule, Scope, exceptions, known_format

# How scales and codes were found, where the files are, and what multiplies them.
_HARMLESS = (
    *("desc_act", "sym", "static_groups", "true_sequential", "damp_percent", "damp_auto_increment", "mse"),
    *("model_name_or_path", "model_file_base_name", "quant_method", "dataset", "tokenizer", "meta", "v2"),
    *("block_name_to_quantize", "module_name_preceding_first_block", "batch_size", "pad_token_id", "offload"),
    *("use_cuda_fp16", "use_exllama", "disable_exllama", "exllama_config", "max_input_length", "backend"),
    *("model_seqlen", "cache_block_outputs", "pack_dtype", "group_aware", "hyb_act", "act_group_aware"),
)
_HARMLESS_OF_AUTOROUND = (
    *("amp", "autoround_version", "enable_minmax_tuning", "enable_norm_bias_tuning", "enable_quanted_input"),
    *("gradient_accumulate_steps", "iters", "low_gpu_mem_usage", "lr", "minmax_lr", "nsamples", "seqlen"),
    *("train_bs", "scale_dtype"),
)
_ONLY_THESE = "modules_in_block_to_quantize"
_LEFT_ALONE = "-:"


def gptq(config: Config) -> Quantization:
    """Return what a quantisation in GPTQ's layout says.

    Raises:
        SpecError: a key of it, or a combination, is not understood.
    """
    bits, group = config.integer("bits"), config.whole_number("group_size", default=128)
    layout = config.text("checkpoint_format", default="gptq")
    if layout not in ("gptq", "gptq_v2"):
        config.refuse("checkpoint_format", f"{shown(layout)} is not understood (gptq is)")
    config.only("is_marlin_format", False, "Marlin's own layout")
    config.only("data_type", "int", "codes that are no integers")
    for key in ("quant_block_list", "to_quant_block_names"):
        config.only(key, None, "some blocks only")
    config.harmless(*_HARMLESS, *_HARMLESS_OF_AUTOROUND)
    of_group = "row" if group == -1 else f"g{group}"
    name = "int4-gptq" if (bits, group) == (4, 128) else f"int{bits}-gptq-{of_group}"
    stored = known_format(config, "bits", name, f"GPTQ of {bits} bits in groups of {group}")
    base = Rule(stored, _modules(config))
    return Quantization((base, *_left_alone(config), *exceptions(config, "modules_to_not_convert")))


def _modules(config: Config) -> Scope | Names:
    """Return what is quantised: every linear layer, or by Optimum's lists some of each block."""
    head = config.flag("lm_head", False)
    groups = config.list_as_given(_ONLY_THESE)
    if groups is None:
        return Scope.LINEAR_AND_HEAD if head else Scope.LINEAR
    names = [name for group in groups for name in (group if isinstance(group, list) else [group])]
    if not all(isinstance(name, str) for name in names):
        config.refuse(_ONLY_THESE, "expected lists of texts")
    return Names(config, _ONLY_THESE, (*map(str, names), *(("lm_head",) if head else ())))


def _left_alone(config: Config) -> tuple[Rule, ...]:
    """Return the rules of GPTQModel's regular expressions for modules that keep their dtype.

    Raises:
        SpecError: some modules are quantised otherwise.
    """
    patterns = config.optional_inner("dynamic")
    if patterns is None:
        return ()
    for name in patterns.names():
        if patterns.optional_inner(name) is not None and not name.startswith(_LEFT_ALONE):
            patterns.refuse(name, "modules of other bits or groups are not understood")
    named = tuple(name for name in patterns.names() if name.startswith(_LEFT_ALONE))
    return tuple(
        Rule("", Names(patterns, "", (f"re:{name.removeprefix(_LEFT_ALONE)}",), listed=False))
        for name in named
    )
