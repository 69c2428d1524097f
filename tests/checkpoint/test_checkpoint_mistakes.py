"""Everything that can be wrong with a checkpoint is one clear line, and never anything but a KvplanError."""

import json
import os
import random

import pytest

from kvplan.checkpoint.checkpoint import open_checkpoint
from kvplan.errors import ExitStatus, KvplanError

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def use(path):
    """Read everything there is to a checkpoint."""
    checkpoint = open_checkpoint(path)
    checkpoint.weights()
    checkpoint.tokenizer()


def refusal(path, folder, status=ExitStatus.USAGE):
    """The one line a checkpoint is refused in, with its folder's name cut out; nothing is left behind."""
    before = sorted(os.listdir(folder))
    with pytest.raises(KvplanError) as caught:
        use(path)
    assert caught.value.exit_status == status
    (line,) = caught.value.lines()
    assert line.isprintable()
    assert len(line) < 400
    assert sorted(os.listdir(folder)) == before
    return line.replace(f"{folder}/", "").replace(str(folder), "FOLDER")


def cut(length):
    return lambda content: content[:length]


BAD_FILES = {
    "empty": (cut(0), "it ends before its header does"),
    "cut-in-length": (cut(5), "it ends before its header does"),
    "cut-in-header": (cut(400), "it ends before its header does"),
    "cut-in-data": (cut(-1), "its data is shorter or longer than its header says"),
    "too-long": (lambda content: content + b"\0", "its data is shorter or longer than its header says"),
    "gguf": (lambda content: b"GGUF\3\0\0\0" + content, "it does not begin with a header"),
    "pickle": (
        lambda content: b"\x80\2\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + content,
        "it does not begin with a header",
    ),
    "zip": (lambda content: b"PK\3\4\0\0\0\0" + content, "it ends before its header does"),
    "pointer": (
        lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 8\n",
        "it does not begin with a header",
    ),
    "no-json": (
        lambda content: content.replace(b'{"__', b'["__', 1),
        "its header is a sequence, and no mapping",
    ),
    "half-a-key": (
        lambda content: content.replace(b'"shape": [64]', b'"shape"; [64]', 1),
        "its header is not what the format has: expected `:` at line 1 column ",
    ),
    "no-utf8": (
        lambda content: content.replace(b"embed", b"\xff\xfe\xfd\xfc\xfb", 1),
        "it does not begin with a header",
    ),
}


@pytest.mark.parametrize(("change", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_no_safetensors_file(broken, change, reason):
    folder = broken()
    content = (folder / WHOLE).read_bytes()
    (folder / WHOLE).write_bytes(change(content))
    assert refusal(folder, folder).startswith(f"{WHOLE}: no safetensors file: {reason}")


BAD_HEADERS = {
    "overlap": (
        {"a": F32, "b": {**F32, "data_offsets": [4, 12]}},
        "tensors in its header overlap, or leave bytes between them",
    ),
    "gap": (
        {"a": F32, "b": {**F32, "data_offsets": [12, 20]}},
        "tensors in its header overlap, or leave bytes between them",
    ),
    "backwards": (
        {"a": {**F32, "data_offsets": [8, 0]}},
        "tensors in its header overlap, or leave bytes between them",
    ),
    "beyond-the-end": (
        {"a": {**F32, "shape": [9], "data_offsets": [0, 36]}},
        "its data is shorter or longer than",
    ),
    "another-size": ({"a": {**F32, "shape": [3]}}, "a tensor in its header has another size than its place"),
    "huge": ({"a": {**F32, "shape": [1 << 40, 1 << 40]}}, "a tensor in its header is larger than any file"),
    "negative": (
        {"a": {**F32, "shape": [-2]}},
        "its header is not what the format has: invalid value: integer `-2`",
    ),
    "unknown-dtype": (
        {"a": {**F32, "dtype": "F42"}},
        "its header names the dtype 'F42', which the format does not have",
    ),
    "no-dtype": (
        {"a": {"shape": [2], "data_offsets": [0, 8]}},
        "its header is not what the format has: missing field `dtype`",
    ),
    "list": ([F32], "its header is a sequence, and no mapping"),
    "control": (
        {"a": {**F32, "dtype": "\x1b[31m"}},
        "its header is not what the format has: unknown variant",
    ),
}


@pytest.mark.parametrize(("header", "reason"), BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_header_that_cannot_be(make, broken, header, reason):
    folder = broken()
    (folder / WHOLE).write_bytes(make.file_of(header, bytes(20 if "b" in header else 8)))
    assert refusal(folder, folder).startswith(f"{WHOLE}: no safetensors file: {reason}")


def change_index(folder, change):
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def test_a_shard_that_is_missing(broken):
    folder = broken(shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert refusal(folder, folder) == (
        f"{INDEX}:13:44: 'model-00002-of-00003.safetensors' is not beside the index: a shard is missing"
    )


def test_two_shards_that_are_missing(broken):
    folder = broken(shards=3)
    for shard in (1, 3):
        (folder / f"model-0000{shard}-of-00003.safetensors").unlink()
    line = refusal(folder, folder)
    assert line.startswith(f"{INDEX}:6:34: 'model-00001-of-00003.safetensors' is not beside the index")
    assert line.endswith(" (and 1 more like it)")


def test_a_shard_that_is_cut_off(broken):
    folder = broken(shards=3)
    shard = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    reason = "no safetensors file: its data is shorter or longer than its header says"
    assert refusal(folder, folder) == f"model-00002-of-00003.safetensors: {reason}"


def test_a_tensor_in_two_shards(make, broken):
    folder = broken(shards=2)
    tensors = make.weights()
    again = {
        name: tensors[name] for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    }
    (folder / "more.safetensors").write_bytes(make.safetensors_bytes(again, "BF16"))
    change_index(folder, lambda weight_map: weight_map.update({"model.norm.weight": "more.safetensors"}))
    assert refusal(folder, folder) == (
        f"{INDEX}:25:26: tensor 'model.norm.weight' is in 'model-00002-of-00002.safetensors' too "
        "(and 2 more like it)"
    )


def test_a_tensor_the_index_lacks(broken):
    folder = broken(shards=2)
    change_index(folder, lambda weight_map: weight_map.pop("model.norm.weight"))
    assert refusal(folder, folder) == (
        f"{INDEX}:5:17: the index lacks tensor 'model.norm.weight', which is in "
        "'model-00002-of-00002.safetensors'"
    )


def test_a_tensor_that_is_not_where_the_index_says(broken):
    folder = broken(shards=2)
    shard = "model-00001-of-00002.safetensors"
    change_index(folder, lambda weight_map: weight_map.update({"a.b": shard}))
    line = f"{INDEX}:27:12: tensor 'a.b' is not in '{shard}', where the index says it is"
    assert refusal(folder, folder) == line


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", 3, None, "a.bin"]
)
def test_an_index_names_files_beside_it_only(broken, shard):
    folder = broken(shards=2)
    change_index(folder, lambda weight_map: weight_map.update({"lm_head.weight": shard}))
    assert refusal(folder, folder) == f"{INDEX}:26:23: tensor 'lm_head.weight': expected a .safetensors file"


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"weight_map": {}}', '{"weight_map": ["a"]}', '{"weight_map": 1}']
)
def test_an_index_without_its_map(broken, content):
    folder = broken(shards=2)
    (folder / INDEX).write_text(content, encoding="utf-8")
    message = "expected 'weight_map', a mapping from tensors to the files that hold them"
    assert refusal(folder, folder).split(": ", 1)[1] == message


def test_an_index_with_a_tensor_twice(broken):
    folder = broken(shards=2)
    text = (folder / INDEX).read_text(encoding="utf-8")
    (folder / INDEX).write_text(text.replace("model.norm.weight", "lm_head.weight"), encoding="utf-8")
    assert refusal(folder, folder) == f"{INDEX}:26:5: duplicate key 'lm_head.weight' (first at line 25)"


def test_one_shard_of_several_named_itself(broken):
    folder = broken(shards=2)
    assert refusal(folder / "model-00001-of-00002.safetensors", folder) == (
        "'model-00001-of-00002.safetensors' is one shard of several   (name its folder: FOLDER)"
    )


def test_a_folder_without_weights(broken):
    folder = broken()
    (folder / WHOLE).rename(folder / "pytorch_model.bin")
    assert refusal(folder, folder) == (
        f"'FOLDER' has neither {WHOLE} nor {INDEX}   "
        "(name a .safetensors or .gguf file, or a folder with one of these)"
    )


def test_a_file_that_is_not_there(broken):
    folder = broken()
    assert refusal(folder / "b.safetensors", folder, ExitStatus.FILE) == (
        "cannot read 'b.safetensors': there is no such file or folder"
        "   (a folder with safetensors, or a .safetensors or .gguf file)"
    )


def test_a_file_that_is_a_pipe(broken):
    folder = broken()
    os.mkfifo(folder / "b.safetensors")
    line = refusal(folder / "b.safetensors", folder, ExitStatus.FILE)
    assert line.startswith("cannot read 'b.safetensors': it is a device, a pipe or a socket")


def test_a_folder_without_a_description(broken):
    folder = broken()
    (folder / "config.json").unlink()
    line = refusal(folder, folder, ExitStatus.FILE)
    assert line.startswith("cannot read 'config.json': there is no such file")


def test_a_name_that_no_terminal_should_see(make, broken):
    folder = broken()
    tensors = make.weights()
    tensors["\x1b[31m\n" + "x" * 500] = tensors["model.norm.weight"]
    make.write_safetensors(folder, tensors)
    line = refusal(folder, folder)
    assert line.startswith(f"{WHOLE}: tensor '\\x1b[31m\\nxxx")
    assert line.endswith("...' (64) is none of the model's")


def test_packed_weights(broken):
    folder = broken()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}
    config["quantization_config"]["activation_scheme"] = "dynamic"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert refusal(folder, folder) == (
        "FOLDER: its weights are stored in fp8-block, which cannot be read   "
        "(safetensors are read in BF16, F16 and F32)"
    )


def test_no_tokenizer_is_a_mistake_only_where_one_is_asked_for(broken):
    folder = broken()
    (folder / "tokenizer.json").unlink()
    assert len(open_checkpoint(folder).weights()) == 21
    assert refusal(folder, folder) == "no tokenizer: there is no 'tokenizer.json'"


def test_a_tokenizer_of_another_model(make, broken):
    folder = broken()
    tokenizer = make.tokenizer()
    tokenizer["model"]["vocab"]["zz"] = 300
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert refusal(folder, folder) == (
        "tokenizer.json: token 300 is none of the model's 291   (this tokenizer belongs to another model)"
    )


BAD_TOKENIZERS = {
    "empty": (lambda text: "", "EOF while parsing a value at line 1 column 0"),
    "no-json": (lambda text: "GGUF", "expected value at line 1 column 1"),
    "list": (lambda text: "[]", ""),
    "cut-off": (lambda text: text[:3000], "EOF while parsing"),
    "no-model": (lambda text: '{"version": "1.0"}', ""),
    "unknown-model": (lambda text: text.replace('"BPE"', '"BPQ"'), ""),
    "merge-of-nothing": (
        lambda text: text.replace('"Ġt",\n        "he"', '"Ġt",\n        "qqq"'),
        "Token `qqq`",
    ),
}


@pytest.mark.parametrize(("change", "reason"), BAD_TOKENIZERS.values(), ids=BAD_TOKENIZERS)
def test_a_tokenizer_that_is_none(broken, change, reason):
    folder = broken()
    path = folder / "tokenizer.json"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert refusal(folder, folder).startswith(f"tokenizer.json: no tokenizer: {reason}")


def test_a_tokenizer_that_is_a_folder(broken):
    folder = broken()
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()
    assert refusal(folder, folder, ExitStatus.FILE).startswith("cannot read 'tokenizer.json': it is a folder")


@pytest.mark.parametrize(
    ("module", "ask", "what"),
    [
        ("safetensors", open_checkpoint, "reading safetensors files needs the package safetensors"),
        ("tokenizers", use, "reading tokenizer.json needs the package tokenizers"),
    ],
)
def test_a_package_that_is_not_installed(checkpoints, monkeypatch, module, ask, what):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(KvplanError) as caught:
        ask(checkpoints())
    assert caught.value.lines() == (f"{what}   (pip install 'kvplan[checkpoint]')",)


def survives(path):
    """Read everything; true where nothing was wrong, false where a KvplanError said in one line what was."""
    refused = None
    try:
        use(path)
    except KvplanError as error:
        refused = error
    if refused is None:
        return True
    assert refused.exit_status == ExitStatus.USAGE
    assert all(line.isprintable() for line in refused.lines())
    return False


def damaged(content, rng, where):
    """Return the content with a few bits turned, a piece cut out, or another put in, before ``where``."""
    found = bytearray(content)
    start = rng.randrange(where)
    match rng.randrange(4):
        case 0:
            for _ in range(rng.randrange(1, 4)):
                found[rng.randrange(where)] ^= 1 << rng.randrange(8)
        case 1:
            del found[start : start + rng.randrange(1, 40)]
        case 2:
            found[start:start] = rng.randbytes(rng.randrange(1, 9))
        case _:
            del found[start:]
    return bytes(found)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (WHOLE, {}),
        (INDEX, {"shards": 3}),
        ("model-00002-of-00003.safetensors", {"shards": 3}),
        ("config.json", {}),
        ("generation_config.json", {}),
        ("tokenizer.json", {}),
    ],
)
def test_damage_anywhere_is_refused_in_a_line_or_changes_nothing_that_is_read(broken, name, form):
    folder, rng = broken(**form), random.Random(7)
    path = folder / name
    content = path.read_bytes()
    where = 8 + int.from_bytes(content[:8], "little") if name.endswith(".safetensors") else len(content)
    found = []
    for _ in range(150):
        path.write_bytes(damaged(content, rng, where))
        found.append(survives(folder))
    assert found.count(False) > 60


def test_a_file_cut_off_anywhere_is_refused(broken):
    folder = broken()
    content = (folder / WHOLE).read_bytes()
    for length in [*range(0, 2400, 37), *range(2400, len(content), 4001), len(content) - 1]:
        (folder / WHOLE).write_bytes(content[:length])
        assert not survives(folder)
