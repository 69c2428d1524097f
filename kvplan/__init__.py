"""kvplan: a memory and roofline planner for LLM inference that proves its answers."""

__version__ = "0.1.0"
