"""Files are written whole or not at all, whatever fails and whatever is there already."""

import errno
import os
import stat
from pathlib import Path

import pytest

from kvplan.errors import FileError
from kvplan.files import write_atomically


def test_a_new_file(tmp_path):
    path = tmp_path / "new"
    write_atomically(path, "text é\n")
    assert path.read_bytes() == b"text \xc3\xa9\n"
    assert os.listdir(tmp_path) == ["new"]


def test_a_new_file_has_the_mode_of_any_new_file(tmp_path):
    previous = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", "x")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o755, 0o644])
def test_an_old_file_keeps_its_mode(mode, tmp_path):
    path = tmp_path / "old"
    path.write_text("old")
    path.chmod(mode)
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_atomically(Path("here"), "x")
    assert (tmp_path / "here").read_text() == "x"


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_link_to_nothing_makes_the_file(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    write_atomically(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_a_pipe_is_written_to_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, "x")
        assert pipe.is_fifo()
        assert os.read(reader, 10) == b"x"
    finally:
        os.close(reader)


@pytest.fixture
def full_device(tmp_path):
    """A device of the kind of /dev/full, in a folder of its own: a bug here must not replace the real one."""
    device = tmp_path / "full"
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 7))
        with open(device, "rb"):
            pass
    except (OSError, AttributeError):
        pytest.skip("no device can be made here")
    return device


def test_a_device_is_written_to_not_replaced(full_device):
    assert refused(full_device) == f"cannot write '{full_device}': no space left on device"
    assert stat.S_ISCHR(full_device.stat().st_mode)


STEPS = ["tempfile.mkstemp", "os.fdopen", "os.fsync", "os.chmod", "os.replace"]


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("step", STEPS)
def test_the_old_file_survives_a_failure_of_any_step(step, old, tmp_path, monkeypatch):
    path = tmp_path / "file"
    if old is not None:
        path.write_text(old)

    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(step, fail)
    assert refused(path) == f"cannot write '{path}': input/output error"
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ([] if old is None else ["file"])
    assert old is None or path.read_text() == old


def test_the_old_file_survives_a_write_that_stops_half_way(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    opened = os.fdopen

    def stopping(*args, **kwargs):
        file = opened(*args, **kwargs)
        write = file.write

        def half(text):
            write(text[: len(text) // 2])
            file.flush()
            raise OSError(28, "No space left on device")

        class Stopping:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def __getattr__(self, name):
                return half if name == "write" else getattr(file, name)

        return Stopping()

    monkeypatch.setattr("os.fdopen", stopping)
    assert refused(path) == f"cannot write '{path}': no space left on device"
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", "x")
    assert os.listdir(tmp_path) == []


def refused(path):
    with pytest.raises(FileError) as caught:
        write_atomically(path, "new text")
    assert caught.value.hint
    return caught.value.message


def test_places_where_no_file_can_be(tmp_path):
    (tmp_path / "file").write_text("x")
    assert refused(tmp_path) == f"cannot write '{tmp_path}': it is a folder"
    assert refused(tmp_path / "a" / "b").endswith("there is no such folder")
    assert refused(tmp_path / "file" / "b").endswith("a part of its path is not a folder")
    assert refused(tmp_path / "a\0b").endswith("that cannot be a file name")
    assert refused(tmp_path / ("x" * 300)).endswith("file name too long")
    assert len(refused(tmp_path / ("x" * 4000))) < 300
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_without_rights(tmp_path, monkeypatch):
    def denied(**_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # Root may write anywhere, so the refusal is the system's own error, raised where it would be.
    monkeypatch.setattr("tempfile.mkstemp", denied)
    assert refused(tmp_path / "file") == f"cannot write '{tmp_path / 'file'}': permission denied"
