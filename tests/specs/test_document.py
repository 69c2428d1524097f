"""The document type, and reading a file without trusting it."""

import os
import socket
from pathlib import Path

import pytest

from kvplan.errors import ExitStatus, FileError, Problem, SpecError
from kvplan.specs.document import (
    MAX_BYTES,
    Document,
    DocumentBuilder,
    LineIndex,
    printable,
    quoted,
    read_limited,
    read_text,
)

DOCUMENT = Document(
    path="model.yaml",
    data={"name": "a", "layers": [{"heads": 8}]},
    value_places={(): (1, 1), ("name",): (1, 7), ("layers",): (3, 3), ("layers", 0): (3, 5)},
    key_places={("name",): (1, 1), ("layers",): (2, 1)},
)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), (1, 1)),
        (("name",), (1, 7)),
        (("layers", 0), (3, 5)),
        (("layers", 0, "heads"), (3, 5)),
        (("layers", 1, "heads", "x"), (3, 3)),
        (("other",), (1, 1)),
    ],
)
def test_place_is_that_of_the_value_or_the_nearest_around_it(path, place):
    assert DOCUMENT.place(path) == place


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("name",), (1, 1)),
        (("layers",), (2, 1)),
        (("layers", 0), (3, 5)),
        (("layers", 0, "heads"), (3, 5)),
        ((), (1, 1)),
    ],
)
def test_key_place_is_that_of_the_key_or_else_of_the_value(path, place):
    assert DOCUMENT.key_place(path) == place


def test_place_of_a_document_without_places():
    assert Document("x", None, {}, {}).place(("a",)) == (1, 1)


def test_problem_is_placed_at_the_value_or_the_key():
    at_value = DOCUMENT.problem(("layers",), "expected 2 items")
    at_key = DOCUMENT.problem(("layers",), "unknown key", at_key=True)
    assert at_value == Problem("model.yaml", 3, 3, "expected 2 items")
    assert str(at_key) == "model.yaml:2:1: unknown key"


@pytest.mark.parametrize(
    ("text", "offset", "place"),
    [
        ("", 0, (1, 1)),
        ("ab", 2, (1, 3)),
        ("a\nb", 2, (2, 1)),
        ("a\r\nb", 3, (2, 1)),
        ("a\rb", 2, (2, 1)),
        ("a\n\n", 3, (3, 1)),
        ("é\nü€x", 4, (2, 3)),
    ],
)
def test_line_index(text, offset, place):
    assert LineIndex(text).place(offset) == place


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a", "'a'"),
        ("it's", '"it\'s"'),
        ("\x1b[31m\n", r"'\x1b[31m\n'"),
        ("\ud800", r"'\ud800'"),
        ("x" * 40, repr("x" * 40)),
        ("x" * 41, repr("x" * 37 + "...")),
    ],
)
def test_quoted(text, shown):
    assert quoted(text) == shown


def test_printable_escapes_only_what_cannot_be_printed():
    assert printable("dir/é ü\n\x1b\udcff.yaml") == r"dir/é ü\n\x1b\udcff.yaml"


def test_builder_returns_to_the_parent_when_a_container_ends():
    builder = DocumentBuilder("x")
    builder.open({}, (1, 1))
    builder.key("a", (1, 2))
    builder.open([], (1, 3))
    builder.integer("7", (1, 4))
    builder.close()
    assert builder.expects_key
    builder.key("b", (1, 5))
    assert not builder.expects_key
    builder.number("1e3", (1, 6))
    builder.close()
    document = builder.finish()
    assert document.data == {"a": [7], "b": 1000.0}
    assert document.value_places == {
        (): (1, 1),
        ("a",): (1, 3),
        ("a", 0): (1, 4),
        ("b",): (1, 6),
    }
    assert document.key_places == {("a",): (1, 2), ("b",): (1, 5)}


def write(folder: Path, content: bytes) -> Path:
    path = folder / "spec.yaml"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (b"a: 1\r\nb: 2\r", "a: 1\r\nb: 2\r"),
        (b"\xef\xbb\xbfa: 1", "a: 1"),
        ("é: 𝄞\t\n".encode(), "é: 𝄞\t\n"),
        (b"#" * MAX_BYTES, "#" * MAX_BYTES),
    ],
    ids=["empty", "line-breaks", "byte-order-mark", "utf-8", "just-1-MiB"],
)
def test_read_limited_returns_the_text_unchanged(tmp_path, content, text):
    assert read_limited(write(tmp_path, content)) == text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"#" * (MAX_BYTES + 1), "1:1: the file is larger than 1 MiB (1,048,576 bytes)"),
        (b"a: 1\nb: \0", "2:4: NUL byte: this is not a text file"),
        ("a: 1".encode("utf-16"), "1:1: byte 0xff is not UTF-8: save the file as UTF-8"),
        ("a: 1".encode("utf-16-le"), "1:2: NUL byte: this is not a text file"),
        ("x: 1\r\né: ü\xff".encode() + b"\xe9", "2:6: byte 0xe9 is not UTF-8: save the file as UTF-8"),
        (b"\xef\xbb\xbfab\x80", "1:3: byte 0x80 is not UTF-8: save the file as UTF-8"),
        (b"\xed\xa0\x80", "1:1: byte 0xed is not UTF-8: save the file as UTF-8"),
        (b"\xc0\x80", "1:1: byte 0xc0 is not UTF-8: save the file as UTF-8"),
        (b"a: \x1b[31m", "1:4: unprintable character U+001B: remove it"),
        (b"a: \x7f", "1:4: unprintable character U+007F: remove it"),
        ("a\x85b".encode(), "1:2: unprintable character U+0085: remove it"),
        ("a\u2028b".encode(), "1:2: unprintable character U+2028: remove it"),
        ("a: 1\n\ufeffb: 2".encode(), "2:1: unprintable character U+FEFF: remove it"),
    ],
    ids=[
        "one-byte-too-large",
        "nul",
        "utf-16",
        "utf-16-le",
        "latin-1",
        "after-byte-order-mark",
        "utf-8-surrogate",
        "overlong",
        "escape",
        "delete",
        "next-line",
        "line-separator",
        "byte-order-mark-inside",
    ],
)
def test_read_limited_refuses_what_is_no_text(tmp_path, content, expected):
    path = write(tmp_path, content)
    with pytest.raises(SpecError) as caught:
        read_limited(path)
    assert caught.value.lines() == (f"{path}:{expected}",)


def test_a_text_for_a_model_may_hold_what_no_spec_may(tmp_path):
    text = "a \x0c \x1b \x85 \u2028 \ufeff b\n"
    assert read_text(write(tmp_path, text.encode()), 99) == text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"ab\n" * 34, "1:1: the file is larger than 0 MiB (100 bytes)"),
        ("a: 1".encode("utf-16-le"), "1:2: NUL byte: this is not a text file"),
        (b"a\nb\xe9", "2:2: byte 0xe9 is not UTF-8: save the file as UTF-8"),
    ],
)
def test_a_text_for_a_model_is_a_text(tmp_path, content, expected):
    path = write(tmp_path, content)
    with pytest.raises(SpecError) as caught:
        read_text(path, 100)
    assert caught.value.lines() == (f"{path}:{expected}",)


@pytest.mark.timeout(20)
def failure(path: Path) -> tuple[str, str]:
    with pytest.raises(FileError) as caught:
        read_limited(path)
    assert caught.value.exit_status is ExitStatus.FILE
    return caught.value.message, caught.value.hint


def test_missing_file(tmp_path):
    path = tmp_path / "nothing.yaml"
    assert failure(path) == (
        f"cannot read '{path}': there is no such file",
        "check the spelling and the current folder",
    )


def test_folder(tmp_path):
    assert failure(tmp_path) == (f"cannot read '{tmp_path}': it is a folder", "name a file inside it")


def test_path_through_a_file(tmp_path):
    path = write(tmp_path, b"a: 1") / "x.yaml"
    assert failure(path) == (
        f"cannot read '{path}': a part of its path is not a folder",
        "check the spelling of the path",
    )


def test_name_too_long(tmp_path):
    path = tmp_path / ("x" * 300)
    assert failure(path) == (f"cannot read '{path}': file name too long", "check the path and the disk")


def test_circular_link(tmp_path):
    path = tmp_path / "loop"
    path.symlink_to(path)
    message, _ = failure(path)
    assert message == f"cannot read '{path}': too many levels of symbolic links"


def test_name_that_is_no_file_name():
    assert failure(Path("a\0b")) == (
        r"cannot read 'a\x00b': that cannot be a file name",
        "check the spelling of the path",
    )


def test_permission_denied(tmp_path, monkeypatch):
    # The tests may run as root, to whom nothing is denied.
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, b"a: 1")
    monkeypatch.setattr(os, "open", denied)
    assert failure(path) == (
        f"cannot read '{path}': permission denied",
        "check the rights on the file and its folders",
    )


DEVICE = "it is a device, a pipe or a socket"
SAVE_FIRST = "save the text as a regular file first"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_device(device):
    if not Path(device).is_char_device():
        pytest.skip(f"no {device} here")
    assert failure(Path(device)) == (f"cannot read '{device}': {DEVICE}", SAVE_FIRST)


def test_pipe_without_a_writer(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert failure(path) == (f"cannot read '{path}': {DEVICE}", SAVE_FIRST)


def test_file_that_becomes_a_pipe_after_the_first_look(tmp_path, monkeypatch):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    regular = write(tmp_path, b"").stat()
    monkeypatch.setattr(Path, "stat", lambda _: regular)
    assert failure(path) == (f"cannot read '{path}': {DEVICE}", SAVE_FIRST)


def test_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket may have 107 characters only
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert failure(Path("socket")) == (f"cannot read 'socket': {DEVICE}", SAVE_FIRST)


def test_error_while_reading():
    # A regular file by its mode whose first page is never mapped: read() fails with EIO.
    path = Path("/proc/self/mem")
    if not path.exists():
        pytest.skip("no /proc here")
    message, hint = failure(path)
    assert message == "cannot read '/proc/self/mem': input/output error"
    assert hint == "check the path and the disk"


def test_file_name_with_control_characters_is_escaped(tmp_path):
    path = tmp_path / "a\n\x1b[31m.yaml"
    path.write_bytes(b"\0")
    with pytest.raises(SpecError) as caught:
        read_limited(path)
    assert caught.value.lines() == (
        f"{tmp_path}/" + r"a\n\x1b[31m.yaml:1:1: NUL byte: this is not a text file",
    )
