"""``--latent-cache`` and ``--mtp``: how latents are cached, and layers that are held to draft with."""

import json

import pytest

V3 = ("deepseek-v3", "--gpu", "h200-sxm")


def told(command, *arguments):
    status, out, lines = command(*arguments, "--json")
    assert (status, lines) == (0, [])
    return json.loads(out)


@pytest.mark.parametrize(
    ("form", "per_token", "per_gpu"),
    [
        # 61 layers: a latent of 512 and a rotated key of 64, on each of 8 GPUs.
        ("latent", 61 * 1_152, 61 * 1_152),
        # 128 heads with a key of 192 and a value of 128, 16 of them on each GPU.
        ("expanded", 61 * 81_920, 61 * 10_240),
    ],
)
def test_deepseek_v3_caches_a_latent_or_71_times_as_much(form, per_token, per_gpu, command):
    data = told(command, "capacity", *V3, "--gpus", "8", "--latent-cache", form)
    assert data["kv"]["bytes_per_token"] == per_token
    assert data["kv"]["bytes_per_token_per_gpu"] == per_gpu
    said = "every head's key and value is cached, made from latents that are not (--latent-cache)"
    assert (said in data["notes"]) == (form == "expanded")


def test_an_expanded_cache_is_read_in_decode(command):
    data = told(command, "roofline", *V3, "--latent-cache", "expanded", "--batch", "2", "--context", "4k")
    assert data["total"]["kv_read_bytes"] == 2 * 4_097 * 61 * 81_920
    assert data["total"]["kv_write_bytes"] == 2 * 61 * 81_920


@pytest.mark.parametrize("name", ["deepseek-v2-lite", "kimi-linear-48b-a3b"])
def test_a_run_with_an_expanded_cache_is_what_was_planned(name, command):
    short = ("--prompt-tokens", "40", "--tokens", "4", "--quiet")
    data = told(command, "simulate", name, "--latent-cache", "expanded", *short)
    assert data["verdict"]["agree"] is True


def test_weights_and_cache_of_a_prediction_layer(command):
    """DeepSeek-V3's files: float8 elements, bfloat16 ones (embedding and head once), float32 scales."""
    data = told(command, "capacity", *V3, "--mtp")
    plain = 3_918_786_560 - 2 * 129_280 * 7_168
    assert data["memory"]["weights_bytes"] == 680_571_043_840 + 2 * plain + 4 * 41_555_600
    assert data["kv"]["bytes_per_token"] == 62 * 1_152
    (note,) = data["notes"]
    assert note.startswith("1 next-token-prediction layer held to draft with (--mtp)")


@pytest.mark.parametrize(
    ("state", "index_key"),
    # bfloat16 as the latent is; in vLLM float8 elements and a float32 scale of 128 of them.
    [("transformers", 256), ("vllm", 132)],
)
def test_index_keys_of_deepseek_v32(state, index_key, command):
    data = told(command, "capacity", "deepseek-v3.2", "--gpu", "h200-sxm", "--state", state)
    assert data["kv"]["bytes_per_token"] == 61 * (1_152 + index_key)


def test_glm_5_2_has_index_keys_in_21_of_78_layers_and_one_for_its_prediction_layer(command):
    main, drafting = (
        told(command, "capacity", "glm-5.2", "--gpu", "h200-sxm", *more)["kv"]["bytes_per_token"]
        for more in ((), ("--mtp",))
    )
    assert main == 78 * 1_152 + 21 * 256
    assert drafting == 79 * 1_152 + 22 * 256


def test_decode_reads_the_best_2_048_latents_and_prefill_all_of_them(command):
    asked = ("roofline", "deepseek-v3.2", "--gpu", "h200-sxm", "--context", "100k")
    data = told(command, *asked)
    assert data["total"]["kv_read_bytes"] == 61 * (2_048 * 1_152 + 102_401 * 256)
    # The last 1,024 tokens of a prompt in 64 pieces: each reads everything in view, chosen or not, once.
    prompts = told(command, *asked, "--phase", "prefill", "--cached", "99k", "--chunk", "16")
    in_view = 64 * 99 * 1_024 + 16 * 64 * 65 // 2
    assert prompts["total"]["kv_read_bytes"] == 61 * in_view * (1_152 + 256)


REFUSED = [
    (
        ("capacity", "llama-3.1-8b", "--gpu", "t4", "--mtp"),
        "llama-3.1-8b has no next-token-prediction layers",
    ),
    (("capacity", *V3, "--latent-cache", "heads"), "no latent cache named 'heads'"),
    (("simulate", "deepseek-v3.2", "--latent-cache", "expanded"), "deepseek-v3.2 has an indexer"),
    (("roofline", "gpt2", "--gpu", "t4", "--latent-cache", "expanded"), "gpt2 has no latent attention"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: " ".join(value[:2]))
def test_what_a_model_cannot_be_asked_for(arguments, message, refused):
    assert refused(*arguments)[0].startswith(message)
