"""What released files call their tensors, one file for each group of families."""

from __future__ import annotations

from kvplan.arch.model import Model
from kvplan.checkpoint.names import (
    gemma,
    gpt_like,
    latent,
    llama_like,
    mixtures,
    own_code,
    recurrent,
    state_spaces,
)
from kvplan.checkpoint.names.fusion import Names
from kvplan.checkpoint.names.llama_like import BAICHUAN_2, BAICHUAN_2_VOCABULARY
from kvplan.errors import UsageError

_MODULES = (gemma, gpt_like, latent, llama_like, mixtures, own_code, recurrent, state_spaces)
NAMES: dict[str, Names] = {kind: names for module in _MODULES for kind, names in module.NAMES.items()}


def names_of(text_type: str, model: Model) -> Names:
    """Return what files of a text model's family call their tensors.

    Args:
        text_type: the model_type of the text model.
        model: its description.

    Raises:
        UsageError: they are not known.
    """
    if text_type == "baichuan" and model.vocab_size == BAICHUAN_2_VOCABULARY:
        return BAICHUAN_2
    if text_type not in NAMES:
        raise UsageError(f"the tensor names of {text_type} files are not known")
    return NAMES[text_type]
