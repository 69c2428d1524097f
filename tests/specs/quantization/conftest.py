"""A small Llama under any quantisation, and what its files store."""

import pytest

from kvplan.plan.weights import tensor_bytes

# 2 layers of 4 query and 2 KV heads of 64. Matrices of a layer: q and o 256 x 256, k and v 128 x 256, gate
# and up 512 x 256, down 256 x 512: 589,824 elements.
LLAMA = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def llama(from_config):
    """A function that imports the small Llama with a ``quantization_config``."""

    def read(quantization, **keys):
        return from_config("llama", **{**LLAMA, "quantization_config": quantization, **keys})

    return read


@pytest.fixture
def llama_refusal(config_refusal):
    """A function that returns what is said of a ``quantization_config`` that is refused."""

    def read(quantization, **keys):
        return config_refusal("llama", **{**LLAMA, "quantization_config": quantization, **keys})

    return read


@pytest.fixture
def file_bytes():
    """A function that returns the bytes of all tensors of a model as its files store them."""

    def count(model):
        storage = model.as_released()
        return sum(
            tensor_bytes(weight, 1, storage, model.dtype).number * times for weight, times in model.weights()
        )

    return count


@pytest.fixture
def stored():
    """A function that returns what matrices are stored in, by name; of a layer, or outside all layers."""

    def of(model, layer=None):
        storage, found = model.as_released(), {}
        outer = (*model.input_weights(), *model.output_weights())
        for weight in outer if layer is None else model.layer_weights(model.layers[layer]):
            if weight.is_matrix and weight.trained:
                packed = weight.format_under(storage)
                name = packed.name if packed else weight.plain_dtype(storage, model.dtype)
                found[weight.name.removesuffix(".weight")] = name
        return found

    return of
