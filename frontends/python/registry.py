"""Public functions and tensor methods register here by name; `tracemill.NAME` and `Tensor.NAME` come from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

FUNCTIONS: dict[str, Any] = {}
METHODS: dict[str, Any] = {}


def function(*names: str) -> Callable[[F], F]:
    """Publish as `tracemill.NAME` (its own name if none is given)."""

    def register(f: F) -> F:
        for name in names or (f.__name__.rstrip("_"),):
            FUNCTIONS[name] = f
        return f

    return register


def method(*names: str) -> Callable[[F], F]:
    """Publish as `Tensor.NAME`."""

    def register(f: F) -> F:
        for name in names or (f.__name__,):
            METHODS[name] = f
        return f

    return register


def both(*names: str) -> Callable[[F], F]:
    """Publish as a function and as a method."""

    def register(f: F) -> F:
        return method(*(names or (f.__name__.rstrip("_"),)))(function(*names)(f))

    return register
