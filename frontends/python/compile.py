"""`tm.compile`: a function captured once and then run as one graph.

The first call with new guards records the whole function (model, loss, backward, optimizer step) into the trace while
nothing may be flushed. Materialised cells that it reads become inputs, cells that it writes become donated outputs;
numbers of optimizers are read at each call. Later calls compare the guards and go straight to the executable. Guards:
structure, dtypes and shapes of the arguments, Python constants among them and in the function's globals and closure,
gradient mode, and the version counter that module attribute writes and train/eval bump.

A captured function that returns tensors with a history (a model compiled by itself) stays part of the pending trace,
so that loss, backward and step outside make one graph with it.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import stats, version
from .capture import Argument, Capture, Copied, Entry, Fixed, Same, finish, stand_in
from .cell import Array, Cell, held_elsewhere, materialised, observe_materialised
from .flush import _abandon, flush
from .pytree import Constant, flatten, unflatten
from .registry import function
from .tensor import Consumed, Tensor, consumed, over
from .trace import TRACE, Hyper

_MAX_ENTRIES = 64


class CompiledFunction:
    """A function behind `tm.compile`; call it like the function.

    Attributes:
        captures: how often the function was recorded.
    """

    def __init__(self, fn: Callable[..., Any], keep_grads: bool) -> None:
        functools.update_wrapper(self, fn, updated=())
        self._fn = fn
        self._keep_grads = keep_grads
        self._entries: dict[Any, Entry | None] = {}
        self._outside = list(_outside_values(fn))
        self.captures = 0

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if TRACE.barrier is not None:  # inside another captured function or a loop body
            return self._fn(*args, **kwargs)
        leaves: list[Tensor] = []
        structure = flatten((args, kwargs), leaves)
        key = (structure, tuple([(t._cell.type.dtype, tuple(t._shape), t._cell.tracked) for t in leaves]),
               _pattern(leaves), TRACE.grad, version.current(), tuple([Constant(read()) for read in self._outside]))
        entry = self._entries.get(key)
        if entry is None and key in self._entries:  # returns histories: part of the pending trace
            return self._fn(*args, **kwargs)
        if TRACE.values or TRACE.pending:
            flush("compiled function")
        if entry is None or not self._holds(entry):
            return self._capture(key, structure, leaves)
        return _run(entry, leaves)

    @staticmethod
    def _holds(entry: Entry) -> bool:
        """Whether what the graph was built on besides the key is still so: numbers that are zero, gradients there."""
        for owner, value in entry.hypers:
            if owner.read is not None and (owner.read() == 0) != (value == 0):
                return False
        for ref, grad in entry.initial_grads:
            t = ref()
            if t is not None and t._grad is not grad:
                if t._grad.__class__ is Consumed:
                    raise t._grad.error()
                return False
        return True

    def _capture(self, key: Any, structure: Any, leaves: list[Tensor]) -> Any:
        """Record the function, then run what was recorded."""
        self.captures += 1
        arguments = [Argument(i, t, stand_in(t)) for i, t in enumerate(leaves)]
        capture = Capture(arguments)
        TRACE.barrier = f"tm.compile captures {getattr(self._fn, '__name__', 'a function')}"
        TRACE.capture = capture
        observe_materialised(capture.made)
        try:
            args, kwargs = unflatten(structure, iter([a.tensor for a in arguments]))
            result = self._fn(*args, **kwargs)
            del args, kwargs
        except BaseException as error:
            _abandon(error)
            capture.restore_grads()
            raise
        finally:
            TRACE.barrier = TRACE.capture = None
            observe_materialised(None)
        if len(self._entries) >= _MAX_ENTRIES:
            self._entries.clear()
        returned: list[Tensor] = []
        tree = flatten(result, returned)
        if any(t._cell.tracked and t._cell.stale and t._cell.node not in TRACE.freed for t in returned):
            self._entries[key] = None
            return result
        entry = self._entries[key] = finish(capture, returned, tree, self._keep_grads)
        return _run(entry, leaves)


def _pattern(leaves: Sequence[Tensor]) -> tuple[int, ...]:
    """Which arguments share memory with an earlier one."""
    seen: dict[int, int] = {}
    return tuple([seen.setdefault(id(t._cell), i) for i, t in enumerate(leaves)])


# --- running ----------------------------------------------------------------------------------------------------------
def _run(entry: Entry, leaves: Sequence[Tensor]) -> Any:
    values = [_value(entry, index, source, leaves) for index, source in enumerate(entry.sources)]
    copies = {c: np.array(values[c.index], dtype=c.dtype.numpy, order="C", copy=True) for c in entry.copied}
    outputs = entry.program.run(values) if entry.program is not None else []
    stats.ran()
    for target, at in entry.written:
        array = _output(at, outputs, copies)
        if target.__class__ is int:
            _store(leaves[target], array)
        else:
            _give(target, array)
    for ref, number, what in entry.grads:
        t = leaves[number] if number is not None else ref()
        if t is not None:
            t._grad = None if what is None else consumed() if what is consumed else over(
                materialised(_output(what, outputs, copies), t._dtype))
    return unflatten(entry.tree, iter(list(_results(entry, outputs, copies, leaves))))


def _value(entry: Entry, index: int, source: Any, leaves: Sequence[Tensor]) -> Any:
    cls = source.__class__
    if cls is Cell:
        array: Array = source.buffer
        if index in entry.donated:
            owners = 1 + (len(source.mates()) if source.alias is not None else 1)
            if (source.export is not None and source.exported) or held_elsewhere(array, owners):
                return array.copy()
        return array
    if cls is Fixed:
        return source.value
    if cls is Hyper:
        return source.read() if source.read is not None else entry.fallback[index]
    array = leaves[source.number]._array("compiled function")
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _output(at: Any, outputs: Sequence[Array], copies: Mapping[Copied, Array]) -> Array:
    """An output's array, or the copy of a leaf's value."""
    return copies[at] if at.__class__ is Copied else outputs[at]


def _give(cell: Cell, array: Array) -> None:
    """Make an array the value of a cell."""
    if cell.export is not None and cell.exported:
        assert cell.buffer is not None
        np.copyto(cell.buffer, array)
        array = cell.buffer
    for mate in cell.mates():
        mate.buffer, mate.stale, mate.node = array, False, None
        mate.version += 1


def _store(t: Tensor, array: Array) -> None:
    """Write an argument that the function modified."""
    if t._view is None:
        _give(t._cell, array)
    else:
        np.copyto(t._array("compiled function"), array)
        t._cell.version += 1


def _results(entry: Entry, outputs: Sequence[Array], copies: Mapping[Copied, Array],
             leaves: Sequence[Tensor]) -> Iterator[Tensor]:
    taken = {at for _, at in entry.written}
    for what in entry.results:
        if what.__class__ is Same:
            yield what.tensor if what.number is None else leaves[what.number]
            continue
        at, tracked, dtype = what
        array = _output(at, outputs, copies)
        if at in taken:
            array = array.copy()
        taken.add(at)
        made = over(materialised(array, dtype))
        made._cell.tracked = tracked  # its history was used up inside
        yield made


# --- the public function ----------------------------------------------------------------------------------------------
def _outside_values(fn: Callable[..., Any]) -> Iterator[Callable[[], Any]]:
    """Readers of the simple constants and tensors that a function takes from its globals and closure."""
    inner = getattr(fn, "__func__", fn)
    code = getattr(inner, "__code__", None)
    if code is None:
        return
    simple = (int, float, str, bool, type(None), Tensor)
    for name in code.co_names:
        if isinstance(inner.__globals__.get(name, fn), simple):
            yield functools.partial(_identity, inner.__globals__.get, name)
    for held in inner.__closure__ or ():
        try:
            if isinstance(held.cell_contents, simple):
                yield functools.partial(_identity, getattr, held, "cell_contents")
        except ValueError:  # not bound yet
            continue


class _SameTensor:
    """A tensor as a guard: by identity."""

    __slots__ = ("ref",)

    def __init__(self, t: Tensor) -> None:
        self.ref = weakref.ref(t)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameTensor) and self.ref() is other.ref()

    def __hash__(self) -> int:
        return hash(_SameTensor)


def _identity(read: Callable[..., Any], *args: Any) -> Any:
    value = read(*args)
    return _SameTensor(value) if isinstance(value, Tensor) else value


@function("compile")
def compile_(fn: Any = None, *, keep_grads: bool = False, fullgraph: bool = False, dynamic: bool | None = None,
             backend: Any = None, mode: str | None = None, options: Any = None, disable: bool = False) -> Any:
    """Capture a function (or a module's forward) once and run it as one graph from then on.

    Args:
        fn: a function, method or module; left out, a decorator is returned.
        keep_grads: keep gradients that an optimizer step inside consumed as `.grad`; else reading them is an error.
        fullgraph, dynamic, backend, mode, options: accepted for PyTorch's sake; a captured function is always one
            graph for all sizes.
        disable: return the function as it is.

    Raises:
        CaptureError: at a call, if the function needs a tensor's value while it is captured.
    """
    if fn is None:
        return lambda f: compile_(f, keep_grads=keep_grads, disable=disable)
    if disable or isinstance(fn, CompiledFunction):
        return fn
    if hasattr(fn, "forward") and hasattr(fn, "_parameters"):
        fn.forward = CompiledFunction(fn.forward, keep_grads)
        return fn
    if not callable(fn):
        raise TypeError(f"tm.compile takes a function or module, got {type(fn).__name__}")
    return CompiledFunction(fn, keep_grads)

