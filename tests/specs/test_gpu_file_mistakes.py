"""Accelerator files with mistakes: each gives one line for each mistake, with its place and what was expected."""

# ruff: noqa: E501 - one line a case, its whole message on it

import pytest

TOY = """\
name: toy
label: "Toy 80GB"
vendor: nvidia
architecture: "hopper"
source: "made up for tests"
confidence: high
memory:
  type: "HBM3"
  sold_gb: 80
  driver_mib: 81559
  driver_source: "made up"
  torch_gib: 79.2
  bandwidth_gb_per_s: 3350
peak_dense:
  bf16_tflops: 989.4
  int8_tops: 1978.9
interconnect:
  link_gb_per_s_per_direction: 450
  pcie: "Gen5"
sm_count: 132
l2_mb: 50
tdp_w: 700
price_per_hour:
  low_usd: 1.99
  high_usd: 5
  source: "made up"
evidence:
  - "none"
"""

# fmt: off
EDITS = [
    pytest.param([("name: toy", "name: Toy")], ["1:7: name: 'Toy' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit"], id="name: capitals"),
    pytest.param([("name: toy", 'name: ""')], ["1:7: name: '' is no name: up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit"], id="name: empty"),
    pytest.param([("name: toy", "name: 3")], ["1:7: name: expected text, not 3"], id="name: number"),
    pytest.param([('label: "Toy 80GB"', 'label: " "')], ["2:8: label: must not be empty"], id="label: blank"),
    pytest.param([('label: "Toy 80GB"', "label: 3")], ["2:8: label: expected text, not 3"], id="label: number"),
    pytest.param([('label: "Toy 80GB"', "label: null")], ["2:8: label: expected text, not nothing"], id="label: null"),
    pytest.param([('label: "Toy 80GB"', 'label: "a\\e[31m"')], ["2:8: label: holds an unprintable character"], id="label: control character"),
    pytest.param([("vendor: nvidia", 'vendor: ""')], ["3:9: vendor: must not be empty"], id="vendor: empty"),
    pytest.param([("vendor: nvidia", "vendor: 3")], ["3:9: vendor: expected text, not 3"], id="vendor: number"),
    pytest.param([('architecture: "hopper"', "architecture: 90")], ["4:15: architecture: expected text, not 90"], id="architecture: number"),
    pytest.param([('source: "made up for tests"', 'source: ""')], ["5:9: source: must not be empty"], id="source: empty"),
    pytest.param([('source: "made up for tests"', "source: [a, b]")], ["5:9: source: expected text, not a list"], id="source: list"),
    pytest.param([("confidence: high", "confidence: maybe")], ["6:13: confidence: 'maybe' is not one of high, medium"], id="confidence: unknown"),
    pytest.param([("confidence: high", "confidence: hihg")], ["6:13: confidence: 'hihg' is not one of high, medium (did you mean high?)"], id="confidence: misspelt"),
    pytest.param([("confidence: high", "confidence: null")], ["6:13: confidence: expected one of high, medium, not nothing"], id="confidence: null"),
    pytest.param([("confidence: high", "confidence: 1")], ["6:13: confidence: expected one of high, medium, not 1"], id="confidence: number"),
    pytest.param([('type: "HBM3"', 'type: ""')], ["8:9: memory.type: must not be empty"], id="memory type: empty"),
    pytest.param([('type: "HBM3"', "type: 3")], ["8:9: memory.type: expected text, not 3"], id="memory type: number"),
    pytest.param([("sold_gb: 80", "sold_gb: 0")], ["9:12: memory.sold_gb: must be at least 1, not 0"], id="sold_gb: zero"),
    pytest.param([("sold_gb: 80", "sold_gb: -80")], ["9:12: memory.sold_gb: must be at least 1, not -80"], id="sold_gb: negative"),
    pytest.param([("sold_gb: 80", "sold_gb: 80.5")], ["9:12: memory.sold_gb: expected a whole number, not 80.5"], id="sold_gb: float"),
    pytest.param([("sold_gb: 80", 'sold_gb: "80"')], ["9:12: memory.sold_gb: expected a whole number, not '80'"], id="sold_gb: text"),
    pytest.param([("sold_gb: 80", "sold_gb: true")], ["9:12: memory.sold_gb: expected a whole number, not true"], id="sold_gb: true"),
    pytest.param([("sold_gb: 80", "sold_gb: 99999999999")], ["9:12: memory.sold_gb: must be at most 2,147,483,648, not 99999999999"], id="sold_gb: past 2^31"),
    pytest.param([("sold_gb: 80", "sold_gb: 999999999999999999999999999999")], ["9:12: memory.sold_gb: must be at most 2,147,483,648, not 999999999999999999999999999999"], id="sold_gb: thirty digits"),
    pytest.param([("driver_mib: 81559", "driver_mib: 0")], ["10:15: memory.driver_mib: 0 does not go with 80 GB as sold"], id="driver_mib: zero"),
    pytest.param([("driver_mib: 81559", "driver_mib: -1")], ["10:15: memory.driver_mib: -1 does not go with 80 GB as sold"], id="driver_mib: negative"),
    pytest.param([("driver_mib: 81559", "driver_mib: 8155")], ["10:15: memory.driver_mib: 8155 does not go with 80 GB as sold"], id="driver_mib: a digit short"),
    pytest.param([("driver_mib: 81559", "driver_mib: 98304")], ["10:15: memory.driver_mib: 98304 does not go with 80 GB as sold"], id="driver_mib: too large"),
    pytest.param([("driver_mib: 81559", "driver_mib: 85520809984")], ["10:15: memory.driver_mib: 85520809984 does not go with 80 GB as sold"], id="driver_mib: in bytes"),
    pytest.param([("driver_mib: 81559", 'driver_mib: "81559"')], ["10:15: memory.driver_mib: expected a whole number, not '81559'"], id="driver_mib: text"),
    pytest.param([("driver_mib: 81559", "driver_mib: 81559.5")], ["10:15: memory.driver_mib: expected a whole number, not 81559.5"], id="driver_mib: float"),
    pytest.param([("torch_gib: 79.2", "torch_gib: -1")], ["12:14: memory.torch_gib: -1.0 does not go with 80 GB as sold"], id="torch_gib: negative"),
    pytest.param([("torch_gib: 79.2", "torch_gib: 0")], ["12:14: memory.torch_gib: 0.0 does not go with 80 GB as sold"], id="torch_gib: zero"),
    pytest.param([("torch_gib: 79.2", "torch_gib: 790")], ["12:14: memory.torch_gib: 790.0 does not go with 80 GB as sold"], id="torch_gib: too large"),
    pytest.param([("torch_gib: 79.2", 'torch_gib: "79"')], ["12:14: memory.torch_gib: expected a number, not '79'"], id="torch_gib: text"),
    pytest.param([("torch_gib: 79.2", "torch_gib: true")], ["12:14: memory.torch_gib: expected a number, not true"], id="torch_gib: true"),
    pytest.param([("torch_gib: 79.2", "torch_gib: .nan")], ["12:14: '.nan' is not a finite number"], id="torch_gib: not a number"),
    pytest.param([("bandwidth_gb_per_s: 3350", "bandwidth_gb_per_s: 0")], ["13:23: memory.bandwidth_gb_per_s: must be above 0 and at most 1,000,000,000, not 0"], id="bandwidth: zero"),
    pytest.param([("bandwidth_gb_per_s: 3350", "bandwidth_gb_per_s: -3350")], ["13:23: memory.bandwidth_gb_per_s: must be above 0 and at most 1,000,000,000, not -3350"], id="bandwidth: negative"),
    pytest.param([("bandwidth_gb_per_s: 3350", "bandwidth_gb_per_s: fast")], ["13:23: memory.bandwidth_gb_per_s: expected a number, not 'fast'"], id="bandwidth: text"),
    pytest.param([("bandwidth_gb_per_s: 3350", "bandwidth_gb_per_s: null")], ["13:23: memory.bandwidth_gb_per_s: expected a number, not nothing"], id="bandwidth: null"),
    pytest.param([("bandwidth_gb_per_s: 3350", "bandwidth_gb_per_s: .inf")], ["13:23: '.inf' is not a finite number"], id="bandwidth: infinite"),
    pytest.param([("bandwidth_gb_per_s: 3350", "bandwidth_gb_per_s: 1e400")], ["13:23: '1e400' is too large for a floating-point number"], id="bandwidth: too large for a float"),
    pytest.param([("bandwidth_gb_per_s: 3350", "bandwidth_gb_per_s: 1e308")], ["13:23: memory.bandwidth_gb_per_s: must be above 0 and at most 1,000,000,000, not 1e+308"], id="bandwidth: absurd"),
    pytest.param([("bandwidth_gb_per_s: 3350", "bandwidth_gb_per_s: 3350000000000")], ["13:23: memory.bandwidth_gb_per_s: must be above 0 and at most 1,000,000,000, not 3.35e+12"], id="bandwidth: in bytes"),
    pytest.param([("bf16_tflops: 989.4", "bf16_tflops: -989.4")], ["15:16: peak_dense.bf16_tflops: must be above 0 and at most 1,000,000,000, not -989.4"], id="bf16 peak: negative"),
    pytest.param([("bf16_tflops: 989.4", "bf16_tflops: 0")], ["15:16: peak_dense.bf16_tflops: must be above 0 and at most 1,000,000,000, not 0"], id="bf16 peak: zero"),
    pytest.param([("bf16_tflops: 989.4", 'bf16_tflops: "989"')], ["15:16: peak_dense.bf16_tflops: expected a number, not '989'"], id="bf16 peak: text"),
    pytest.param([("bf16_tflops: 989.4", "bf16_tflops: true")], ["15:16: peak_dense.bf16_tflops: expected a number, not true"], id="bf16 peak: true"),
    pytest.param([("bf16_tflops: 989.4", "bf16_tflops: [989]")], ["15:16: peak_dense.bf16_tflops: expected a number, not a list"], id="bf16 peak: list"),
    pytest.param([("bf16_tflops: 989.4", "bf16_tflops: 1e300")], ["15:16: peak_dense.bf16_tflops: must be above 0 and at most 1,000,000,000, not 1e+300"], id="bf16 peak: absurd"),
    pytest.param([("int8_tops: 1978.9", "int8_tops: -1")], ["16:14: peak_dense.int8_tops: must be above 0 and at most 1,000,000,000, not -1"], id="int8 peak: negative"),
    pytest.param([("link_gb_per_s_per_direction: 450", "link_gb_per_s_per_direction: -450")], ["18:32: interconnect.link_gb_per_s_per_direction: must be above 0 and at most 1,000,000,000, not -450"], id="link: negative"),
    pytest.param([("link_gb_per_s_per_direction: 450", "link_gb_per_s_per_direction: 0")], ["18:32: interconnect.link_gb_per_s_per_direction: must be above 0 and at most 1,000,000,000, not 0"], id="link: zero"),
    pytest.param([("link_gb_per_s_per_direction: 450", "link_gb_per_s_per_direction: nvlink")], ["18:32: interconnect.link_gb_per_s_per_direction: expected a number, not 'nvlink'"], id="link: text"),
    pytest.param([('pcie: "Gen5"', "pcie: 5")], ["19:9: interconnect.pcie: expected text, not 5"], id="pcie: number"),
    pytest.param([("sm_count: 132", "sm_count: 0")], ["20:11: sm_count: must be at least 1, not 0"], id="sm_count: zero"),
    pytest.param([("sm_count: 132", "sm_count: 132.5")], ["20:11: sm_count: expected a whole number, not 132.5"], id="sm_count: float"),
    pytest.param([("sm_count: 132", "sm_count: 4294967296")], ["20:11: sm_count: must be at most 2,147,483,648, not 4294967296"], id="sm_count: past 2^31"),
    pytest.param([("l2_mb: 50", "l2_mb: -50")], ["21:8: l2_mb: must be above 0 and at most 1,000,000,000, not -50"], id="l2_mb: negative"),
    pytest.param([("tdp_w: 700", "tdp_w: 0")], ["22:8: tdp_w: must be at least 1, not 0"], id="tdp_w: zero"),
    pytest.param([("tdp_w: 700", "tdp_w: 700.5")], ["22:8: tdp_w: expected a whole number, not 700.5"], id="tdp_w: float"),
    pytest.param([("low_usd: 1.99", "low_usd: -1.99")], ["24:12: price_per_hour.low_usd: must be above 0 and at most 1,000,000,000, not -1.99"], id="low price: negative"),
    pytest.param([("low_usd: 1.99", "low_usd: 6")], ["25:13: price_per_hour.high_usd: 5 is less than low_usd, 6"], id="low price: above the high one"),
    pytest.param([("high_usd: 5", "high_usd: null")], ["25:13: price_per_hour.high_usd: expected a number, not nothing"], id="high price: null"),
    pytest.param([('memory:\n  type: "HBM3"\n  sold_gb: 80\n  driver_mib: 81559\n  driver_source: "made up"\n  torch_gib: 79.2\n  bandwidth_gb_per_s: 3350\n', "")], ["1:1: 'memory' is required"], id="memory: missing"),
    pytest.param([('memory:\n  type: "HBM3"\n  sold_gb: 80\n  driver_mib: 81559\n  driver_source: "made up"\n  torch_gib: 79.2\n  bandwidth_gb_per_s: 3350\n', "memory: []\n")], ["7:9: memory: expected a mapping, not a list"], id="memory: a list"),
    pytest.param([("peak_dense:\n  bf16_tflops: 989.4\n  int8_tops: 1978.9\n", "")], ["1:1: 'peak_dense' is required"], id="peak_dense: missing"),
    pytest.param([("peak_dense:\n  bf16_tflops: 989.4\n  int8_tops: 1978.9\n", "peak_dense: []\n")], ["14:13: peak_dense: expected a mapping, not a list"], id="peak_dense: a list"),
    pytest.param([('interconnect:\n  link_gb_per_s_per_direction: 450\n  pcie: "Gen5"\n', "")], ["1:1: 'interconnect' is required"], id="interconnect: missing"),
    pytest.param([('interconnect:\n  link_gb_per_s_per_direction: 450\n  pcie: "Gen5"\n', "interconnect: []\n")], ["17:15: interconnect: expected a mapping, not a list"], id="interconnect: a list"),
    pytest.param([('price_per_hour:\n  low_usd: 1.99\n  high_usd: 5\n  source: "made up"\n', "price_per_hour: []\n")], ["23:17: price_per_hour: expected a mapping, not a list"], id="price_per_hour: a list"),
    pytest.param([('memory:\n  type: "HBM3"\n  sold_gb: 80\n  driver_mib: 81559\n  driver_source: "made up"\n  torch_gib: 79.2\n  bandwidth_gb_per_s: 3350\n', "memory: {}\n")], ["7:1: memory: 'type' is required", "7:1: memory: 'sold_gb' is required", "7:1: memory: 'bandwidth_gb_per_s' is required"], id="memory: empty"),
    pytest.param([('price_per_hour:\n  low_usd: 1.99\n  high_usd: 5\n  source: "made up"\n', "price_per_hour: {}\n")], ["23:1: price_per_hour: 'low_usd' is required", "23:1: price_per_hour: 'high_usd' is required", "23:1: price_per_hour: 'source' is required"], id="price: empty"),
    pytest.param([("peak_dense:\n  bf16_tflops: 989.4\n  int8_tops: 1978.9\n", "peak_dense: fast\n")], ["14:13: peak_dense: expected a mapping, not 'fast'"], id="peaks: text"),
    pytest.param([('evidence:\n  - "none"\n', "evidence: none\n")], ["27:11: evidence: expected a list, not 'none'"], id="evidence: one text"),
    pytest.param([('  - "none"', "  - 3")], ["28:5: evidence[0]: expected text, not 3"], id="evidence: a number in it"),
    pytest.param([("name: toy\n", "")], ["1:1: 'name' is required"], id="missing name"),
    pytest.param([("confidence: high\n", "")], ["1:1: 'confidence' is required"], id="missing confidence"),
    pytest.param([("  sold_gb: 80\n", "")], ["7:1: memory: 'sold_gb' is required"], id="missing sold_gb"),
    pytest.param([("  bandwidth_gb_per_s: 3350\n", "")], ["7:1: memory: 'bandwidth_gb_per_s' is required"], id="missing bandwidth_gb_per_s"),
    pytest.param([("confidence: high\n", "confidence: high\nmemroy: 3\n")], ["7:1: 'memroy' is not a key known here (did you mean memory?)"], id="unknown key memroy"),
    pytest.param([("confidence: high\n", "confidence: high\nprice: 3\n")], ["7:1: 'price' is not a key known here (expected one of name, label, vendor, architecture, source, memory, peak_dense, interconnect, confidence, compute_capability, sm_count, shared_memory_per_sm_kib, l2_mb, tdp_w, price_per_hour, notes, evidence, efficiency, all_reduce)"], id="unknown key price"),
    pytest.param([("  sold_gb: 80\n", "  sold_gb: 80\n  sold_gib: 74\n")], ["10:3: memory: 'sold_gib' is not a key of memory (did you mean sold_gb?)"], id="unknown key sold_gib"),
    pytest.param([("  bf16_tflops: 989.4\n", "  bf16_tflops: 989.4\n  bf16_tflops_sparse: 1979\n")], ["16:3: peak_dense: 'bf16_tflops_sparse' is not a key of peak_dense (did you mean bf16_tflops, fp16_tflops?)"], id="unknown key bf16_tflops_sparse"),
    pytest.param([('  pcie: "Gen5"\n', '  pcie: "Gen5"\n  nvlink: 900\n')], ["20:3: interconnect: 'nvlink' is not a key of interconnect (expected one of link_gb_per_s_per_direction, pcie)"], id="unknown key nvlink"),
    pytest.param([("  low_usd: 1.99\n", "  low_usd: 1.99\n  mid_usd: 3\n")], ["25:3: price_per_hour: 'mid_usd' is not a key of price_per_hour (did you mean high_usd?)"], id="unknown key mid_usd"),
    pytest.param([("confidence: high\n", "confidence: high\ncompute_capability: 9.0\n")], ["7:21: compute_capability: expected text, not 9.0"], id="compute_capability: unquoted"),
    pytest.param([("vendor: nvidia\n", "vendor: nvidia\nvendor: amd\n")], ["4:1: duplicate key 'vendor' (first at line 3)"], id="duplicate key"),
    pytest.param([("vendor: nvidia", "vendor: 3"), ("sold_gb: 80", "sold_gb: -80"), ("bf16_tflops: 989.4", "bf16_tflops: -1"), ("int8_tops: 1978.9", "int8_tops: 0"), ("  pcie", "  pci"), ("high_usd: 5", "high_usd: cheap")], ["3:9: vendor: expected text, not 3", "9:12: memory.sold_gb: must be at least 1, not -80", "15:16: peak_dense.bf16_tflops: must be above 0 and at most 1,000,000,000, not -1", "16:14: peak_dense.int8_tops: must be above 0 and at most 1,000,000,000, not 0", "19:3: interconnect: 'pci' is not a key of interconnect (did you mean pcie?)", "25:13: price_per_hour.high_usd: expected a number, not 'cheap'"], id="several at once, in the order of the file"),
]
# fmt: on


@pytest.mark.parametrize(("edits", "expected"), EDITS)
def test_edited(edits, expected, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    text = TOY
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "g.yaml").write_text(text)
    assert refused("gpus", "show", "./g.yaml") == [f"g.yaml:{line}" for line in expected]


@pytest.mark.parametrize(
    "edit",
    [
        ("driver_mib: 81559", "driver_mib: null"),
        ("torch_gib: 79.2", "torch_gib: null"),
        ("bf16_tflops: 989.4", "bf16_tflops: null"),
        ("confidence: high", "confidence: medium"),
        ("vendor: nvidia", "vendor: somebody new"),
        ("driver_mib: 81559", "driver_mib: 76294"),
    ],
)
def test_what_is_not_known_may_be_left_out(edit, tmp_path, command):
    old, new = edit
    assert old in TOY
    (tmp_path / "g.yaml").write_text(TOY.replace(old, new))
    status, out, lines = command("gpus", "show", str(tmp_path / "g.yaml"))
    assert (status, lines) == (0, [])
    assert out.startswith("Toy 80GB\n")


def test_a_model_file_is_no_accelerator(refused, bundled_file):
    lines = refused("gpus", "show", bundled_file("models", "gpt2"))
    assert [line.split(": ", 1)[1] for line in lines] == ["this is a model file: it goes where MODEL does"]


def test_an_accelerator_file_is_no_model(refused, bundled_file):
    lines = refused("models", "show", bundled_file("gpus", "t4"))
    assert [line.split(": ", 1)[1] for line in lines] == ["this is an accelerator file: it goes with --gpu"]


@pytest.fixture
def bundled_file():
    from kvplan.specs.catalog import bundled_folder

    return lambda kind, name: str(bundled_folder() / kind / f"{name}.yaml")
