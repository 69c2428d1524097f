"""GGUF files are planned to the byte, and what cannot be planned is refused in one clear line."""

import json
import random
import runpy
import struct
import time
import tracemalloc
from dataclasses import replace
from math import pi
from pathlib import Path
from types import SimpleNamespace

import pytest

from kvplan.cli.app import main
from kvplan.errors import FileError, KvplanError, UsageError
from kvplan.plan.weights import tensor_bytes
from kvplan.specs.catalog import find_model, fingerprint, is_path, load_model
from kvplan.specs.config_json import import_config
from kvplan.specs.document import Document
from kvplan.specs.families.common import Identity
from kvplan.specs.gguf_config import config_of
from kvplan.specs.gguf_header import GgufHeader, GgufTensor, shortest
from kvplan.specs.gguf_types import KNOWN

by_hand = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "data" / "gguf_bytes.py")))

CONFIG = {
    "model_type": "llama",
    "vocab_size": by_hand.VOCABULARY,
    "hidden_size": by_hand.HIDDEN,
    "intermediate_size": by_hand.WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": by_hand.HEADS,
    "num_key_value_heads": by_hand.KV_HEADS,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


@pytest.fixture
def model_of(tmp_path):
    """A function that returns the model of a file with this content."""

    def read(content):
        path = tmp_path / "Tiny-Llama.Q4_K.gguf"
        path.write_bytes(content)
        return load_model(find_model(str(path)))

    return read


@pytest.fixture
def refusal(model_of):
    """A function that returns the one line said of a file with this content."""

    def read(content):
        with pytest.raises(UsageError) as refused:
            model_of(content)
        (line,) = refused.value.lines()
        name = "Tiny-Llama.Q4_K.gguf: "
        assert name in line
        return line.partition(name)[2]

    return read


def described(**keys):
    """Return the model of the same config.json."""
    return import_config(Document("config.json", CONFIG | keys, {}, {}), Identity("", ""))


def unnamed(model):
    """Return a model without its name, and without what its files are stored in."""
    layers = tuple(replace(layer, stored_otherwise=()) for layer in model.layers)
    return replace(
        model, name="", source="", dtype="bf16", layers=layers, weight_format="", stored_otherwise=()
    )


def planned_bytes(model):
    storage = model.as_released()
    return sum(count * tensor_bytes(w, 1, storage, model.dtype).value for w, count in model.weights())


def test_a_file_says_what_a_config_json_says(model_of):
    model = model_of(by_hand.llama())
    assert model.name == "tiny-llama.q4_k"
    assert unnamed(model) == unnamed(described())


def test_version_2_is_read_as_version_3(model_of):
    content = by_hand.llama()
    assert model_of(content[:4] + struct.pack("<I", 2) + content[8:]) == model_of(content)


def test_without_a_head_of_its_own_a_file_is_tied(model_of):
    head = ("F32", (by_hand.VOCABULARY, by_hand.HIDDEN), bytes(4 * by_hand.VOCABULARY * by_hand.HIDDEN))
    assert model_of(by_hand.llama()).tie_word_embeddings
    assert not model_of(by_hand.llama(tensors={"output.weight": head})).tie_word_embeddings


@pytest.mark.parametrize("number", [1e-5, 1e-6, 3e-3, 0.1, 5e5, 1e6, 1.0, 1.0375, 30.0, 0.0])
def test_a_float32_is_the_shortest_decimal_that_means_it(number):
    stored = struct.unpack("<f", struct.pack("<f", number))[0]
    assert shortest(stored) == number


def test_a_float32_that_is_no_short_decimal_stays_what_it_is():
    for stored in struct.unpack("<200f", random.Random(3).randbytes(800)):
        if stored == stored:
            assert struct.pack("<f", shortest(stored)) == struct.pack("<f", stored)


# ------------------------------------------------------------------------------------------ weight bytes


@pytest.mark.parametrize("embedding", ["F32", "Q8_0", "Q6_K"])
@pytest.mark.parametrize("kind", by_hand.TYPES)
def test_planned_weights_are_the_bytes_of_the_file(kind, embedding, model_of):
    model = model_of(by_hand.llama(kind=kind, embedding=embedding))
    kinds = {name: "F32" if len(shape) == 1 else kind for name, shape in by_hand.SHAPES.items()}
    kinds["token_embd.weight"] = embedding
    stored = sum(by_hand.bytes_of(kinds[name], shape) for name, shape in by_hand.SHAPES.items())
    assert planned_bytes(model) == stored


def test_every_tensor_may_be_stored_otherwise(model_of):
    names = [name for name, shape in by_hand.SHAPES.items() if len(shape) == 2]
    kinds = dict(zip(names, ("Q4_K", "Q6_K", "Q3_K", "BF16", "Q5_1", "IQ2_XS", "F16", "F32"), strict=True))
    stored = sum(by_hand.bytes_of(kinds.get(n, "F32"), shape) for n, shape in by_hand.SHAPES.items())
    assert planned_bytes(model_of(by_hand.llama(kinds=kinds))) == stored


@pytest.mark.parametrize(
    ("kind", "dtype"), [("F16", "fp16"), ("BF16", "bf16"), ("F32", "fp32"), ("Q4_0", "bf16")]
)
def test_plain_weights_are_of_the_dtype_of_most(kind, dtype, model_of):
    assert model_of(by_hand.llama(kind=kind)).dtype == dtype


# ---------------------------------------------------------------------------------------------- rotation


def llama3_factors(factor, theta=10_000.0, pairs=32):
    """What frequencies are divided by (meta-llama, llama-models, apply_scaling)."""
    found = []
    for pair in range(pairs):
        wave = 2 * pi * theta ** (pair / pairs)
        smooth = min(max((8192 / wave - 1) / 3, 0), 1)
        found.append(1 / ((1 - smooth) / factor + smooth))
    return found


def factors(values, name="rope_freqs.weight"):
    return {name: ("F32", (len(values),), struct.pack(f"<{len(values)}f", *values))}


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3s_stretching_is_known_by_its_factors(factor, model_of):
    model = model_of(by_hand.llama(tensors=factors(llama3_factors(factor))))
    expected = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert unnamed(model) == unnamed(described(rope_scaling=expected))


def test_factors_of_one_are_no_stretching(model_of):
    assert unnamed(model_of(by_hand.llama(tensors=factors([1.0] * 32)))) == unnamed(described())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([*llama3_factors(8.0)[:-1], 7.0], "this stretching of the rotation is not understood"),
        ([2.0] * 32, "this stretching of the rotation is not understood"),
        ([1.0] * 16, "tensor 'rope_freqs.weight' is F32 [16], not F32 [32]"),
        ([float("nan")] * 32, "has a factor that is no number above 0"),
        ([1.0] * 31 + [0.0], "has a factor that is no number above 0"),
        ([1.0] * 31 + [float("inf")], "has a factor that is no number above 0"),
    ],
)
def test_other_factors_are_refused(values, said, refusal):
    assert said in refusal(by_hand.llama(tensors=factors(values)))


def scaling(**keys):
    return {f"llama.rope.scaling.{key}": value for key, value in keys.items()}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (scaling(type="none"), None),
        (scaling(type="linear", factor=4.0), {"rope_type": "linear", "factor": 4.0}),
        (
            scaling(type="yarn", factor=4.0, original_context_length=128),
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
            | {"beta_fast": 32.0, "beta_slow": 1.0},
        ),
    ],
)
def test_stretching_is_read_from_its_keys(keys, expected, model_of):
    assert unnamed(model_of(by_hand.llama(keys=keys))) == unnamed(described(rope_scaling=expected))


# Released config.json files say 256 and 144, 256 and 168; layers, width, heads and head size as released.
@pytest.mark.parametrize(
    ("architecture", "layers", "width", "heads", "head_dim", "expected"),
    [
        ("gemma2", 42, 3584, 16, 256, 256),
        ("gemma2", 46, 4608, 32, 128, 144),
        ("gemma3", 34, 2560, 8, 256, 256),
        ("gemma3", 62, 5376, 32, 128, 168),
    ],
)
def test_the_largest_gemmas_divide_scores_by_another_root(
    architecture, layers, width, heads, head_dim, expected
):
    keys = {
        "block_count": layers,
        "context_length": 8192,
        "embedding_length": width,
        "feed_forward_length": 1024,
        "attention.head_count": heads,
        "attention.key_length": head_dim,
        "attention.sliding_window": 4096,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6,
    }
    metadata = {f"{architecture}.{key}": value for key, value in keys.items()}
    embedding = GgufTensor("token_embd.weight", KNOWN[0], (8, width), 0)
    header = GgufHeader(Path(), "", {"general.architecture": architecture, **metadata}, (embedding,))
    assert config_of(header)["query_pre_attn_scalar"] == expected


# ---------------------------------------------------------------------------------------------- mistakes


def keyed(**keys):
    return by_hand.llama(keys={key.replace("__", "."): value for key, value in keys.items()})


def with_tensor(name, kind="F32", shape=(256,)):
    return by_hand.llama(tensors={name: (kind, shape, bytes(by_hand.bytes_of(kind, shape)))})


def entry(number=0, shape=(8, 256), offset=0, name="token_embd.weight"):
    return by_hand.head(by_hand.LLAMA, [(name, shape, number, offset)]) + bytes(1 << 16)


GOOD = by_hand.llama()
REFUSED = [
    (b"", "the file has 0 bytes: too few for a GGUF file"),
    (b"GGUF\3\0\0\0", "the file has 8 bytes: too few for a GGUF file"),
    (b"GGML" + GOOD[4:], "no GGUF file: it begins with b'GGML', not b'GGUF'"),
    (b"PK\3\4" + GOOD[4:], "no GGUF file: it begins with b'PK\\x03\\x04', not b'GGUF'"),
    (GOOD[:4] + struct.pack("<I", 1) + GOOD[8:], "GGUF version 1 is not understood, only 2 and 3"),
    (GOOD[:4] + struct.pack("<I", 4) + GOOD[8:], "GGUF version 4 is not understood, only 2 and 3"),
    (
        GOOD[:4] + struct.pack(">I", 3) + GOOD[8:],
        "a GGUF file for big-endian machines, which is not read here",
    ),
    (GOOD[:100], "the file ends at byte 100, inside its header: it is truncated"),
    (GOOD[:-1], f"the file ends at byte {len(GOOD) - 1:,}, its tensors at {len(GOOD):,}: it is truncated"),
    (
        by_hand.head(by_hand.LLAMA, [], counts=(1 << 62, 10)) + bytes(100),
        "the header counts 4,611,686,018,427,387,904 tensors and 10 keys: it is damaged",
    ),
    (
        by_hand.head(by_hand.LLAMA, [], counts=(1, 1 << 40)) + bytes(100),
        "the header counts 1 tensors and 1,099,511,627,776 keys: it is damaged",
    ),
    (by_hand.head(by_hand.LLAMA, []) + bytes(100), "the file has no tensors"),
    (entry(number=9), "tensor 'token_embd.weight' is stored as Q8_1, which is not understood"),
    (entry(number=34), "tensor 'token_embd.weight' is stored as TQ1_0, which is not understood"),
    (entry(number=999), "tensor 'token_embd.weight' is stored as type 999, which is not understood"),
    (entry(number=12, shape=(8, 100)), "tensor 'token_embd.weight' has rows of 100: no whole blocks of Q4_K"),
    (entry(shape=(8, 0)), "tensor 'token_embd.weight' has no possible shape: the header is damaged"),
    (
        entry(shape=(1 << 60, 1 << 60)),
        "tensor 'token_embd.weight' has no possible shape: the header is damaged",
    ),
    (entry(shape=(1,) * 5), "tensor 'token_embd.weight' has 5 dimensions: the header is damaged"),
    (entry(shape=(1 << 31, 1 << 31)), "its tensors at 18,446,744,073,709,552,128: it is truncated"),
    (entry(offset=64), "tensor 'token_embd.weight' is at 64, not at 0: the header is damaged"),
    (entry(name="token\nembd"), "'token\\nembd' is no name of a tensor: the header is damaged"),
    (entry(name="x" * 65), "a text of 65 bytes at byte "),
    (keyed(general__alignment=33), "general.alignment is 33, and no power of two"),
    (keyed(general__alignment=0), "general.alignment is 0, and no power of two"),
    (keyed(general__architecture=None), "'general.architecture' is required"),
    (
        keyed(general__architecture="lama"),
        "the architecture 'lama' is not understood (did you mean llama?)",
    ),
    (keyed(general__architecture="t5"), "the architecture 't5' is not understood"),
    (keyed(llama__block_count=None), "'llama.block_count' is required"),
    (
        keyed(llama__block_count=0),
        "llama.block_count: expected a whole number from 1 to 2,147,483,648, not 0",
    ),
    (
        keyed(llama__block_count="one"),
        "llama.block_count: expected a whole number from 1 to 2,147,483,648, not",
    ),
    (keyed(llama__block_count=2), "tensor 'blk.1.attn_norm.weight' is missing"),
    (keyed(llama__block_count=1 << 31), "num_hidden_layers: expected 1 to 4,096 layers, not 2,147,483,648"),
    (keyed(llama__attention__head_count_kv=[1, 2]), "head_count_kv: layers that differ are not understood"),
    (
        keyed(llama__attention__head_count=3),
        "attention.key_length: is required: 256 is no multiple of 3 heads",
    ),
    (keyed(llama__attention__value_length=32), "llama.attention.value_length: 32 is not understood, only 64"),
    (
        keyed(llama__attention__layer_norm_rms_epsilon=float("nan")),
        "llama.attention.layer_norm_rms_epsilon: expected a number, not nan",
    ),
    (keyed(llama__rope__dimension_count=32), "llama.rope.dimension_count: 32 is not understood, only 64"),
    (keyed(llama__rope__scaling__type="su"), "rope.scaling.type: 'su' is not one of none, linear, yarn"),
    (keyed(llama__vocab_size=9), "llama.vocab_size: the embedding has 8 rows"),
    (keyed(llama__logit_scale=2.0), "key 'llama.logit_scale' is not understood"),
    (keyed(gemma2__block_count=2), "key 'gemma2.block_count' is not understood"),
    (keyed(split__count=3), "it is one of 3 files of a model   (join them with llama-gguf-split --merge)"),
    (with_tensor("blk.0.attn_sinks.weight"), "tensor 'blk.0.attn_sinks.weight' is not understood"),
    (with_tensor("blk.1.attn_norm.weight"), "tensor 'blk.1.attn_norm.weight' is not understood"),
    (
        with_tensor("output_norm.weight", shape=(128,)),
        "tensor 'output_norm.weight' has 128 numbers, the model's 256",
    ),
    (
        with_tensor("output_norm.weight", kind="Q8_0"),
        "tensor 'output_norm.weight' is Q8_0, which is for matrices",
    ),
    (by_hand.llama(tensors={"token_embd.weight": None}), "'token_embd.weight' is required"),
    (by_hand.llama(tensors={"blk.0.ffn_up.weight": None}), "tensor 'blk.0.ffn_up.weight' is missing"),
    (keyed(general__name=struct.pack("<I", 13)), "'general.name' has a value of the unknown type 13"),
    (
        keyed(general__tags=struct.pack("<IIQ", 9, 9, 1)),
        "'general.tags' is a list of the unknown type 9: the header is damaged",
    ),
    (
        keyed(general__tags=struct.pack("<IIQ", 9, 4, 1 << 60)),
        "'general.tags' counts 1,152,921,504,606,846,976 entries: the header is damaged",
    ),
    (keyed(general__tags=struct.pack("<IIQ", 9, 12, 4_000_000)), "inside its header: it is truncated"),
    (
        keyed(general__name=struct.pack("<IQ", 8, 1 << 63)),
        "a text of 9,223,372,036,854,775,808 bytes at byte ",
    ),
    (keyed(general__name=struct.pack("<IQ", 8, 1 << 24)), "inside its header: it is truncated"),
    (
        keyed(general__name=struct.pack("<I", 8) + by_hand.text(b"\xff\xfe")),
        "is not UTF-8: the header is damaged",
    ),
    (
        GOOD.replace(b"llama.block_count", b"llama\x1bblock_count"),
        "'llama\\x1bblock_count' is no name of a key",
    ),
    (GOOD.replace(b"llama.block_count", b"llama.rope.freq_b").replace(b"freq_base", b"freq_b", 1), "damaged"),
]


@pytest.mark.parametrize(("content", "said"), REFUSED, ids=range(len(REFUSED)))
def test_mistakes_are_one_clear_line(content, said, refusal):
    assert said in refusal(content)


def test_a_tensor_or_key_that_is_there_twice_is_refused(refusal):
    names = GOOD.replace(b"blk.0.ffn_gate.weight", b"blk.0.attn_q.weight\0\0")
    twice = GOOD.replace(b"attn_k.weight", b"attn_q.weight")
    assert "duplicate tensor 'blk.0.attn_q.weight'" in refusal(twice)
    assert "is no name of a tensor" in refusal(names)
    keys = GOOD.replace(b"llama.attention.head_count_kv", b"llama.embedding_length\0\0\0\0\0\0\0")
    assert "is no name of a key" in refusal(keys)
    same = GOOD.replace(b"llama.context_length", b"llama.rope.freq_base")
    assert "duplicate key 'llama.rope.freq_base'" in refusal(same)


def test_no_count_of_a_file_makes_a_list_the_file_could_not_fill(refusal):
    most = (4_000_000, 200_000)
    contents = [keyed(general__tags=struct.pack("<IIQ", 9, kind, most[0])) for kind in (0, 4, 6, 8, 10, 12)]
    contents.append(by_hand.head(by_hand.LLAMA, [], counts=(most[1], len(by_hand.LLAMA))) + bytes(64))
    contents.append(entry(shape=(1 << 31, 1 << 31)))
    tracemalloc.start()
    for content in contents:
        refusal(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6


def lines_of(model_of, content):
    """Return what is said of a file; nothing where it is read."""
    try:
        model_of(content)
    except KvplanError as error:
        return error.lines()
    return ()


def test_a_damaged_file_is_refused_or_read_whatever_the_damage(model_of):
    """Cut off or with other bytes at any place of its head: never another error, and never for long."""
    good, drawn = by_hand.llama(kind="IQ1_S", embedding="IQ1_S"), random.Random(7)
    head = good.index(b"output_norm.weight") + 60
    damaged = [good[:length] for length in range(0, head, 7)]
    for _ in range(600):
        content = bytearray(good)
        for _ in range(drawn.choice((1, 1, 2, 8))):
            content[drawn.randrange(head)] = drawn.randrange(256)
        damaged.append(bytes(content))
    start = time.process_time()
    said = [line for content in damaged for line in lines_of(model_of, content)]
    assert len(said) > len(damaged) / 2
    assert max(map(len, said)) < 600
    assert time.process_time() - start < 60


def test_a_file_that_is_not_there_or_no_file_is_said_to_be_so(tmp_path):
    with pytest.raises(FileError, match="there is no such file"):
        find_model(str(tmp_path / "absent.gguf"))
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(FileError, match=r"it is a folder|there is no such file"):
        load_model(find_model(str(tmp_path / "folder.gguf")))


# ------------------------------------------------------------------------------------------ command line


def test_capacity_plans_a_file_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(by_hand.llama(kind="Q4_K", embedding="Q6_K"))
    assert main(["capacity", str(path), "--gpu", "l4", "--format", "json"]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert exported["inputs"]["model_file"] == str(path)
    assert exported["inputs"]["model_head_sha256"] == fingerprint(path)[1]
    assert exported["deployment"]["weights"] == "q4_k+q6_k"


def test_a_mistake_in_a_file_is_a_line_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(GOOD[:-1])
    assert main(["capacity", str(path), "--gpu", "l4"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert "it is truncated" in err


@pytest.mark.parametrize("name", ["model.gguf", "MODEL.Q4_K_M.GGUF", "./a"])
def test_a_name_that_ends_so_is_a_file(name):
    assert is_path(name)


def test_a_report_has_the_digest_of_the_head_alone(tmp_path):
    """The data behind it changes nothing that is planned, and may have 40 GB."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(GOOD)
    what, first = fingerprint(path)
    path.write_bytes(GOOD[:-1] + b"\1")
    assert (what, first) == ("head_sha256", fingerprint(path)[1])
    path.write_bytes(by_hand.llama(keys={"general.name": "other"}))
    assert fingerprint(path)[1] != first
