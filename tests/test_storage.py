"""Bytes of every storage format by hand, on small matrices and whole models."""

import pytest

from kvplan.arch.weight import Weight, matrix
from kvplan.errors import UsageError
from kvplan.storage import (
    KV_FORMATS,
    STATE_LAYOUTS,
    WEIGHT_FORMATS,
    TensorRole,
    doubly_scaled_tensor_bytes,
    kv_format,
    plain_tensor_bytes,
    state_layout,
    tiled_matrix_bytes,
    weight_format,
)

DTYPES = {"bf16", "fp16", "fp32"}

# 512 x 256 = 131,072 elements. Scales: per tensor 4; per 128 x 128 block 4 x 2 x 4; per row 512 x 4; AWQ
# 512 rows x 2 groups x 2.5; GPTQ the same and 256 columns x 4; NF4 512 x 4 x 4; MXFP4 512 x 8 x 1;
# NVFP4 512 x 16 x 1 + 4. Rows of 256 have 8 groups of 32, 4 of 64, 2 of 128. A scale of 16 bits with a zero
# of 4 is 2.5 bytes, with one of 8 is 3; weight_shape is 16; doubly quantised are 2,048 scales in 8 parts.
SMALL = {
    "fp8": 131_072 + 4,
    "fp8-block": 131_072 + 32,
    "fp8-row": 131_072 + 2_048,
    "fp8-static": 131_072 + 4 + 4,
    "mxfp8": 131_072 + 4_096,
    "int8": 131_072 + 2_048,
    "int8-tensor": 131_072 + 4,
    "int8-gptq-g32": 131_072 + 512 * 8 * 3 + 1_024,
    "int8-gptq-g64": 131_072 + 512 * 4 * 3 + 1_024,
    "int8-gptq-g128": 131_072 + 512 * 2 * 3 + 1_024,
    "int8-gptq-row": 131_072 + 512 * 3 + 1_024,
    "int8-sym-g32": 131_072 + 512 * 8 * 2 + 16,
    "int8-sym-g64": 131_072 + 512 * 4 * 2 + 16,
    "int8-sym-g128": 131_072 + 512 * 2 * 2 + 16,
    "int8-sym-row": 131_072 + 512 * 2 + 16,
    "int8-sym-actorder-g32": 131_072 + 512 * 8 * 2 + 16 + 1_024,
    "int8-sym-actorder-g64": 131_072 + 512 * 4 * 2 + 16 + 1_024,
    "int8-sym-actorder-g128": 131_072 + 512 * 2 * 2 + 16 + 1_024,
    "int4": 65_536 + 2_560,
    "int4-gptq": 65_536 + 2_560 + 1_024,
    "int4-awq-g32": 65_536 + 512 * 20,
    "int4-awq-g64": 65_536 + 512 * 10,
    "int4-gptq-g32": 65_536 + 512 * 20 + 1_024,
    "int4-gptq-g64": 65_536 + 512 * 10 + 1_024,
    "int4-gptq-row": 65_536 + 256 * 5 + 1_024,
    "int4-kimi": 65_536 + 512 * 8 * 2 + 8,
    "int4-sym-g32": 65_536 + 512 * 8 * 2 + 16,
    "int4-sym-g64": 65_536 + 512 * 4 * 2 + 16,
    "int4-sym-g128": 65_536 + 512 * 2 * 2 + 16,
    "int4-sym-row": 65_536 + 512 * 2 + 16,
    "int4-sym-actorder-g32": 65_536 + 512 * 8 * 2 + 16 + 1_024,
    "int4-sym-actorder-g64": 65_536 + 512 * 4 * 2 + 16 + 1_024,
    "int4-sym-actorder-g128": 65_536 + 512 * 2 * 2 + 16 + 1_024,
    "int4-asym-g32": 65_536 + 512 * 20 + 16,
    "int4-asym-g64": 65_536 + 512 * 10 + 16,
    "int4-asym-g128": 65_536 + 512 * 5 + 16,
    "int4-asym-row": 65_536 + 256 * 5 + 16,
    "nf4": 65_536 + 8_192,
    "nf4-double": 65_536 + 2_048 + 8 * 4 + 4,
    "fp4": 65_536 + 8_192,
    "fp4-double": 65_536 + 2_048 + 8 * 4 + 4,
    "mxfp4": 65_536 + 4_096,
    "mxfp4-a16": 65_536 + 4_096,
    "nvfp4": 65_536 + 8_192 + 4,
    "nvfp4-static": 65_536 + 8_192 + 4 + 4,
    "nvfp4-a16": 65_536 + 8_192 + 4,
}

# Bits per weight of the GGUF types (ggml-common.h): bytes of a block x 8 / weights in it.
GGUF_BITS = {
    "q8_0": 8.5,
    "q4_0": 4.5,
    "q4_1": 5.0,
    "q5_0": 5.5,
    "q5_1": 6.0,
    "iq4_nl": 4.5,
    "q2_k": 2.625,
    "q3_k": 3.4375,
    "q4_k": 4.5,
    "q5_k": 5.5,
    "q6_k": 6.5625,
    "iq1_s": 1.5625,
    "iq1_m": 1.75,
    "iq2_xxs": 2.0625,
    "iq2_xs": 2.3125,
    "iq2_s": 2.5625,
    "iq3_xxs": 3.0625,
    "iq3_s": 3.4375,
    "iq4_xs": 4.25,
}

LINEAR = {"attention matrix", "mlp matrix", "expert matrix"}


def stored_bytes(name, rows, columns, role=TensorRole.EXPERT, copies=1):
    """Return the bytes of ``copies`` matrices as the format stores a matrix of this role."""
    packed = matrix("w", rows, columns, role).format_under(weight_format(name))
    assert packed is not None
    return tiled_matrix_bytes(
        copies,
        rows,
        columns,
        packed.bits,
        packed.tiles(rows, columns),
        packed.tile_half_bytes,
        packed.column_bytes,
        doubly_scaled_tensor_bytes(packed.tensor_bytes, packed.scales_of_scales(rows, columns)),
    )


def test_every_format_has_an_oracle_here():
    assert {f.name for f in WEIGHT_FORMATS} == DTYPES | set(SMALL) | set(GGUF_BITS)


@pytest.mark.parametrize("name", SMALL)
def test_a_small_matrix(name):
    assert stored_bytes(name, 512, 256) == SMALL[name]
    assert stored_bytes(name, 512, 256, copies=3) == 3 * SMALL[name]


@pytest.mark.parametrize(
    ("name", "bits"), [("int4", 4.15625), ("nf4", 4.5), ("mxfp4", 4.25), ("fp8-block", 8 + 32 / 16_384)]
)
def test_bits_per_weight(name, bits):
    assert stored_bytes(name, 4_096, 4_096) * 8 == bits * 4_096 * 4_096


def test_bits_per_weight_with_more_beside_the_tiles():
    assert stored_bytes("nvfp4", 4_096, 4_096) * 8 == 4.5 * 4_096 * 4_096 + 32
    assert stored_bytes("int4-gptq", 4_096, 4_096) * 8 == 4.15625 * 4_096 * 4_096 + 32 * 4_096
    assert stored_bytes("fp8", 4_096, 4_096) * 8 == 8 * 4_096 * 4_096 + 32
    assert stored_bytes("int8", 4_096, 4_096) * 8 == 8 * 4_096 * 4_096 + 32 * 4_096


@pytest.mark.parametrize("name", GGUF_BITS)
def test_gguf_bits_per_weight(name):
    assert stored_bytes(name, 10, 512) * 8 == GGUF_BITS[name] * 10 * 512


@pytest.mark.parametrize(
    ("name", "fallback"),
    [
        ("q4_k", "q5_0"),
        ("q5_k", "q5_1"),
        ("q6_k", "q8_0"),
        *((name, "iq4_nl") for name in GGUF_BITS if name.startswith("iq") and name != "iq4_nl"),
        ("q2_k", "iq4_nl"),
        ("q3_k", "iq4_nl"),
    ],
)
def test_rows_that_are_no_multiple_of_256_fall_back(name, fallback):
    """Qwen2.5-0.5B's rows of 896 = 3.5 x 256 are stored in blocks of 32 instead."""
    assert weight_format(name).for_columns(896).name == fallback
    assert weight_format(name).for_columns(4_864).name == name  # 19 x 256
    assert stored_bytes(name, 10, 896) * 8 == GGUF_BITS[fallback] * 10 * 896


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        (
            "int4",
            200,
            5 * 200 // 2 + 5 * 2 * 5 // 2,
        ),  # 1,000 nibbles; 5 rows x 2 groups x 2.5, the last short
        ("nf4", 65, 163 + 5 * 2 * 4),  # 325 nibbles: half a byte rounds up; 2 groups a row
        ("mxfp4", 33, 83 + 5 * 2),  # 165 nibbles; 2 groups a row
        ("fp8-block", 129, 645 + 2 * 4),  # 1 x 2 blocks
        ("fp8-row", 129, 645 + 5 * 4),
    ],
)
def test_short_tiles_keep_whole_scales(name, columns, expected):
    assert stored_bytes(name, 5, columns) == expected


def test_the_last_scale_of_scales_is_of_fewer():
    # Rows of 65 are two tiles of at most 64: 258 tiles are 256 and 2.
    assert stored_bytes("nf4-double", 129, 65) == 4_193 + 258 + 2 * 4 + 4


def test_an_odd_number_of_packed_zeros_rounds_up():
    # One group: 64 bytes of nibbles, a scale of 2 bytes and half a byte of zero point.
    assert stored_bytes("int4", 1, 128) == 64 + 3


@pytest.mark.parametrize("name", sorted(set(SMALL) | set(GGUF_BITS) | DTYPES))
def test_roles_a_format_leaves_alone(name):
    if name in DTYPES:
        packed = set()
    elif name == "mxfp4":
        packed = {"expert matrix"}
    elif name in GGUF_BITS:
        packed = LINEAR | {"embedding", "lm_head"}
    else:
        packed = LINEAR
    found = {
        role.value
        for role in TensorRole
        if Weight("w.weight", (256, 256), role).format_under(weight_format(name)) is not None
    }
    assert found == packed


@pytest.mark.parametrize("name", sorted(DTYPES | set(SMALL) | set(GGUF_BITS)))
def test_dtype_of_what_is_left_alone(name):
    expected = name if name in DTYPES else "fp32" if name in GGUF_BITS else "bf16"
    assert Weight("norm", (7,), TensorRole.NORM).plain_dtype(weight_format(name), "bf16") == expected


def test_plain_tensors():
    assert plain_tensor_bytes(131_072, 2) == 262_144


def test_names_are_unique_and_sources_given():
    for table in (WEIGHT_FORMATS, KV_FORMATS, STATE_LAYOUTS):
        assert len({f.name for f in table}) == len(table)
        assert all(f.source for f in table)


@pytest.mark.parametrize(
    ("find", "wrong", "message"),
    [
        (weight_format, "q4_m", "no weight format named 'q4_m'. Did you mean q4_k, "),
        (kv_format, "bf61", "no KV format named 'bf61'. Did you mean bf16?"),
        (state_layout, "vlm", "no state layout named 'vlm'. Did you mean vllm"),
    ],
)
def test_unknown_names_are_refused_with_close_ones(find, wrong, message):
    with pytest.raises(UsageError) as error:
        find(wrong)
    assert error.value.message.startswith(message)
