"""The weights of the golden cases: made from names and a seed, the same for ever, and stored nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from kvplan.arch.experts import HASH_TABLE, Experts
from kvplan.arch.model import Model
from kvplan.arch.norm import Norm
from kvplan.arch.weight import Weight
from kvplan.storage import TensorRole

# Norms that stay plain in models whose other norms store the distance from one.
PLAIN_NORMS = ("linear_attn.norm.weight",)
# Mean and spread by the end of a tensor's name, where its role does not say enough.
BY_ENDING = {
    "layer_scalar": (1.0, 0.1),
    "altup.correct_output_scale": (1.0, 0.3),
    "mlp.per_expert_scale": (1.0, 0.3),
    "mlp.gate.bias": (0.0, 0.5),
    "e_score_correction_bias": (0.0, 0.4),
    "self_attn.sinks": (0.0, 1.0),
    "position_bias": (0.0, 0.7),
    "_hc.base": (0.0, 0.7),
    "hc_head.base": (0.0, 0.7),
    "_hc.scale": (0.8, 0.3),
    "hc_head.scale": (0.8, 0.3),
    "mlp.act_fn.alpha_p": (0.0, 0.5),
    "mlp.act_fn.alpha_n": (0.0, 0.5),
    "mlp.act_fn.beta": (0.5, 0.1),
    "mlp.act_fn.eps": (-0.05, 0.01),
    "linear_attn.A_log": (-2.0, 1.0),
    "mamba.A_log": (-1.0, 0.7),
    "mamba.D": (0.5, 0.5),
    "mamba.dt_bias": (-1.0, 0.7),
    "mamba.dt_proj.bias": (-1.0, 0.7),
    "linear_attn.dt_bias": (0.0, 0.5),
    "self_attn.A_log": (-2.0, 1.0),
    "self_attn.dt_bias": (0.0, 0.5),
    "rg_lru.recurrent_param": (-2.0, 1.0),
    "norm.bias": (0.0, 0.1),
    "ln_attn.bias": (0.0, 0.1),
    "ln_mlp.bias": (0.0, 0.1),
    "_adapter_b.weight": (0.0, 0.2),
    "shared_block_output.weight": (0.0, 0.04),
}
BY_ROLE = {
    TensorRole.BIAS: (0.0, 0.1),
    TensorRole.EMBEDDING: (0.0, 0.5),
    TensorRole.POSITIONS: (0.0, 0.3),
}


def golden_weights(model: Model, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return every tensor of a model under its full name, ``copies`` first where there are several.

    ``RandomState`` is frozen by NumPy's policy (NEP 19): its numbers never change.
    """
    found = {name: _values(name, weight, model.norm, seed) for name, weight in named_weights(model)}
    for index, layer in enumerate(model.layers):
        if isinstance(layer.mlp, Experts) and layer.mlp.hash_vocab_size is not None:
            name = f"layers.{index}.{HASH_TABLE}"
            found[name] = _expert_table(name, layer.mlp, seed)
    return found


def _expert_table(name: str, experts: Experts, seed: int) -> NDArray[np.float32]:
    """Return different experts for every token."""
    state = np.random.RandomState(crc32(f"{seed} {name}".encode()))
    drawn = state.random_sample((experts.hash_vocab_size, experts.num_experts))
    return drawn.argsort(axis=1)[:, : experts.num_experts_per_tok].astype(np.float32)


def named_weights(model: Model) -> Iterator[tuple[str, Weight]]:
    """Iterate over the tensors of a model with their full names, layer by layer."""
    for weight in model.input_weights():
        yield weight.name, weight
    for index, layer in enumerate(model.layers):
        for weight in model.layer_weights(layer):
            if not weight.shared_in or model.shared_blocks()[weight.shared_in] == index:
                yield weight.full_name(index), weight
    for weight in model.output_weights():
        yield weight.name, weight


def _values(name: str, weight: Weight, norm: Norm, seed: int) -> NDArray[np.float32]:
    shape = weight.shape if weight.copies == 1 else (weight.copies, *weight.shape)
    normal = np.random.RandomState(crc32(f"{seed} {name}".encode())).standard_normal(shape)
    mean, spread = _mean_and_spread(weight, norm)
    return (mean + spread * normal).astype(np.float32)


def _mean_and_spread(weight: Weight, norm: Norm) -> tuple[float, float]:
    """Return what keeps activations near one, logits far from flat, and every tensor felt."""
    for ending, found in BY_ENDING.items():
        if weight.name.endswith(ending):
            return found
    if weight.role is TensorRole.NORM:
        offset = norm.has_unit_offset and not weight.name.endswith(PLAIN_NORMS)
        return (0.0 if offset else 1.0, 0.2)
    return BY_ROLE.get(weight.role, (0.0, 1.5 / weight.shape[-1] ** 0.5))
