import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from kvplan.checkpoint.stop_tokens import stop_tokens_in
from kvplan.checkpoint.tokenizer import Tokenizer, from_tokenizer_json
from kvplan.errors import SpecError, UsageError

TEXTS = (
    "The answer is 42.",
    "  two spaces,\ttab\r\nand lines\n\n",
    "naïve café, 你好, мир, 𝄞 and 👩‍👩‍👧‍👦",
    "<|im_start|>user\nHi<|im_end|>",
    "",
)


@pytest.fixture(scope="module")
def tokenizer(checkpoints):
    return from_tokenizer_json(checkpoints() / "tokenizer.json", 291, frozenset((0, 2)))


def with_byte_fallback():
    """A tokenizer like SentencePiece's: "▁" for a space, a token for each byte, words begin with a space."""
    words = {"▁": 256, "▁a": 257, "▁Paris": 258, "is": 259, "b": 260}
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | words
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    space = decoders.Strip(" ", 1, 0)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), space]
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    return Tokenizer(inner, 261, frozenset(), "bytes")


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_out_of_its_tokens(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tokens_are_those_of_the_vocabulary_by_its_merges(tokenizer):
    tokens = tokenizer.encode("the 42<|im_end|>")
    assert tokens.dtype == np.int64
    # By hand: byte b is token 3 + b, merges follow from 259 on; of "the" only "he", the second, is one.
    assert tokens.tolist() == [3 + ord("t"), 260, 3 + ord(" "), 3 + ord("4"), 3 + ord("2"), 2]


def test_a_tokenizer_says_how_many_tokens_it_has_and_which_end_a_text(tokenizer):
    assert tokenizer.size == 291
    assert tokenizer.stop_tokens == {0, 2}


def test_a_text_is_neither_cut_nor_filled_up(checkpoints, tmp_path):
    described = json.loads((checkpoints() / "tokenizer.json").read_text(encoding="utf-8"))
    described["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    fixed = {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None}
    described["padding"] = {**fixed, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    found = from_tokenizer_json(tmp_path / "tokenizer.json", 291, frozenset())
    assert found.decode(found.encode("The answer")) == "The answer"
    assert found.decode(found.encode("12")) == "12"


def test_what_the_tokenizer_puts_round_every_text_is_there(make):
    inner = tokenizers.Tokenizer.from_str(json.dumps(make.tokenizer()))
    special = [("<|im_start|>", 1), ("<|im_end|>", 2)]
    inner.post_processor = processors.TemplateProcessing("<|im_start|> $A", special_tokens=special)
    tokens = Tokenizer(inner, 291, frozenset(), "tokenizer.json").encode("12")
    assert tokens.tolist() == [1, 3 + ord("1"), 3 + ord("2")]


def test_half_of_a_surrogate_pair_is_no_text(tokenizer):
    with pytest.raises(UsageError, match="half of a surrogate pair"):
        tokenizer.encode("a\udc80b")


def streamed(tokenizer, tokens, after=()):
    stream = tokenizer.stream(after)
    return [stream.add(token) for token in tokens] + [stream.rest()]


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_gives_out_whole_characters_only(tokenizer, text):
    pieces = streamed(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert pieces[-1] == ""


def test_a_character_of_several_tokens_comes_with_its_last(tokenizer):
    tokens = tokenizer.encode("é你𝄞")
    assert len(tokens) == 2 + 3 + 4
    assert streamed(tokenizer, tokens) == ["", "é", "", "", "你", "", "", "", "𝄞", ""]


def test_a_stream_that_ends_inside_a_character_gives_the_rest_as_a_replacement(tokenizer):
    tokens = tokenizer.encode("a你")[:-1]
    assert streamed(tokenizer, tokens) == ["a", "", "", "\ufffd"]


def test_bytes_that_are_no_character_hold_nothing_up(tokenizer):
    first_of_two = tokenizer.encode("é")[0]
    assert streamed(tokenizer, [first_of_two, *tokenizer.encode("ab")]) == ["", "\ufffda", "b", ""]


@given(tokens=st.lists(st.integers(0, 290), max_size=40))
def test_a_stream_is_the_text_of_all_its_tokens(tokenizer, tokens):
    assert "".join(streamed(tokenizer, tokens)) == tokenizer.decode(tokens)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_text_streams_through_single_bytes(text):
    tokenizer = with_byte_fallback()
    pieces = streamed(tokenizer, list(text.encode()))
    assert "".join(pieces) == text.removeprefix(" ")
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_a_stream_behind_other_tokens_begins_with_its_space():
    tokenizer = with_byte_fallback()
    a, paris = 257, 258
    assert streamed(tokenizer, [paris, paris]) == ["Paris", " Paris", ""]
    assert streamed(tokenizer, [paris, paris], after=np.array([a, 260])) == [" Paris", " Paris", ""]


def test_a_token_without_text_takes_no_space_from_the_next():
    tokenizer = with_byte_fallback()
    paris, of_the_model_alone = 258, 300
    assert streamed(tokenizer, [paris, of_the_model_alone, paris]) == ["Paris", "", " Paris", ""]


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(checkpoints):
    path = checkpoints() / "tokenizer.json"
    with pytest.raises(UsageError) as caught:
        from_tokenizer_json(path, 290, frozenset())
    assert caught.value.lines() == (
        f"{path}: token 290 is none of the model's 290   (this tokenizer belongs to another model)",
    )


def test_a_tokenizer_with_fewer_tokens_than_the_model_is_fine(checkpoints):
    assert from_tokenizer_json(checkpoints() / "tokenizer.json", 320, frozenset()).size == 291


def test_an_added_token_behind_the_models_is_refused_only_in_a_text_that_has_it(make):
    inner = tokenizers.Tokenizer.from_str(json.dumps(make.tokenizer()))
    inner.add_special_tokens([AddedToken("<image>", special=True)])
    found = Tokenizer(inner, 291, frozenset(), "tokenizer.json")
    assert found.size == 292
    assert found.decode(found.encode("image")) == "image"
    with pytest.raises(UsageError) as caught:
        found.encode("an <image>")
    assert str(caught.value) == (
        "tokenizer.json: token 291 ('<image>') is none of the model's 291, and the text has it"
    )


def write(folder, **files):
    for name, data in files.items():
        (folder / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("files", "stops"),
    [
        ({"config": {"eos_token_id": 7}}, {7}),
        ({"config": {"eos_token_id": [7, 9]}}, {7, 9}),
        ({"config": {"eos_token_id": 7}, "generation_config": {"eos_token_id": [8, 9]}}, {8, 9}),
        ({"config": {"eos_token_id": 7}, "generation_config": {"eos_token_id": None}}, {7}),
        ({"config": {"eos_token_id": 7}, "generation_config": {"top_k": 3}}, {7}),
        ({"config": {"text_config": {"eos_token_id": 5}}}, {5}),
        ({"config": {"eos_token_id": 6, "text_config": {"eos_token_id": 5}}}, {6}),
        ({"config": {"eos_token_id": None}}, set()),
        ({"config": {}}, set()),
        ({}, set()),
    ],
)
def test_stop_tokens_are_those_of_generation_or_else_of_the_model(tmp_path, files, stops):
    assert stop_tokens_in(write(tmp_path, **files)) == stops


@pytest.mark.parametrize("value", ["</s>", 1.5, True, {"a": 1}, [2, "</s>"], [[2]]])
def test_stop_tokens_that_are_none_are_refused_with_their_place(tmp_path, value):
    write(tmp_path, config={"eos_token_id": value})
    with pytest.raises(SpecError, match=r"config\.json:1:18: eos_token_id: .* is no token$"):
        stop_tokens_in(tmp_path)
