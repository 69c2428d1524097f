"""The matrices of latent attention, whatever its cache holds: queries, latents, and the way to heads."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvplan.arch.latent_attention import LatentAttention
from kvplan.engine.arrays import Float
from kvplan.engine.counter import Counter
from kvplan.engine.linear import Linear
from kvplan.engine.norms import RMSNorm
from kvplan.engine.rotaries import Rotaries
from kvplan.engine.rotary import yarn_score_factor
from kvplan.engine.step import Step

# The norms of the latents have this one whatever the model's other norms have
# (transformers 5.23, modeling_deepseek_v3.py).
_LATENT_EPS = 1e-6


class LatentProjections:
    """The matrices of one latent-attention layer; ``weights`` are its tensors by name.

    Attributes:
        up: ``(heads, nope + v, rank)``, what makes keys and values of latents: both forms of attention read
            it, so it is kept once, as it comes.
        out: the output projection.
        scale: what scores are multiplied by.
    """

    def __init__(self, arch: LatentAttention, weights: Mapping[str, Float], rotaries: Rotaries) -> None:
        self._arch = arch
        self._q_norm: RMSNorm | None = None
        if arch.q_lora_rank is None:
            self._q = Linear(weights["self_attn.q_proj.weight"], None)
        else:
            self._q_down = Linear(
                weights["self_attn.q_a_proj.weight"], weights.get("self_attn.q_a_proj.bias")
            )
            self._q_norm = RMSNorm(weights["self_attn.q_a_layernorm.weight"], _LATENT_EPS)
            self._q = Linear(weights["self_attn.q_b_proj.weight"], None)
        down = "self_attn.kv_a_proj_with_mqa"
        self._kv_down = Linear(weights[f"{down}.weight"], weights.get(f"{down}.bias"))
        self._kv_norm = RMSNorm(weights["self_attn.kv_a_layernorm.weight"], _LATENT_EPS)
        heads, expanded = arch.num_attention_heads, arch.qk_nope_head_dim + arch.v_head_dim
        self.up = weights["self_attn.kv_b_proj.weight"].reshape(heads, expanded, arch.kv_lora_rank)
        self.out = Linear(weights["self_attn.o_proj.weight"], weights.get("self_attn.o_proj.bias"))
        self.scale = arch.qk_head_dim**-0.5 * yarn_score_factor(arch.rope_parameters)
        self._rotary = rotaries.of(arch.rope_parameters, arch.qk_rope_head_dim)

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights."""
        down = self._q_down.nbytes + self._q_norm.nbytes if self._q_norm is not None else 0
        others = (self._q, self._kv_down, self._kv_norm, self.up, self.out)
        return down + sum(part.nbytes for part in others)

    def compressed(self, x: Float, counter: Counter) -> Float:
        """Return what queries are made from, ``(tokens, q_lora_rank)``; ``x`` itself where not compressed."""
        return x if self._q_norm is None else self._q_norm(self._q_down(x, counter), counter)

    def queries(self, compressed: Float, step: Step, counter: Counter) -> Float:
        """Return the queries ``(tokens, heads, nope + rope)``, rotated."""
        found = self._q(compressed, counter)
        found = found.reshape(len(compressed), self._arch.num_attention_heads, self._arch.qk_head_dim)
        if self._rotary is not None:
            rotated = np.ascontiguousarray(found[..., self._arch.qk_nope_head_dim :])
            found[..., self._arch.qk_nope_head_dim :] = self._rotary.rotate(rotated, step.positions)
        return found

    def latents(self, x: Float, step: Step, counter: Counter) -> tuple[Float, Float]:
        """Return the new tokens' latents ``(tokens, rank)`` and rotated keys ``(tokens, rope_dim)``."""
        joined, rank = self._kv_down(x, counter), self._arch.kv_lora_rank
        latent = self._kv_norm(np.ascontiguousarray(joined[:, :rank]), counter)
        rope_keys = np.ascontiguousarray(joined[:, None, rank:])
        if self._rotary is not None:
            rope_keys = self._rotary.rotate(rope_keys, step.positions)
        return latent, rope_keys[:, 0]

    def expand(self, latent: Float, rope_keys: Float, counter: Counter) -> tuple[Float, Float]:
        """Return keys ``(tokens, heads, nope + rope)`` and values ``(tokens, heads, v)`` of some latents."""
        arch, nope = self._arch, self._arch.qk_nope_head_dim
        made = np.matmul(latent, self.up.transpose(0, 2, 1)).transpose(1, 0, 2)
        counter.matmul(len(latent), arch.kv_lora_rank, made.shape[1] * made.shape[2], self.up.nbytes)
        keys = np.empty((len(latent), arch.num_attention_heads, arch.qk_head_dim), np.float32)
        keys[..., :nope] = made[..., :nope]
        keys[..., nope:] = rope_keys[:, None]
        return keys, made[..., nope:]
