"""kvplan: a memory and roofline planner for LLM inference that proves its answers.

What Python users call is here by name, and imported only when it is first used.
"""

__version__ = "0.1.0"

__all__ = (
    "Report",
    "capacity",
    "check_plan",
    "compare",
    "deploy",
    "load_gpu",
    "load_model",
    "load_plan",
    "plot_all",
    "quality",
    "roofline",
    "simulate",
)

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    from kvplan.api.capacity import capacity
    from kvplan.api.check import check_plan
    from kvplan.api.compare import compare
    from kvplan.api.deploy import deploy
    from kvplan.api.load import load_gpu, load_model
    from kvplan.api.plan import load_plan
    from kvplan.api.plot_all import plot_all
    from kvplan.api.quality import quality
    from kvplan.api.report import Report
    from kvplan.api.roofline import roofline
    from kvplan.api.simulate import simulate
else:
    _HOMES = {
        "Report": "report",
        "check_plan": "check",
        "load_gpu": "load",
        "load_model": "load",
        "load_plan": "plan",
    }

    def __getattr__(name: str) -> object:
        """Import what is asked for by name (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = getattr(import_module(f"kvplan.api.{_HOMES.get(name, name)}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
