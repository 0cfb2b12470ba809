"""The micro-kernels as LLVM vector IR, registered with Numba. Imported on cold paths only.

Accumulators live in registers across the k loop, A is broadcast where it lies, B rows are read as vectors where they
lie. Each variant is one internal function of the kernel's module.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import lower_builtin

from ..backend.lowering import _typed
from .micro import micro_kernel
from .tiles import MicroKernel, parse_micro_kernel


@lru_cache(maxsize=64)
def compiled_micro_kernel(name: str) -> Callable[..., None] | None:
    """`micro_kernel(name)`, made known to Numba; None if the name is not a micro-kernel's."""
    function, kernel = micro_kernel(name), parse_micro_kernel(name)
    if function is None or kernel is None:
        return None
    _register(function, kernel)
    return function


def _register(function: Callable[..., None], kernel: MicroKernel) -> None:
    # Positions of the pointers and of the offsets that are added to them before the call.
    pointers = {0: 1, 3: 4, 6: 7, 8: 9} if kernel.indexed else {0: 1, 3: 4, 7: 8}

    def resolve(*args: Any) -> Any:
        if len(args) != 13 or not all(isinstance(args[at], types.CPointer) for at in pointers):
            return None
        return types.void(*(arg if at in pointers else types.int64 for at, arg in enumerate(args)))

    _typed(function, resolve)

    @lower_builtin(function, *[types.Any] * 13)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        offsets = set(pointers.values())
        arguments = [
            builder.gep(value, [arguments[pointers[at]]]) if at in pointers else value
            for at, value in enumerate(arguments) if at not in offsets
        ]
        builder.call(emit(builder.module, kernel), arguments)
        return context.get_dummy_value()


def emit(module: Any, kernel: MicroKernel) -> Any:
    """The LLVM function of a variant in `module`, written on first use."""
    return module.globals.get(kernel.name) or _Emitter(module, kernel).function


class _Emitter:
    """Builds one micro-kernel function."""

    def __init__(self, module: Any, kernel: MicroKernel) -> None:
        self.kernel = kernel
        self.i64 = ir.IntType(64)
        self.scalar = ir.FloatType() if kernel.dtype == "f32" else ir.DoubleType()
        self.vector = ir.VectorType(self.scalar, kernel.lanes)
        self.align = 4 if kernel.dtype == "f32" else 8
        pointer, i64 = self.scalar.as_pointer(), self.i64
        operands = [pointer, i64, pointer, i64]  # c, c_row, a, a_row
        operands += [pointer, i64.as_pointer()] if kernel.indexed else [i64, pointer, i64]
        signature = [*operands, i64, i64, i64]
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), signature), kernel.name)
        self.function.linkage = "internal"
        self.function.attributes.add("noinline")
        self.function.attributes.add("nounwind")
        for arg in self.function.args:
            if isinstance(arg.type, ir.PointerType):
                arg.add_attribute("noalias")
        # llvmlite's declare_intrinsic cannot name vector types: declare by name.
        name = f"llvm.fma.v{kernel.lanes}{kernel.dtype}"
        self.fma = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(self.vector, [self.vector] * 3), name)
        self._build()

    def const(self, value: int) -> Any:
        return ir.Constant(self.i64, value)

    def _build(self) -> None:
        c, c_row, a, a_row, *rest, depth, rows, resume = self.function.args
        block = self.function.append_basic_block
        entry, load, head, loop, done = (block(n) for n in ("entry", "load", "head", "loop", "done"))
        top = ir.IRBuilder(entry)
        row_numbers = self._row_numbers(top, rows)
        self.a_rows = [top.mul(r, a_row) for r in row_numbers]
        c_rows = [top.mul(r, c_row) for r in row_numbers]
        top.cbranch(top.icmp_signed("!=", resume, self.const(0)), load, head)

        start = ir.IRBuilder(load)
        loaded = [self._load(start, start.gep(c, [row]), j) for row in c_rows for j in range(self.kernel.vectors)]
        start.branch(head)

        check = ir.IRBuilder(head)
        zero = ir.Constant(self.vector, [0.0] * self.kernel.lanes)
        first = [self._phi(check, (zero, entry), (value, load)) for value in loaded]
        check.cbranch(check.icmp_signed(">", depth, self.const(0)), loop, done)

        body = ir.IRBuilder(loop)
        k = self._phi(body, (self.const(0), head))
        acc = [self._phi(body, (value, head)) for value in first]
        if self.kernel.indexed:
            b, table = rest
            entry_at = body.gep(table, [body.shl(k, self.const(1))])
            a_at = body.gep(a, [body.load(entry_at)])
            b_at = body.gep(b, [body.load(body.gep(entry_at, [self.const(1)]))])
        else:
            a_k, b, b_k = rest
            a_at, b_at = self._phi(body, (a, head)), self._phi(body, (b, head))
            a_at.add_incoming(body.gep(a_at, [a_k]), loop)
            b_at.add_incoming(body.gep(b_at, [b_k]), loop)
        sums = self._step(body, acc, a_at, b_at)
        after = body.add(k, self.const(1))
        k.add_incoming(after, loop)
        for phi, value in zip(acc, sums, strict=True):
            phi.add_incoming(value, loop)
        body.cbranch(body.icmp_signed("<", after, depth), loop, done)

        end = ir.IRBuilder(done)
        final = [self._phi(end, (x, head), (y, loop)) for x, y in zip(first, sums, strict=True)]
        for i, row in enumerate(c_rows):
            for j in range(self.kernel.vectors):
                at = end.gep(c, [row])
                end.store(final[i * self.kernel.vectors + j], self._vector_at(end, at, j)).align = self.align
        end.ret_void()

    def _row_numbers(self, builder: Any, rows: Any) -> list[Any]:
        """0, 1, 2 …; clamped to the last valid row where the variant says so."""
        numbers = [self.const(i) for i in range(self.kernel.rows)]
        if self.kernel.clamped:
            last = builder.sub(rows, self.const(1))
            numbers[1:] = [builder.select(builder.icmp_signed("<", n, last), n, last) for n in numbers[1:]]
        return numbers

    def _step(self, builder: Any, acc: list[Any], a_at: Any, b_at: Any) -> list[Any]:
        """One k: all B vectors, then a splat and its multiply-adds row by row."""
        vectors = self.kernel.vectors
        b_row = [self._load(builder, b_at, j) for j in range(vectors)]
        sums = []
        for i in range(self.kernel.rows):
            value = self._splat(builder, builder.load(self._a_address(builder, a_at, i)))
            sums += [builder.call(self.fma, [value, b_row[j], acc[i * vectors + j]]) for j in range(vectors)]
        return sums

    def _a_address(self, builder: Any, a_at: Any, i: int) -> Any:
        if self.kernel.clamped:
            return builder.gep(a_at, [self.a_rows[i]])
        # Three rows share one base register and two strides: twelve pointers would not fit the register file.
        group = i - i % 3
        base = builder.gep(a_at, [self.a_rows[group]]) if group else a_at
        return builder.gep(base, [self.a_rows[i - group]]) if i > group else base

    def _splat(self, builder: Any, value: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        i32 = ir.IntType(32)
        lane0 = builder.insert_element(undefined, value, ir.Constant(i32, 0))
        mask = ir.Constant(ir.VectorType(i32, self.kernel.lanes), [0] * self.kernel.lanes)
        return builder.shuffle_vector(lane0, undefined, mask)

    def _vector_at(self, builder: Any, pointer: Any, j: int) -> Any:
        return builder.bitcast(builder.gep(pointer, [self.const(j * self.kernel.lanes)]), self.vector.as_pointer())

    def _load(self, builder: Any, pointer: Any, j: int) -> Any:
        value = builder.load(self._vector_at(builder, pointer, j))
        value.align = self.align
        return value

    def _phi(self, builder: Any, *incoming: tuple[Any, Any]) -> Any:
        phi = builder.phi(incoming[0][0].type)
        for value, block in incoming:
            phi.add_incoming(value, block)
        return phi


