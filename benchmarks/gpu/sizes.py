"""The sizes that transformers' Llama class is built with, out of kvplan's description of a model."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.attention import Attention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.errors import UsageError


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product of the model, named as kvplan's operator that it is."""

    operator: str
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class LlamaSizes:
    """Everything that decides what a Llama costs to run."""

    hidden_size: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    tied: bool

    def products(self) -> tuple[Product, ...]:
        """Return the matrix products of a layer, and the output head, as inference runtimes fuse them."""
        queries, cached = self.query_heads * self.head_dim, self.kv_heads * self.head_dim
        return (
            Product("qkv_proj", self.hidden_size, queries + 2 * cached),
            Product("o_proj", queries, self.hidden_size),
            Product("gate_up_proj", self.hidden_size, 2 * self.intermediate_size),
            Product("down_proj", self.intermediate_size, self.hidden_size),
            Product("lm_head", self.hidden_size, self.vocab_size),
        )


def llama_sizes(model: Model) -> LlamaSizes:
    """Return the sizes of a model whose layers are all a Llama's.

    How its rotary positions are stretched is left out: that changes numbers, not their cost.

    Raises:
        UsageError: the model has a part that Llama has not, or lacks one.
    """
    mixer, mlp = model.layers[0].mixer, model.layers[0].mlp
    if isinstance(mixer, Attention) and isinstance(mlp, MLP) and mixer.rope_parameters is not None:
        rope = mixer.rope_parameters
        plain = Layer(
            Attention(
                mixer.num_attention_heads, mixer.num_key_value_heads, mixer.head_dim, rope_parameters=rope
            ),
            MLP(mlp.intermediate_size),
        )
        if model == _llama(model, plain):
            return LlamaSizes(
                model.hidden_size,
                len(model.layers),
                mixer.num_attention_heads,
                mixer.num_key_value_heads,
                mixer.head_dim,
                mlp.intermediate_size,
                model.vocab_size,
                model.norm_eps,
                rope.rope_theta,
                model.max_position_embeddings,
                model.tie_word_embeddings,
            )
    raise UsageError(
        f"{model.name} is not a Llama: this script builds transformers' LlamaForCausalLM",
        hint="llama-3.1-8b, llama-3.2-1b, mistral-7b-v0.3",
    )


def _llama(model: Model, layer: Layer) -> Model:
    """Return a Llama of equal layers with the outer sizes of a model."""
    return Model(
        model.name,
        model.source,
        model.dtype,
        model.hidden_size,
        model.vocab_size,
        model.max_position_embeddings,
        (layer,) * len(model.layers),
        norm_eps=model.norm_eps,
        tie_word_embeddings=model.tie_word_embeddings,
    )
