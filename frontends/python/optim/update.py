"""Recording an optimizer's step: one symbolic `update` node over all parameters of a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....ir.build import Builder
from ....ir.dtypes import f64
from ....ir.node import Node
from ..nodes import cast
from ..place import here
from ..tensor import Tensor
from ..trace import Hyper, assign, node_of, number, read, record


def _update(b: Builder, *operands: Any) -> tuple[Node, ...]:
    *nodes, rule, n, n_states, flags = operands
    return b.results(b.update(*nodes, rule=rule, n=n, n_states=n_states, flags=flags))


def record_update(rule: str, flags: str, params: Sequence[Tensor], grads: Sequence[Tensor],
                  states: Sequence[Sequence[Tensor]], hypers: Sequence[tuple[Hyper, Any]]) -> None:
    """Replace parameters and states by what one step of a rule makes of them.

    Nothing is flushed here: several groups, and several optimizers that step in a row, stay one graph.

    Args:
        rule, flags: of `ir.update_rules`.
        params, grads: in one order; a gradient is cast to its parameter's dtype.
        states: one sequence over all parameters for each kind of state, in the rule's order.
        hypers: owner and present value of every hyper-parameter, in the rule's order. A value is a number, which is
            an input of the graph, or a 0-dim tensor.
    """
    targets = [*params, *(s for kind in states for s in kind)]
    nodes = [node_of(p) for p in params]
    nodes += [_as(node_of(g), p) for g, p in zip(grads, params, strict=True)]
    nodes += [node_of(s) for kind in states for s in kind]
    nodes += [_hyper(owner, value) for owner, value in hypers]
    results = record(_update, tuple(nodes), (rule, len(params), len(states), flags), False)
    try:
        _replace(targets, results)
    except KeyboardInterrupt:  # never half of an update: again, it does the same
        _replace(targets, results)
        raise


def _replace(targets: Sequence[Tensor], results: Sequence[Node]) -> None:
    """Give the tensors their new values."""
    for target, made in zip(targets, results, strict=True):
        cell = target._cell
        if target._view is not None:
            base = cell.node or read(cell)
            made = target._view.write(Builder(here(2)), base, made)
        assign(cell, made, False)


def _as(grad: Node, param: Tensor) -> Node:
    return grad if grad.dtype is param._dtype else cast(Builder(grad.place), grad, param._dtype)


def _hyper(owner: Hyper, value: Any) -> Node:
    if isinstance(value, Tensor):
        node = node_of(value)
        b = Builder(node.place)
        return cast(b, b.reshape(node, shape=()) if node.shape else node, f64)
    return number(float(value), f64, owner)
