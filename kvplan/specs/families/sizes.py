"""The sizes of a dense model under their usual keys, or as its class has them where they are missing."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention
from kvplan.arch.mlp import MLP
from kvplan.specs.config import Config
from kvplan.specs.families.common import activation, head_dim
from kvplan.specs.families.rope import PLAIN, RopeDefaults, rope


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a file says of a model, or what its class says where the file says nothing.

    Args:
        vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads,
            max_position_embeddings: as in the file.
        num_key_value_heads: in a class, absent means one for each query head.
        head_dim: in a class, absent means ``hidden_size // num_attention_heads``.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None

    def read(self, config: Config) -> Sizes:
        """Return the sizes of a file of the class with these ones; a null number of KV heads says MHA."""
        heads = config.integer("num_attention_heads", default=self.num_attention_heads)
        hidden = config.integer("hidden_size", default=self.hidden_size)
        kv_heads = config.optional_integer("num_key_value_heads", default=self.num_key_value_heads)
        return Sizes(
            vocab_size=config.integer("vocab_size", default=self.vocab_size),
            hidden_size=hidden,
            intermediate_size=config.integer("intermediate_size", default=self.intermediate_size),
            num_hidden_layers=config.depth("num_hidden_layers", default=self.num_hidden_layers),
            num_attention_heads=heads,
            max_position_embeddings=config.integer(
                "max_position_embeddings", default=self.max_position_embeddings
            ),
            num_key_value_heads=kv_heads or heads,
            head_dim=head_dim(config, hidden, heads, self.head_dim),
        )

    def attention(
        self,
        config: Config,
        rotation: RopeDefaults | None = PLAIN,
        *,
        qkv_bias: bool = False,
        out_bias: bool = False,
    ) -> Attention:
        """Return full attention of these sizes, rotated as the file says; not at all without ``rotation``."""
        return Attention(
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads or self.num_attention_heads,
            head_dim=self.head_dim or self.hidden_size // self.num_attention_heads,
            qkv_bias=qkv_bias,
            out_bias=out_bias,
            rope_parameters=rope(config, self.max_position_embeddings, rotation) if rotation else None,
        )

    def gated_mlp(self, config: Config, *, bias: bool = False) -> MLP:
        """Return the MLP of these sizes with the file's activation."""
        act = activation(config, default=Activation.SILU)
        return MLP(self.intermediate_size, mlp_bias=bias, hidden_act=act)

    def plain_mlp(self, config: Config, default: Activation, *, bias: bool) -> MLP:
        """Return the MLP of two matrices of these sizes, with the file's activation and biases or these."""
        return MLP(
            self.intermediate_size,
            gated=False,
            mlp_bias=config.flag("mlp_bias", bias),
            hidden_act=activation(config, default=default),
        )
