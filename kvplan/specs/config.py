"""A config.json under interpretation: typed reading, and a memory of which keys were understood.

A key that nothing has read and that is not known to be harmless is refused by name: it might change
what is cached or multiplied.
"""

from __future__ import annotations

import re
from typing import NoReturn

from kvplan.errors import Problem, SpecError
from kvplan.specs.document import Document, NodePath

REQUIRED = -1
LARGEST = 1 << 31

# Keys that change neither a weight's shape, nor what is cached, nor how it is stored: tokens, training
# and generation settings, positions' encoding, activation functions, bookkeeping.
_HARMLESS = re.compile(
    r"""
    _name_or_path|_commit_hash|_from_model_config|_attn_implementation.*|.*_token_ids?|.*_token_index|.*dropout.*|.*_pdrop|.*layerdrop|initializer_.*|init_.*|.*_init_std
    |architectures|auto_map|transformers_version|transformers\.js_config|use_cache|pretraining_tp|is_llama_config
    |hidden_act|hidden_activation|activation_function|hidden_act_.*
    |rope_.*|.*_rope|partial_rotary_factor|rotary_.*|original_max_position_embeddings|initial_context_length
    |rms_norm_eps|layer_norm_eps.*|norm_eps|query_pre_attn_scalar
    |.*logit_softcapping|final_logit_softcapping|swiglu_limit
    |output_router_logits|router_aux_loss_coef|router_jitter_noise|aux_loss_alpha|seq_aux|norm_topk_prob
    |scoring_func|topk_method|topk_group|n_group|routed_scaling_factor|ep_size
    |output_attentions|output_hidden_states|return_dict.*|torchscript|use_bfloat16|tf_legacy_loss
    |id2label|label2id|num_labels|problem_type|finetuning_task|pruned_heads|is_(encoder_)?decoder
    |add_cross_attention|cross_attention_hidden_size|tie_encoder_decoder|chunk_size_feed_forward
    |bad_words_ids|begin_suppress_tokens|suppress_tokens|early_stopping|diversity_penalty|length_penalty
    |max_length|min_length|no_repeat_ngram_size|encoder_no_repeat_ngram_size|num_beams|num_beam_groups
    |num_return_sequences|output_scores|remove_invalid_values|repetition_penalty|exponential_decay_length_penalty
    |do_sample|temperature|top_[kp]|typical_p|prefix|forced_.*|sep_token|tokenizer_class|cache_implementation
    |task_specific_params|summary_.*|gradient_checkpointing|use_mrope|attn_implementation|embd_.*|resid_.*
    """,
    re.VERBOSE,
)


class Config:
    """One mapping of a config.json, read key by key."""

    def __init__(self, document: Document, path: NodePath = ()) -> None:
        """Look at the mapping at ``path``.

        Raises:
            SpecError: there is no mapping there.
        """
        data = document.data
        for step in path:
            assert isinstance(data, dict)
            data = data[step]
        self._document = document
        self._path = path
        self._understood: set[str] = set()
        if not isinstance(data, dict):
            self._refuse("", f"expected a mapping, not {_kind_of(data)}")
        self._data: dict[str, object] = data

    def has(self, key: str) -> bool:
        """Whether the key is there with a value other than null."""
        return self._data.get(key) is not None

    def integer(self, *keys: str, default: int = REQUIRED) -> int:
        """Return the positive integer under the first of the keys that is there and not null.

        Raises:
            SpecError: it is no such integer, or no key is there and there is no default.
        """
        found = self.optional_integer(*keys)
        if found is not None:
            return found
        if default == REQUIRED:
            self._refuse("", f"'{keys[0]}' is required")
        return default

    def optional_integer(self, *keys: str, default: int | None = None) -> int | None:
        """Return the positive integer under the first of the keys that is there; null reads as ``None``.

        ``default`` is for a key that is missing: a missing key is not a null one.
        """
        present = self._first_present(keys)
        if present is None:
            return default
        value = self._data[present]
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self._refuse(present, f"expected a whole number, not {_kind_of(value)}")
        if not 1 <= value <= LARGEST:
            self._refuse(present, f"expected 1 to {LARGEST:,}, not {str(value)[:40]}")
        return value

    def count(self, key: str, default: int) -> int:
        """Return the integer of at least 0 under the key; missing or null reads as the default."""
        self._understood.add(key)
        value = self._data.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self._refuse(key, f"expected a whole number, not {_kind_of(value)}")
        if not 0 <= value <= LARGEST:
            self._refuse(key, f"expected 0 to {LARGEST:,}, not {str(value)[:40]}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false under the key; missing or null reads as the default."""
        self._understood.add(key)
        value = self._data.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._refuse(key, f"expected true or false, not {_kind_of(value)}")
        return value

    def text(self, *keys: str, default: str = "") -> str:
        """Return the text under the first of the keys that is there and not null, else the default."""
        present = self._first_present(keys)
        value = self._data.get(present) if present else None
        if value is None:
            return default
        if not isinstance(value, str):
            self._refuse(present or keys[0], f"expected text, not {_kind_of(value)}")
        return value

    def texts(self, key: str, length: int, allowed: tuple[str, ...]) -> list[str] | None:
        """Return the list of ``length`` words under the key, each one of ``allowed``; ``None`` if absent."""
        values = self._list(key)
        if values is None:
            return None
        if len(values) != length:
            self._refuse(key, f"has {len(values):,} entries for {length:,} layers")
        for index, value in enumerate(values):
            if value not in allowed:
                problem = f"{key}[{index}]: {str(value)[:40]!r} is not one of {', '.join(allowed)}"
                raise SpecError([self._document.problem((*self._path, key, index), problem)])
        return [str(value) for value in values]

    def integers(self, key: str) -> list[int]:
        """Return the list of whole numbers under the key; empty if absent or null."""
        values = self._list(key) or []
        found = []
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int):
                self._refuse(key, f"expected a list of whole numbers, not {_kind_of(value)} in it")
            found.append(value)
        return found

    def words(self, key: str) -> list[str]:
        """Return the list of texts under the key; empty if absent or null."""
        values = self._list(key) or []
        for value in values:
            if not isinstance(value, str):
                self._refuse(key, f"expected a list of texts, not {_kind_of(value)} in it")
        return [str(value) for value in values]

    def _list(self, key: str) -> list[object] | None:
        self._understood.add(key)
        values = self._data.get(key)
        if values is None:
            return None
        if not isinstance(values, list):
            self._refuse(key, f"expected a list, not {_kind_of(values)}")
        return values

    def inner(self, key: str) -> Config:
        """Return the mapping under the key.

        Raises:
            SpecError: it is missing or no mapping.
        """
        self._understood.add(key)
        if key not in self._data:
            self._refuse("", f"'{key}' is required")
        return Config(self._document, (*self._path, key))

    def only(self, key: str, allowed: object, meaning: str) -> None:
        """Refuse any value but ``allowed`` (missing and null pass): nothing else is understood here."""
        self._understood.add(key)
        value = self._data.get(key)
        if value is not None and (value != allowed or isinstance(value, bool) != isinstance(allowed, bool)):
            self._refuse(key, f"{_shown(value)} is not understood: {meaning}")

    def harmless(self, *keys: str) -> None:
        """Note keys that this family carries and that change nothing kvplan counts."""
        self._understood.update(keys)

    def finish(self) -> None:
        """Refuse every key that was not understood.

        Raises:
            SpecError: one problem for each such key.
        """
        unknown = [k for k in self._data if k not in self._understood and not _HARMLESS.fullmatch(k)]
        if unknown:
            raise SpecError([self._problem(k, "this key is not understood", at_key=True) for k in unknown])

    def refuse(self, key: str, message: str) -> NoReturn:
        """Refuse the value of a key.

        Raises:
            SpecError: always.
        """
        self._refuse(key, message)

    def _first_present(self, keys: tuple[str, ...]) -> str | None:
        self._understood.update(keys)
        present = [key for key in keys if key in self._data]
        return next((key for key in present if self._data[key] is not None), present[0] if present else None)

    def _refuse(self, key: str, message: str) -> NoReturn:
        raise SpecError([self._problem(key, message)])

    def _problem(self, key: str, message: str, *, at_key: bool = False) -> Problem:
        path = (*self._path, key) if key else self._path
        dotted = ".".join(str(step)[:40] for step in path)
        return self._document.problem(path, f"{dotted}: {message}" if dotted else message, at_key=at_key)


def _kind_of(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return "text"
        case _:
            return str(value)[:40]


def _shown(value: object) -> str:
    return repr(value[:40]) if isinstance(value, str) else _kind_of(value)
