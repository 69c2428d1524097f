"""Layers that predict further tokens, against the tensors of released files."""

from dataclasses import replace

import pytest

from kvplan.arch.attention import Attention
from kvplan.arch.gated_delta_net import GatedDeltaNet
from kvplan.arch.indexer import Indexer
from kvplan.arch.latent_attention import LatentAttention
from kvplan.arch.layer import Layer
from kvplan.arch.mlp import MLP
from kvplan.arch.model import Model
from kvplan.arch.prediction_layer import with_prediction_layers
from kvplan.errors import UsageError

# What Hugging Face counts in the files of deepseek-ai/DeepSeek-V3, by dtype: 684,531,386,000 elements.
FILES_BF16, FILES_FP8, FILES_FP32 = 3_918_786_560, 680_571_043_840, 41_555_600
# The files hold the embedding and the head a second time, beside the prediction layer.
COPIES = 2 * 129_280 * 7_168

# Elements that Hugging Face counts in released files, a prediction layer included. DeepSeek-V3.2 and GLM-4.5
# hold copies of embedding and head there; the last layer of GLM-5.2 has no indexer, its prediction layer has.
FILES = {
    "deepseek-v3.2": (685_355_329_792, COPIES),
    "glm-4.5": (358_337_791_296, 2 * 151_552 * 5_120),
    "glm-5": (753_864_139_008, 0),
    "glm-5.2": (753_329_940_480, 0),
    "qwen3.5-27b": (27_781_427_952, 0),
    "qwen3.5-35b-a3b": (35_951_822_704, 0),
}

INDEXER = Indexer(index_n_heads=3, index_head_dim=8, index_topk=16)
LATENT = LatentAttention(
    num_attention_heads=2,
    kv_lora_rank=12,
    qk_nope_head_dim=6,
    qk_rope_head_dim=4,
    v_head_dim=5,
    q_lora_rank=10,
    indexer=INDEXER,
)


def small(*layers, count=1):
    return Model("small", "a test", "bf16", 20, 50, 64, layers, num_nextn_predict_layers=count)


def by_storage(model):
    """Elements in plain bfloat16, in float8, and in float32: scales of 128 x 128 blocks, and buffers."""
    storage, plain, packed, wide = model.as_released(), 0, 0, 0
    for weight, count in model.weights():
        if not weight.trained:
            wide += count * weight.elements
        elif weight.format_under(storage) is None:
            plain += count * weight.elements
        else:
            rows, columns = weight.shape
            packed += count * weight.elements
            wide += count * weight.copies * -(-rows // 128) * -(-columns // 128)
    return plain, packed, wide


def test_deepseek_v3s_files_to_the_element_in_every_dtype(bundled):
    model = with_prediction_layers(bundled("deepseek-v3"))
    assert by_storage(model) == (FILES_BF16 - COPIES, FILES_FP8, FILES_FP32)


@pytest.mark.parametrize("name", FILES)
def test_released_files_to_the_element(name, imported):
    total, copies = FILES[name]
    model = with_prediction_layers(imported(f"hf_configs/{name}.json"))
    assert sum(weight.elements * count for weight, count in model.weights()) == total - copies


def test_a_prediction_layer_of_deepseek_v3_is_11_6_billion_parameters(bundled):
    """Published as 11.5 billion of its own; 7,168 x 14,336 of them and three norms join it to the model."""
    main = bundled("deepseek-v3")
    model = with_prediction_layers(main)
    (added,) = model.layers[len(main.layers) :]
    joining = {w.name: w.shape for w in model.layer_weights(added)}
    last = {w.name for w in main.layer_weights(main.layers[-1])}
    assert {name: shape for name, shape in joining.items() if name not in last} == {
        "enorm.weight": (7_168,),
        "hnorm.weight": (7_168,),
        "shared_head.norm.weight": (7_168,),
        "eh_proj.weight": (7_168, 14_336),
    }
    total, before = (sum(w.elements * n for w, n in m.weights()) for m in (model, main))
    assert total - before == 11_610_068_224


def test_it_caches_what_the_last_layer_does(bundled):
    main = bundled("deepseek-v3")
    slots = with_prediction_layers(main).stored_slots()
    assert len(slots) == 62
    assert set(slots) == set(main.stored_slots())


def test_it_has_an_indexer_of_its_own_where_the_last_layer_shares_one(bundled):
    """GLM-5.2: 78 layers, 21 with keys; the layer that predicts has keys too."""
    main = bundled("glm-5.2")
    assert main.layers[-1].mixer.indexer.shared
    added = with_prediction_layers(main).layers[-1].mixer
    assert not added.indexer.shared
    assert len(added.slots()) == 2
    indexed = Layer(LATENT, MLP(24))
    sharing = replace(indexed, mixer=replace(LATENT, indexer=replace(INDEXER, shared=True)))
    assert with_prediction_layers(small(indexed, sharing)).layers[-1] == replace(indexed, predicts=True)


def test_it_has_keys_of_its_own_where_the_last_layer_shares_them():
    owner = Layer(Attention(2, 1, 8), MLP(24))
    sharing = replace(owner, mixer=replace(owner.mixer, shares_kv=True))
    model = with_prediction_layers(small(owner, sharing, count=2))
    assert model.layers[2:] == (replace(owner, predicts=True),) * 2
    assert len(model.stored_slots()) == 3


def test_it_attends_where_the_last_layer_does_not():
    """Qwen3.5 and Qwen3-Next: an attention layer, whatever stands last."""
    attending = Layer(Attention(2, 1, 8), MLP(24))
    model = small(attending, Layer(GatedDeltaNet(2, 2, 4, 4, 3), MLP(24)))
    assert with_prediction_layers(model).layers[-1] == replace(attending, predicts=True)


def test_a_model_without_such_layers_is_refused(bundled):
    with pytest.raises(UsageError, match="has no next-token-prediction layers"):
        with_prediction_layers(bundled("llama-3.1-8b"))
