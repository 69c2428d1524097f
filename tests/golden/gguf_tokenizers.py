"""Compare the tokenizers kvplan reads from GGUF files with transformers' own reading of these files, now.

    pip install -e '.[checkpoint,reference]'
    python tests/golden/gguf_tokenizers.py

Vocabularies are learned from the text of this folder. transformers cuts words as the file says for the
pre-tokenizers here; for others it takes GPT-2's. Exit status 1 where tokens differ.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from kvplan.checkpoint.gguf_pre_tokenizers import PRE_TOKENIZERS
from kvplan.checkpoint.gguf_tokenizer import cutter, gguf_tokenizer
from kvplan.specs.gguf_header import read_header

PRE = ("gpt-2", "llama-bpe", "qwen2", "tekken", "gpt-4o")
SENTENCEPIECE = "llama"
SIZE = 1200
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
SPECIAL = ("<|end|>", "<think>")
TEXTS = (
    "hello world",
    "def f(x):\n    return x**2  # 12345 67.8e-9\n\n\n\tif True:\r\n",
    "naïve café, Straße, 北京 こんにちは 한국어 العربية",
    "😀👩‍👩‍👧 emoji ✨",
    "I'll don't WE'VE it's HelloWorld XMLHttp/Path//x\n/",
    "1234567890 ½ Ⅷ ²",
    "<|end|>a<|end|> b<think>c",
    "",
    "a\u00a0b\u2003c\x00\x7f é e\u0301",
)


def corpus() -> list[str]:
    """Return what vocabularies are learned from, and then cut into tokens."""
    return [
        *TEXTS,
        *(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))),
    ]


def learned(pre_tokenizer: object, trainer: trainers.BpeTrainer) -> tuple[list[str], list[tuple[str, str]]]:
    """Return tokens in their order, and the merges that make them."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizer
    found.train_from_iterator(corpus(), trainer)
    model = json.loads(found.to_str())["model"]
    merges = [tuple(m if isinstance(m, list) else m.split(" ")) for m in model["merges"]]
    return sorted(model["vocab"], key=model["vocab"].get), merges


def write_byte_level(path: Path, pre: str) -> None:
    """Write a file with a learned byte-level vocabulary."""
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL),
        show_progress=False,
    )
    tokens, merges = learned(cutter(tokenizers, PRE_TOKENIZERS[pre]), trainer)
    writer = _writer(path, "gpt2", tokens, [CONTROL, USER_DEFINED] + [NORMAL] * (len(tokens) - 2))
    writer.add_tokenizer_pre(pre)
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    _finish(writer, len(tokens))


def write_sentencepiece(path: Path) -> None:
    """Write a file with a learned vocabulary of pieces, each worse than the one before."""
    pieces, merges = learned(
        pre_tokenizers.Metaspace(), trainers.BpeTrainer(vocab_size=SIZE, show_progress=False)
    )
    made = ["".join(merge) for merge in merges]
    pieces = list(dict.fromkeys([*made, *(piece for piece in pieces if piece not in made)]))
    first = ["<unk>", "<s>", "</s>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [UNKNOWN, CONTROL, CONTROL, CONTROL, USER_DEFINED] + [BYTE] * 256 + [NORMAL] * len(pieces)
    writer = _writer(path, SENTENCEPIECE, [*first, *pieces], kinds)
    writer.add_token_scores([0.0] * len(first) + [-float(place) for place in range(len(pieces))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    _finish(writer, len(first) + len(pieces))


def _writer(path: Path, model: str, tokens: Sequence[str], kinds: Sequence[int]) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_add_bos_token(True)
    return writer


def _finish(writer: gguf.GGUFWriter, rows: int) -> None:
    writer.add_tensor("token_embd.weight", np.zeros((rows, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compared(kind: str) -> list[str]:
    """Return the texts that are compared.

    For SentencePiece none with a special token: llama.cpp adds a space behind one, as the original does to
    every text, and transformers adds none there.
    """
    return [t for t in corpus() if kind != SENTENCEPIECE or not any(token in t for token in SPECIAL)]


def differences(path: Path) -> int:
    """Return how many texts have other tokens, or are another text again, than transformers says."""
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    header = read_header(path)
    ours = gguf_tokenizer(header, header.tensors[0].shape[0])
    texts = compared(path.stem)
    tokens = [(theirs(text).input_ids, ours.encode(text).tolist()) for text in texts]
    return sum(mine != his or ours.decode(mine) != theirs.decode(his) for his, mine in tokens)


def main() -> int:
    """Compare every kind; return the exit status."""
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for kind in (*PRE, SENTENCEPIECE):
            path = Path(folder) / f"{kind}.gguf"
            if kind == SENTENCEPIECE:
                write_sentencepiece(path)
            else:
                write_byte_level(path, kind)
            count = differences(path)
            failed = failed or count > 0
            word = "OTHERWISE" if count else "as there"
            print(f"{word:9}  {kind:10}  {count} of {len(compared(kind))} texts differ", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
