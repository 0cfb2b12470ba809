"""Host functions: what a plan leaves to Python (LAPACK, FFT, callbacks), by name.

A host function gets NumPy views of its operands, inputs then outputs, and the call's attributes as keywords.
It writes its results into the outputs, keeps no reference to a view, and raises to stop the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..ir.errors import InternalError, TracemillError

HostFunction = Callable[..., Any]

_functions: dict[str, HostFunction] = {}


class HostFault(TracemillError):
    """Raised by a host function on bad data; the executor adds operator and place.

    Args:
        node: number of the node within the call, as in a kernel's status.
    """

    def __init__(self, message: str, *, node: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.node = node


def register_host(name: str, function: HostFunction | None = None) -> Any:
    """Register a host function, directly or as a decorator; the same function again is fine.

    Raises:
        InternalError: another function has that name.
    """
    if function is None:
        return lambda decorated: register_host(name, decorated)
    known = _functions.setdefault(name, function)
    if known is not function:
        raise InternalError(f"two host functions are called {name!r}")
    return function


def host_function(name: str) -> HostFunction:
    """The function registered under `name`.

    Raises:
        InternalError: there is none.
    """
    function = _functions.get(name)
    if function is None:
        raise InternalError(f"the plan calls the host function {name!r}, which nobody registered")
    return function
