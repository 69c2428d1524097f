"""A vision tower beside the language model: weights that take memory and cache nothing."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.arch.weight import Weight
from kvplan.checks import require_multiple, require_sizes
from kvplan.storage import TensorRole


@dataclass(frozen=True, slots=True)
class SiglipTower:
    """A SigLIP image encoder and its projection into the text model, as Gemma 3 has them.

    Args:
        hidden_size: width of the encoder.
        intermediate_size: width of its MLP.
        num_hidden_layers: encoder layers.
        num_attention_heads: heads of each layer.
        image_size: pixels along an image's side.
        patch_size: pixels along a patch's side.
        num_channels: colour channels.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    num_channels: int = 3

    def __post_init__(self) -> None:
        require_sizes(self, *self.__slots__)
        require_multiple(self.image_size, "image_size", self.patch_size, "patch_size")

    def weights(self, text_hidden_size: int) -> tuple[Weight, ...]:
        """Return every tensor of the tower and the projector; each rank holds them whole."""
        width, inner = self.hidden_size, self.intermediate_size
        patches = (self.image_size // self.patch_size) ** 2
        pixels = self.num_channels * self.patch_size**2
        shapes: list[tuple[str, tuple[int, ...], int]] = [
            ("embeddings.patch_embedding.weight", (width, pixels), 1),
            ("embeddings.patch_embedding.bias", (width,), 1),
            ("embeddings.position_embedding.weight", (patches, width), 1),
            ("post_layernorm", (2, width), 1),
            ("layers.layer_norm1", (2, width), self.num_hidden_layers),
            ("layers.layer_norm2", (2, width), self.num_hidden_layers),
            ("layers.self_attn.qkvo_proj.weight", (4 * width, width), self.num_hidden_layers),
            ("layers.self_attn.qkvo_proj.bias", (4 * width,), self.num_hidden_layers),
            ("layers.mlp.fc1.weight", (inner, width), self.num_hidden_layers),
            ("layers.mlp.fc1.bias", (inner,), self.num_hidden_layers),
            ("layers.mlp.fc2.weight", (width, inner), self.num_hidden_layers),
            ("layers.mlp.fc2.bias", (width,), self.num_hidden_layers),
            ("multi_modal_projector.mm_input_projection_weight", (width, text_hidden_size), 1),
            ("multi_modal_projector.mm_soft_emb_norm.weight", (width,), 1),
        ]
        return tuple(
            Weight(f"vision_tower.{name}", shape, TensorRole.TOWER, copies=copies, active_copies=0)
            for name, shape, copies in shapes
        )
