"""Warnings at the user's line, and scopes that say which function a group of operators comes from."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from ..place import enter_scope, location, scope

F = TypeVar("F", bound=Callable[..., Any])


_shown: dict[Any, Any] = {}  # what the default filter has shown already


def warn(message: str) -> None:
    """Issue a UserWarning at the user's line."""
    where = location()
    if where is None:
        warnings.warn(message, stacklevel=3)
    else:
        warnings.warn_explicit(message, UserWarning, where.file, where.line, registry=_shown)


def scoped(f: F) -> F:
    """A function whose operators stand under its name in dumps (`encoder.0.softmax`)."""
    name = f.__name__

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        before = scope()
        enter_scope(f"{before}.{name}" if before else name)
        try:
            return f(*args, **kwargs)
        finally:
            enter_scope(before)

    return call  # type: ignore[return-value]
