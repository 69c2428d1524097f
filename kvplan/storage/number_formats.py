"""Number formats by their names: which ones products run in, and how wide plain arrays of them are."""

from __future__ import annotations

# Number formats of products; a model in bf16 runs in fp16 where a device has no bf16 unit.
SIXTEEN_BIT = ("bf16", "fp16")
EIGHT_BIT_FLOAT = ("fp8", *SIXTEEN_BIT)
EIGHT_BIT_INTEGER = ("int8", *SIXTEEN_BIT)
FOUR_BIT_FLOAT = ("fp4", *EIGHT_BIT_FLOAT)
SINGLE = ("tf32", "fp32")

DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
TORCH_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
IEEE = "bits of the number format (IEEE 754, bfloat16)"
