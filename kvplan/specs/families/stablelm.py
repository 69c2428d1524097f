"""StableLM: LayerNorm, a quarter of each head rotated, and in the 12B parallel blocks with norms of heads."""

from __future__ import annotations

from dataclasses import replace

from kvplan.arch.attention import QkNorm
from kvplan.arch.layer import Layer
from kvplan.arch.model import Model
from kvplan.arch.norm import Block, Norm
from kvplan.specs.config import Config
from kvplan.specs.families.common import Families, Identity, finished_model
from kvplan.specs.families.rope import RopeDefaults
from kvplan.specs.families.sizes import Sizes


def stablelm(config: Config, identity: Identity) -> Model:
    """StableLM 3B, and StableLM 2 in its three sizes."""
    sizes = Sizes(
        vocab_size=50_304,
        hidden_size=2560,
        intermediate_size=6912,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=4096,
        num_key_value_heads=32,
    ).read(config)
    widths = sizes.hidden_size // sizes.num_attention_heads
    config.only("head_dim", widths, f"a head has hidden_size / num_attention_heads ({widths}) elements")
    quarter = RopeDefaults(partial_rotary_factor=0.25)
    attention = replace(
        sizes.attention(config, quarter, qkv_bias=config.flag("use_qkv_bias", False)),
        qk_norm=QkNorm.EACH_HEAD if config.flag("qk_layernorm", False) else None,
    )
    block = Block.PARALLEL if config.flag("use_parallel_residual", False) else Block.PRE_NORM
    return finished_model(
        config,
        identity,
        [Layer(attention, sizes.gated_mlp(config), block)] * sizes.num_hidden_layers,
        tied=False,
        norm=Norm.LAYER,
        eps_key="layer_norm_eps",
        eps=1e-5,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=sizes.max_position_embeddings,
    )


FAMILIES: Families = {"stablelm": stablelm}
