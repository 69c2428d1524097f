"""How text is cut into words before their merges, by what a GGUF file calls it (``tokenizer.ggml.pre``).

Names and flags: llama.cpp, src/llama-vocab.cpp. Patterns: the tokenizer.json files of the models named
here, whose rows are applied one behind the other to what the ones before have left uncut.
"""

from __future__ import annotations

from dataclasses import dataclass

# GPT-2, encoder.py (openai/gpt-2).
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# tiktoken, openai_public.py, cl100k_base; in groups of digits as each model has them.
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_QWEN2 = _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
# tiktoken, openai_public.py, o200k_base.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SLASHES = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
_GPT4O = _WORDS % (f"{_ENDINGS}?", f"{_ENDINGS}?") + r"|\p{N}{1,3}" + _SLASHES
_TEKKEN = _WORDS % ("", "") + r"|\p{N}" + _SLASHES


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """A way to cut text.

    Args:
        patterns: each match of one is a piece of its own, and what is between matches.
        add_bos: texts begin with the first token where the file does not say.
        ignore_merges: a word that is a token is that token, whatever the merges make of it.
    """

    patterns: tuple[str, ...]
    add_bos: bool = False
    ignore_merges: bool = False


_DIGITS_GPT2 = PreTokenizer((r"\p{N}", _GPT2))
_LIKE_GPT2 = PreTokenizer((_GPT2,))
_LIKE_LLAMA3 = PreTokenizer((_LLAMA3,), add_bos=True, ignore_merges=True)
_LIKE_QWEN2 = PreTokenizer((_QWEN2,))
_LIKE_GPT4O = PreTokenizer((_GPT4O,))
# llama.cpp's own, where a file does not say: of no model.
_DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "default": _DEFAULT,
    "a.x-4.0": _LIKE_GPT2,
    "gpt-2": _LIKE_GPT2,
    "mellum": _LIKE_GPT2,
    "olmo": _LIKE_GPT2,
    "phi-2": _LIKE_GPT2,
    "trillion": _LIKE_GPT2,
    "minerva-7b": _DIGITS_GPT2,
    "smollm": _DIGITS_GPT2,
    "starcoder": _DIGITS_GPT2,
    "falcon3": _LIKE_LLAMA3,
    "lfm2": _LIKE_LLAMA3,
    "llama-bpe": _LIKE_LLAMA3,
    "llama-v3": _LIKE_LLAMA3,
    "llama3": _LIKE_LLAMA3,
    "midm-2.0": _LIKE_LLAMA3,
    "pixtral": _LIKE_LLAMA3,
    "dbrx": PreTokenizer((_LLAMA3,)),
    "deepseek-r1-qwen": _LIKE_QWEN2,
    "kormo": _LIKE_QWEN2,
    "megrez": _LIKE_QWEN2,
    "qwen2": _LIKE_QWEN2,
    "stablelm2": _LIKE_QWEN2,
    "gpt-4o": _LIKE_GPT4O,
    "minimax-m2": _LIKE_GPT4O,
    "tekken": PreTokenizer((_TEKKEN,), add_bos=True, ignore_merges=True),
}
