"""The pending trace: operators are recorded here instead of being run.

There is one `TRACE`. Recording an operator makes one hash-consed IR node (or a few, for composites) at the user's
line. Leaves (materialised cells, Python numbers) are numbered by first use, so each pass through a loop body builds
the identical nodes and a memo of recorded operators answers with one dictionary probe. `flush.flush` runs what is
pending and empties the trace.

Functions that record are pure functions over nodes, `fn(builder, *nodes, *args) -> node | tuple of nodes`, with
hashable `args`; `apply` lifts one to tensors. Whatever may flush (a full trace, a step that was marked, a parameter
whose value is pending) happens in `begin`, before any operand is read.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...ir.build import Builder
from ...ir.dtypes import DType
from ...ir.errors import CaptureError, Location
from ...ir.node import Node, Place
from ...ir.types import TensorType
from . import stats
from .cell import Array, Cell, pending
from .place import here

if TYPE_CHECKING:
    from .tensor import Tensor

LIMIT = 20_000  # operators in one pending trace
MEMO_LIMIT = 200_000

NUMBER = "number"  # owner of a leaf that is a Python number of the script


class NeedsFlush(Exception):
    """A body being traced met a parameter whose pending value must be computed first: flush, then trace it again."""


class Hyper:
    """Owner of a leaf that is a number read at each call (a learning rate): never compiled in.

    Attributes:
        read: gives the present value; what `tm.compile` calls before each run.
    """

    __slots__ = ("name", "read")

    def __init__(self, name: str, read: Callable[[], Any] | None = None) -> None:
        self.name, self.read = name, read

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hyper) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


class Trace:
    """What has been recorded since the last flush.

    Attributes:
        values: by leaf index, the array or number that the leaf stands for (arrays as they were at the first use).
        owners: by leaf index, the cell, NUMBER, a Hyper, or None for an array without a cell.
        pending: weak references to all cells computed or written here, in order.
        seen: nodes with a history; a second equal one gets a place of its own, so that two tensors never share one.
        grad_leaves: node -> tensor on which its gradient accumulates.
        freed: nodes whose backward pass has run without retain_graph.
        dead: leaves whose history was freed before they were materialised.
        segments: histories of earlier traces that were imported here.
        calls: where models were called from outside of gradient mode.
        retained: weak references to non-leaf tensors that keep their gradient (across flushes).
        room: operators left before the trace is flushed; negative once a step was marked.
        grad: whether histories are recorded (`no_grad` clears it).
        tracked: whether any recorded operator has a history.
        epoch: an object of its own per trace.
        barrier: why nothing may be flushed now (inside `tm.compile` or a loop body), or None.
        capture: the `tm.compile` capture that is recording, or None.
        depth: how many bodies of loops and branches are being traced.
        writes: (cell, node, stale, tracked) before each write while a body is traced, or None.
    """

    __slots__ = (
        "barrier", "calls", "capture", "dead", "depth", "epoch", "freed", "grad", "grad_leaves", "owners", "pending",
        "retained", "room", "seen", "segments", "stepped", "tracked", "values", "writes",
    )

    def __init__(self) -> None:
        self.grad = True
        self.barrier: str | None = None
        self.capture: Any = None
        self.depth = 0
        self.writes: list[tuple[Cell, Node | None, bool, bool]] | None = None
        self.retained: list[weakref.ref[Tensor]] = []
        self.reset()

    def reset(self) -> None:
        """Forget everything recorded."""
        self.values: list[Any] = []
        self.owners: list[Any] = []
        self.pending: list[weakref.ref[Cell]] = []
        self.seen: set[Node] = set()
        self.grad_leaves: dict[Node, Tensor] = {}
        self.freed: set[Node] = set()
        self.dead: list[Node] = []
        self.segments: list[Any] = []
        self.calls: set[Place] = set()
        self.room = LIMIT
        self.stepped = False
        self.tracked = False
        self.epoch = object()

    @property
    def empty(self) -> bool:
        """Whether nothing was recorded that someone still holds."""
        return not any((cell := ref()) is not None and cell.stale for ref in self.pending)


TRACE = Trace()
# Held while a trace is run and while a captured function is called: those may come from several threads at once, the
# others wait. Recording operators outside of captured functions is one thread's business at a time.
LOCK = threading.RLock()
if hasattr(os, "register_at_fork"):  # another thread may hold it, and the child has no such thread
    os.register_at_fork(after_in_child=LOCK._at_fork_reinit)  # type: ignore[attr-defined]
_memo: dict[Any, Any] = {}
_leaves: dict[Any, Node] = {}
_new_tensor: Callable[[Cell], Tensor]


def bind_tensor_class(new: Callable[[Cell], Tensor]) -> None:
    """Called once by tensor.py: how to wrap a cell."""
    global _new_tensor
    _new_tensor = new


# --- leaves -----------------------------------------------------------------------------------------------------------
def leaf_node(index: int, dtype: DType, shape: tuple[int, ...]) -> Node:
    """The node `input{index}` of a type."""
    key = (index, dtype, shape)
    node = _leaves.get(key)
    if node is None:
        if len(_leaves) > MEMO_LIMIT:
            _leaves.clear()
        node = _leaves[key] = Node.make("input", (), {"index": index, "type": TensorType(dtype, shape)})
    return node


def number(value: Any, dtype: DType, owner: Any = NUMBER) -> Node:
    """A slot: the next Python number of the trace as a rank-0 leaf."""
    values = TRACE.values
    key = (len(values), dtype, ())
    values.append(value)
    TRACE.owners.append(owner)
    return _leaves.get(key) or leaf_node(*key)


def array_leaf(array: Array, dtype: DType, owner: Any = None) -> Node:
    """A leaf over an array that must not change while the trace is pending."""
    values = TRACE.values
    node = leaf_node(len(values), dtype, array.shape)
    values.append(array)
    TRACE.owners.append(owner)
    return node


def read(cell: Cell) -> Node:
    """The node of a cell's current value; a materialised cell becomes a leaf."""
    node = cell.node
    if node is not None:
        return node
    if cell.stale or cell.buffer is None:
        raise lost(cell)
    trace = TRACE
    if cell.alias is not None and not (cell.tracked and cell.leaf is not None):
        node = _read_mate(cell)
        if node is not None:
            cell.node = node
            return node
    array = cell.buffer
    if cell.export is not None and cell.exported:
        array = array.copy()  # someone outside may write to it before the trace runs
    index = len(trace.values)
    last = cell.last
    if last is not None and last[0] == index:
        node = last[1]
    else:
        node = leaf_node(index, cell.type.dtype, array.shape)
        cell.last = (index, node)
    trace.values.append(array)
    trace.owners.append(cell)
    if cell.tracked:
        node = _with_history(cell, node)
    cell.node = node
    return node


def _with_history(cell: Cell, node: Node) -> Node:
    """The leaf of a tracked cell, joined to its history."""
    tensor = cell.leaf() if cell.leaf is not None else None
    if tensor is not None:
        TRACE.grad_leaves[node] = tensor
    elif cell.history is not None:
        from .history import rejoin

        node = rejoin(cell.history, node)
    elif cell.leaf is None:
        TRACE.dead.append(node)
    return node


def _read_mate(cell: Cell) -> Node | None:
    """The value through another cell over the same memory, so that one memory is one leaf."""
    for mate in cell.mates():
        if mate is not cell and not mate.stale and (mate.node is not None or mate.leaf is not None):
            if mate.tracked and cell.tracked:
                continue
            node = read(mate)
            return cut(node) if mate.tracked else node
    return None


def cut(node: Node) -> Node:
    """The value of a node without its history."""
    if node.op.name == "stop_gradient" or not node.dtype.is_float:
        return node
    return Node.make("stop_gradient", (node,), (), node.place)


def lost(cell: Cell) -> BaseException:
    """The error for reading a cell whose value was never computed."""
    if cell.error is not None:
        return RuntimeError(f"this tensor has no value: the run that should have computed it failed ({cell.error})")
    return RuntimeError("this tensor has no value")


# --- recording --------------------------------------------------------------------------------------------------------
def begin(operands: Sequence[Tensor]) -> bool:
    """Make room for one operator and settle its operands; returns whether one of them has a history."""
    trace = TRACE
    trace.room -= 1
    if trace.room < 0:
        make_room()
    tracked = False
    for t in operands:
        cell = t._cell
        if cell.tracked:
            tracked = True
            if cell.leaf is not None and trace.grad and (cell.stale or not cell.used):
                _settle(cell)
    return tracked


def make_room() -> None:
    """Run what is pending because a step was marked or the trace is full."""
    trace = TRACE
    if trace.barrier is not None:
        trace.room = LIMIT
        return
    from .flush import flush

    flush("step" if trace.stepped else "limit")
    TRACE.room -= 1


def _settle(cell: Cell) -> None:
    """A leaf that requires grad is about to be read by a differentiable operator.

    Its value must be a leaf of the trace: a pending one (an update, an initialisation) is computed first. The same
    holds for whatever else is pending when a parameter is used for the first time, so that the first step of a loop
    is the same graph as the second.
    """
    trace = TRACE
    if trace.barrier is not None:
        if cell.stale and cell.node not in trace.grad_leaves:
            if trace.depth and trace.capture is None:
                raise NeedsFlush
            _leaf_in_place(cell)
        return
    first = not cell.used
    cell.used = True
    if cell.stale or (first and not trace.tracked and not trace.empty):
        from .flush import flush

        flush("parameter")


def _leaf_in_place(cell: Cell) -> None:
    """Make a pending value a leaf where nothing may be flushed: a node of its own without history."""
    node = cell.node
    assert node is not None and cell.leaf is not None
    tensor = cell.leaf()
    place = Place(node.place.location, f"{node.place.scope}#leaf{len(TRACE.grad_leaves)}")
    cell.node = Node.make("stop_gradient", (node,), (), place)
    if tensor is not None:
        TRACE.grad_leaves[cell.node] = tensor


def node_of(t: Tensor) -> Node:
    """The node of a tensor's current value (call `begin` before)."""
    cell = t._cell
    view = t._view
    if view is None:
        return cell.node or read(cell)
    if not cell.stale and not cell.tracked and TRACE.capture is None:
        window = view.window
        if window is not None:
            return _read_window(t, cell, view, window)
        if view.parent is None and not view.contiguous:  # strided memory from outside, as a whole
            return cell.node or read(cell)
    base = cell.node or read(cell)
    if t._seen is base:
        return t._shown  # type: ignore[no-any-return]
    t._seen, t._shown = base, _show(view, base, 0)
    return t._shown  # type: ignore[no-any-return]


def _show(view: Any, base: Node, skip: int) -> Node:
    place = here(4)
    key = (view, base, id(place), skip)
    node = _memo.get(key)
    if node is None:
        node = remember(key, view.node(Builder(place), base, skip))
    return node  # type: ignore[no-any-return]


def _read_window(t: Tensor, cell: Cell, view: Any, window: Any) -> Node:
    """A view of materialised memory without history: what it selects is a leaf of its own."""
    stamp = (TRACE.epoch, cell.version)
    if t._seen == stamp:
        return t._shown  # type: ignore[no-any-return]
    if cell.buffer is None:
        raise lost(cell)
    array = window.array(cell.buffer)
    if not array.flags.c_contiguous or (cell.export is not None and cell.exported):
        array = array.copy()  # someone outside may write to it before the trace runs
    node = array_leaf(array, cell.type.dtype, None)
    if window is not view:
        node = _show(view, node, len(window.steps))
    t._seen, t._shown = stamp, node
    return node


def remember(key: Any, value: Any) -> Any:
    """Keep a recorded result for the next pass through the same line."""
    if len(_memo) > MEMO_LIMIT:
        _memo.clear()
    _memo[key] = value
    return value


def memo(key: Any) -> Any:
    """What `remember` kept, or None."""
    return _memo.get(key)


def record(fn: Callable[..., Any], nodes: tuple[Node, ...], args: tuple[Any, ...], tracked: bool,
           depth: int = 3) -> Any:
    """The node(s) of `fn` over nodes at the user's line."""
    place = here(depth)
    key = (fn, nodes, args, id(place), tracked, TRACE.grad)
    made = _memo.get(key)
    if made is None:
        made = fn(Builder(place), *nodes, *args)
        if tracked:
            made = _finish(made, nodes, place)
        remember(key, made)
    return made


def _finish(made: Any, nodes: tuple[Node, ...], place: Place) -> Any:
    """Cut the history under no_grad; give a result that is its own operand a node of its own."""
    if isinstance(made, tuple):
        return tuple(_finish(m, nodes, place) for m in made)
    if not TRACE.grad:
        return cut(made)
    if made in nodes:
        return Node.make("reshape", (made,), {"shape": made.shape}, place)
    return made


def wrap(node: Node, tracked: bool) -> Tensor:
    """A new tensor over a recorded node."""
    trace = TRACE
    if tracked:
        tracked = trace.grad and node.type.dtype.is_float  # type: ignore[union-attr]
        if tracked:
            trace.tracked = True
            if node in trace.seen:
                if trace.freed:
                    _revive(node)
                node = _distinct(node)
            trace.seen.add(node)
    cell = pending(node, tracked)
    trace.pending.append(weakref.ref(cell))
    return _new_tensor(cell)


def _revive(node: Node) -> None:
    """An operation is recorded again after a backward pass: what it computes between its operands and its result, which
    no tensor holds, is computed anew, so a backward pass may read it once more."""
    stack = list(node.inputs)
    while stack:
        inner = stack.pop()
        if inner in TRACE.freed and inner not in TRACE.seen:
            TRACE.freed.discard(inner)
            stack.extend(inner.inputs)


def _distinct(node: Node) -> Node:
    """The same operator at a place of its own: a second tensor with a history never shares a node."""
    count = 2
    while True:
        place = Place(node.place.location, f"{node.place.scope}#{count}")
        other = Node.make(node.op, node.inputs, node.attrs, place)
        if other not in TRACE.seen:
            return other
        count += 1


def apply(fn: Callable[..., Any], operands: tuple[Tensor, ...], args: tuple[Any, ...] = ()) -> Any:
    """Record `fn(builder, *operand nodes, *args)`; a tensor, or a tuple of tensors if `fn` returns a tuple."""
    tracked = begin(operands)
    nodes = tuple([node_of(t) for t in operands])
    made = record(fn, nodes, args, tracked)
    if made.__class__ is tuple:
        return tuple([wrap(m, tracked) for m in made])
    return wrap(made, tracked)


def apply_number(fn: Callable[..., Any], t: Tensor, value: Any, dtype: DType, swap: bool = False) -> Tensor:
    """Record a binary operator of a tensor and a Python number (a slot of the trace)."""
    operands = (t,)
    tracked = begin(operands)
    node = node_of(t)
    slot = number(value, dtype)
    return wrap(record(fn, (slot, node) if swap else (node, slot), (), tracked), tracked)


def apply_mixed(fn: Callable[..., Any], operands: Sequence[Any], args: tuple[Any, ...] = ()) -> Any:
    """Like `apply`, where operands may be tensors, `(number, dtype)` pairs (slots) or None (left out)."""
    tracked = begin([t for t in operands if t is not None and t.__class__ is not tuple])
    nodes = tuple([None if t is None else number(*t) if t.__class__ is tuple else node_of(t) for t in operands])
    made = record(fn, nodes, args, tracked)  # type: ignore[arg-type]
    if made.__class__ is tuple:
        return tuple([wrap(m, tracked) for m in made])
    return wrap(made, tracked)


# --- writing ----------------------------------------------------------------------------------------------------------
def assign(cell: Cell, node: Node, tracked: bool) -> None:
    """Replace a cell's value by a node; every alias of the memory gets the value and keeps its history."""
    trace = TRACE
    mates = cell.mates() if cell.alias is not None else (cell,)
    for mate in mates:
        if trace.writes is not None:
            trace.writes.append((mate, mate.node, mate.stale, mate.tracked))
        value = node if mate is cell else _through_alias(mate, node)
        if not mate.stale:
            trace.pending.append(weakref.ref(mate))
            mate.stale = True
        mate.node = value
        mate.version += 1
    if tracked and trace.grad:
        cell.tracked = trace.tracked = True


def _through_alias(mate: Cell, node: Node) -> Node:
    value = cut(node)
    if mate.tracked and mate.leaf is None and value.dtype.is_float:
        return Node.make("with_value", (read(mate), value), (), node.place)
    return value


def after_write(cell: Cell) -> None:
    """Memory that someone outside sees is written at once."""
    if cell.export is not None and cell.exported and TRACE.barrier is None:
        from .flush import flush

        flush("exported")


def mark_step(cells: Sequence[Cell] = ()) -> None:
    """An optimizer step was recorded: the next recorded operator, value need or `zero_grad` runs the trace."""
    stats.first_step()
    if TRACE.barrier is None:
        TRACE.stepped = True
        TRACE.room = 0
        for cell in cells:
            if cell.export is not None and cell.exported:
                after_write(cell)
                return


def after_zero_grad() -> None:
    """Called by `Optimizer.zero_grad` and `Module.zero_grad` once the gradients are dropped."""
    if TRACE.capture is not None:
        TRACE.capture.zeroed()
    if TRACE.stepped and TRACE.barrier is None:
        from .flush import flush

        flush("step")


def model_called() -> None:
    """An outermost module is about to run.

    Outside of gradient mode, a second call from the same line is the next turn of an evaluation or generation loop:
    what the turn before left pending runs first, so that one turn is one graph, however long the loop.
    """
    trace = TRACE
    if trace.grad or trace.barrier is not None:
        return
    place = here(3)
    if place in trace.calls and trace.pending:
        from .flush import flush

        flush("loop")
    TRACE.calls.add(place)


def need_values(what: str, location: Location | None = None) -> None:
    """Run the trace because a value is needed. Raises CaptureError where that is impossible."""
    if TRACE.barrier is not None:
        raise CaptureError(f"{what} needs a tensor's value while {TRACE.barrier}",
                           location=location or here(3).location,
                           hint="use tm.where or tm.cond for a choice, tm.while_loop or tm.scan for a loop, and return "
                                "the tensor to look at its value outside")
    from .flush import flush

    flush(what)
