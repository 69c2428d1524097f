"""A text for a model to read, as it was given, and the model with the weights to read it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvplan.api.given import Echo
from kvplan.arch.model import Model
from kvplan.errors import UsageError
from kvplan.specs.catalog import Found, digest, load_model
from kvplan.specs.document import printable, read_text, shortened

if TYPE_CHECKING:
    from kvplan.check.text_run import Prompt
    from kvplan.checkpoint.checkpoint import Checkpoint
    from kvplan.checkpoint.tokenizer import Tokenizer

LARGEST_TEXT_BYTES = 16 << 20
_CHECKPOINTS = "a folder with safetensors and config.json, or a .gguf file"


@dataclass(frozen=True, slots=True)
class GivenText:
    """A text to read.

    Args:
        option: what it was given with.
        content: the text.
        echo: how a report names the file it is from.
    """

    option: str
    content: str
    echo: Echo = ()

    @classmethod
    def of(cls, prompt: str | None, text: str | os.PathLike[str] | None) -> GivenText | None:
        """Return the text that was given, itself or by its file; ``None`` where none was.

        Raises:
            UsageError: both were given, or it is empty.
            SpecError: the file is no text.
            FileError: the file cannot be read.
        """
        if prompt is not None and text is not None:
            raise UsageError("--prompt and --text: one of them")
        if prompt is None and text is None:
            return None
        if text is None:
            given = cls("--prompt", prompt or "")
        else:
            path = Path(text)
            content = read_text(path, LARGEST_TEXT_BYTES)
            file = printable(shortened(path))
            given = cls("--text", content, (("text_file", file), ("text_sha256", digest(path))))
        if not given.content:
            raise UsageError(f"{given.option}: there is no text to read")
        return given

    def checkpoint(self, model: Found | Model) -> Checkpoint:
        """Return the model with the weights to read this text.

        Raises:
            UsageError: it has none, or they cannot be read.
            SpecError: mistakes in a file.
            FileError: a file cannot be read.
        """
        from kvplan.checkpoint.checkpoint import is_checkpoint, open_checkpoint

        if isinstance(model, Found):
            path = model.path.parent if model.path.name == "config.json" else model.path
            if is_checkpoint(str(path)):
                return open_checkpoint(path)
            model = load_model(model)
        hint = _CHECKPOINTS
        if self.option == "--prompt" and self.content.isdecimal():
            hint = f"--prompt-tokens {self.content[:20]} is the length of random prompts"
        raise UsageError(f"{model.name} has no weights: {self.option} needs a checkpoint", hint=hint)

    def prompt(self, tokenizer: Tokenizer, most_tokens: int) -> Prompt:
        """Return what a model reads: the first tokens of the text.

        Raises:
            UsageError: it has none.
        """
        from kvplan.check.text_run import Prompt

        tokens = tokenizer.encode(self.content)
        if not len(tokens):
            raise UsageError(f"{self.option}: there is no text to read")
        whole = len(tokens) <= most_tokens
        read = self.content if whole else tokenizer.decode(tokens[:most_tokens])
        return Prompt(read, tokens[:most_tokens], len(tokens))
