"""What a family's files call their tensors, as data; the engine's own names are those of a Llama's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kvplan.checkpoint.names.kinds import APART, EXPERT_ROWS, Kind

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
SHARED_GATE_UP = ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj")
EXPERT_GATE_UP = ("mlp.experts.gate_proj", "mlp.experts.up_proj")
EXPERTS = (*EXPERT_GATE_UP, "mlp.experts.down_proj")
LLAMA_OUTER = {"embed_tokens": "model.embed_tokens", "layers": "model.layers", "norm": "model.norm"}


@dataclass(frozen=True, slots=True)
class Fusion:
    """Tensors that files do not keep one by one as the engine does.

    Args:
        there: names in files; ``{}`` stands for the number of an expert, or of a row.
        here: the engine's names.
        kind: how these become those.
    """

    there: tuple[str, ...]
    here: tuple[str, ...]
    kind: Kind


@dataclass(frozen=True, slots=True)
class BlockNames:
    """What the files of a family call blocks that layers share: a block is in the first layer that runs it.

    Args:
        block: names inside a block.
        beside: names inside a layer that runs one.
        adapters: names of a layer's adapters of a block, in that first layer; ``{}`` stands for the number
            of the use among all layers' uses.
    """

    block: Names
    beside: Names
    adapters: Mapping[str, str]

    def adapters_of(self, use: int) -> Names:
        """Return the names of one use's adapters."""
        return Names(inner={here: there.format(use) for here, there in self.adapters.items()})


@dataclass(frozen=True, slots=True)
class Names:
    """What a family calls its tensors.

    Args:
        outer: names outside the layers, and of the list of layers.
        inner: names inside a layer, longest whole-word prefix first; what is not here keeps its name.
        fusions: tensors kept in other ways. Of several ways to keep the same tensors the first whose tensors
            a file has is read, and the first of all is written.
        kinds: how tensors outside the layers are kept, where they are not the same there.
        other_outer: names outside the layers in other files of the family.
        other_inner: names inside a layer in other files: of a tensor that is not there under its first name.
        unused: last words of tensors that files hold and no model needs.
        shared: names of blocks that layers share.
    """

    outer: Mapping[str, str] = field(default_factory=lambda: LLAMA_OUTER)
    inner: Mapping[str, str] = field(default_factory=dict)
    fusions: tuple[Fusion, ...] = ()
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    other_outer: Mapping[str, str] = field(default_factory=dict)
    other_inner: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    shared: BlockNames | None = None


def both(there: str, here: tuple[str, ...], kind: Kind) -> tuple[Fusion, ...]:
    """Return a fusion of weights into one, and the same of biases."""
    return tuple(
        Fusion((f"{there}.{what}",), tuple(f"{name}.{what}" for name in here), kind)
        for what in ("weight", "bias")
    )


def weights_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of matrices."""
    return tuple(f"{name}.weight" for name in names)


def one_by_one(prefix: str, gate: str, up: str, down: str) -> tuple[Fusion, ...]:
    """Return experts in matrices of their own, each under its number behind ``prefix``."""
    together = zip((gate, up, down), weights_of(EXPERTS), strict=True)
    return tuple(Fusion((f"{prefix}.{{}}.{there}.weight",), (here,), APART) for there, here in together)


def stacked(prefix: str, kind: Kind) -> tuple[Fusion, ...]:
    """Return experts in two stacks, gate and up in one."""
    return (
        Fusion((f"{prefix}.gate_up_proj",), weights_of(EXPERT_GATE_UP), kind),
        Fusion((f"{prefix}.down_proj",), weights_of(EXPERTS[2:]), kind),
    )


# Released files have experts one by one; transformers 5 holds them in stacks, and some files are saved so.
QWEN_EXPERTS = one_by_one("mlp.experts", "gate_proj", "up_proj", "down_proj")
STACKED_EXPERTS = stacked("mlp.experts", EXPERT_ROWS)
EXPERTS_EITHER_WAY = QWEN_EXPERTS + STACKED_EXPERTS
MIXTRAL_EXPERTS = one_by_one("block_sparse_moe.experts", "w1", "w3", "w2")
