"""The tokenizer in a GGUF file: as that of tokenizer.json, and by rules followed here step by step."""

import random
import runpy
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import tokenizers

from kvplan.checkpoint.checkpoint import open_checkpoint
from kvplan.checkpoint.gguf_pre_tokenizers import PRE_TOKENIZERS
from kvplan.checkpoint.gguf_tokenizer import cutter, gguf_tokenizer
from kvplan.errors import KvplanError, UsageError
from kvplan.specs.gguf_header import read_header

by_hand = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "data" / "gguf_bytes.py")))

TEXTS = (
    "the other string on an island",
    "def f(x):\n    return x ** 2  # 12345 and 67.8e-9\n\n\n\tif True:\r\n",
    "  spaces   before and behind  ",
    "naïve café, Straße, 北京 こんにちは 한국어 العربية",
    "😀 👩‍👩‍👧 ✨",
    "I'll don't WE'VE it's",
    "1234567890 ½ Ⅷ ²",
    "<|im_start|>user\nthe<|im_end|><|endoftext|>",
    "",
    "\n\n \n",
    "\u00a0\u2003\x00\x7f",
)


@pytest.fixture
def tiny(make, tmp_path):
    """The small checkpoint as a GGUF file."""
    path = tmp_path / "tiny.gguf"
    make.write_gguf(path)
    return open_checkpoint(path)


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_the_same_tokenizer_json(text, tiny, checkpoints):
    of_folder = open_checkpoint(checkpoints()).tokenizer()
    of_file = tiny.tokenizer()
    assert of_file.encode(text).tolist() == of_folder.encode(text).tolist()
    assert of_file.decode(of_file.encode(text)) == text


def test_a_text_ends_with_the_files_last_token(tiny, make):
    assert tiny.tokenizer().stop_tokens == {make.SPECIAL_TOKENS.index(make.END_TURN)}
    assert tiny.tokenizer().size == tiny.model.vocab_size


# ------------------------------------------------------------------------------------------ words

# By hand, from each pattern; "_" stands for a space.
CUTS = [
    ("gpt-2", "I'll_pay_12345_in__x=é!?", "I|'ll|_pay|_12345|_in|_|_x|=|é|!?"),
    ("gpt-2", "a__\n\nb", "a|__\n|\n|b"),
    ("smollm", "I'll_pay_12345_½Ⅷ", "I|'ll|_pay|_|1|2|3|4|5|_|½|Ⅷ"),
    ("llama-bpe", "I'LL_pay_12345_in__x=é!?\n\ny", "I|'LL|_pay|_|123|45|_in|_|_x|=é|!?\n\n|y"),
    ("qwen2", "I'LL_pay_123_in__x=é!?\n\ny", "I|'LL|_pay|_|1|2|3|_in|_|_x|=é|!?\n\n|y"),
    ("gpt-4o", "HelloWorld's_XMLHttp_12345/a//\n", "Hello|World's|_XMLHttp|_|123|45|/a|//\n"),
    ("tekken", "HelloWorld's_12/a//\n", "Hello|World|'s|_|1|2|/a|//\n"),
    ("default", "a==b_12345_ok", "a|==|b|_|123|45|_ok"),
]


@pytest.mark.parametrize(("name", "text", "words"), CUTS)
def test_text_is_cut_into_words(name, text, words):
    text, words = text.replace("_", " "), words.replace("_", " ").split("|")
    found = cutter(tokenizers, PRE_TOKENIZERS[name]).pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in found] == words


# ------------------------------------------------------------------------------------------ by hand

LETTERS = [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ"]
KINDS = {"normal": 1, "unknown": 2, "control": 3, "user": 4, "byte": 6}


@pytest.fixture
def tokenizer_of(tmp_path):
    """A function that returns the tokenizer of a file with these keys and a token for each row."""

    def read(tokens, **keys):
        ggml = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "merges": ["a b"], **keys}
        metadata = by_hand.LLAMA | {f"tokenizer.ggml.{key}": value for key, value in ggml.items()}
        metadata = {key: value for key, value in metadata.items() if value is not None}
        rows = by_hand.VOCABULARY
        path = tmp_path / "tiny.gguf"
        tensor = ("F32", (rows, by_hand.HIDDEN), bytes(4 * rows * by_hand.HIDDEN))
        path.write_bytes(by_hand.file(metadata, {"token_embd.weight": tensor}))
        return gguf_tokenizer(read_header(path), len(tokens))

    return read


def test_the_first_merge_in_the_file_is_the_first_that_is_made(tokenizer_of):
    tokens = ["a", "b", "c", "ab", "bc", "abc"]
    assert tokenizer_of(tokens, merges=["b c", "a b"]).encode("abcab").tolist() == [0, 4, 3]
    assert tokenizer_of(tokens, merges=["a b", "ab c"]).encode("abcab").tolist() == [5, 3]


@pytest.mark.parametrize(("pre", "found"), [("gpt-2", [0, 1, 2]), ("llama-bpe", [3])])
def test_a_word_that_is_a_token_is_that_token_in_llama_3(pre, found, tokenizer_of):
    tokens = ["a", "b", "c", "abc", "ac"]
    given = tokenizer_of(tokens, pre=pre, merges=["a c"], add_bos_token=False)
    assert given.encode("abc").tolist() == found


def test_control_and_user_defined_tokens_are_themselves_where_a_text_has_them(tokenizer_of):
    tokens = ["a", "b", "<end>", "<think>", "ab"]
    kinds = [KINDS[kind] for kind in ("normal", "normal", "control", "user", "normal")]
    given = tokenizer_of(tokens, token_type=kinds)
    assert given.encode("ab<end>a<think>b").tolist() == [4, 2, 0, 3, 1]
    assert given.decode([4, 2, 0, 3, 1]) == "ab<end>a<think>b"


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, [0]),
        ({"add_bos_token": True, "bos_token_id": 2}, [2, 0]),
        ({"add_bos_token": False, "bos_token_id": 2}, [0]),
        ({"add_eos_token": True, "eos_token_id": 3}, [0, 3]),
        ({"add_bos_token": True, "bos_token_id": 2, "add_eos_token": True, "eos_token_id": 3}, [2, 0, 3]),
        ({"pre": "llama-bpe", "bos_token_id": 2}, [2, 0]),
        ({"pre": "llama-bpe", "bos_token_id": 2, "add_bos_token": False}, [0]),
    ],
)
def test_what_is_put_round_a_text(keys, found, tokenizer_of):
    tokens = ["a", "b", "<s>", "</s>", "ab"]
    assert tokenizer_of(tokens, **keys).encode("a").tolist() == found


def test_every_token_that_ends_something_stops(tokenizer_of):
    keys = {"eos_token_id": 1, "eot_token_id": 2, "eom_token_id": 3}
    assert tokenizer_of(["a", "b", "c", "d", "ab"], **keys).stop_tokens == {1, 2, 3}
    assert tokenizer_of(["a", "b", "ab"]).stop_tokens == frozenset()


# ------------------------------------------------------------------------------------- SentencePiece

PIECES = (
    *("▁", "t", "h", "e", "▁t", "he", "▁the", "in", "i", "n", "▁in", "a", "▁a", "s", "▁th", "the", "th"),
    *("o", "on", "▁on", "ne", "one", "r", "er", "her", "é", "▁▁", "▁▁▁▁"),
)


def sentencepiece(texts=(), **keys):
    """Keys of a vocabulary: three special tokens, the bytes, and pieces whose scores fall."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES, *texts]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(PIECES), *[4] * len(texts)]
    scores = [0.0] * 259 + [-float(place) for place in range(len(PIECES) + len(texts))]
    given = {"model": "llama", "pre": None, "merges": None, "scores": scores, "token_type": kinds}
    return {"tokens": tokens, **given, "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, **keys}


def joined(text, tokens, scores):
    """Join the two neighbours that make the token of the best score, the first such, until none do."""
    pieces = list(text)
    while True:
        pairs = [
            (scores[tokens.index(a + b)], -i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in tokens
        ]
        if not pairs:
            break
        place = -max(pairs)[1]
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return [token for piece in pieces for token in ids_of(piece, tokens)]


def ids_of(piece, tokens):
    """A piece that is no token is its bytes."""
    if piece in tokens:
        return [tokens.index(piece)]
    return [3 + byte for byte in piece.encode()]


@pytest.mark.parametrize("add_space_prefix", [True, False])
def test_the_pair_that_makes_the_best_token_is_joined_first(add_space_prefix, tokenizer_of):
    keys = sentencepiece(add_space_prefix=add_space_prefix)
    given, drawn = tokenizer_of(**keys), random.Random(5)
    texts = [
        "".join(drawn.choice("then is aro  éü") for _ in range(drawn.randrange(1, 30))) for _ in range(200)
    ]
    for text in [*texts, "the one in there", "  two  spaces", "😀 é\n"]:
        spaced = ("▁" if add_space_prefix else "") + text.replace(" ", "▁")
        assert given.encode(text).tolist() == [1, *joined(spaced, keys["tokens"], keys["scores"])]
        assert given.decode(given.encode(text)[1:]) == text


def test_text_behind_a_special_token_begins_with_a_space_of_its_own(tokenizer_of):
    keys = sentencepiece(texts=("<think>",), add_bos_token=False)
    tokens = keys["tokens"]
    found = tokenizer_of(**keys).encode("the<think>the</s>")
    assert [tokens[i] for i in found] == ["▁the", "<think>", "▁the", "</s>"]


def test_a_sentencepiece_text_begins_with_its_first_token_unless_the_file_says_otherwise(tokenizer_of):
    assert tokenizer_of(**sentencepiece()).encode("a").tolist()[0] == 1
    assert tokenizer_of(**sentencepiece(add_bos_token=False)).encode("a").tolist()[0] != 1


# ------------------------------------------------------------------------------------------ mistakes

TOKENS = ["a", "b", "ab"]
REFUSED = [
    ({"model": None}, "it has no tokenizer"),
    ({"model": "bert"}, "its tokenizer is 'bert', which is not understood, only gpt2 and llama"),
    ({"model": 3}, "tokenizer.ggml.model: expected text, not 3"),
    ({"pre": "kimi-k2"}, "its pre-tokenizer is 'kimi-k2', which is not understood"),
    ({"pre": "lama-bpe"}, "its pre-tokenizer is 'lama-bpe', which is not understood (did you mean llama-bpe"),
    ({"tokens": [1, 2, 3]}, "tokenizer.ggml.tokens: expected a list of texts"),
    ({"tokens": "abc"}, "'tokenizer.ggml.tokens' is required, a list of texts"),
    ({"tokens": ["a", "b", "a"]}, "token 'a' is there twice"),
    ({"merges": None}, "'tokenizer.ggml.merges' is required, a list of texts"),
    ({"merges": ["a c"]}, "tokenizer.ggml.merges: 'a c' is no pair of tokens that are one"),
    ({"merges": ["ab"]}, "tokenizer.ggml.merges: 'ab' is no pair of tokens that are one"),
    ({"merges": [""]}, "tokenizer.ggml.merges: '' is no pair of tokens that are one"),
    ({"token_type": [1, 1]}, "tokenizer.ggml.token_type: expected a number for each of the tokens"),
    ({"token_type": [1, 1, 9]}, "tokenizer.ggml.token_type: a token is of a kind that is not understood"),
    ({"token_type": ["a", "b", "c"]}, "tokenizer.ggml.token_type: expected a list of numbers"),
    ({"bos_token_id": 3, "add_bos_token": True}, "tokenizer.ggml.bos_token_id: 3 is none of the 3 tokens"),
    ({"eos_token_id": 1 << 31}, "tokenizer.ggml.eos_token_id: 2147483648 is none of the 3 tokens"),
    ({"eot_token_id": True}, "tokenizer.ggml.eot_token_id: true is none of the 3 tokens"),
    ({"add_bos_token": True}, "'tokenizer.ggml.bos_token_id' is required: texts begin with it"),
    ({"add_eos_token": True}, "'tokenizer.ggml.eos_token_id' is required: texts end with it"),
    ({"add_bos_token": 1}, "tokenizer.ggml.add_bos_token: expected true or false, not 1"),
    ({"model": "llama"}, "'tokenizer.ggml.scores' is required, a number for each token"),
    ({"model": "llama", "scores": [1.0]}, "tokenizer.ggml.scores: expected a number for each of the tokens"),
]


@pytest.mark.parametrize(("keys", "said"), REFUSED, ids=range(len(REFUSED)))
def test_mistakes_are_one_clear_line(keys, said, tokenizer_of):
    given = {"bos_token_id": 0, "tokens": TOKENS} | keys
    if said.startswith("'tokenizer.ggml.bos_token_id' is required"):
        del given["bos_token_id"]
    with pytest.raises(UsageError) as refused:
        tokenizer_of(given.pop("tokens"), **given)
    (line,) = refused.value.lines()
    assert f"tiny.gguf: {said}" in line


def test_a_tokenizer_of_another_model_is_refused(tiny):
    header = read_header(tiny.path)
    count = tiny.model.vocab_size
    with pytest.raises(
        UsageError, match=f"its tokenizer has {count} tokens, its model {count + 1}: they do not"
    ):
        gguf_tokenizer(header, count + 1)


def test_a_damaged_tokenizer_is_refused_or_read_whatever_the_damage(tiny):
    content, drawn = tiny.path.read_bytes(), random.Random(11)
    first, last = content.index(b"tokenizer.ggml.model"), content.index(b"token_embd.weight")
    start, refused = time.process_time(), 0
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(drawn.choice((1, 2, 8))):
            damaged[drawn.randrange(first, last)] = drawn.randrange(256)
        tiny.path.write_bytes(damaged)
        try:
            open_checkpoint(tiny.path).tokenizer().encode("the 12 ends<|im_end|>")
        except KvplanError:
            refused += 1
    assert refused > 100
    assert time.process_time() - start < 60
