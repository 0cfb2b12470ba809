"""Tensor hooks: functions that see, and may replace, a gradient on its way.

A backward pass that meets hooked tensors goes in stages: from the outputs to the hooked tensors nearest to them, whose
gradient goes through its hooks, then from those on. In every stage the hooked tensors below are cut off by stand-in
nodes of the same value.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

from ...ir.errors import AutogradError, ShapeError
from ...ir.node import Node, Place, postorder
from .bodies import replace_nodes
from .place import here
from .registry import method
from .tensor import Tensor

_hooked: list[weakref.ref[Tensor]] = []
_numbers = itertools.count()


class Handle:
    """Undoes the registration of a hook by `remove()`; also a context manager."""

    def __init__(self, table: dict[int, Callable[..., Any]], number: int) -> None:
        self._table, self._number = table, number

    def remove(self) -> None:
        self._table.pop(self._number, None)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def _register(t: Tensor, kind: str, hook: Callable[..., Any]) -> Handle:
    table: dict[int, Callable[..., Any]] = t.__dict__.setdefault(kind, {})
    number = next(_numbers)
    table[number] = hook
    if not any(ref() is t for ref in _hooked):
        _hooked.append(weakref.ref(t))
    return Handle(table, number)


@method()
def register_hook(self: Tensor, hook: Callable[[Tensor], Any]) -> Handle:
    """Call `hook(gradient)` in every backward pass; what it returns (unless None) replaces the gradient."""
    if not self._cell.tracked:
        raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
    return _register(self, "_grad_hooks", hook)


@method()
def register_post_accumulate_grad_hook(self: Tensor, hook: Callable[[Tensor], Any]) -> Handle:
    """Call `hook(tensor)` after a gradient was accumulated into this leaf's `.grad`."""
    if not self.is_leaf or not self._cell.tracked:
        raise AutogradError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    return _register(self, "_accumulated_hooks", hook)


def live() -> list[Tensor]:
    """Tensors that have hooks."""
    if not _hooked:
        return []
    found = [(ref, t) for ref in _hooked if (t := ref()) is not None]
    _hooked[:] = [ref for ref, t in found if t.__dict__.get("_grad_hooks") or t.__dict__.get("_accumulated_hooks")]
    return [t for _, t in found if t.__dict__.get("_grad_hooks")]


def run_hooks(t: Tensor, grad: Tensor) -> Tensor:
    """The gradient after a tensor's hooks."""
    for hook in list(t.__dict__.get("_grad_hooks", {}).values()):
        made = hook(grad)
        if made is not None:
            if not isinstance(made, Tensor) or made._shape != grad._shape:
                raise ShapeError("hook has changed the size of value", location=here(2).location)
            grad = made
    return grad


def after_accumulation(t: Tensor) -> None:
    """Call a leaf's post-accumulation hooks."""
    for hook in list(t.__dict__.get("_accumulated_hooks", {}).values()):
        hook(t)


def stand_ins(heads: tuple[Node, ...], hooked: dict[Node, Tensor]) -> tuple[tuple[Node, ...], dict[Node, Tensor]]:
    """The heads with hooked nodes strictly below them cut off; stand-in nodes by tensor."""
    replaced: dict[Node, Node] = {}
    made: dict[Node, Tensor] = {}
    roots = set(heads)
    for i, (node, t) in enumerate(hooked.items()):
        if node in roots or node.op.kind.value == "input":
            continue
        place = Place(node.place.location, f"{node.place.scope}#hook{i}")
        stand = Node.make("stop_gradient", (node,), (), place)
        replaced[node] = stand
        made[stand] = t
    if not replaced:
        return heads, made
    return replace_nodes(heads, replaced), made


def ordered(heads: tuple[Node, ...], nodes: dict[Node, Tensor]) -> list[Tensor]:
    """Hooked tensors below the heads, nearest to them first."""
    return [nodes[n] for n in reversed(postorder(heads)) if n in nodes]
