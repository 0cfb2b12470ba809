"""Splitting launches by rows: which bytes of its operands a share of a launch touches.

If row r of a launch touches row r alone of every operand that another launch writes or reads, and the other one keeps
to its rows in the same way, then a thread that has the same rows of both needs to wait for nobody between them. What is
proved here, from the index maps of the kernel IR, is the first half; `compiler/barriers.py` does the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ir.dims import Atom, Dim, not_negative
from .index_maps import coefficients
from .kernel_ir import Axis, Bound, Kernel, Load, Operand, Store
from .lowered import Rows

Real = Callable[[Dim], Dim]


def rows_of(kernel: Kernel, axis: Axis, operands: Sequence[Operand], real: Real, steps: Dim,
            extents: tuple[Dim, ...] | None = None) -> Rows | None:
    """How a launch is split along `axis`, if each of its rows writes rows of its own.

    Args:
        axis: an axis of the results; equal shares of the parallel range are equal shares of it.
        operands: buffers in slot order.
        real: from size names to the graph's dims.
        steps, extents: parallel range and arguments of the launch that is split like this.
    """
    strides = [_stride(kernel, axis, o, real) for o in operands]
    if any(o.output and s is None for o, s in zip(operands, strides, strict=True)):
        return None
    return Rows(real(axis.extent), tuple(strides), real(steps), extents)


def _stride(kernel: Kernel, axis: Axis, operand: Operand, real: Real) -> Dim | None:
    """Bytes between an operand's rows, if all that row r touches lies in the r-th such piece of it."""
    found: Dim | None = None
    for i in kernel.body:
        if not isinstance(i, (Load, Store)) or i.operand != operand.name:
            continue
        parts = coefficients(i.address)
        stride = real(parts.pop((axis.name,), 0))
        guard = kernel.defined.get(i.guard) if isinstance(i, Load) else None
        span = _span(kernel, parts, guard if isinstance(guard, Bound) else None, real)
        if span is None or (found is not None and stride != found):
            return None
        low, high = span
        if not (not_negative(low) and not_negative(stride - 1 - high)):
            return None
        found = stride
    return None if found is None else found * operand.dtype.itemsize


def _span(kernel: Kernel, parts: dict[tuple[Atom, ...], Dim], guard: Bound | None,
          real: Real) -> tuple[Dim, Dim] | None:
    """Least and greatest value of a sum of products of an axis and a size (and a constant)."""
    low = high = real(parts.pop((), 0))
    extents = {a.name: a.extent for a in kernel.kept + kernel.reduced}
    for moving, factor in parts.items():
        name, by = moving[0], real(factor)
        if len(moving) != 1 or not isinstance(name, str) or name not in extents:
            return None
        first, last = _range(name, extents[name], guard, real)
        if not_negative(by):
            low, high = low + by * first, high + by * last
        elif not_negative(-by):
            low, high = low + by * last, high + by * first
        else:
            return None
    return low, high


def _range(name: str, extent: Dim, guard: Bound | None, real: Real) -> tuple[Dim, Dim]:
    """First and last coordinate along an axis where the guard holds."""
    first: Dim = 0
    end = real(extent)
    if guard is not None:
        parts = coefficients(guard.at)
        shift = real(parts.pop((), 0))
        if parts == {(name,): 1} and guard.low is not None:
            first, end = real(guard.low) - shift, real(guard.high) - shift
        elif parts == {(name,): 1}:
            end = real(guard.high) - shift
    return first, end - 1
