"""A simulation in words: what was run, how much of something, and whether the plan held."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

from kvplan.allocation import Contiguous, Paged
from kvplan.arch.attention import Attention
from kvplan.arch.compressed_attention import CompressedAttention
from kvplan.arch.entry import State
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.model import Model
from kvplan.arch.recurrent import Recurrent
from kvplan.check.scenario import Scenario
from kvplan.check.simulation import Check, Simulation

# More requests than this are told by the shortest and the longest.
MOST_LENGTHS = 8


def heading(simulation: Simulation) -> str:
    """Return what was run, in three lines."""
    ran, scenario = simulation.ran, simulation.scenario
    match scenario.allocation:
        case Paged(block_tokens=tokens):
            kept = f"in blocks of {counted(tokens, 'token')}"
        case Contiguous(max_tokens=tokens):
            kept = f"in one piece of {counted(tokens, 'token')} a request"
    size = f"{counted(len(ran.layers), 'layer')} x {ran.hidden_size:,} hidden"
    if simulation.continuation is None:
        what = f"{simulation.model.name} scaled down to {size}, with random weights"
    else:
        what = f"{simulation.model.name}, {size}, with its own weights"
    heads = f"{heads_in_words(ran)}, {scenario.kv.name} KV {kept}"
    return f"{what}\n{heads}\n{load_in_words(simulation)}"


def load_in_words(simulation: Simulation) -> str:
    """Return what was read, and what was added to it."""
    continuation = simulation.continuation
    if continuation is None:
        return requests_in_words(simulation.scenario)
    (length,), ((*tokens,),) = simulation.scenario.prompt_tokens, simulation.measurement.tokens
    whole = continuation.whole_tokens
    read = f"{counted(length, 'token')} of text" + (f", the first of {whole:,}" if whole > length else "")
    ended = "; the last one ends the text" if continuation.stopped else ""
    return f"{read}; {counted(len(tokens), 'token')} added{ended}"


def requests_in_words(scenario: Scenario) -> str:
    """Return how many requests, how long their prompts are, and what is added to each."""
    lengths = scenario.prompt_tokens
    if len(lengths) > MOST_LENGTHS:
        told = f"{min(lengths):,} to {max(lengths):,}"
    else:
        told = " / ".join(f"{length:,}" for length in lengths)
    added = f"{counted(scenario.new_tokens, 'token')} added{' to each' if len(lengths) > 1 else ''}"
    return f"{counted(len(lengths), 'request')} of {told} token{'s' if told != '1' else ''}, {added}"


def heads_in_words(model: Model) -> str:
    """Return the heads of a model's first attention layer in words, or of its first recurrent one."""
    mixers = [mixer for layer in model.layers for mixer in layer.mixers()]
    for mixer in sorted(mixers, key=lambda mixer: isinstance(mixer, Recurrent)):
        match mixer:
            case Attention(num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=dim):
                return f"{counted(heads, 'query head')}, {counted(kv_heads, 'KV head')} of {dim}"
            case LatentAttention(num_attention_heads=heads, expanded_cache=True):
                dims = f"keys of {mixer.qk_head_dim} and values of {mixer.v_head_dim}"
                return f"{counted(heads, 'query head')} with {dims} each"
            case LatentAttention(num_attention_heads=heads, kv_lora_rank=rank):
                return f"{counted(heads, 'query head')} over latents of {rank}"
            case CompressedAttention(num_attention_heads=heads, head_dim=dim):
                return f"{counted(heads, 'query head')} over one shared key of {dim}"
            case Recurrent():
                (slot,) = mixer.slots()
                assert isinstance(slot.entry, State)
                return f"a state of {slot.entry.elements:,} elements a layer"
    raise AssertionError("a model has mixers")


def verdict_in_words(simulation: Simulation) -> str:
    """Return whether the plan holds, in a sentence."""
    if not simulation.agree:
        return f"The plan does not hold: {_differences(simulation)}."
    count = len(named_checks(simulation))
    return f"The plan holds: {count} of {count} figures agree."


def all_verdict_in_words(simulations: Sequence[Simulation]) -> str:
    """Return whether the plan holds for every model, in a sentence or two."""
    broken = [simulation for simulation in simulations if not simulation.agree]
    if not broken:
        figures = sum(len(named_checks(simulation)) for simulation in simulations)
        return f"The plan holds: all {figures:,} figures of {counted(len(simulations), 'model')} agree."
    first = broken[0]
    return (
        f"The plan does not hold for {len(broken)} of {counted(len(simulations), 'model')}. "
        f"{first.model.name}: {_differences(first)}."
    )


def _differences(simulation: Simulation) -> str:
    """Return how many figures differ, the first with its numbers and the next by name."""
    named, differing = named_checks(simulation), differing_checks(simulation)
    (name, check), *others = differing.items()
    predicted, measured = (f"{q.value:,}" for q in (check.predicted, check.measured))
    unit = f" {check.predicted.unit.value}".rstrip()
    told = [f"{name} ({predicted}{unit} predicted, {measured} measured)", *(other for other, _ in others[:3])]
    if len(others) > 3:
        told.append(f"{len(others) - 3} more")
    verb = "differs" if len(differing) == 1 else "differ"
    return f"{len(differing)} of {len(named)} figures {verb}: {', '.join(told)}"


def named_checks(simulation: Simulation) -> dict[str, Check]:
    """Return every check by its name; those of layers say which."""
    layers = enumerate(simulation.layer_checks)
    return {check.name: check for check in simulation.checks} | {
        f"layers.{number}.{check.label}_bytes": check for number, pair in layers for check in pair
    }


def differing_checks(simulation: Simulation) -> dict[str, Check]:
    """Return the checks that failed by their names."""
    return {name: check for name, check in named_checks(simulation).items() if not check.agree}


def counted(number: int, noun: str) -> str:
    """Return a number with what it counts: ``1 layer``, ``2 layers``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Return a share in percent: whole from 10 up, to a tenth below; rounded down, so 99.96% is not all."""
    hundredths = 100 * share
    return f"{floor(hundredths)}%" if hundredths >= 10 else f"{floor(10 * hundredths) / 10}%"
