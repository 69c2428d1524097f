"""EXAONE 3 and 3.5, which are Llama under other keys, and EXAONE 4 with norms behind its blocks."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.activation import Activation
from kvplan.arch.attention import Attention, QkNorm
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.norm import Block
from kvplan.specs.config import Config
from kvplan.specs.document import shown
from kvplan.specs.families.common import (
    Families,
    Identity,
    activation,
    finished_model,
    head_dim,
    windowed_layers,
)
from kvplan.specs.families.rope import rope
from kvplan.specs.families.sizes import Sizes


def exaone(config: Config, identity: Identity) -> Model:
    """EXAONE 3 and 3.5, in the format of their own code, with its class's defaults."""
    hidden, heads = (
        config.integer("hidden_size", default=2048),
        config.integer("num_attention_heads", default=32),
    )
    longest = config.integer("max_position_embeddings", default=2048)
    attention = Attention(
        num_attention_heads=heads,
        num_key_value_heads=config.integer("num_key_value_heads", default=heads),
        head_dim=head_dim(config, hidden, heads),
        rope_parameters=rope(config, longest),
    )
    mlp = MLP(
        config.integer("intermediate_size", default=4 * hidden),
        hidden_act=activation(config, "activation_function", Activation.SILU),
    )
    layers = [Layer(attention, mlp)] * config.depth("num_layers", "num_hidden_layers", default=32)
    return finished_model(
        config,
        identity,
        layers,
        tied=True,
        eps_key="layer_norm_epsilon",
        eps=1e-5,
        hidden_size=hidden,
        vocab_size=config.integer("vocab_size", default=102_400),
        max_position_embeddings=longest,
    )


def exaone4(config: Config, identity: Identity) -> Model:
    """EXAONE 4: norms behind each block and of each head; full layers beside sliding ones rotate nothing."""
    sizes = Sizes(
        vocab_size=102_400,
        hidden_size=4096,
        intermediate_size=16_384,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
        num_key_value_heads=32,
    ).read(config)
    mlp = sizes.gated_mlp(config)
    return finished_model(
        config,
        identity,
        [Layer(mixer, mlp, Block.POST_NORM) for mixer in exaone4_attention(config, sizes)],
        tied=False,
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


def exaone4_attention(config: Config, sizes: Sizes) -> list[Attention]:
    """Return each layer's attention: normalised per head; full layers beside sliding ones rotate nothing."""
    window = config.optional_integer("sliding_window", default=4096)
    full = replace(sizes.attention(config), qk_norm=QkNorm.HEAD)
    sliding = replace(full, sliding_window=window)
    if window is not None:
        full = replace(full, rope_parameters=None)
    slides = _exaone4_slides(config, sizes.num_hidden_layers, window)
    return [sliding if slide else full for slide in slides]


def _exaone4_slides(config: Config, depth: int, window: int | None) -> list[bool]:
    """Return which layers slide: by ``layer_types``, else all but every so many, or a word of L and G.

    A word is repeated over the depth, and the last layer sees everything whatever it says (EXAONE's code).
    """
    types = windowed_layers(config, depth)
    if types is not None or window is None:
        config.harmless("sliding_window_pattern")
        return types or [False] * depth
    if not config.is_text("sliding_window_pattern"):
        pattern = config.integer("sliding_window_pattern", default=4)
        return [(index + 1) % pattern != 0 for index in range(depth)]
    word = config.text("sliding_window_pattern")
    if not word or not set(word) <= {"L", "G"}:
        config.refuse("sliding_window_pattern", f"{shown(word)} is not a word of L and G")
    return [index != depth - 1 and word[index % len(word)] == "L" for index in range(depth)]


FAMILIES: Families = {
    "exaone": exaone,
    "exaone4": exaone4,
}
