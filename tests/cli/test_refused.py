"""Command lines that cannot be right: one line each, in the same words for every option."""

# ruff: noqa: E501, RUF001 - one line a case, its whole message on it; digits of another script are meant

import re
import shutil
from pathlib import Path

import pytest

from kvplan.specs.catalog import bundled_folder
from kvplan.storage import WEIGHT_FORMATS

CONFIG = Path(__file__).parent.parent / "data" / "hf_configs" / "llama-3.1-8b.json"

WEIGHT_NAMES = f"{', '.join(s.name for s in WEIGHT_FORMATS[:32])} and {len(WEIGHT_FORMATS) - 32} others"

# fmt: off
REFUSED = [
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100'], 2, "no accelerator named 'h100'. Did you mean h100-sxm, h100-nvl, h100-pcie?   (kvplan gpus list)", id='gpu: family only'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sx'], 2, "no accelerator named 'h100-sx'. Did you mean h100-sxm, h200-sxm, h100-nvl?   (kvplan gpus list)", id='gpu: one letter short'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'H100-SXM'], 2, "no accelerator named 'H100-SXM'. Did you mean h100-sxm, h200-sxm, b300-sxm?   (kvplan gpus list)", id='gpu: capitals'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'rtx 4090'], 2, "no accelerator named 'rtx 4090'. Did you mean rtx4090, rtx5090, rtx4080?   (kvplan gpus list)", id='gpu: with a space'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', '4090'], 2, "no accelerator named '4090'. Did you mean rtx4090?   (kvplan gpus list)", id='gpu: number only'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'xyz'], 2, "no accelerator named 'xyz'   (kvplan gpus list)", id='gpu: nothing like it'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', '.'], 2, "no accelerator named '.'   (kvplan gpus list)", id='gpu: dot'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', '..'], 2, "no accelerator named '..'   (kvplan gpus list)", id='gpu: two dots'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'a\x1b[31mb'], 2, "no accelerator named 'a\\x1b[31mb'   (kvplan gpus list)", id='gpu: control character'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'a\nb'], 2, "no accelerator named 'a\\nb'   (kvplan gpus list)", id='gpu: line break'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', "x" * 10_000], 2, "no accelerator named 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'   (kvplan gpus list)", id='gpu: ten thousand letters'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', './h100.yaml'], 3, "cannot read 'h100.yaml': there is no such file   (did you mean h100-sxm, h100-nvl, h100-pcie?)", id='gpu: missing file'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'nvidia/h100-sxm'], 3, "cannot read 'nvidia/h100-sxm': there is no such file   (did you mean h100-sxm, h200-sxm, b300-sxm?)", id='gpu: vendor and name'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', './empty'], 3, "cannot read 'empty': it is a folder   (name a file inside it)", id='gpu: folder'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', './a\x00b.yaml'], 3, "cannot read 'a\\x00b.yaml': that cannot be a file name   (check the spelling of the path)", id='gpu: NUL in a path'),
    pytest.param(['capacity', 'llama-3.1-8', '--gpu', 'h100-sxm'], 2, "no model named 'llama-3.1-8'. Did you mean llama-3.1-8b, llama-3.1-70b, llama-3.1-405b?   (kvplan models list)", id='model: one letter short'),
    pytest.param(['capacity', 'LLAMA-3.1-8B', '--gpu', 'h100-sxm'], 2, "no model named 'LLAMA-3.1-8B'. Did you mean llama-3.1-8b, llama-3.1-70b, llama-3.1-405b?   (kvplan models list)", id='model: capitals'),
    pytest.param(['capacity', 'meta-llama/Llama-3.1-8B', '--gpu', 'h100-sxm'], 3, "cannot read 'meta-llama/Llama-3.1-8B': there is no such file   (did you mean llama-3.1-8b, llama-3.1-70b, llama-3.1-405b?)", id='model: as on Hugging Face'),
    pytest.param(['capacity', 'meta-llama/Llama-3.1-8B-Instruct', '--gpu', 'h100-sxm'], 3, "cannot read 'meta-llama/Llama-3.1-8B-Instruct': there is no such file   (did you mean llama-3.1-8b, llama-3.1-70b, llama-3.2-11b-vision?)", id='model: as on Hugging Face, instruct'),
    pytest.param(['capacity', 'Qwen/Qwen3-8B', '--gpu', 'h100-sxm'], 3, "cannot read 'Qwen/Qwen3-8B': there is no such file   (did you mean qwen3-8b, qwen3-32b, qwen3-14b?)", id='model: as on Hugging Face, Qwen'),
    pytest.param(['capacity', 'deepseek-ai/DeepSeek-V3', '--gpu', 'h100-sxm'], 3, "cannot read 'deepseek-ai/DeepSeek-V3': there is no such file   (did you mean deepseek-v3, deepseek-v3.2, deepseek-v2-lite?)", id='model: as on Hugging Face, DeepSeek'),
    pytest.param(['capacity', 'llama', '--gpu', 'h100-sxm'], 2, "no model named 'llama'. Did you mean llama-2-7b, llama-2-70b, llama-2-13b?   (kvplan models list)", id='model: family only'),
    pytest.param(['capacity', 'gpt5', '--gpu', 'h100-sxm'], 2, "no model named 'gpt5'. Did you mean gpt2?   (kvplan models list)", id='model: another generation'),
    pytest.param(['capacity', 'zzzzqq', '--gpu', 'h100-sxm'], 2, "no model named 'zzzzqq'   (kvplan models list)", id='model: nothing like it'),
    pytest.param(['capacity', 'llama-3.1-8b.yaml', '--gpu', 'h100-sxm'], 3, "cannot read 'llama-3.1-8b.yaml': there is no such file   (did you mean llama-3.1-8b, llama-3.1-70b, llama-3.1-405b?)", id='model: missing YAML'),
    pytest.param(['capacity', 'config.json', '--gpu', 'h100-sxm'], 3, "cannot read 'config.json': there is no such file   (kvplan models list)", id='model: missing config'),
    pytest.param(['capacity', './empty', '--gpu', 'h100-sxm'], 3, "cannot read 'empty/config.json': there is no such file   (kvplan models list)", id='model: folder without config'),
    pytest.param(['capacity', '../../../etc/passwd_', '--gpu', 'h100-sxm'], 3, "cannot read '../../../etc/passwd_': there is no such file   (kvplan models list)", id='model: password file'),
    pytest.param(['capacity', '.', '--gpu', 'h100-sxm'], 2, "no model named '.'   (kvplan models list)", id='model: dot'),
    pytest.param(['capacity', '..', '--gpu', 'h100-sxm'], 2, "no model named '..'   (kvplan models list)", id='model: two dots'),
    pytest.param(['capacity', '~', '--gpu', 'h100-sxm'], 2, "no model named '~'   (kvplan models list)", id='model: home'),
    pytest.param(['capacity', 'a b', '--gpu', 'h100-sxm'], 2, "no model named 'a b'   (kvplan models list)", id='model: with a space'),
    pytest.param(['capacity', 'a\x1b[31mb', '--gpu', 'h100-sxm'], 2, "no model named 'a\\x1b[31mb'   (kvplan models list)", id='model: control character'),
    pytest.param(['capacity', 'é', '--gpu', 'h100-sxm'], 2, "no model named 'é'   (kvplan models list)", id='model: accent'),
    pytest.param(['capacity', '\udcff', '--gpu', 'h100-sxm'], 2, "no model named '\\udcff'   (kvplan models list)", id='model: half a character'),
    pytest.param(['capacity', 'a\x00b', '--gpu', 'h100-sxm'], 2, "no model named 'a\\x00b'   (kvplan models list)", id='model: NUL'),
    pytest.param(['capacity', './a\x00b.yaml', '--gpu', 'h100-sxm'], 3, "cannot read 'a\\x00b.yaml': that cannot be a file name   (check the spelling of the path)", id='model: NUL in a path'),
    pytest.param(['capacity', "x" * 10_000, '--gpu', 'h100-sxm'], 2, "no model named 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'   (kvplan models list)", id='model: ten thousand letters'),
    pytest.param(['capacity', "x/" * 5_000, '--gpu', 'h100-sxm'], 3, "cannot read '...x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x': file name too long   (check the path and the disk)", id='model: ten thousand letters of path'),
    pytest.param(['capacity', 'a_file/x.yaml', '--gpu', 'h100-sxm'], 3, "cannot read 'a_file/x.yaml': there is no such file   (kvplan models list)", id='model: path through a file'),
    pytest.param(['capacity', '/dev/null', '--gpu', 'h100-sxm'], 3, "cannot read '/dev/null': it is a device, a pipe or a socket   (save the text as a regular file first)", id='model: a device'),
    pytest.param(['capacity', '/dev/zero', '--gpu', 'h100-sxm'], 3, "cannot read '/dev/zero': it is a device, a pipe or a socket   (save the text as a regular file first)", id='model: an endless device'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--weights', 'bf17'], 2, "no weight format named 'bf17'. Did you mean bf16?", id='--weights bf17'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--weights', 'BF16'], 2, "no weight format named 'BF16'. Did you mean bf16, fp16?", id='--weights BF16'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--weights', 'int3'], 2, "no weight format named 'int3'. Did you mean int8, int4?", id='--weights int3'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--weights', 'q4'], 2, "no weight format named 'q4'. Did you mean q4_k, q4_1, q4_0?", id='--weights q4'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--weights', 'fp8_block'], 2, "no weight format named 'fp8_block'. Did you mean fp8-block?", id='--weights fp8_block'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--weights', 'nothing'], 2, f"no weight format named 'nothing'; expected one of {WEIGHT_NAMES}", id='--weights nothing'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--kv', 'bf17'], 2, "no KV format named 'bf17'. Did you mean bf16?", id='--kv bf17'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--kv', 'int3'], 2, "no KV format named 'int3'. Did you mean int8, int4, int2?", id='--kv int3'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--kv', 'fp-8'], 2, "no KV format named 'fp-8'. Did you mean fp8?", id='--kv fp-8'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--kv', 'FP8'], 2, "no KV format named 'FP8'. Did you mean fp8?", id='--kv FP8'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--kv', 'nothing'], 2, "no KV format named 'nothing'; expected one of bf16, fp16, fp32, fp8, int8, int4, int2, int8-kivi, int4-kivi, int2-kivi", id='--kv nothing'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--state', 'vlm'], 2, "no state layout named 'vlm'. Did you mean vllm?", id='--state vlm'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--state', 'transformer'], 2, "no state layout named 'transformer'. Did you mean transformers?", id='--state transformer'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--state', 'none'], 2, "no state layout named 'none'; expected one of transformers, vllm-fp32, vllm, sglang", id='--state none'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--alloc', 'page'], 2, "no allocation named 'page'. Did you mean paged?", id='--alloc page'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--alloc', 'Paged'], 2, "no allocation named 'Paged'. Did you mean paged?", id='--alloc Paged'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--alloc', 'ring'], 2, "no allocation named 'ring'; expected one of paged, contiguous", id='--alloc ring'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--format', 'jsn'], 2, "no output format named 'jsn'. Did you mean json?", id='--format jsn'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--format', 'yaml'], 2, "no output format named 'yaml'; expected one of table, plain, json, csv, md", id='--format yaml'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--format', 'TABLE'], 2, "no output format named 'TABLE'. Did you mean table?", id='--format TABLE'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--color', 'Never'], 2, "no colour setting named 'Never'. Did you mean never?", id='--color Never'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--color', 'sometimes'], 2, "no colour setting named 'sometimes'; expected one of auto, always, never", id='--color sometimes'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--tp', '3'], 2, "tensor parallel 3 does not divide the model's 32 query heads   (tensor parallel sizes that do: 1, 2, 4, 8, 16, 32)", id='--tp 3'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--tp', '0'], 2, "--tp: '0' is out of range: expected 1 to 65,536", id='--tp 0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--tp', '-1'], 2, "--tp: '-1' is not a count such as 8192, 4k or 1M", id='--tp -1'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--tp', 'x'], 2, "--tp: 'x' is not a count such as 8192, 4k or 1M", id='--tp x'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--tp', '1.5'], 2, "--tp: '1.5' is not a whole number", id='--tp 1.5'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--tp', '2,4'], 2, "--tp: '2,4' is not a count such as 8192, 4k or 1M", id='--tp 2,4'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--tp', '99999'], 2, "--tp: '99999' is out of range: expected 1 to 65,536", id='--tp 99999'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--tp', '5'], 2, "tensor parallel 5 does not divide the model's 128,256 padded vocabulary rows   (tensor parallel sizes that do: 1, 2, 4, 8, 16, 32)", id='--tp 5'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--tp', '64'], 2, "tensor parallel 64 does not divide the model's 32 query heads   (tensor parallel sizes that do: 1, 2, 4, 8, 16, 32)", id='--tp 64'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--pp', '999'], 2, "pipeline parallel 999 is more than the model's 32 layers", id='--pp 999'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--pp', '33'], 2, "pipeline parallel 33 is more than the model's 32 layers", id='--pp 33'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--pp', '0'], 2, "--pp: '0' is out of range: expected 1 to 65,536", id='--pp 0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--dp', '0'], 2, "--dp: '0' is out of range: expected 1 to 65,536", id='--dp 0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--dp', 'x'], 2, "--dp: 'x' is not a count such as 8192, 4k or 1M", id='--dp x'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--dp', '65537'], 2, "--dp: '65537' is out of range: expected 1 to 65,536", id='--dp 65537'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--ep', '0'], 2, "--ep: '0' is out of range: expected 1 to 65,536", id='--ep 0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--ep', 'x'], 2, "--ep: 'x' is not a count such as 8192, 4k or 1M", id='--ep x'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--ep', '2'], 2, 'expert parallel 2: llama-3.1-8b has no routed experts   (--ep 1)', id='--ep 2'),
    pytest.param(['capacity', 'mixtral-8x7b', '--gpu', 'h100-sxm', '--tp', '2', '--dp', '1', '--ep', '4'], 2, 'expert parallel 4 needs 4 GPUs in each pipeline stage: tp 2 x pp 1 x dp 1 has 2   (--ep 1 or --ep 2)', id='--tp 2 --dp 1 --ep 4'),
    pytest.param(['capacity', 'mixtral-8x7b', '--gpu', 'h100-sxm', '--ep', '3'], 2, "expert parallel 3 does not divide the model's 8 routed experts   (expert parallel sizes that do: 1, 2, 4, 8)", id='--ep 3'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--cp', '0'], 2, "--cp: '0' is out of range: expected 1 to 65,536", id='--cp 0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--cp', '-1'], 2, "--cp: '-1' is not a count such as 8192, 4k or 1M", id='--cp -1'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--gpus', '8', '--cp', '3'], 2, '8 GPUs cannot be cut into pp 1 x dp 1 x cp 3', id='--gpus 8 --cp 3'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--cp', '2', '--kv', 'int4-kivi', '--block-size', '64'], 2, 'int4-kivi quantises the keys of 64 tokens together: context parallel 2 deals them to different ranks   (--kv int4 has a scale for each token)', id='--cp 2 --kv int4-kivi --block-size 64'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--gpus', '0'], 2, "--gpus: '0' is out of range: expected 1 to 65,536", id='--gpus 0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--gpus', '3'], 2, "tensor parallel 3 does not divide the model's 32 query heads   (tensor parallel sizes that do: 1, 2, 4, 8, 16, 32)", id='--gpus 3'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--gpus', 'x'], 2, "--gpus: 'x' is not a count such as 8192, 4k or 1M", id='--gpus x'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '4q'], 2, "--context: '4q' is not a count such as 8192, 4k or 1M", id='--context 4q'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '4k,'], 2, "--context: '4k,' has an empty entry   (4k,32k or 1..64)", id='--context 4k,'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', ','], 2, "--context: ',' has an empty entry   (4k,32k or 1..64)", id='--context ,'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '1..'], 2, "--context: '1..' has an empty entry   (4k,32k or 1..64)", id='--context 1..'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '..'], 2, "--context: '..' has an empty entry   (4k,32k or 1..64)", id='--context ..'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '1...3'], 2, "--context: '.3' is not a count such as 8192, 4k or 1M", id='--context 1...3'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '64..1'], 2, '--context: the range 64..1 is empty', id='--context 64..1'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '0'], 2, "--context: '0' is out of range: expected 1 to 1,099,511,627,776", id='--context 0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '-1'], 2, "--context: '-1' is not a count such as 8192, 4k or 1M", id='--context -1'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '1e9'], 2, "--context: '1e9' is not a count such as 8192, 4k or 1M", id='--context 1e9'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '1.5'], 2, "--context: '1.5' is not a whole number", id='--context 1.5'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '0.1k'], 2, "--context: '0.1k' is not a whole number", id='--context 0.1k'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '4kk'], 2, "--context: '4kk' is not a count such as 8192, 4k or 1M", id='--context 4kk'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '4 k'], 2, "--context: '4 k' is not a count such as 8192, 4k or 1M", id='--context 4 k'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', ' '], 2, "--context: ' ' has an empty entry   (4k,32k or 1..64)", id='--context '),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '4k;8k'], 2, "--context: '4k;8k' is not a count such as 8192, 4k or 1M", id='--context 4k;8k'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '1..2..3'], 2, "--context: '2..3' is not a count such as 8192, 4k or 1M", id='--context 1..2..3'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '99999999999999999999'], 2, "--context: '99999999999999999999' is not a count such as 8192, 4k or 1M", id='--context 99999999999999999999'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '2000000M'], 2, "--context: '2000000M' is out of range: expected 1 to 1,099,511,627,776", id='--context 2000000M'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', 'k'], 2, "--context: 'k' is not a count such as 8192, 4k or 1M", id='--context k'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '４k'], 2, "--context: '４k' is not a count such as 8192, 4k or 1M", id='--context ４k'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--batch', '-1'], 2, "--batch: '-1' is not a count such as 8192, 4k or 1M", id='--batch -1'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--batch', '0'], 2, "--batch: '0' is out of range: expected 1 to 1,099,511,627,776", id='--batch 0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--batch', 'x'], 2, "--batch: 'x' is not a count such as 8192, 4k or 1M", id='--batch x'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--batch', '1,,2'], 2, "--batch: '1,,2' has an empty entry   (4k,32k or 1..64)", id='--batch 1,,2'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--batch', '64..1'], 2, '--batch: the range 64..1 is empty', id='--batch 64..1'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--batch', '1.5'], 2, "--batch: '1.5' is not a whole number", id='--batch 1.5'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', '0'], 2, "--memory-utilization: '0' is out of range: expected above 0 and up to 1, or 100%", id='--memory-utilization 0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', '1.1'], 2, "--memory-utilization: '1.1' is out of range: expected above 0 and up to 1, or 100%", id='--memory-utilization 1.1'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', 'nan'], 2, "--memory-utilization: 'nan' is not a share such as 0.9 or 90%", id='--memory-utilization nan'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', 'inf'], 2, "--memory-utilization: 'inf' is not a share such as 0.9 or 90%", id='--memory-utilization inf'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', '90'], 2, "--memory-utilization: '90' is out of range: expected above 0 and up to 1, or 100%", id='--memory-utilization 90'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', '-0.5'], 2, "--memory-utilization: '-0.5' is not a share such as 0.9 or 90%", id='--memory-utilization -0.5'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', '0%'], 2, "--memory-utilization: '0%' is out of range: expected above 0 and up to 1, or 100%", id='--memory-utilization 0%'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', '101%'], 2, "--memory-utilization: '101%' is out of range: expected above 0 and up to 1, or 100%", id='--memory-utilization 101%'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', '%'], 2, "--memory-utilization: '%' is not a share such as 0.9 or 90%", id='--memory-utilization %'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', 'abc'], 2, "--memory-utilization: 'abc' is not a share such as 0.9 or 90%", id='--memory-utilization abc'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', '.'], 2, "--memory-utilization: '.' is not a share such as 0.9 or 90%", id='--memory-utilization .'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', '0.90001'], 2, "--memory-utilization: '0.90001' has more than four decimals", id='--memory-utilization 0.90001'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', '1e-3'], 2, "--memory-utilization: '1e-3' is not a share such as 0.9 or 90%", id='--memory-utilization 1e-3'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--memory-utilization', '1_0'], 2, "--memory-utilization: '1_0' is not a share such as 0.9 or 90%", id='--memory-utilization 1_0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--overhead', '5XB'], 2, "--overhead: '5XB' is not a size such as 1.5GiB, 512MiB or 2GB", id='--overhead 5XB'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--overhead', '-1'], 2, "--overhead: '-1' is not a size such as 1.5GiB, 512MiB or 2GB", id='--overhead -1'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--overhead', '1.5'], 2, "--overhead: '1.5' is not a whole number of bytes", id='--overhead 1.5'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--overhead', '1e9'], 2, "--overhead: '1e9' is not a size such as 1.5GiB, 512MiB or 2GB", id='--overhead 1e9'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--overhead', '0.3B'], 2, "--overhead: '0.3B' is not a whole number of bytes", id='--overhead 0.3B'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--overhead', 'GiB'], 2, "--overhead: 'GiB' is not a size such as 1.5GiB, 512MiB or 2GB", id='--overhead GiB'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--block-size', '0'], 2, "--block-size: '0' is out of range: expected 1 to 65,536", id='--block-size 0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--block-size', '1M'], 2, "--block-size: '1M' is out of range: expected 1 to 65,536", id='--block-size 1M'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--block-size', '-1'], 2, "--block-size: '-1' is not a count such as 8192, 4k or 1M", id='--block-size -1'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--chunk', '0'], 2, "--chunk: '0' is out of range: expected 1 to 16,777,216", id='--chunk 0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--chunk', '17M'], 2, "--chunk: '17M' is out of range: expected 1 to 16,777,216", id='--chunk 17M'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--max-length', '0'], 2, "--max-length: '0' is out of range: expected 1 to 2,147,483,648", id='--max-length 0'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--max-length', '3000M'], 2, "--max-length: '3000M' is out of range: expected 1 to 2,147,483,648", id='--max-length 3000M'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--max-length', 'x'], 2, "--max-length: 'x' is not a count such as 8192, 4k or 1M", id='--max-length x'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--explain', 'nope'], 2, "no figure named 'nope'   (--explain all shows every figure)", id='--explain nope'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--explain', 'memory.weight_bytes'], 2, "no figure named 'memory.weight_bytes'. Did you mean memory.weights_bytes, memory.total_bytes, memory.overhead_bytes?   (--explain all shows every figure)", id='--explain memory.weight_bytes'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--explain', 'kv.'], 2, "no figure named 'kv.'. Did you mean kv?   (--explain all shows every figure)", id='--explain kv.'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--specs', 'nowhere'], 2, "--specs: 'nowhere' is no folder   (it holds models/*.yaml and gpus/*.yaml)", id='--specs nowhere'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--specs', 'a_file'], 2, "--specs: 'a_file' is no folder   (it holds models/*.yaml and gpus/*.yaml)", id='--specs a_file'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--specs', 'a\x00b'], 2, "--specs: 'a\\x00b' is no folder   (it holds models/*.yaml and gpus/*.yaml)", id='--specs aNULb'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '-o', 'nowhere/x.txt'], 3, "cannot write 'nowhere/x.txt': there is no such folder   (choose another place with -o)", id='-o nowhere/x.txt'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '-o', 'a_file/x.txt'], 3, "cannot write 'a_file/x.txt': a part of its path is not a folder   (choose another place with -o)", id='-o a_file/x.txt'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '-o', 'empty'], 3, "cannot write 'empty': it is a folder   (name a file inside it)", id='-o empty'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '-o', '.'], 3, "cannot write '.': it is a folder   (name a file inside it)", id='-o .'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '-o', 'a\x00b'], 3, "cannot write 'a\\x00b': that cannot be a file name   (choose another place with -o)", id='-o aNULb'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', ",".join(map(str, range(1, 70)))], 2, '--context: 69 values are more than 64', id='--context of 69 values'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--specs', "x" * 5_000], 2, "--specs: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' is no folder   (it holds models/*.yaml and gpus/*.yaml)", id='--specs: five thousand letters'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '-o', "x" * 300], 3, "cannot write '...xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx': file name too long   (choose another place with -o)", id='-o: three hundred letters'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--weights', "x" * 10_000], 2, f"no weight format named 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'; expected one of {WEIGHT_NAMES}", id='--weights: ten thousand letters'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--explain', "x" * 10_000], 2, "no figure named 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'   (--explain all shows every figure)", id='--explain: ten thousand letters'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', ''], 2, 'the value of --context is empty   (is a shell variable not set?)', id='--context of an unset variable'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--batch', ''], 2, 'the value of --batch is empty   (is a shell variable not set?)', id='--batch of an unset variable'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--tp', ''], 2, 'the value of --tp is empty   (is a shell variable not set?)', id='--tp of an unset variable'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--weights', ''], 2, 'the value of --weights is empty   (is a shell variable not set?)', id='--weights of an unset variable'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--specs', ''], 2, 'the value of --specs is empty   (is a shell variable not set?)', id='--specs of an unset variable'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '-o', ''], 2, 'the value of -o is empty   (is a shell variable not set?)', id='-o of an unset variable'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--explain', ''], 2, 'the value of --explain is empty   (is a shell variable not set?)', id='--explain of an unset variable'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--overhead', ''], 2, 'the value of --overhead is empty   (is a shell variable not set?)', id='--overhead of an unset variable'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context='], 2, 'the value of --context is empty   (is a shell variable not set?)', id='--context= of an unset variable'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--gpus', '8', '--tp', '3'], 2, 'tp 3 x pp 1 x dp 1 is 3 GPUs, not the 8 of --gpus   (leave --gpus out, or one of the degrees)', id='--gpus 8 --tp 3'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--gpus', '8', '--pp', '3'], 2, '8 GPUs cannot be cut into pp 3 x dp 1', id='--gpus 8 --pp 3'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--gpus', '8', '--tp', '2', '--pp', '2', '--dp', '3'], 2, 'tp 2 x pp 2 x dp 3 is 12 GPUs, not the 8 of --gpus   (leave --gpus out, or one of the degrees)', id='--gpus 8 --tp 2 --pp 2 --dp 3'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context'], 2, "option '--context' requires an argument   (kvplan --help)", id='option without value'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--contxt', '4k'], 2, 'no such option: --contxt (Possible options: --context, --output)   (kvplan --help)', id='option misspelt'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--jsno'], 2, 'no such option: --jsno (Possible options: --json)   (kvplan --help)', id='flag misspelt'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--check=3'], 2, "option '--check' does not take a value   (kvplan --help)", id='flag with a value'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', '-z'], 2, 'no such option: -z   (kvplan --help)', id='unknown letter'),
    pytest.param(['capacity', 'llama-3.1-8b', '--gpu', 'h100-sxm', 'gpt2'], 2, 'got unexpected extra argument(s) (gpt2)   (kvplan --help)', id='two models'),
    pytest.param(['capacity', 'gpt2', '--gpu', 't4', '--max-length', '2048'], 2, '--max-length: 2,048 is more than the 1,024 positions gpt2 has learned', id='past the learned positions'),
    pytest.param(['capacity'], 2, "missing argument 'MODEL'   (kvplan --help)", id="'capacity'"),
    pytest.param(['capacity', 'gpt2'], 2, "missing option '--gpu'   (kvplan --help)", id="'capacity gpt2'"),
    pytest.param(['capacity', '--gpu', 't4'], 2, "missing argument 'MODEL'   (kvplan --help)", id="'capacity --gpu t4'"),
    pytest.param(['capacity', '', '--gpu', 't4'], 2, 'argument 2 is empty   (is a shell variable not set?)', id="'capacity  --gpu t4'"),
    pytest.param(['capacity', 'gpt2', '--gpu', ''], 2, 'the value of --gpu is empty   (is a shell variable not set?)', id="'capacity gpt2 --gpu '"),
    pytest.param([''], 2, 'argument 1 is empty   (is a shell variable not set?)', id="''"),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--phase', 'decod'], 2, "no phase named 'decod'. Did you mean decode?", id='roofline --phase decod'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--phase', 'serve'], 2, "no phase named 'serve'; expected one of decode, prefill", id='roofline --phase serve'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--batch', '0'], 2, "--batch: '0' is out of range: expected 1 to 1,099,511,627,776", id='roofline --batch 0'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--batch', 'x'], 2, "--batch: 'x' is not a count such as 8192, 4k or 1M", id='roofline --batch x'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '0'], 2, "--context: '0' is out of range: expected 1 to 1,099,511,627,776", id='roofline --context 0'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '4k,8k'], 2, "--context: '4k,8k' is not a count such as 8192, 4k or 1M", id='roofline --context 4k,8k'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--context', '1024M'], 2, "a prompt of 1,073,741,824 tokens takes 131,072 chunks of 8,192: more than 2,048, each reckoned by itself   (a larger --chunk)", id='roofline --context 1024M'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--cached', '5'], 2, "--cached is of prompts   (leave it out, or --phase prefill)", id='roofline --cached 5'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--phase', 'prefill', '--cached', '4k'], 2, "--cached: 4,096 tokens leave none of the 4,096 of --context to read", id='roofline --phase prefill --cached 4k'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--phase', 'prefill', '--cached', '-1'], 2, "--cached: '-1' is not a count such as 8192, 4k or 1M", id='roofline --phase prefill --cached -1'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--phase', 'prefill', '--new-tokens', '5'], 2, "--new-tokens is of decode steps   (leave it out, or --phase decode)", id='roofline --phase prefill --new-tokens 5'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--phase', 'prefill', '--output-tokens', '5'], 2, "--output-tokens is of decode steps   (leave it out, or --phase decode)", id='roofline --phase prefill --output-tokens 5'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--runtime', 'lama.cpp'], 2, "no runtime named 'lama.cpp'. Did you mean llama.cpp, llama.cpp-2024, llama.cpp-metal?", id='roofline --runtime lama.cpp'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--runtime', 'llama.cpp', '--weights', 'int4'], 2, "no measured weight format of llama.cpp of 2025 on CUDA, with flash attention named 'int4'; expected one of mxfp4, q4_k, q8_0, q4_0", id='roofline --runtime llama.cpp --weights int4'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--runtime', 'llama.cpp', '--weights', 'q4_k', '--tp', '2'], 2, "--runtime: llama.cpp of 2025 on CUDA, with flash attention is timed layer by layer   (--pp instead of --tp)", id='roofline --runtime llama.cpp --tp 2'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--runtime', 'llama.cpp-metal'], 2, "--runtime: llama.cpp on Metal is not for h100-sxm", id='roofline --runtime llama.cpp-metal'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--output-tokens', '1'], 2, "output must be at least 2, not 1", id='roofline --output-tokens 1'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--json', '--format', 'csv'], 2, "--json and --format csv: one of them", id='roofline --json --format csv'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--new-tokens', '0'], 2, "--new-tokens: '0' is out of range: expected 1 to 1,099,511,627,776", id='roofline --new-tokens 0'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--kernel', '--phase', 'prefill'], 2, "--kernel is of decode attention   (--phase decode)", id='roofline --kernel --phase prefill'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--price', '0'], 2, "--price: '0' is not a price in US dollars such as 2.95", id='roofline --price 0'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--price', '-1'], 2, "--price: '-1' is not a price in US dollars such as 2.95", id='roofline --price -1'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--price', '1e3'], 2, "--price: '1e3' is not a price in US dollars such as 2.95", id='roofline --price 1e3'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--price', 'nan'], 2, "--price: 'nan' is not a price in US dollars such as 2.95", id='roofline --price nan'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--price', '2000000'], 2, "--price: '2000000' is not a price in US dollars such as 2.95", id='roofline --price 2000000'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--price', '$3'], 2, "--price: '$3' is not a price in US dollars such as 2.95", id='roofline --price $3'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--tp', '3'], 2, "tensor parallel 3 does not divide the model's 32 query heads   (tensor parallel sizes that do: 1, 2, 4, 8, 16, 32)", id='roofline --tp 3'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--ep', '2'], 2, "expert parallel 2: llama-3.1-8b has no routed experts   (--ep 1)", id='roofline --ep 2'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--kv', 'bf17'], 2, "no KV format named 'bf17'. Did you mean bf16?", id='roofline --kv bf17'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--weights', 'int3'], 2, "no weight format named 'int3'. Did you mean int8, int4?", id='roofline --weights int3'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'h100-sxm', '--explain', 'nothing'], 2, "no figure named 'nothing'   (--explain all shows every figure)", id='roofline --explain nothing'),
    pytest.param(['roofline', 'llama-3.1-8b', '--gpu', 'tpu-v5e', '--weights', 'fp32'], 2, "tpu-v5e has no matrix unit for tf32, fp32: its speed cannot be told   (another GPU, or a peak in its file)", id='roofline: no single precision'),
    pytest.param(['roofline', 'gpt2'], 2, "missing option '--gpu'   (kvplan --help)", id='roofline: no GPU'),
    pytest.param(['capcity'], 2, "no such command 'capcity'. Did you mean 'capacity'?   (kvplan --help)", id="'capcity'"),
    pytest.param(['cap\x1b[31m'], 2, "no such command 'cap\\x1b[31m'   (kvplan --help)", id="'cap\\x1b[31m'"),
    pytest.param(['cap\nacity'], 2, "no such command 'cap\\nacity'. Did you mean 'capacity'?   (kvplan --help)", id="'cap\\nacity'"),
    pytest.param(['--nope'], 2, 'no such option: --nope   (kvplan --help)', id="'--nope'"),
    pytest.param(['--\x1b[31m'], 2, 'no such option: --\\x1b[31m   (kvplan --help)', id="'--\\x1b[31m'"),
    pytest.param(['--a\nb'], 2, 'no such option: --a\\x0ab   (kvplan --help)', id="'--a\\nb'"),
    pytest.param(['--vers'], 2, 'no such option: --vers (Possible options: --version)   (kvplan --help)', id="'--vers'"),
    pytest.param(['models', 'lst'], 2, "no such command 'lst'. Did you mean 'list'?   (kvplan --help)", id="'models lst'"),
    pytest.param(['models', 'show'], 2, "missing argument 'MODEL'   (kvplan --help)", id="'models show'"),
    pytest.param(['models', 'show', ''], 2, 'argument 3 is empty   (is a shell variable not set?)', id="'models show '"),
    pytest.param(['models', 'show', 'lama-2-7b'], 2, "no model named 'lama-2-7b'. Did you mean llama-2-7b, llama-2-70b, llama-2-13b?   (kvplan models list)", id="'models show lama-2-7b'"),
    pytest.param(['models', 'import'], 2, "missing argument 'CONFIG'   (kvplan --help)", id="'models import'"),
    pytest.param(['models', 'import', 'nowhere'], 3, "cannot read 'nowhere': there is no such file   (check the spelling and the current folder)", id="'models import nowhere'"),
    pytest.param(['models', 'import', 'empty'], 3, "cannot read 'empty/config.json': there is no such file   (check the spelling and the current folder)", id="'models import empty'"),
    pytest.param(['models', 'import', 'a_file'], 2, "a_file:1:1: 'x' is not JSON: put text in double quotes", id="'models import a_file'"),
    pytest.param(['models', 'list', 'extra'], 2, 'got unexpected extra argument(s) (extra)   (kvplan --help)', id="'models list extra'"),
    pytest.param(['models', 'list', '--format', 'x'], 2, "no output format named 'x'; expected one of table, plain, json, csv, md", id="'models list --format x'"),
    pytest.param(['models', 'list', '--specs', 'nowhere'], 2, "--specs: 'nowhere' is no folder   (it holds models/*.yaml and gpus/*.yaml)", id="'models list --specs nowhere'"),
    pytest.param(['gpus', 'show'], 2, "missing argument 'GPU'   (kvplan --help)", id="'gpus show'"),
    pytest.param(['gpus', 'show', 'h100'], 2, "no accelerator named 'h100'. Did you mean h100-sxm, h100-nvl, h100-pcie?   (kvplan gpus list)", id="'gpus show h100'"),
    pytest.param(['gpus', 'list', '--gpu', 't4'], 2, 'no such option: --gpu (Possible options: --output)   (kvplan --help)', id="'gpus list --gpu t4'"),
    pytest.param(['gpus', 'show', 't4', '--color', 'x'], 2, "no colour setting named 'x'; expected one of auto, always, never", id="'gpus show t4 --color x'"),
    pytest.param(['schema'], 2, "missing argument 'KIND'   (kvplan --help)", id="'schema'"),
    pytest.param(['schema', 'modle'], 2, "no schema named 'modle'. Did you mean model?", id="'schema modle'"),
    pytest.param(['schema', 'yaml'], 2, "no schema named 'yaml'; expected one of model, gpu, plan", id="'schema yaml'"),
    pytest.param(['schema', 'gpu', '--json'], 2, 'no such option: --json   (kvplan --help)', id="'schema gpu --json'"),
    pytest.param(['schema', 'model', '-o', 'nowhere/x'], 3, "cannot write 'nowhere/x': there is no such folder   (choose another place with -o)", id="'schema model -o nowhere/x'"),
    pytest.param(['models', 'import', 'c.json', '--name', 'Bad Name'], 2, "--name: 'Bad Name' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit", id="models import --name 'Bad Name'"),
    pytest.param(['models', 'import', 'c.json', '--name', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'], 2, "--name: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit", id="models import --name 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'"),
    pytest.param(['models', 'import', 'c.json', '--name', '../x'], 2, "--name: '../x' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit", id="models import --name '../x'"),
    pytest.param(['models', 'import', 'c.json', '--name', 'a\x1b'], 2, "--name: 'a\\x1b' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit", id="models import --name 'a\\x1b'"),
    pytest.param(['models', 'import', 'c.json', '--name', '-x'], 2, "--name: '-x' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit", id="models import --name '-x'"),
]
# fmt: on


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with a file that is nothing, a folder with nothing in it, and a config.json."""
    (tmp_path / "a_file").write_text("x")
    (tmp_path / "empty").mkdir()
    shutil.copy(CONFIG, tmp_path / "c.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "status", "expected"), REFUSED)
def test_refused_in_one_line(arguments, status, expected, folder, refused):
    before = sorted(folder.rglob("*"))
    assert refused(*arguments, status=status) == [expected]
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("specs = 3", 'kvplan.toml: specs must be text   (expected: specs = "FOLDER")'),
        ("specs =", 'kvplan.toml: Invalid value (at end of document)   (expected: specs = "FOLDER")'),
    ],
)
def test_settings_that_cannot_be_read(settings, expected, folder, refused):
    (folder / "kvplan.toml").write_text(settings)
    assert refused("gpus", "show", "t4") == [expected]


@pytest.mark.parametrize("group", [(), ("models",), ("gpus",)])
def test_a_group_without_a_command_shows_its_help(group, command):
    status, out, lines = command(*group)
    assert (status, out) == (2, "")
    assert lines[0].startswith("Usage: ")
    assert any(line.strip() == "Commands:" for line in lines)


# What simulate takes as counts, and the largest of each.
COUNTS = {
    "--batch": "256",
    "--prompt-tokens": "65,536",
    "--tokens": "4,096",
    "--chunk": "65,536",
    "--block-size": "65,536",
    "--layers": "65,536",
    "--hidden": "8,192",
}
NO_COUNTS = {
    "0": "is out of range: expected 1 to {}",
    "99999": "is out of range: expected 1 to {}",
    "1.5": "is not a whole number",
    "-1": "is not a count such as 8192, 4k or 1M",
    "x": "is not a count such as 8192, 4k or 1M",
    "1,2": "is not a count such as 8192, 4k or 1M",
    "1..4": "is not a count such as 8192, 4k or 1M",
    "9" * 20: "is not a count such as 8192, 4k or 1M",
}


@pytest.mark.parametrize("wrong", NO_COUNTS)
@pytest.mark.parametrize("option", COUNTS)
def test_counts_of_a_simulation(option, wrong, refused):
    expected = NO_COUNTS[wrong].format(COUNTS[option])
    assert refused("simulate", "gpt2", option, wrong) == [f"{option}: '{wrong}' {expected}"]


@pytest.mark.parametrize("option", [*COUNTS, "--seed", "--kv", "--cache", "--explain", "--format"])
def test_an_empty_value_of_a_simulation(option, refused):
    assert refused("simulate", "gpt2", option, "") == [
        f"the value of {option} is empty   (is a shell variable not set?)"
    ]


SIMULATIONS = [
    ("", "name a model, or say --all   (kvplan simulate llama-3.1-8b)"),
    ("gpt2 --all", "a model, or --all: not both   (kvplan simulate llama-3.1-8b)"),
    ("gpt3", "no model named 'gpt3'. Did you mean gpt2?   (kvplan models list)"),
    ("gpt2 gpt2", "got unexpected extra argument(s) (gpt2)   (kvplan --help)"),
    ("gpt2 --gpu t4", "no such option: --gpu (Possible options: --output)   (kvplan --help)"),
    ("gpt2 --sed 1", "no such option: --sed (Possible options: --seed, --specs)   (kvplan --help)"),
    ("gpt2 --seed -1", "--seed: '-1' is not a count such as 8192, 4k or 1M"),
    ("gpt2 --seed 0.5", "--seed: '0.5' is not a whole number"),
    ("gpt2 --seed 2049M", "--seed: '2049M' is out of range: expected 1 to 2,147,483,648"),
    ("gpt2 --seed now", "--seed: 'now' is not a count such as 8192, 4k or 1M"),
    ("gpt2 --cache page", "no cache named 'page'. Did you mean paged?"),
    ("gpt2 --cache ring", "no cache named 'ring'; expected one of paged, contiguous"),
    ("gpt2 --kv bf17", "no KV format named 'bf17'. Did you mean bf16?"),
    ("gpt2 --kv int8-kiv", "no KV format named 'int8-kiv'. Did you mean int8-kivi, int4-kivi, int2-kivi?"),
    ("gpt2 --format jsn", "no output format named 'jsn'. Did you mean json?"),
    ("gpt2 --color x", "no colour setting named 'x'; expected one of auto, always, never"),
    ("gpt2 --specs nowhere", "--specs: 'nowhere' is no folder   (it holds models/*.yaml and gpus/*.yaml)"),
    ("--all --specs empty", "--all: no model in 'empty'   (it holds models/*.yaml)"),
    (
        "gpt2 --prompt-tokens 1k --tokens 1",
        "1,025 tokens are more than the 1,024 positions of gpt2   (a smaller --prompt-tokens or --tokens)",
    ),
    (
        "gpt2 --kv int8-kivi --block-size 16",
        "int8-kivi quantises the keys of 64 tokens together: blocks of 16 tokens are not whole groups"
        "   (--block-size 64)",
    ),
    (
        "deepseek-v3 --kv int4-kivi",
        "int4-kivi groups keys per channel, and latent attention caches none"
        "   (--kv int4 stores a latent with a scale of its own)",
    ),
    (
        "--all --kv int8-kivi",
        "command-r7b: int8-kivi quantises the keys of 64 tokens together: a window lets go of them one by one"
        "   (--kv int8 has a scale for each token)",
    ),
    (
        "--all --prompt-tokens 2k",
        "2,080 tokens are more than the 2,048 positions of bloom-176b   (a smaller --prompt-tokens or --tokens)",
    ),
]


@pytest.mark.parametrize(
    ("line", "expected"), SIMULATIONS, ids=[line or "nothing" for line, _ in SIMULATIONS]
)
def test_simulations(line, expected, folder, refused):
    assert refused("simulate", *line.split()) == [expected]


def test_a_simulation_that_no_memory_holds(refused, monkeypatch):
    """Pages of this machine are said to be few."""
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 20_000}.__getitem__)
    (line,) = refused("simulate", "llama-3.1-8b", "--hidden", "512")
    assert re.fullmatch(
        r"llama-3\.1-8b at this scale takes [\d.]+ GiB, more than half of this machine's memory   "
        r"\(a smaller --hidden, --layers, --batch or --prompt-tokens\)",
        line,
    )


def test_an_odd_head_in_a_packed_format(folder, refused):
    model = (bundled_folder() / "models" / "gpt2.yaml").read_text(encoding="utf-8")
    (folder / "odd.yaml").write_text(model.replace("head_dim: 64", "head_dim: 63"))
    (line,) = refused("simulate", "./odd.yaml", "--kv", "int4", "--prompt-tokens", "8", "--tokens", "2")
    assert "int4" in line
    assert "63" in line


# What looks odd and is right.
ACCEPTED = [
    ["--context", " 4k , 8k "],
    ["--context", "1.5k"],
    ["--context", "0.5M"],
    ["--context", "1048576M"],
    ["--context", ",".join(["1"] * 10_000)],
    ["--batch", "1..1"],
    ["--batch", "1..1M"],
    ["--memory-utilization", "90%"],
    ["--memory-utilization", "0.9000000"],
    ["--memory-utilization", ".9"],
    ["--memory-utilization", "1."],
    ["--memory-utilization", "0.01%"],
    ["--overhead", "0"],
    ["--overhead", "1.5gib"],
    ["--overhead", "99999GB"],
    ["--tp", "16"],
    ["--gpus", "8", "--tp", "2"],
    ["--tp", "2", "--tp", "4"],
    ["--pp", "32"],
    ["--dp", "65536"],
    ["--ep", "1"],
    ["--cp", "2"],
    ["--cp", "65536"],
    ["--gpus", "8", "--cp", "2", "--tp", "2"],
    ["--max-length", "1M"],
    ["--block-size", "3"],
    ["--chunk", "16M"],
    ["-o", "-"],
    ["--explain"],
    ["--explain", "--context", "4k"],
    ["--json", "--explain"],
    ["--quiet", "--verbose"],
]


@pytest.mark.parametrize("options", ACCEPTED, ids=lambda options: " ".join(options)[:40])
def test_accepted(options, command):
    status, out, _ = command("capacity", "llama-3.1-8b", "--gpu", "h100-sxm", *options)
    assert status == 0
    assert out


def test_context_past_the_learned_positions_does_not_fit(command):
    status, out, _ = command("capacity", "gpt2", "--gpu", "t4", "--context", "2048", "--check")
    assert status == 1
    assert "longer than 1,024 tokens: the model's limit" in out


def test_a_bundled_name_of_one_kind_is_not_one_of_the_other(refused):
    assert refused("gpus", "show", "gpt2") == ["no accelerator named 'gpt2'   (kvplan gpus list)"]
