import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from kvplan.checkpoint.safetensors_files import SafetensorsFile, ShardedSafetensors, safetensors_in
from kvplan.errors import UsageError


@pytest.mark.parametrize(("dtype", "name"), [("F32", "fp32"), ("F16", "fp16"), ("BF16", "bf16")])
def test_every_tensor_comes_back_as_it_was_written(make, checkpoints, dtype, name):
    file, written = SafetensorsFile(checkpoints(dtype=dtype) / "model.safetensors"), make.weights()
    assert set(file.names()) == set(written)
    for tensor, array in written.items():
        assert file.dtype(tensor) == name
        assert file.shape(tensor) == array.shape
        assert file.read(tensor).dtype == np.float32
        np.testing.assert_array_equal(file.read(tensor), array)


def test_the_package_itself_reads_the_same(checkpoints):
    path = checkpoints(dtype="F32") / "model.safetensors"
    file, theirs = SafetensorsFile(path), safetensors.numpy.load_file(path)
    assert set(file.names()) == set(theirs)
    for name, array in theirs.items():
        np.testing.assert_array_equal(file.read(name), array)


@pytest.mark.parametrize(
    ("dtype", "numpy_type"), [("BF16", ml_dtypes.bfloat16), ("F16", np.float16)], ids=["bf16", "fp16"]
)
def test_every_16_bit_pattern_is_the_number_that_it_means(make, tmp_path, dtype, numpy_type):
    bits = np.arange(1 << 16, dtype="<u2")
    header = {"all": {"dtype": dtype, "shape": [256, 256], "data_offsets": [0, bits.nbytes]}}
    (tmp_path / "a.safetensors").write_bytes(make.file_of(header, bits.tobytes()))
    found = SafetensorsFile(tmp_path / "a.safetensors").read("all")
    np.testing.assert_array_equal(found, bits.view(numpy_type).astype(np.float32).reshape(256, 256))


def test_tensors_of_several_dtypes_in_an_order_of_their_own_at_odd_places(tmp_path):
    numbers = np.array([1.5, -2.0, 3.0], "<f4")
    data = b"\1" + np.array([7.0], "<f2").tobytes() + numbers.tobytes() + b"\5\6\7"
    header = {
        "c": {"dtype": "F32", "shape": [3, 1], "data_offsets": [3, 15]},
        "a": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]},
        "d": {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [15, 18]},
        "b": {"dtype": "F16", "shape": [], "data_offsets": [1, 3]},
        "nothing": {"dtype": "F32", "shape": [0, 4], "data_offsets": [15, 15]},
    }
    text = json.dumps(header).encode()
    text += b" " * (1 - len(text) % 2)  # an odd length: no number begins where its type would have it
    assert len(text) % 2 == 1
    (tmp_path / "odd.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    file = SafetensorsFile(tmp_path / "odd.safetensors")
    np.testing.assert_array_equal(file.read("c"), numbers.reshape(3, 1))
    assert file.read("b") == np.float32(7)
    assert file.read("nothing").shape == (0, 4)


def test_a_table_of_whole_numbers_is_read(make, tmp_path):
    header = {"tid2eid": {"dtype": "I64", "shape": [1, 2], "data_offsets": [0, 16]}}
    (tmp_path / "a.safetensors").write_bytes(make.file_of(header, np.array([7, 255], "<i8").tobytes()))
    read = SafetensorsFile(tmp_path / "a.safetensors").read("tid2eid")
    assert read.dtype == np.float32
    assert read.tolist() == [[7, 255]]


@pytest.mark.parametrize("dtype", ["F8_E4M3", "U64", "U8", "F64"])
def test_a_tensor_of_another_dtype_is_refused_by_name_when_it_is_read(make, tmp_path, dtype):
    size = 1 if "8" in dtype else 8
    header = {"layer.weight": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * size]}}
    (tmp_path / "a.safetensors").write_bytes(make.file_of(header, bytes(2 * size)))
    file = SafetensorsFile(tmp_path / "a.safetensors")
    assert file.shape("layer.weight") == (2,)
    for refused in (file.dtype, file.read):
        with pytest.raises(UsageError, match=f"tensor 'layer.weight' has the dtype {dtype}$") as caught:
            refused("layer.weight")
        assert caught.value.hint == "weights are read in BF16, F16, F32"


def test_what_is_read_is_its_readers_own(checkpoints):
    file = SafetensorsFile(checkpoints(dtype="F32") / "model.safetensors")
    first = file.read("model.norm.weight")
    first += 1
    np.testing.assert_array_equal(file.read("model.norm.weight"), first - 1)


def test_a_file_larger_than_memory_is_mapped_and_not_read(tmp_path):
    huge = 1 << 38
    header = {
        "huge": {"dtype": "F32", "shape": [huge // 4], "data_offsets": [0, huge]},
        "last": {"dtype": "F32", "shape": [2], "data_offsets": [huge, huge + 8]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.seek(huge, 1)
        file.write(np.array([5, 6], "<f4").tobytes())
    assert SafetensorsFile(path).read("last").tolist() == [5, 6]
    path.unlink()


@pytest.mark.parametrize("shards", [2, 5])
def test_shards_are_one_file_together(make, checkpoints, shards):
    folder = checkpoints(shards=shards)
    file, written = safetensors_in(folder), make.weights()
    assert isinstance(file, ShardedSafetensors)
    assert len({file.place(name) for name in file.names()}) == shards
    assert set(file.names()) == set(written)
    for name, array in written.items():
        assert file.shape(name) == array.shape
        assert file.dtype(name) == "bf16"
        np.testing.assert_array_equal(file.read(name), array)


def test_a_tensors_place_is_the_shard_that_holds_it(checkpoints):
    folder = checkpoints(shards=2)
    file = safetensors_in(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert {name: file.place(name) for name in file.names()} == {
        name: str(folder / shard) for name, shard in index["weight_map"].items()
    }


def test_a_whole_file_is_taken_before_shards_beside_it(broken, checkpoints):
    folder = broken(shards=2)
    whole = checkpoints(dtype="F32") / "model.safetensors"
    (folder / "model.safetensors").write_bytes(whole.read_bytes())
    assert safetensors_in(folder).dtype("model.norm.weight") == "fp32"
