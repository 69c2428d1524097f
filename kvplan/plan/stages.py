"""Pipeline stages: which layers and tensors each holds, and its share of them under tensor parallelism."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvplan.arch.layer import Layer
from kvplan.arch.model import Model, Run, SlotRun, group_equal, slot_runs
from kvplan.arch.slot import CacheSlot
from kvplan.arch.weight import Weight
from kvplan.errors import UsageError


@dataclass(frozen=True, slots=True)
class Stage:
    """Consecutive layers on one pipeline rank; the first also embeds, the last also makes logits."""

    number: int
    of: int
    layers: tuple[Layer, ...]

    @property
    def is_first(self) -> bool:
        """Whether tokens enter here."""
        return self.number == 1

    @property
    def is_last(self) -> bool:
        """Whether logits leave here."""
        return self.number == self.of

    def runs(self) -> tuple[Run, ...]:
        """Group this stage's equal layers."""
        return group_equal(self.layers)

    def slot_runs(self) -> tuple[SlotRun, ...]:
        """Return every slot of this stage's runs of equal layers."""
        return slot_runs(self.runs())

    def outer_weights(self, model: Model) -> tuple[Weight, ...]:
        """Return the tensors this stage holds outside its layers.

        A tied head on another stage than the embedding is a second copy.
        """
        found: tuple[Weight, ...] = model.input_weights() if self.is_first else ()
        if self.is_last:
            found += model.output_weights()
            if model.tie_word_embeddings and not self.is_first:
                found += (model.head_weight(),)
        return found


def pipeline_stages(model: Model, count: int) -> tuple[Stage, ...]:
    """Cut the layers into ``count`` consecutive stages.

    Layers left over go one each to the stages before the last, which holds the head
    (vLLM, distributed/utils.py, get_pp_indices).

    Raises:
        UsageError: there are more stages than layers, or a layer reads a cache of another stage.
    """
    depth = len(model.layers)
    if count > depth:
        raise UsageError(f"pipeline parallel {count} is more than the model's {depth} layers")
    sizes = [depth // count] * count
    for back in range(2, depth % count + 2):
        sizes[-back] += 1
    stages, start = [], 0
    for number, size in enumerate(sizes, start=1):
        stages.append(Stage(number, count, model.layers[start : start + size]))
        _refuse_a_cache_elsewhere(stages[-1])
        start += size
    return tuple(stages)


def _refuse_a_cache_elsewhere(stage: Stage) -> None:
    """Refuse a stage that reads what another has stored (vLLM, attention.py, validate_kv_sharing_target)."""
    stored: set[CacheSlot] = set()
    for slot in (slot for layer in stage.layers for slot in layer.slots()):
        if slot.owned:
            stored.add(slot)
        elif replace(slot, owned=True) not in stored:
            here = f"stage {stage.number} of {stage.of}"
            raise UsageError(f"layers on {here} read the cache of a layer on a stage before it")
