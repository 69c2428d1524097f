"""The names of cache formats, and what they refuse."""

import pytest

from kvplan.arch.retention import Full, Sliding
from kvplan.check.quality_formats import (
    CacheFormat,
    KeptWindow,
    is_possible,
    parse_format,
    parse_formats,
    require_possible,
    usual_formats,
)
from kvplan.errors import UsageError
from kvplan.storage import KV_FORMATS, kv_format


@pytest.mark.parametrize(
    ("text", "kv", "window"),
    [
        *((kv.name, kv.name, None) for kv in KV_FORMATS),
        ("window-256", "bf16", KeptWindow(256)),
        ("window-256+4", "bf16", KeptWindow(256, 4)),
        ("int8/window-32+1", "int8", KeptWindow(32, 1)),
        ("fp32/window-7", "fp32", KeptWindow(7)),
    ],
)
def test_a_name_means_a_format_and_is_its_name(text, kv, window):
    found = parse_format(text)
    assert found == CacheFormat(kv_format(kv), window)
    assert found.name == text


def test_a_window_in_bf16_has_the_short_name():
    assert parse_format("bf16/window-256").name == "window-256"


def test_a_list_has_every_format_once_in_its_order():
    found = parse_formats("int8, window-8 ,bf16,int8,bf16/window-8")
    assert [one.name for one in found] == ["int8", "window-8", "bf16"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("int9", "no cache format named 'int9'. Did you mean int8"),
        ("int4-kiwi", "Did you mean int4-kivi"),
        ("INT8", "Did you mean int8"),
        ("int8,,bf16", "empty entry"),
        ("", "empty entry"),
        ("window", "'window' is no window"),
        ("window-0", "'window-0' is no window"),
        ("window-08", "is no window"),
        ("window-8+0", "is no window"),
        ("window-8+", "is no window"),
        ("window-8+4+4", "is no window"),
        ("window--8", "is no window"),
        ("window-1e3", "is no window"),
        ("window-٣", "is no window"),
        ("windw-256", "Did you mean window-256"),
        ("/window-8", "is no cache format"),
        ("int8/", "is no cache format"),
        ("int8/int4", "is no cache format"),
        ("window-8/int8", "is no cache format"),
        ("int9/window-8", "Did you mean int8"),
        ("int8/window-8/window-9", "is no window"),
        ("sink-4", "no cache format named 'sink-4'"),
        (",".join(f"window-{n}" for n in range(1, 34)), "33 cache formats are more than 32"),
    ],
)
def test_what_is_no_list_of_formats(text, words):
    with pytest.raises(UsageError) as caught:
        parse_formats(text)
    (line,) = caught.value.lines()
    assert words in line
    assert len(line) < 220


def test_the_usual_ones_are_storage_and_windows_of_half_the_context():
    names = [one.name for one in usual_formats(96)]
    assert names[:4] == ["bf16", "fp8", "int8", "int8-kivi"]
    assert names[-2:] == ["window-48", "window-48+4"]
    assert parse_formats(",".join(names)) == usual_formats(96)


def test_a_window_changes_what_stays_and_storage_does_not(bundled):
    llama = bundled("llama-3.1-8b")
    assert parse_format("int8").of(llama) is llama
    kept = {slot.retention for slot in parse_format("window-256+4").of(llama).stored_slots()}
    assert kept == {Sliding(256, 4)}
    assert {slot.retention for slot in llama.stored_slots()} == {Full()}


@pytest.mark.parametrize(
    ("model", "name", "longest", "words"),
    [
        ("llama-3.1-8b", "int8-kivi/window-256", 1024, "int8-kivi quantises the keys of 64 tokens together"),
        ("gemma-2-9b", "int4-kivi", 1024, "int4-kivi quantises the keys of 64 tokens together"),
        ("deepseek-v2-lite", "int4-kivi", 1024, "latent attention caches none"),
        ("deepseek-v2-lite", "window-256", 1024, "window-256: deepseek-v2-lite has latent-attention layers"),
        ("llama-3.1-8b", "window-1024", 1024, "window-1024: a window that keeps 1,024 tokens never slides"),
        ("llama-3.1-8b", "window-1020+4", 1024, "keeps 1,024 tokens never slides within 1,024"),
        (
            "minimax-m3",
            "window-256",
            1024,
            "window-256: a window in place of the blocks minimax-m3's",
        ),
    ],
)
def test_what_a_model_cannot_take_is_refused_by_name(model, name, longest, words, bundled):
    one = parse_format(name)
    with pytest.raises(UsageError) as caught:
        require_possible(bundled(model), [parse_format("bf16"), one], longest)
    (line,) = caught.value.lines()
    assert words in line
    assert not is_possible(bundled(model), one, longest)


def test_a_window_that_slides_once_is_taken(bundled):
    require_possible(bundled("llama-3.1-8b"), parse_formats("window-1019+4,int8-kivi"), 1024)
