"""Layer orders written short, and read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.specs.layer_pattern import Segment, compress, expand, kind_names


@pytest.mark.parametrize(
    ("order", "segments"),
    [
        ("a" * 126, [(126, "a")]),
        ("ab" * 21, [(21, "ab")]),
        ("sssssf" * 10 + "ss", [(10, "sssssf"), (2, "s")]),
        ("d" * 3 + "m" * 58, [(3, "d"), (58, "m")]),
        ("lllf" * 12, [(12, "lllf")]),
        ("a", [(1, "a")]),
        ("", []),
    ],
)
def test_patterns_found(order, segments):
    assert compress(list(order)) == [Segment(repeat, tuple(pattern)) for repeat, pattern in segments]


@given(st.lists(st.sampled_from("abc"), max_size=80))
def test_what_is_compressed_expands_again(order):
    assert expand(compress(order)) == order


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=6), st.integers(2, 20))
def test_a_repeated_pattern_is_never_written_out(pattern, repeat):
    segments = compress(pattern * repeat)
    assert sum(len(segment.pattern) for segment in segments) <= 2 * len(pattern)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("llama-3.1-8b", ["decoder"]),
        ("gemma-2-9b", ["sliding_attention", "full_attention"]),
        ("deepseek-v3", ["dense", "moe"]),
        ("qwen3-next-80b-a3b", ["linear_attention", "full_attention"]),
    ],
)
def test_kinds_are_named_by_what_sets_them_apart(model, names, bundled):
    assert list(kind_names(bundled(model).layers).values()) == names


def test_kinds_of_attention_are_told_apart_by_what_they_see():
    mixers = (
        Attention(4, 2, 16),
        Attention(4, 2, 16, sliding_window=32),
        Attention(4, 2, 16, attention_chunk_size=32),
    )
    names = kind_names([Layer(mixer, MLP(64)) for mixer in mixers])
    assert list(names.values()) == ["full_attention", "sliding_attention", "chunked_attention"]


def test_every_kind_has_a_name_of_its_own(model_name, bundled):
    layers = bundled(model_name).layers
    names = kind_names(layers)
    assert set(names) == set(layers)
    assert len(set(names.values())) == len(names)
