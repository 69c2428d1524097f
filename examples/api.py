"""Plan from Python: what fits, how fast, what to change; then a report and a picture.

python examples/api.py writes capacity.md and frontier.png where it is run.
"""

from pathlib import Path

import kvplan

MODEL, GPU = "llama-3.1-8b", "rtx4090"
CHANGES = ("kv=fp8", "weights=q4_k", "weights=q4_k,kv=fp8")


def main() -> None:
    """Plan long chats on one card."""
    # A model, its deployment, and a question. Every figure is to be had by name, in base units.
    plan = kvplan.capacity(MODEL, gpu=GPU, contexts=(4096, 32768), batches=(1, 4))
    figures = plan.to_dict()
    print(f"{figures['kv']['bytes_per_token']:,} bytes of cache for a token")
    print(figures["verdict"]["text"])

    # What each option buys. Without measure=False, also what it costs in accuracy, measured on a small model.
    compared = kvplan.compare(
        MODEL, gpu=GPU, context=32768, batch=1, changes=CHANGES, only=True, measure=False
    )
    for option in compared.to_dict()["options"]:
        print(f"  {option['name']}: x{option['gain']:.2f} tokens/s, {option['max_batch']} requests at once")

    # Made once, a model and its deployment answer several questions.
    model = kvplan.load_model(MODEL)
    deployment = kvplan.deploy(model, GPU, weights="q4_k", kv="fp8")
    plan = kvplan.capacity(model, deployment=deployment, contexts=(4096, 32768), batches=(1, 4))
    print(plan.to_dict()["verdict"]["text"])
    timed = kvplan.roofline(model, deployment=deployment, context=32768, batches=(1, 4))
    for step in timed.to_dict()["steps"]:
        bound, estimate = 1000 * step["bound_s"], 1000 * step["estimate_s"]
        print(f"  batch {step['batch']}: a token in {bound:.1f} ms at least, about {estimate:.1f} ms")

    Path("capacity.md").write_text(plan.to_markdown(), encoding="utf-8")
    plan.plot("frontier", theme="dark").savefig("frontier.png")


if __name__ == "__main__":
    main()
