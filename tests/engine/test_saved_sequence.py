"""A sequence saved to a file goes on where it was, and nothing else is taken for one."""

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from kvplan.allocation import Contiguous, Paged
from kvplan.engine.saved_sequence import load, save
from kvplan.errors import FileError, KvplanError, UsageError
from kvplan.storage import kv_format

FP32 = kv_format("fp32")
NOT_ONE = "is not a saved sequence, or not all of one"


@pytest.fixture
def saved(runner_of, prompt, tmp_path):
    """A snapshot of 11 tokens of a model with a window, and the file it is in."""
    runner = runner_of("windows")
    cache = runner.cache(FP32, Paged(4))
    sequence = cache.add()
    runner.feed(cache, (sequence, prompt(11)))
    snapshot, path = cache.snapshot(sequence), tmp_path / "sequence.npz"
    save(snapshot, path)
    return snapshot, path


@pytest.mark.parametrize("kv", ["fp32", "bf16", "fp8", "int8", "int4"])
@pytest.mark.parametrize("allocation", [Paged(4), Contiguous(128)], ids=str)
def test_a_request_goes_on_in_another_cache_from_its_file(runner, allocation, kv, prompt, tmp_path):
    """The next tokens are those of the cache it was saved from; logits may differ where blocks lie apart."""
    tokens, path = prompt(22), tmp_path / "sequence.npz"
    cache, other = (runner.cache(kv_format(kv), allocation, sequences=2) for _ in range(2))
    sequence = cache.add()
    logits = runner.feed(cache, (sequence, tokens))[0]
    save(cache.snapshot(sequence), path)
    runner.feed(other, (other.add(), prompt(30, seed=4)))
    expected, last = runner.greedy(cache, sequence, logits, 9)
    found, same = runner.greedy(other, other.restore(load(path)), logits, 9)
    assert found == expected
    assert np.abs(same - last).max() <= 2e-5 * np.abs(last).max()


def test_what_is_loaded_is_what_was_saved(saved):
    snapshot, path = saved
    found = load(path)
    assert found.layout == snapshot.layout
    assert found.blocks == snapshot.blocks
    assert found.tokens.tolist() == snapshot.tokens.tolist()
    assert len(found.layers) == len(snapshot.layers)
    for arrays, expected in zip(found.layers, snapshot.layers, strict=True):
        assert arrays.keys() == expected.keys()
        for name, array in expected.items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array)


def test_an_empty_sequence_can_be_saved(runner_of, tmp_path):
    cache = runner_of("windows").cache(FP32, Paged(4))
    save(cache.snapshot(cache.add()), tmp_path / "empty.npz")
    assert cache.length(cache.restore(load(tmp_path / "empty.npz"))) == 0


def test_the_same_sequence_gives_the_same_bytes(saved, tmp_path):
    snapshot, path = saved
    save(snapshot, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_it_is_an_archive_of_plain_arrays(saved):
    with np.load(saved[1], allow_pickle=False) as arrays:
        assert str(arrays["format"]) == "kvplan sequence 1"
        assert {array.dtype.kind for array in arrays.values()} <= set("Uif")


def test_every_shorter_file_is_refused(saved):
    """Cut at every byte of its beginning and end, and at 300 places between."""
    _, path = saved
    data = path.read_bytes()
    cuts = {*range(150), *range(len(data) - 150, len(data)), *range(0, len(data), len(data) // 300)}
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        with pytest.raises(FileError, match=NOT_ONE):
            load(path)


def test_a_changed_byte_is_refused_or_changes_nothing(saved):
    """Bytes of padding and of dates mean nothing; any other change is seen, by its checksum at the latest."""
    snapshot, path = saved
    data = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for place in generator.integers(0, len(data), 600).tolist():
        changed = bytearray(data)
        changed[place] ^= int(generator.integers(1, 256))
        path.write_bytes(changed)
        try:
            found = load(path)
        except FileError:
            refused += 1
            continue
        assert found.tokens.tolist() == snapshot.tokens.tolist()
        for arrays, expected in zip(found.layers, snapshot.layers, strict=True):
            for name, array in expected.items():
                np.testing.assert_array_equal(arrays[name], array)
    assert refused > 500


def test_an_array_that_says_it_is_shorter_is_refused(saved):
    """NumPy would read half of the tokens and not see the checksum behind them."""
    snapshot, path = saved
    save(replace(snapshot, tokens=np.arange(2000)), path)
    data = path.read_bytes()
    assert data.count(b"(2000,)") == 1
    path.write_bytes(data.replace(b"(2000,)", b"(1000,)"))
    with pytest.raises(FileError, match=NOT_ONE):
        load(path)


def rewritten(path, **changes):
    """Save the arrays of a file again, some changed, some (``None``) left out."""
    with np.load(path) as arrays:
        kept = {**arrays, **changes}
    np.savez(path, **{name: array for name, array in kept.items() if array is not None})


class Trap:
    """Would write a file when it is unpickled."""

    def __reduce__(self):
        return (open, ("trap", "w"))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": None},
        {"format": np.array("kvplan sequence 2")},
        {"format": np.array(1)},
        {"layout": None},
        {"layout": np.array(["fake", "0", "fp32"])},
        {"layout": np.arange(4)},
        {"tokens": np.ones(11)},
        {"tokens": np.ones((11, 1), np.int64)},
        {"tokens": np.array([Trap()], dtype=object)},
        {"counts": np.array([2])},
        {"counts": np.array([1 << 60, 2])},
        {"counts": np.array([3, 2])},
        {"blocks.1": None},
        {"blocks.0": np.array([[0]])},
    ],
)
def test_archives_that_are_no_saved_sequence_are_refused(saved, changes, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rewritten(saved[1], **changes)
    with pytest.raises(FileError, match=NOT_ONE) as error:
        load(saved[1])
    assert len(error.value.lines()) == 1
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("data", [b"", b"{}", b"PK\3\4", b"\x93NUMPY\1\0", b"PK\5\6" + bytes(18)], ids=repr)
def test_other_files_are_refused(data, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(FileError, match=NOT_ONE):
        load(path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    path, buffer = tmp_path / "file.npz", io.BytesIO()
    np.save(buffer, np.arange(4))
    # NumPy reads an array's header as Python; this one ends in the middle of a dictionary.
    torn = buffer.getvalue().replace(b"}", b" ")
    for name, content in [
        *(("format", b"kvplan"), ("readme.txt", b"hello")),
        *(("a.npy", buffer.getvalue()), ("format.npy", torn)),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, content)
        with pytest.raises(FileError, match=NOT_ONE):
            load(path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    for path, reason in [
        (tmp_path / "none.npz", "no such file or directory"),
        (tmp_path, "is a directory"),
        (tmp_path / "a\0b", "that cannot be a file name"),
    ]:
        with pytest.raises(FileError, match=f"cannot read .*: {reason}"):
            load(path)


def test_a_sequence_of_another_model_or_format_is_refused_by_the_cache(saved, runner_of):
    found = load(saved[1])
    for cache, words in [
        (runner_of("gqa").cache(FP32, Paged(4)), "model = windows, the cache has gqa"),
        (runner_of("windows").cache(kv_format("int8"), Paged(4)), "kv = fp32, the cache has int8"),
        (runner_of("windows").cache(FP32, Paged(8)), "blocks of 4 tokens, the cache has blocks of 8"),
    ]:
        free = cache.free_blocks
        with pytest.raises(UsageError, match=words) as error:
            cache.restore(found)
        assert len(error.value.lines()) == 1
        assert cache.free_blocks == free


def test_fewer_blocks_than_the_tables_say_are_refused_by_the_cache(saved, runner_of):
    snapshot, path = saved
    cut = tuple({name: array[:1] for name, array in arrays.items()} for arrays in snapshot.layers)
    save(replace(snapshot, layers=cut), path)
    with pytest.raises(KvplanError, match="this sequence is damaged"):
        runner_of("windows").cache(FP32, Paged(4)).restore(load(path))


def test_a_file_that_cannot_be_written_leaves_the_old_one(saved, tmp_path, monkeypatch):
    """The disk fills while the bytes are on their way."""
    snapshot, path = saved
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileError, match="no space left on device"):
        save(snapshot, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(FileError, match="there is no such folder"):
        save(snapshot, tmp_path / "none" / "sequence.npz")


@pytest.mark.parametrize("kv", ["int8-kivi", "int4-kivi"])
@pytest.mark.parametrize("allocation", [Paged(64), Contiguous(256)], ids=str)
def test_keys_that_wait_for_their_group_go_along(kv, allocation, runner_of, prompt, tmp_path):
    """100 tokens: 36 keys wait. Forked and trimmed within the group, or saved, it goes on as it would."""
    runner, tokens = runner_of("gqa"), prompt(100)
    cache = runner.cache(kv_format(kv), allocation)
    first = cache.add()
    logits = runner.feed(cache, (first, tokens))[0]
    child = cache.fork(first)
    save(cache.snapshot(first), tmp_path / "sequence.npz")
    runner.feed(cache, (child, [1, 2, 3]))
    cache.trim(child, 4)
    expected, last = runner.greedy(cache, first, logits, 40)
    cache.free(first)
    for sequence, begun in [
        (child, runner.feed(cache, (child, tokens[99:]))[0]),
        (cache.restore(load(tmp_path / "sequence.npz")), logits),
    ]:
        found, same = runner.greedy(cache, sequence, begun, 40)
        assert found == expected
        assert np.abs(same - last).max() <= 2e-5 * np.abs(last).max()


@pytest.mark.parametrize(("kv", "share"), [("int8-kivi", 0.01), ("int4-kivi", 0.1)])
def test_a_complete_group_that_a_trim_cuts_waits_again(kv, share, runner_of, prompt):
    """64 tokens are a group. Cut to 44 and read on, logits are those of a sequence that was never longer.

    Keys that were rounded twice are not the same: logits differ by a share of the largest, not more.
    """
    runner, tokens = runner_of("gqa"), prompt(100)
    cache = runner.cache(kv_format(kv), Paged(64))
    whole, straight = cache.add(), cache.add()
    runner.feed(cache, (whole, tokens[:64]))
    runner.feed(cache, (straight, tokens[:44]))
    cut = cache.fork(whole)
    cache.trim(cut, 20)
    found, expected = runner.feed(cache, (cut, tokens[44:]), (straight, tokens[44:]))
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < error <= share
