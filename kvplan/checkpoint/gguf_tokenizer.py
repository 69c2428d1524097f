"""The tokenizer in a GGUF file: a vocabulary, merges or scores, and how texts are cut and begun.

Rules: llama.cpp, src/llama-vocab.cpp. Files of the model ``gpt2`` have byte-level BPE, those of the model
``llama`` SentencePiece's BPE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvplan.checkpoint.gguf_pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from kvplan.checkpoint.gguf_vocabulary import Vocabulary
from kvplan.checkpoint.tokenizer import Tokenizer
from kvplan.errors import did_you_mean
from kvplan.extra import required
from kvplan.specs.document import shown
from kvplan.specs.gguf_header import GgufHeader

_SPACE = "\u2581"


def gguf_tokenizer(header: GgufHeader, vocab_size: int) -> Tokenizer:
    """Return the tokenizer in a file whose model has so many tokens.

    Raises:
        UsageError: there is none, that of another model, or one that is not understood; the package is not
            installed.
    """
    package = required("tokenizers", "reading the tokenizers of GGUF files")
    vocabulary = Vocabulary(header, vocab_size)
    inner = _builder(vocabulary)(package, vocabulary)
    return Tokenizer(inner, vocab_size, vocabulary.stop_tokens(), header.label)


def _builder(vocabulary: Vocabulary) -> Callable[[Any, Vocabulary], Any]:
    kind = vocabulary.text("model", "")
    if kind not in _BUILDERS:
        known = " and ".join(_BUILDERS)
        vocabulary.header.refuse(f"its tokenizer is {shown(kind)}, which is not understood, only {known}")
    return _BUILDERS[kind]


def _byte_level(package: Any, vocabulary: Vocabulary) -> Any:
    cut = _pre_tokenizer(vocabulary)
    merges = vocabulary.merges()
    found = package.Tokenizer(package.models.BPE(vocabulary.ids, merges, ignore_merges=cut.ignore_merges))
    found.pre_tokenizer = cutter(package, cut)
    found.decoder = package.decoders.ByteLevel()
    return _finished(package, found, vocabulary, add_bos=cut.add_bos)


def cutter(package: Any, cut: PreTokenizer) -> Any:
    """Return the package's object that cuts text and writes its bytes as letters."""
    pieces = [package.pre_tokenizers.Split(package.Regex(p), behavior="isolated") for p in cut.patterns]
    as_bytes = package.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return package.pre_tokenizers.Sequence([*pieces, as_bytes])


def _pre_tokenizer(vocabulary: Vocabulary) -> PreTokenizer:
    name = vocabulary.text("pre", "default")
    if name not in PRE_TOKENIZERS:
        known = did_you_mean(name, PRE_TOKENIZERS) or f"understood: {', '.join(PRE_TOKENIZERS)}"
        vocabulary.header.refuse(f"its pre-tokenizer is {shown(name)}, which is not understood ({known})")
    return PRE_TOKENIZERS[name]


def _sentencepiece(package: Any, vocabulary: Vocabulary) -> Any:
    """Return SentencePiece's BPE: the pair that makes the best token is joined first, bytes are the rest."""
    unknown = vocabulary.token("unknown_token_id")
    found = package.Tokenizer(
        package.models.BPE(
            vocabulary.ids,
            vocabulary.merges_by_score(),
            unk_token=vocabulary.tokens[unknown or 0],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = package.normalizers.Replace(" ", _SPACE)
    decoders = [
        package.decoders.Replace(_SPACE, " "),
        package.decoders.ByteFallback(),
        package.decoders.Fuse(),
    ]
    found.normalizer = spaces
    if vocabulary.flag("add_space_prefix", True):
        found.normalizer = package.normalizers.Sequence([package.normalizers.Prepend(_SPACE), spaces])
        decoders.append(package.decoders.Strip(" ", 1, 0))
    found.decoder = package.decoders.Sequence(decoders)
    return _finished(package, found, vocabulary, add_bos=True)


def _finished(package: Any, found: Any, vocabulary: Vocabulary, *, add_bos: bool) -> Any:
    """Return a tokenizer with its added tokens, and with what it puts round every text."""
    special = [token for token, is_special in vocabulary.added() if is_special]
    others = [token for token, is_special in vocabulary.added() if not is_special]
    found.add_special_tokens([package.AddedToken(token, special=True, normalized=False) for token in special])
    found.add_tokens([package.AddedToken(token, special=False, normalized=False) for token in others])
    ends = {}
    if vocabulary.flag("add_bos_token", add_bos):
        ends["first"] = vocabulary.required_token("bos_token_id", "texts begin with it")
    if vocabulary.flag("add_eos_token", False):
        ends["last"] = vocabulary.required_token("eos_token_id", "texts end with it")
    if ends:
        template = [name for name in ("first", "$A", "last") if name == "$A" or name in ends]
        found.post_processor = package.processors.TemplateProcessing(
            single=template, special_tokens=list(ends.items())
        )
    return found


_BUILDERS = {"gpt2": _byte_level, "llama": _sentencepiece}
