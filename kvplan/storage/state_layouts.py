"""How runtimes store recurrent states, and keys of indexers: what the KV format leaves open."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.errors import UsageError
from kvplan.storage.find import find
from kvplan.storage.kv_formats import IndexFormat

_FP8_INDEX = IndexFormat(
    8, 128, 4, "vLLM, deepseek_v2.py, DeepseekV32IndexerCache: e4m3 with a float32 scale per 128 elements"
)
_BF16_INDEX = IndexFormat(
    16, 128, 0, "vLLM, minimax_m3/common/indexer.py, MiniMaxM3IndexerCache: bf16 unless it is told"
)


@dataclass(frozen=True, slots=True)
class StateLayout:
    """How a runtime stores what the KV format leaves open: recurrent states, and keys of indexers.

    Args:
        name: what ``--state`` takes.
        keeps_newest: convolutions keep their newest input where transformers does, though no step reads it.
        recurrent: what running states are stored in; empty means the model's dtype, absent what transformers
            takes for each kind.
        source: where the layout is defined.
        index_keys: what keys of indexers are stored in; absent where that is the KV format.
        block_index_keys: the same of indexers that choose blocks.
        lists_twice: a vector that is key and value is kept as both (transformers' caches list it so).
        heeds_files: a dtype that the released files ask for comes before ``recurrent``.
        speculates: states are kept behind guessed tokens too.
        speculative_tokens: guessed tokens a step checks; states are kept so that any of them can be dropped.
    """

    name: str
    keeps_newest: bool
    recurrent: str | None
    source: str
    index_keys: IndexFormat | None = None
    block_index_keys: IndexFormat | None = None
    lists_twice: bool = False
    heeds_files: bool = False
    speculates: bool = False
    speculative_tokens: int = 0

    def speculating(self, tokens: int) -> StateLayout:
        """Return the layout where each step checks so many guessed tokens.

        Raises:
            UsageError: the layout keeps nothing for them, or there are less than none.
        """
        if tokens < 0:
            raise UsageError(f"{tokens} guessed tokens are less than none")
        if tokens and not self.speculates:
            message = f"what {self.name} keeps for guessed tokens is not modelled"
            raise UsageError(message, hint="choose a vLLM layout with --state")
        return replace(self, speculative_tokens=tokens)

    def conv_columns(self, kernel: int, *, newest_kept: bool) -> int:
        """Return how many inputs of a convolution are kept; ``newest_kept``: transformers keeps them all."""
        return kernel if self.keeps_newest and newest_kept else kernel - 1

    def recurrent_format(self, in_transformers: str, asked: str) -> str:
        """Return what a running state is stored in; empty means the model's dtype.

        Args:
            in_transformers: what transformers takes.
            asked: what the released files ask serving engines for; empty for nothing.
        """
        if self.recurrent is None:
            return in_transformers
        return asked if asked and self.heeds_files else self.recurrent


STATE_LAYOUTS: tuple[StateLayout, ...] = (
    StateLayout(
        "transformers",
        True,
        None,
        "transformers 5.23: all conv_kernel columns, float32 recurrent state",
        lists_twice=True,
    ),
    StateLayout(
        "vllm-fp32",
        False,
        "fp32",
        "vLLM with mamba_ssm_cache_dtype float32: conv_kernel - 1 columns",
        _FP8_INDEX,
        _BF16_INDEX,
        speculates=True,
    ),
    StateLayout(
        "vllm",
        False,
        "",
        "vLLM with mamba_ssm_cache_dtype auto: conv_kernel - 1 columns, the files' dtype or the model's",
        _FP8_INDEX,
        _BF16_INDEX,
        heeds_files=True,
        speculates=True,
    ),
    StateLayout(
        "sglang",
        False,
        "fp32",
        "SGLang, configs/mamba_utils.py: conv_kernel - 1 columns, the files' mamba_ssm_dtype or float32",
        _FP8_INDEX,
        _BF16_INDEX,
        heeds_files=True,
    ),
)


def state_layout(name: str) -> StateLayout:
    """Return the state layout of this name; raises UsageError for an unknown one."""
    return find("state layout", name, STATE_LAYOUTS)
