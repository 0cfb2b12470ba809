"""Writing functions of a kernel's module as LLVM code: vectors, folds, loops. Imported on cold paths only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from ..mathlib.vectors_llvm import Vector
from .micro_llvm import internal_function, scalar_type
from .rows import LANES

I32, I64 = ir.IntType(32), ir.IntType(64)


def const(value: int) -> Any:
    """An int64."""
    return ir.Constant(I64, value)


class Code:
    """One function under construction.

    Args:
        arguments: a letter each: p pointer to elements, e pointer to int64, i int64, s element.
        result: its LLVM type, if there is one.
    """

    def __init__(self, module: Any, name: str, dtype: str, arguments: str, result: Any = None) -> None:
        self.dtype = dtype
        self.scalar, self.align = scalar_type(dtype)
        kinds = {"p": self.scalar.as_pointer(), "e": I64.as_pointer(), "i": I64, "s": self.scalar}
        self.function = internal_function(module, name, [kinds[letter] for letter in arguments], result)
        for arg in self.function.args:
            if isinstance(arg.type, ir.PointerType):
                arg.add_attribute("noalias")
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.row = ir.VectorType(self.scalar, LANES)

    # -- values ---------------------------------------------------------------------------------------------------

    def splat(self, value: Any, count: int = LANES) -> Any:
        """A scalar in every lane."""
        kind = ir.VectorType(value.type, count)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
        mask = ir.Constant(ir.VectorType(I32, count), [0] * count)
        return self.builder.shuffle_vector(first, first, mask)

    def number(self, value: float, count: int = LANES) -> Any:
        """A constant vector."""
        return ir.Constant(ir.VectorType(self.scalar, count), [value] * count)

    def vector(self, value: Any) -> Vector:
        """A value to compute with."""
        return Vector(self.builder, value)

    def at(self, pointer: Any, index: Any) -> Any:
        """A pointer moved by elements."""
        return self.builder.gep(pointer, [index])

    def load(self, pointer: Any) -> Any:
        """Sixteen elements."""
        value = self.builder.load(self.builder.bitcast(pointer, self.row.as_pointer()))
        value.align = self.align
        return value

    def store(self, value: Any, pointer: Any) -> None:
        """Sixteen elements."""
        self.builder.store(value, self.builder.bitcast(pointer, self.row.as_pointer())).align = self.align

    def gathered(self, scalars: list[Any]) -> Any:
        """Scalars as one vector."""
        value = ir.Constant(ir.VectorType(scalars[0].type, len(scalars)), ir.Undefined)
        for lane, scalar in enumerate(scalars):
            value = self.builder.insert_element(value, scalar, ir.Constant(I32, lane))
        return value

    def lane(self, vector: Any, lane: int) -> Any:
        """One element."""
        return self.builder.extract_element(vector, ir.Constant(I32, lane))

    def fold(self, value: Any, merge: Callable[[Any, Any], Any]) -> Any:
        """The lanes folded by the fixed tree: lane i with i + 8, then i + 4, i + 2, i + 1."""
        width = LANES
        while width > 1:
            width //= 2
            low, high = (ir.Constant(ir.VectorType(I32, width), list(range(start, start + width)))
                         for start in (0, width))
            value = merge(self.builder.shuffle_vector(value, value, low),
                          self.builder.shuffle_vector(value, value, high))
        return self.lane(value, 0)

    def greater(self, a: Any, b: Any) -> Any:
        """b where it is greater, else a."""
        return self.builder.select(self.builder.fcmp_ordered(">", b, a), b, a)

    def least(self, a: Any, b: Any) -> Any:
        """The smaller of two int64."""
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def most(self, a: Any, b: Any) -> Any:
        """The greater of two int64."""
        return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)

    def rounded(self, count: Any) -> Any:
        """A count rounded up to whole lanes."""
        return self.builder.and_(self.builder.add(count, const(LANES - 1)), const(-LANES))

    # -- loops ----------------------------------------------------------------------------------------------------

    @contextmanager
    def loop(self, start: Any, stop: Any, step: int, carried: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
        """A loop from `start` up to `stop`. Yields the index and the carried values; the body puts their next values
        into the same list, which holds the final ones afterwards."""
        b = self.builder
        before = b.block
        head, body, after = (self.function.append_basic_block(name) for name in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(start, before)
        phis = [b.phi(value.type) for value in carried]
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value, before)
        b.cbranch(b.icmp_signed("<", index, stop), body, after)
        b.position_at_end(body)
        values: list[Any] = list(phis)
        yield index, values
        index.add_incoming(b.add(index, const(step)), b.block)
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(after)
        values[:] = phis
