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

from ...runtime.interrupts import INTERRUPTS
from . import stats, version
from .capture import Argument, Capture, Copied, Entry, Same, finish, stand_in
from .cell import Array, Cell, held_elsewhere, materialised, observe_materialised
from .flush import _abandon, flush
from .pytree import LEAF, Constant, flatten, flatten_call, unflatten
from .registry import function
from .tensor import Consumed, Tensor, consumed, over
from .trace import LOCK, TRACE

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
        self._last: tuple[Any, Entry] | None = None
        self._outside = list(_outside_values(fn))
        self.captures = 0

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with LOCK:
            if TRACE.barrier is None:
                return self._call(args, kwargs)
        return self._fn(*args, **kwargs)  # inside another captured function or a loop body

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves: list[Tensor] = []
        structure = flatten_call(args, kwargs, leaves)
        key = self._key(structure, leaves)
        last = self._last
        entry: Entry | None
        if last is not None and last[0] == key:  # much cheaper than a hash of all that
            entry = last[1]
        else:
            entry = self._entries.get(key)
            if entry is None and key in self._entries:  # returns histories: part of the pending trace
                return self._fn(*args, **kwargs)
        if TRACE.values or TRACE.pending:
            flush("compiled function")
        if entry is not None:
            values = _numbers(entry)
            if self._holds(entry, values):
                self._last = key, entry
                return _run(entry, values, leaves)
        return self._capture(key, structure, leaves)

    def _key(self, structure: Any, leaves: Sequence[Tensor]) -> tuple[Any, ...]:
        """What an entry is found by: everything that recording the function may have depended on."""
        key = [structure, TRACE.grad, version.current()]
        for t in leaves:
            cell, view = t._cell, t._view
            key += (cell.type.dtype, cell.type.shape if view is None else view.shape, cell.tracked)
        if len(leaves) > 1:
            key.append(_pattern(leaves))
        if self._outside:
            key += [Constant(read()) for read in self._outside]
        return tuple(key)

    @staticmethod
    def _holds(entry: Entry, values: Sequence[Any]) -> bool:
        """Whether what the graph was built on besides the key is still so: numbers that are zero, gradients there."""
        for index, _ in entry.hypers:
            before, now = entry.fixed[index], values[index]
            if now is not before and (now == 0) != (before == 0):
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
            self._last = None
        returned: list[Tensor] = []
        tree = flatten(result, returned)
        if any(t._cell.tracked and t._cell.stale and t._cell.node not in TRACE.freed for t in returned):
            self._entries[key] = None
            return result
        entry = self._entries[key] = finish(capture, returned, tree, self._keep_grads)
        return _run(entry, _numbers(entry), leaves)


def _pattern(leaves: Sequence[Tensor]) -> tuple[int, ...] | None:
    """Which arguments share memory with an earlier one; None if none does."""
    cells = [t._cell for t in leaves]
    if len(set(cells)) == len(cells):
        return None
    seen: dict[Cell, int] = {}
    return tuple([seen.setdefault(cell, i) for i, cell in enumerate(cells)])


# --- running ----------------------------------------------------------------------------------------------------------
def _run(entry: Entry, values: list[Any], leaves: Sequence[Tensor]) -> Any:
    """One call: values in, run, outputs to their places. An interrupt during the run waits until they are there."""
    _fill(values, entry, leaves)
    copies = {c: np.array(values[c.index], dtype=c.dtype.numpy, order="C", copy=True)
              for c in entry.copied} if entry.copied else _NOTHING
    INTERRUPTS.defer()
    try:
        outputs = entry.program.run(values) if entry.program is not None else []
        values.clear()
        stats.ran()
        try:
            return _settle(entry, leaves, outputs, copies)
        except KeyboardInterrupt:  # in the middle of it: again, it does the same
            _settle(entry, leaves, outputs, copies)
            raise
    finally:
        INTERRUPTS.release()


_NOTHING: Mapping[Copied, Array] = {}


def _numbers(entry: Entry) -> list[Any]:
    """The values of the graph's leaves, as far as they are numbers and constants."""
    values = list(entry.fixed)
    for index, hyper in entry.hypers:
        if hyper.read is not None:
            values[index] = hyper.read()
    return values


def _fill(values: list[Any], entry: Entry, leaves: Sequence[Tensor]) -> None:
    """Add the values that are arrays."""
    for index, cell in entry.cells:
        values[index] = cell.buffer
    for index, cell in entry.replaced:
        array = cell.buffer
        assert array is not None
        owners = 1 + (len(cell.mates()) if cell.alias is not None else 1)
        if (cell.export is not None and cell.exported) or held_elsewhere(array, owners):
            array = array.copy()  # someone still reads the value that the run will overwrite
        values[index] = array
    for index, number in entry.arguments:
        t = leaves[number]
        array = t._cell.buffer if t._view is None else None
        if array is None:
            array = t._array("compiled function")
        values[index] = array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _settle(entry: Entry, leaves: Sequence[Tensor], outputs: Sequence[Array], copies: Mapping[Copied, Array]) -> Any:
    """Put the outputs of a run where they belong; the function's result."""
    for target, at in entry.written:
        array = _output(at, outputs, copies)
        if target.__class__ is int:
            _store(leaves[target], array)
        elif target.buffer is array and target.alias is None:
            target.version += 1
        else:
            _give(target, array)
    for ref, number, what in entry.grads:
        t = leaves[number] if number is not None else ref()
        if t is not None:
            t._grad = None if what is None else consumed() if what is consumed else over(
                materialised(_output(what, outputs, copies), t._dtype))
    results = [_result(what, outputs, copies, leaves) for what in entry.results]
    return results[0] if entry.tree is LEAF else unflatten(entry.tree, iter(results))


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


def _result(what: Any, outputs: Sequence[Array], copies: Mapping[Copied, Array], leaves: Sequence[Tensor]) -> Tensor:
    """A tensor that the function returned."""
    if what.__class__ is Same:
        return what.tensor if what.number is None else leaves[what.number]
    at, shared, tracked, dtype = what
    array = _output(at, outputs, copies)
    made = over(materialised(array.copy() if shared else array, dtype))
    made._cell.tracked = tracked  # its history was used up inside
    return made


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

