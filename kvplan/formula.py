"""Formulas that show themselves: what ``--explain`` prints is the function that ran.

A formula is an ordinary typed function whose body is one return expression, decorated with its unit
and its source. Its printed form is read from the function's own source text, so the two cannot differ.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

from kvplan.units import Unit

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Formula(Generic[P, R]):
    """A function with one return expression, its unit, and where the expression comes from."""

    function: Callable[P, R]
    unit: Unit
    source: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Evaluate the formula, on numbers or arrays."""
        return self.function(*args, **kwargs)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the function's parameters, in order."""
        code = self.function.__code__
        return code.co_varnames[: code.co_argcount]

    def expression(self) -> str:
        """Return the return expression as written, on one line."""
        return ast.unparse(_return_expression(self.function))

    def substituted(self, inputs: Mapping[str, int | float]) -> str:
        """Return the expression with the numbers in it, as Python that evaluates to the value."""
        tree = _return_expression(self.function)
        return ast.unparse(_Substitute(inputs).visit(tree))


def formula(unit: Unit, source: str) -> Callable[[Callable[P, R]], Formula[P, R]]:
    """Decorate a one-expression function as a :class:`Formula`."""

    def decorate(function: Callable[P, R]) -> Formula[P, R]:
        return Formula(function, unit, source)

    return decorate


class _Substitute(ast.NodeTransformer):
    def __init__(self, inputs: Mapping[str, int | float]) -> None:
        self.inputs = inputs

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self.inputs:
            return ast.copy_location(ast.Constant(self.inputs[node.id]), node)
        return node


def _return_expression(function: Callable[..., object]) -> ast.expr:
    import inspect
    import textwrap

    module = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = module.body[0]
    assert isinstance(definition, ast.FunctionDef)
    statements = [s for s in definition.body if not _is_docstring(s)]
    if len(statements) != 1 or not isinstance(statements[0], ast.Return):
        raise TypeError(f"formula {function.__name__} must be one return expression")
    assert statements[0].value is not None
    return statements[0].value


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
