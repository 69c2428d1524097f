"""The KV format a quantised checkpoint asks for: vLLM's ``--kv-cache-dtype auto`` takes it."""

from __future__ import annotations

from kvplan.specs.config import Config
from kvplan.specs.document import shown

_FP8 = ("FP8", "fp8")


def kv_cache_format(config: Config) -> str:
    """Return the KV format that ``kv_cache_scheme`` or ``kv_cache_quant_algo`` names; empty for none.

    vLLM reads both so (vllm/utils/torch_utils.py, get_kv_cache_quant_algo_string; for compressed-tensors
    model_executor/layers/attention/attention.py).

    Raises:
        SpecError: it is not float8 with a scale per tensor.
    """
    key = "kv_cache_scheme" if config.has("kv_cache_scheme") else "kv_cache_quant_algo"
    config.harmless("kv_cache_scheme", "kv_cache_quant_algo")
    if not config.has(key):
        return ""
    if config.is_text(key):
        name = config.text(key)
        if name not in _FP8:
            config.refuse(key, f"a KV cache in {shown(name)} is not understood (FP8 is)")
        return "fp8"
    scheme = config.inner(key)
    scheme.only("num_bits", 8, "a KV cache of other bits")
    scheme.only("type", "float", "a KV cache of another type")
    scheme.only("dynamic", False, "scales that change as the cache is written")
    scheme.only("strategy", "tensor", "scales of parts of the cache")
    scheme.only("symmetric", True, "zero points in the cache")
    scheme.only("group_size", None, "scales of groups")
    scheme.harmless("observer", "observer_kwargs", "actorder", "block_structure", "scale_dtype", "zp_dtype")
    scheme.finish()
    return "fp8"
