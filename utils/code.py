"""Counting Python statements, so that "five lines" is a number and not a matter of taste."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable


def statements(*things: Callable) -> int:
    """Return how many Python statements the source of functions and classes has.

    Every statement counts once, however many lines it takes: `def`, `class`, `return`, `for` and
    the statements inside of them. Docstrings, comments and blank lines do not count.
    """
    return sum(_count(part) for thing in things for part in _parts(thing)) + sum(
        isinstance(thing, type) for thing in things
    )


def sizes(function: Callable) -> list[int]:
    """Return the whole numbers above 1 in a function's source, in order, repeats included.

    In the definition of a model these are the sizes that its author has to say.
    """
    constants = [n.value for n in ast.walk(_tree(function)) if isinstance(n, ast.Constant)]
    return [value for value in constants if type(value) is int and value > 1]


def _parts(thing: Callable) -> list[Callable]:
    """Return the functions of a class (its `class` line is counted apart), or the function."""
    if isinstance(thing, type):
        return [f for f in vars(thing).values() if inspect.isfunction(f)]
    return [thing]


def _count(function: Callable) -> int:
    nodes = [node for node in ast.walk(_tree(function)) if isinstance(node, ast.stmt)]
    return sum(not _is_docstring(node) for node in nodes)


def _tree(function: Callable) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def _is_docstring(node: ast.stmt) -> bool:
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant and isinstance(node.value.value, str)
