"""`tm.scan`, `tm.cond`, `tm.while_loop`: structured control flow inside one graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...ir.build import Builder
from ...ir.dtypes import boolean
from ...ir.errors import CaptureError, DTypeError, ShapeError
from ...ir.node import Node
from ...ir.types import TensorType
from .bodies import Body, close, placeholders, run_restartable, standing_for, trace_body
from .place import here
from .pytree import flatten, unflatten
from .random import GENERATORS
from .registry import function
from .tensor import Tensor
from .trace import TRACE, assign, begin, node_of, record, wrap


def _result_tensors(made: Sequence[Node], tracked: bool) -> list[Tensor]:
    return [wrap(m, tracked) for m in made]


def _flat(tree: Any, what: str) -> tuple[list[Tensor], Any]:
    leaves: list[Tensor] = []
    structure = flatten(tree, leaves)
    if not leaves and what:
        raise CaptureError(f"{what} holds no tensor", location=here(3).location)
    return leaves, structure


class _Carried:
    """The random generators as hidden state of a body: those that it advanced become carries."""

    def __init__(self) -> None:
        self.cells = [g._state._cell for g in list(GENERATORS)]
        self.before = [node_of(g._state) for g in list(GENERATORS)]
        self.kept = [(c.node, c.stale) for c in self.cells]

    def enter(self, nodes: Sequence[Node]) -> None:
        """Let the generators read placeholders."""
        for cell, node in zip(self.cells, nodes, strict=True):
            cell.node, cell.stale = node, True

    def leave(self, nodes: Sequence[Node]) -> list[tuple[int, Node]]:
        """(number, new state) of the generators that the body advanced; all are as they were before."""
        moved = [(i, cell.node) for i, (cell, node) in enumerate(zip(self.cells, nodes, strict=True))
                 if cell.node is not node and cell.node is not None]
        for cell, (node, stale) in zip(self.cells, self.kept, strict=True):
            cell.node, cell.stale = node, stale
        return moved


def _trace(what: str, fn: Callable[..., Any], types: Sequence[TensorType], tracked: Sequence[bool],
           call: Callable[[list[Tensor]], tuple[Any, ...]], carried: _Carried) -> tuple[Body, list[Node], list[Any]]:
    """Trace `fn(*call(tensors))`; returns the body, the generators' placeholders, and those that moved."""
    nodes = placeholders([*types, *[n.tensor_type for n in carried.before]])
    own, states = nodes[:len(types)], nodes[len(types):]
    carried.enter(states)
    try:
        tensors = [standing_for(n, t) for n, t in zip(own, tracked, strict=True)]
        body = trace_body(what, fn, call(tensors), nodes)
    finally:
        moved = carried.leave(states)
    return body, states, moved


def _scan(b: Builder, *args: Any) -> tuple[Node, ...]:
    *nodes, body, n_carry, n_xs, length, reverse = args
    return b.results(b.scan(*nodes, body=body, n_carry=n_carry, n_xs=n_xs, length=length, reverse=reverse))


@function()
def scan(f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any = None, length: int | None = None,
         reverse: bool = False) -> tuple[Any, Any]:
    """Run `carry, y = f(carry, x)` over the leading dimension of `xs`, as one operator.

    Args:
        init: the first carry: a tensor or a tree of tensors, whose shapes and dtypes every step keeps.
        xs: a tensor or tree of tensors with one leading extent, or None (then `length` counts the steps).
        reverse: go from the last slice to the first.

    Returns:
        the last carry, and the stacked `y` of all steps.

    >>> import tracemill as tm
    >>> tm.scan(lambda c, x: (c + x, c * x), tm.zeros(()), tm.arange(3.0))
    (tensor(3.), tensor([0., 0., 2.]))
    """
    return run_restartable(lambda: _scan_once(f, init, xs, length, reverse))  # type: ignore[no-any-return]


def _scan_once(f: Any, init: Any, xs: Any, length: int | None, reverse: bool) -> tuple[Any, Any]:
    carries, carry_tree = _flat(init, "the first carry of tm.scan")
    rows, row_tree = _flat(xs, "")
    if not rows and length is None:
        raise CaptureError("tm.scan needs xs or length", location=here(3).location)
    for r in rows:
        if not r._shape or (length is not None and r._shape[0] != length):
            raise ShapeError(f"tm.scan: a sequence of shape {list(r._shape)} where the leading extent must be "
                             f"{'at least there' if length is None else length}", location=here(3).location)
        length = r._shape[0]
    assert length is not None
    begin([*carries, *rows])
    nodes = [node_of(t) for t in (*carries, *rows)]
    types = [n.tensor_type for n in nodes[:len(carries)]]
    types += [n.tensor_type.with_shape(n.shape[1:]) for n in nodes[len(carries):]]
    carried = _Carried()
    tracked = [_live([t]) or _live([*carries, *rows]) for t in (*carries, *rows)]

    def call(tensors: list[Tensor]) -> tuple[Any, ...]:
        it = iter(tensors)
        return unflatten(carry_tree, it), unflatten(row_tree, it)

    body, states, moved = _trace("tm.scan", f, types, [t or TRACE.grad for t in tracked], call, carried)
    if body.structure.__class__ is not tuple or body.structure[0] is not tuple or len(body.structure[1]) != 2:
        raise CaptureError("the body of tm.scan must return a pair (carry, y)", location=here(3).location)
    new_tree, y_tree = body.structure[1]
    if new_tree != carry_tree:
        raise CaptureError("the body of tm.scan must return a carry of the structure it was given",
                           location=here(3).location)
    n = len(carries)
    new, ys = body.outputs[:n], body.outputs[n:]
    new = _same_types(types[:n], new, "tm.scan")
    extra_in = [states[i] for i, _ in moved]
    inputs = [*body.placeholders[:n], *extra_in, *body.placeholders[n:n + len(rows)]]
    names = [*[f"carry{i}" for i in range(n)], *[f"rng{i}" for i in range(len(moved))],
             *[f"x{i}" for i in range(len(rows))]]
    graphs, constants = close([(inputs, [*new, *[s for _, s in moved], *ys])], [names])
    operands = (*nodes[:n], *[carried.before[i] for i, _ in moved], *nodes[n:], *constants)
    live = TRACE.grad and (_live([*carries, *rows]) or _tracked_nodes(constants))
    made = record(_scan, operands, (graphs[0], n + len(moved), len(rows), length, reverse), live, 4)
    for (i, _), node in zip(moved, made[n:n + len(moved)], strict=True):
        assign(carried.cells[i], node, False)
    tensors = _result_tensors([*made[:n], *made[n + len(moved):]], live)
    it = iter(tensors)
    return unflatten(new_tree, it), unflatten(y_tree, it)


def _live(tensors: Sequence[Tensor]) -> bool:
    return any(t._cell.tracked for t in tensors)


def _tracked_nodes(nodes: Sequence[Node]) -> bool:
    """Whether any of these nodes has a history."""
    from .autograd import reach

    if not TRACE.grad_leaves or not nodes:
        return False
    floats = tuple([n for n in nodes if n.dtype.is_float])
    return bool(floats) and bool(reach(floats, tuple(TRACE.grad_leaves), ())[0])


def _same_types(types: Sequence[TensorType], nodes: Sequence[Node], what: str) -> list[Node]:
    """The nodes, if their types are these. Raises ShapeError or DTypeError."""
    for i, (t, n) in enumerate(zip(types, nodes, strict=True)):
        if n.tensor_type.shape != t.shape:
            raise ShapeError(f"{what}: carry {i} has shape {list(t.shape)}, after one step {list(n.shape)}",
                             location=here(4).location, hint="a carry keeps its shape and dtype")
        if n.dtype is not t.dtype:
            raise DTypeError(f"{what}: carry {i} is {t.dtype.long_name}, after one step {n.dtype.long_name}",
                             location=here(4).location, hint="a carry keeps its shape and dtype")
    return list(nodes)


def _cond(b: Builder, *args: Any) -> tuple[Node, ...]:
    *nodes, then, other = args
    return b.results(b.cond(*nodes, then=then, other=other))


@function()
def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Sequence[Any] = ()) -> Any:
    """`true_fn(*operands)` if the 0-dim bool tensor holds, else `false_fn(*operands)`, as one operator.

    Both must return the same structure of tensors with the same shapes and dtypes. A Python bool simply chooses.
    """
    if not isinstance(pred, Tensor):
        return true_fn(*operands) if pred else false_fn(*operands)
    if pred.numel() != 1 or pred._dtype is not boolean:
        raise DTypeError(f"tm.cond: the predicate must be one bool, got {pred._dtype.long_name} of shape "
                         f"{list(pred._shape)}", location=here(2).location)
    return run_restartable(lambda: _cond_once(pred, true_fn, false_fn, tuple(operands)))


def _cond_once(pred: Tensor, true_fn: Any, false_fn: Any, operands: tuple[Any, ...]) -> Any:
    leaves, tree = _flat(operands, "")
    begin([pred, *leaves])
    choice = node_of(pred.reshape(()))
    nodes = [node_of(t) for t in leaves]
    carried = _Carried()
    types = [n.tensor_type for n in nodes]
    traced = []
    for fn in (true_fn, false_fn):
        traced.append(_trace("tm.cond", fn, types, [TRACE.grad] * len(types),
                             lambda tensors: unflatten(tree, iter(tensors)), carried))
    (then, states, moved_a), (other, _, moved_b) = traced
    if then.structure != other.structure:
        raise CaptureError("the branches of tm.cond must return the same structure", location=here(3).location)
    moves = sorted({i for i, _ in moved_a} | {i for i, _ in moved_b})
    inputs = [*then.placeholders[:len(types)], *[states[i] for i in moves]]
    outs = [[*body.outputs, *[dict(moved).get(i, states[i]) for i in moves]]
            for body, moved in ((then, moved_a), (other, moved_b))]
    names = [*[f"x{i}" for i in range(len(types))], *[f"rng{i}" for i in range(len(moves))]]
    graphs, constants = close([(inputs, outs[0]), (inputs, outs[1])], [names, names])
    if [o.type for o in outs[0]] != [o.type for o in outs[1]]:
        raise ShapeError(f"tm.cond: the branches return {[str(o.type) for o in outs[0]]} and "
                         f"{[str(o.type) for o in outs[1]]}", location=here(3).location,
                         hint="both must return the same shapes and dtypes")
    live = TRACE.grad and (_live(leaves) or _tracked_nodes(constants))
    operand_nodes = (choice, *nodes, *[carried.before[i] for i in moves], *constants)
    made = record(_cond, operand_nodes, (graphs[0], graphs[1]), live, 4)
    count = len(then.outputs)
    for i, node in zip(moves, made[count:], strict=True):
        assign(carried.cells[i], node, False)
    return unflatten(then.structure, iter(_result_tensors(made[:count], live)))


def _while(b: Builder, *args: Any) -> tuple[Node, ...]:
    *nodes, test, body, n_carry = args
    return b.results(b.while_(*nodes, cond=test, body=body, n_carry=n_carry))


@function()
def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried_inputs: Sequence[Any]) -> Any:
    """Run `carries = body_fn(*carries)` while `cond_fn(*carries)` holds, as one operator (without gradient)."""
    return run_restartable(lambda: _while_once(cond_fn, body_fn, tuple(carried_inputs)))


def _while_once(cond_fn: Any, body_fn: Any, init: tuple[Any, ...]) -> Any:
    carries, tree = _flat(init, "the carries of tm.while_loop")
    begin(carries)
    nodes = [node_of(t) for t in carries]
    types = [n.tensor_type for n in nodes]
    carried = _Carried()
    n = len(types)
    mode, TRACE.grad = TRACE.grad, False
    try:
        def call(tensors: list[Tensor]) -> tuple[Any, ...]:
            return unflatten(tree, iter(tensors))  # type: ignore[no-any-return]

        test, _, drawn = _trace("tm.while_loop", cond_fn, types, [False] * n, call, carried)
        body, states, moved = _trace("tm.while_loop", body_fn, types, [False] * n, call, carried)
    finally:
        TRACE.grad = mode
    if drawn:
        raise CaptureError("the condition of tm.while_loop draws random numbers", location=here(3).location,
                           hint="draw them in the body and carry them")
    if len(test.outputs) != 1 or test.outputs[0].dtype is not boolean or test.outputs[0].shape:
        raise DTypeError("the condition of tm.while_loop must return one 0-dim bool", location=here(3).location)
    new = _same_types(types, body.outputs, "tm.while_loop")
    inputs = [*body.placeholders[:n], *[states[i] for i, _ in moved]]
    names = [*[f"carry{i}" for i in range(n)], *[f"rng{i}" for i in range(len(moved))]]
    graphs, constants = close([(inputs, test.outputs), (inputs, [*new, *[s for _, s in moved]])], [names, names])
    operands = (*nodes, *[carried.before[i] for i, _ in moved], *constants)
    made = record(_while, operands, (graphs[0], graphs[1], n + len(moved)), False, 4)
    for (i, _), node in zip(moved, made[n:], strict=True):
        assign(carried.cells[i], node, False)
    tensors = _result_tensors(made[:n], False)
    structure = body.structure if body.structure.__class__ is tuple else tree
    return unflatten(structure, iter(tensors))
