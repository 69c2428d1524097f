"""Bytes per token against what vLLM printed on real machines; data/engine_logs.yaml has the logs."""

GIB = 1 << 30
PRINTED = 0.005  # half of the last digit printed


def test_bytes_per_token(engine_log, plan, imported):
    name = engine_log.get("model") or imported(engine_log["config"])
    (stage,) = plan(name, tensor=engine_log["tensor_parallel"], kv=engine_log["kv"]).stages
    block_bytes = stage.cache.growth("bytes_per_token_per_gpu", "").number * engine_log["block_tokens"]
    fewest = (engine_log["kv_gib"] - PRINTED) * GIB // block_bytes
    most = (engine_log["kv_gib"] + PRINTED) * GIB // block_bytes
    assert fewest <= engine_log["blocks"] <= most


def test_logs_tell_models_apart(engine_log, plan):
    """The test above would fail for a model that caches an eighth more, or less."""
    blocks = engine_log["blocks"] * engine_log["block_tokens"]
    measured = engine_log["kv_gib"] * GIB / blocks
    rounding = PRINTED / engine_log["kv_gib"] + 1 / engine_log["blocks"]
    assert rounding < 1 / 100
    assert measured > 10_000
