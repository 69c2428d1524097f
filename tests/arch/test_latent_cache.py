"""Latent attention whose cache holds every head's key and value."""

import pytest

from kvplan.arch.entry import KV, Latent
from kvplan.arch.latent_cache import with_expanded_cache
from kvplan.errors import UsageError


def test_deepseek_v3_expanded_has_a_key_and_a_value_for_each_of_128_heads(bundled):
    main = bundled("deepseek-v3")
    model = with_expanded_cache(main)
    assert {slot.entry for slot in main.stored_slots()} == {Latent(512, 64)}
    assert [slot.entry for slot in model.stored_slots()] == [KV(128, 192, 128)] * 61
    assert list(model.weights()) == list(main.weights())


def test_only_latent_attention_is_expanded(bundled):
    """Kimi-Linear: 7 latent layers, 20 with a state."""
    main = bundled("kimi-linear-48b-a3b")
    model = with_expanded_cache(main)
    changed = [index for index, layer in enumerate(model.layers) if layer != main.layers[index]]
    assert len(changed) == 7
    assert {slot.entry for index in changed for slot in model.layers[index].slots()} == {KV(32, 192, 128)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("llama-3.1-8b", "llama-3.1-8b has no latent attention: there is no latent to expand"),
        ("glm-5.2", "glm-5.2 has an indexer: what it chooses is read as latents, never expanded"),
    ],
)
def test_models_without_latents_or_with_an_indexer_are_refused(name, message, bundled):
    with pytest.raises(UsageError, match=message):
        with_expanded_cache(bundled(name))
