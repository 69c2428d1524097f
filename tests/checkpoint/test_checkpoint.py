import subprocess
import sys

import numpy as np
import pytest

from kvplan.allocation import Paged
from kvplan.checkpoint.checkpoint import is_checkpoint, open_checkpoint
from kvplan.engine.cache import Cache
from kvplan.engine.counter import Counter
from kvplan.engine.decoder import Decoder, Logits
from kvplan.storage import kv_format

TEXT = "The answer is 42, and the other one is 17: naïve, 你好."


def logits(checkpoint, tokens):
    """Return the logits behind every token, as the engine computes them."""
    model = checkpoint.model
    cache = Cache(model, kv_format("fp32"), Paged(16), 64, 1)
    sequence = cache.add()
    decoder = Decoder(model, checkpoint.weights(), 64)
    return decoder.forward(cache, [(sequence, tokens)], Counter(), logits=Logits.EVERY)


def test_a_folder_is_described_by_its_config(checkpoints):
    folder = checkpoints()
    checkpoint = open_checkpoint(str(folder))
    assert (checkpoint.label, checkpoint.path) == (str(folder), folder)
    model = checkpoint.model
    assert (model.name, len(model.layers), model.hidden_size, model.vocab_size) == ("bf16-1", 2, 64, 291)
    assert model.dtype == "bf16"


def test_every_form_of_the_small_checkpoint_is_the_same_model(checkpoints):
    forms = [{"dtype": "F32"}, {"dtype": "F16"}, {"dtype": "BF16"}, {"dtype": "F16", "shards": 4}]
    of_each = [open_checkpoint(checkpoints(**form)) for form in forms]
    tokens = of_each[0].tokenizer().encode(TEXT)
    first, *others = [logits(checkpoint, tokens) for checkpoint in of_each]
    assert first.shape == (len(tokens), 291)
    assert np.abs(first).max() > 1
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("type", ["F32", "F16", "BF16"])
def test_a_gguf_file_of_it_is_the_same_model(checkpoints, gguf_files, type, tied):
    folder, file = open_checkpoint(checkpoints(tied=tied)), open_checkpoint(gguf_files(type=type, tied=tied))
    tokens = folder.tokenizer().encode(TEXT)
    assert file.label == str(gguf_files(type=type, tied=tied))
    np.testing.assert_array_equal(file.tokenizer().encode(TEXT), tokens)
    assert file.tokenizer().decode(tokens) == TEXT
    weights = file.weights()
    for name, array in folder.weights().items():
        np.testing.assert_array_equal(weights.pop(name), array)
    assert not weights
    np.testing.assert_array_equal(logits(file, tokens), logits(folder, tokens))


def test_a_quantised_gguf_file_of_it_is_almost_the_same_model(checkpoints, gguf_files):
    folder, file = open_checkpoint(checkpoints()), open_checkpoint(gguf_files(type="Q8_0"))
    # 8 bits of a block whose largest number is below one: every number is within half a step.
    for name, array in folder.weights().items():
        assert 0 <= np.abs(file.weights()[name] - array).max() <= 0.5 / 127 + 2**-11
    assert np.abs(file.weights()["lm_head.weight"] - folder.weights()["lm_head.weight"]).max() > 0


def test_a_single_file_is_the_checkpoint_of_its_folder(checkpoints):
    folder = checkpoints(tied=True)
    single, whole = open_checkpoint(folder / "model.safetensors"), open_checkpoint(folder)
    assert single.label == str(folder / "model.safetensors")
    assert single.model == whole.model
    assert single.tokenizer().stop_tokens == {0, 2}
    for name, array in whole.weights().items():
        np.testing.assert_array_equal(single.weights()[name], array)


def test_a_file_of_any_name_can_be_named_itself(broken):
    folder = broken()
    (folder / "model.safetensors").rename(folder / "best.SafeTensors")
    assert len(open_checkpoint(folder / "best.SafeTensors").weights()) == 21


@pytest.mark.parametrize(
    ("text", "means_weights"),
    [
        ("a/b.safetensors", True),
        ("model.GGUF", True),
        ("llama-3.1-8b", False),
        ("config.json", False),
        ("", False),
        ("a\0b", False),
    ],
)
def test_weights_are_known_by_their_ending(text, means_weights):
    assert is_checkpoint(text) is means_weights


@pytest.mark.parametrize(
    ("held", "means_weights"),
    [
        ("model.safetensors", True),
        ("model-00001-of-00002.safetensors", True),
        ("model.safetensors.index.json", True),
        ("config.json", False),
        ("pytorch_model.bin", False),
    ],
)
def test_a_folder_means_weights_where_it_holds_safetensors(tmp_path, held, means_weights):
    (tmp_path / held).touch()
    assert is_checkpoint(str(tmp_path)) is means_weights


def test_the_packages_are_imported_only_when_they_are_needed(checkpoints):
    script = """
import sys
import kvplan.checkpoint.assemble, kvplan.checkpoint.tokenizer, kvplan.checkpoint.safetensors_files
from kvplan.checkpoint.checkpoint import open_checkpoint
def there():
    return [name for name in ("gguf", "safetensors", "tokenizers") if name in sys.modules]
print(there())
checkpoint = open_checkpoint(sys.argv[1])
checkpoint.weights()
print(there())
checkpoint.tokenizer()
print(there())
"""
    run = [sys.executable, "-c", script, str(checkpoints())]
    found = subprocess.run(run, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["[]", "['safetensors']", "['safetensors', 'tokenizers']"]
