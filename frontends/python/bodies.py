"""Tracing a Python function into a body graph, for loops, branches and custom derivatives.

The function runs once, in the pending trace, on placeholder tensors. What its results depend on besides the
placeholders (tensors from outside, numbers of the script) becomes constant operands of the operator that holds the
body. Random generators are carried through, so that every iteration draws its own numbers.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.errors import CaptureError
from ...ir.graph import Graph, InputSpec
from ...ir.node import Node, postorder
from ...ir.types import TensorType
from .cell import Cell, pending
from .place import here
from .pytree import flatten
from .tensor import Tensor, over
from .trace import TRACE, NeedsFlush, node_of

_FIRST = 1 << 40  # leaf numbers of placeholders, apart from those of any trace


@dataclass
class Body:
    """A traced function.

    Attributes:
        placeholders: the nodes that stand for its inputs.
        outputs: result nodes.
        structure: of the result tree (pytree.flatten).
        tracked: for each output, whether it has a history.
    """

    placeholders: list[Node]
    outputs: list[Node]
    structure: Any
    tracked: list[bool]


def placeholders(types: Sequence[TensorType]) -> list[Node]:
    """Fresh nodes that stand for the inputs of a body."""
    depth = TRACE.depth
    return [Node.make("input", (), {"index": _FIRST + (depth << 20) + i, "type": t}) for i, t in enumerate(types)]


def standing_for(node: Node, tracked: bool) -> Tensor:
    """A tensor over a placeholder."""
    return over(pending(node, tracked and TRACE.grad and node.dtype.is_float))


def trace_body(what: str, fn: Callable[..., Any], args: tuple[Any, ...], nodes: list[Node]) -> Body:
    """Run `fn(*args)`, where `args` hold tensors over the placeholder `nodes`.

    Raises:
        CaptureError: the function needs a value, or writes to a tensor from outside.
    """
    trace = TRACE
    barrier, writes, start = trace.barrier, trace.writes, len(trace.pending)
    trace.barrier = trace.barrier or f"the body of {what} is being traced"
    trace.writes = []
    trace.depth += 1
    try:
        result = fn(*args)
        leaves: list[Tensor] = []
        structure = flatten(result, leaves)
        outputs = [node_of(t) for t in leaves]
        tracked = [t._cell.tracked for t in leaves]
        del result, leaves, args
        _check_writes(what, set(nodes))
    except BaseException:
        for cell, node, stale, was_tracked in reversed(trace.writes):
            cell.node, cell.stale, cell.tracked = node, stale, was_tracked
        raise
    finally:
        trace.barrier, trace.writes = barrier, writes
        trace.depth -= 1
        _seal(what, start, set(nodes))
    return Body(nodes, outputs, structure, tracked)


def _check_writes(what: str, inside: set[Node]) -> None:
    """Raises CaptureError if a tensor that outlives the body was given a value of the body's."""
    writes = TRACE.writes
    if not writes:
        return
    first: dict[int, tuple[weakref.ref[Cell], Any]] = {}
    for record in writes:
        first.setdefault(id(record[0]), (weakref.ref(record[0]), record[1:]))
    del record
    writes.clear()
    for ref, (node, stale, tracked) in first.values():
        cell = ref()
        if cell is None or node in inside or cell.role == "state" or cell.node is None:
            continue
        if depends(cell.node, inside):
            writes.append((cell, node, stale, tracked))
    if writes:
        raise CaptureError(f"a tensor from outside is written in the body of {what}", location=here(3).location,
                           hint="return the new value and carry it from step to step")


def _seal(what: str, start: int, inside: set[Node]) -> None:
    """Tensors of the body that were kept outside have no value there."""
    for ref in TRACE.pending[start:]:
        cell = ref()
        if cell is not None and cell.stale and cell.node is not None and depends(cell.node, inside):
            cell.stale, cell.node, cell.buffer = False, None, None
            cell.error = CaptureError(f"it belongs to one step of the body of {what}",
                                      hint="return it, to have the values of all steps")


def depends(node: Node, targets: set[Node]) -> bool:
    """Whether any target lies below a node."""
    return any(n in targets for n in postorder([node]))


def run_restartable(f: Callable[[], Any]) -> Any:
    """`f()`, run again if it met a parameter whose pending value must be computed first."""
    if TRACE.barrier is not None:
        return f()
    while True:
        try:
            return f()
        except NeedsFlush:
            from .flush import flush

            flush("parameter")


def close(bodies: Sequence[tuple[Sequence[Node], Sequence[Node]]],
          names: Sequence[Sequence[str]]) -> tuple[list[Graph], list[Node]]:
    """Body graphs over their placeholders and the constants that they share.

    Args:
        bodies: (placeholders, outputs) of each.
        names: of each body's placeholders.

    Returns:
        the graphs, whose inputs are the placeholders and then the constants; the nodes of the constants.
    """
    fixed = constants_of(bodies)
    labels = [f"const{i}" for i in range(len(fixed))]
    graphs = [graph_over([*inputs, *fixed], [*own, *labels], outputs)
              for (inputs, outputs), own in zip(bodies, names, strict=True)]
    return graphs, fixed


def constants_of(bodies: Sequence[tuple[Sequence[Node], Sequence[Node]]]) -> list[Node]:
    """The nodes outside that bodies read: what depends neither on placeholders nor on literals alone."""
    constants: dict[Node, None] = {}
    for inputs, outputs in bodies:
        order = postorder(outputs)
        inner = set(inputs)
        pure: set[Node] = set()
        for n in order:
            if n in inner:
                continue
            if any(i in inner for i in n.inputs):
                inner.add(n)
            elif n.op.name != "input" and all(i in pure for i in n.inputs):
                pure.add(n)
        wanted = [i for n in order if n in inner for i in n.inputs] + list(outputs)
        for n in wanted:
            if n not in inner and n not in pure:
                constants.setdefault(n)
    return list(constants)


def graph_over(inputs: Sequence[Node], names: Sequence[str], outputs: Sequence[Node]) -> Graph:
    """The body graph of outputs over these input nodes."""
    specs = tuple([InputSpec(name, n.tensor_type) for name, n in zip(names, inputs, strict=True)])
    leaves = {n: Node.make("input", (), {"index": i, "type": n.type}) for i, n in enumerate(inputs)}
    return Graph("body", specs, replace_nodes(outputs, leaves))


def replace_nodes(outputs: Sequence[Node], leaves: dict[Node, Node]) -> tuple[Node, ...]:
    """The outputs over new leaves; what lies below a replaced node is not visited."""
    reached: dict[Node, Node] = dict(leaves)
    for n in postorder(outputs, skip=reached.__contains__):
        reached[n] = n.with_inputs([reached[i] for i in n.inputs])
    return tuple([reached[o] for o in outputs])
