"""Reading ``quantization_config`` by its ``quant_method``."""

from __future__ import annotations

from collections.abc import Callable

from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.quantization.compressed_tensors import compressed_tensors
from kvplan.specs.quantization.gptq import gptq
from kvplan.specs.quantization.modelopt import modelopt, quantized_layers
from kvplan.specs.quantization.rules import Quantization, Rule, Scope, exceptions, known_format

_DEEPSEEK_BLOCK = [128, 128]
_AWQ_HARMLESS = (
    *("do_fuse", "fuse_max_seq_len", "modules_to_fuse", "exllama_config", "backend", "quant_method"),
    *("zero_point", "duo_scaling", "model_name_or_path"),
)
_BITSANDBYTES_HARMLESS = (
    *("bnb_4bit_compute_dtype", "llm_int8_threshold", "llm_int8_enable_fp32_cpu_offload", "quant_method"),
    *("bnb_4bit_quant_storage", "_load_in_4bit", "_load_in_8bit", "load_in_4bit", "load_in_8bit"),
)


def read_quantization(config: Config) -> Quantization:
    """Return what a ``quantization_config`` says.

    Raises:
        SpecError: its method, or anything in it, is not understood.
    """
    method = config.text("quant_method")
    if not method and config.has("quant_algo"):
        method = "modelopt"
    if not method:
        config.refuse(None, "'quant_method' is required")
    if method not in METHODS:
        config.refuse("quant_method", f"{shown(method)} is not understood ({', '.join(METHODS)} are)")
    found = METHODS[method](config)
    config.finish()
    return found


def _fp8(config: Config) -> Quantization:
    scheme = config.text("activation_scheme", default="dynamic")
    if scheme not in ("dynamic", "static"):
        config.refuse("activation_scheme", f"{shown(scheme)} is not dynamic or static")
    block = config.integers("weight_block_size")
    if block not in ([], _DEEPSEEK_BLOCK):
        config.refuse("weight_block_size", f"fp8 in blocks of {block[:4]} is not understood (128 x 128 is)")
    config.only("dequantize", False, "files that are already plain")
    config.harmless("fmt", "scale_fmt", "dequantize")
    per_tensor = "fp8-static" if scheme == "static" else "fp8"
    base = Rule("fp8-block" if block else per_tensor, Scope.LINEAR)
    plain = exceptions(config, "ignored_layers", "modules_to_not_convert")
    return Quantization((base, *_four_bit_experts(config), *plain, *_over_fp8(config)))


def _four_bit_experts(config: Config) -> tuple[Rule, ...]:
    """Return what experts are stored in, where that is not fp8 (DeepSeek-V4)."""
    stored = config.text("expert_dtype", default="fp8")
    if stored not in ("fp8", "fp4"):
        config.refuse("expert_dtype", f"{shown(stored)} is not fp8 or fp4")
    # e2m1 with a ue8m0 scale per 32 (transformers 5.23, finegrained_fp8.py, FP8Experts).
    return (Rule("mxfp4", Scope.EXPERTS),) if stored == "fp4" else ()


def _over_fp8(config: Config) -> tuple[Rule, ...]:
    """Return the layers that modelopt stored otherwise in an fp8 checkpoint (DeepSeek-V4 NVFP4)."""
    if not config.has("quant_algo"):
        return ()
    config.only("quant_algo", "MIXED_PRECISION", "an fp8 checkpoint of another algorithm")
    # What its ignore list keeps from modelopt stays in fp8.
    config.harmless("ignore", "config_groups", "producer", "group_size", "moe_quant_algo")
    config.only("kv_cache_quant_algo", None, "a KV format of an fp8 checkpoint")
    return quantized_layers(config)


def _fbgemm_fp8(config: Config) -> Quantization:
    config.harmless("activation_scale_ub")
    return Quantization((Rule("fp8-row", Scope.LINEAR), *exceptions(config, "modules_to_not_convert")))


def _mxfp4(config: Config) -> Quantization:
    config.only("dequantize", False, "files that are already plain")
    return Quantization((Rule("mxfp4", Scope.EXPERTS), *exceptions(config, "modules_to_not_convert")))


def _awq(config: Config) -> Quantization:
    bits = config.integer("bits", "w_bit", default=4)
    group = config.integer("group_size", "q_group_size", default=128)
    version = config.text("version", default="gemm").lower()
    if version != "gemm":
        config.refuse("version", f"{shown(version)} is not understood (gemm is)")
    config.harmless(*_AWQ_HARMLESS)
    name = "int4" if (bits, group) == (4, 128) else f"int{bits}-awq-g{group}"
    stored = known_format(config, "bits", name, f"AWQ of {bits} bits in groups of {group}")
    return Quantization((Rule(stored, Scope.LINEAR), *exceptions(config, "modules_to_not_convert")))


def _bitsandbytes(config: Config) -> Quantization:
    config.only("llm_int8_has_fp16_weight", False, "plain weights")
    config.harmless(*_BITSANDBYTES_HARMLESS)
    skipped = exceptions(config, "llm_int8_skip_modules")
    # transformers, get_modules_to_not_convert: the head is left alone where no list is given.
    scope = Scope.LINEAR_AND_HEAD if skipped else Scope.LINEAR
    return Quantization((Rule(_bits_and_bytes(config), scope), *skipped))


def _bits_and_bytes(config: Config) -> str:
    if config.flag("load_in_8bit", False):
        return "int8"
    if not config.flag("load_in_4bit", False):
        config.refuse(None, "bitsandbytes with neither load_in_4bit nor load_in_8bit")
    config.only("bnb_4bit_blocksize", 64, "blocks of another size")
    kind = config.text("bnb_4bit_quant_type", default="fp4")
    double = "-double" if config.flag("bnb_4bit_use_double_quant", False) else ""
    if kind not in ("nf4", "fp4"):
        config.refuse("bnb_4bit_quant_type", f"{shown(kind)} is not nf4 or fp4")
    return f"{kind}{double}"


METHODS: dict[str, Callable[[Config], Quantization]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm_fp8,
    "mxfp4": _mxfp4,
    "awq": _awq,
    "gptq": gptq,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": compressed_tensors,
    "modelopt": modelopt,
    "modelopt_fp4": modelopt,
    "modelopt_mixed": modelopt,
}
