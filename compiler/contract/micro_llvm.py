"""The micro-kernel as LLVM vector IR. Imported on cold paths only.

Each variant is three internal functions of the kernel's module: a full register tile, a clamped tile for the
rows that are left over, and the loop over rows. Within a tile the accumulators live in registers across the k
loop, A is broadcast where it lies, B rows are read as vectors where they lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from .tiles import MicroKernel

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def emit(module: Any, kernel: MicroKernel) -> Any:
    """The LLVM function of a variant in `module`, written on first use.

    Parameters: c, c_row, a, a_row, then (a_k, b, b_k) or (b, table), then depth, count, resume; pointers have
    their offsets added.
    """
    known = module.globals.get(kernel.name)
    return known or _emit_row_loop(module, kernel)


def internal_function(module: Any, name: str, arguments: list[Any], result: Any = None) -> Any:
    """A function that only `module` sees and that stays a call: one copy of its code, however many
    callers."""
    function = ir.Function(module, ir.FunctionType(result or ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    return function


def scalar_type(dtype: str) -> tuple[Any, int]:
    """LLVM's type of `f32` or `f64` and its size in bytes."""
    return (ir.FloatType(), 4) if dtype == "f32" else (ir.DoubleType(), 8)


def _arguments(kernel: MicroKernel) -> list[Any]:
    pointer = scalar_type(kernel.dtype)[0].as_pointer()
    operands = [pointer, _I64.as_pointer()] if kernel.indexed else [_I64, pointer, _I64]
    return [pointer, _I64, pointer, _I64, *operands, _I64, _I64, _I64]


def _emit_row_loop(module: Any, kernel: MicroKernel) -> Any:
    full = _Tile(module, kernel, kernel.tile.rows, clamped=False).function
    tiles = [(full, kernel.tile.rows)]
    if kernel.tile.rows > 1:
        tiles.append((_Tile(module, kernel, kernel.tile.tail_rows, clamped=True).function, kernel.tile.tail_rows))
    function = internal_function(module, kernel.name, _arguments(kernel))
    c, c_row, a, a_row, *operands, depth, count, resume = function.args
    at = _const(0)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    for tile, rows in tiles:
        head, body, after = (function.append_basic_block(f"{label}{rows}") for label in ("head", "body", "after"))
        before = builder.block
        builder.branch(head)
        builder.position_at_end(head)
        m = builder.phi(_I64)
        m.add_incoming(at, before)
        left = builder.sub(count, m)
        builder.cbranch(builder.icmp_signed(">=", left, _const(rows if tile is full else 1)), body, after)
        builder.position_at_end(body)
        builder.call(
            tile,
            [
                builder.gep(c, [builder.mul(m, c_row)]),
                c_row,
                builder.gep(a, [builder.mul(m, a_row)]),
                a_row,
                *operands,
                depth,
                left,
                resume,
            ],
        )
        m.add_incoming(builder.add(m, _const(rows)), body)
        builder.branch(head)
        builder.position_at_end(after)
        at = m
    builder.ret_void()
    return function


def _const(value: int) -> Any:
    return ir.Constant(_I64, value)


def _phi(builder: Any, *incoming: tuple[Any, Any]) -> Any:
    phi = builder.phi(incoming[0][0].type)
    for value, block in incoming:
        phi.add_incoming(value, block)
    return phi


@dataclass
class _Tile:
    """Builds the function of one register tile."""

    module: Any
    kernel: MicroKernel
    rows: int
    clamped: bool

    def __post_init__(self) -> None:
        scalar, self.align = scalar_type(self.kernel.dtype)
        lanes = self.kernel.tile.lanes
        self.vector = ir.VectorType(scalar, lanes)
        name = f"{self.kernel.name}_{'tail' if self.clamped else 'tile'}"
        self.function = internal_function(self.module, name, _arguments(self.kernel))
        for arg in self.function.args:
            if isinstance(arg.type, ir.PointerType):
                arg.add_attribute("noalias")
        # llvmlite's declare_intrinsic cannot name vector types: declare by name.
        name = f"llvm.fma.v{lanes}{self.kernel.dtype}"
        self.fma = self.module.globals.get(name) or ir.Function(
            self.module, ir.FunctionType(self.vector, [self.vector] * 3), name
        )
        self._build()

    def _build(self) -> None:
        c, c_row, a, a_row, *operands, depth, count, resume = self.function.args
        vectors = self.kernel.tile.vectors
        block = self.function.append_basic_block
        entry, load, head, loop, done = (block(label) for label in ("entry", "load", "head", "loop", "done"))
        top = ir.IRBuilder(entry)
        numbers = self._row_numbers(top, count)
        self.a_rows = [top.mul(number, a_row) for number in numbers]
        c_rows = [top.gep(c, [top.mul(number, c_row)]) for number in numbers]
        top.cbranch(top.icmp_signed("!=", resume, _const(0)), load, head)

        start = ir.IRBuilder(load)
        loaded = [self._load(start, row, j) for row in c_rows for j in range(vectors)]
        start.branch(head)

        check = ir.IRBuilder(head)
        zero = ir.Constant(self.vector, [0.0] * self.kernel.tile.lanes)
        first = [_phi(check, (zero, entry), (value, load)) for value in loaded]
        check.cbranch(check.icmp_signed(">", depth, _const(0)), loop, done)

        body = ir.IRBuilder(loop)
        k = _phi(body, (_const(0), head))
        acc = [_phi(body, (value, head)) for value in first]
        sums = self._step(body, acc, *self._addresses(body, a, operands, k, head))
        after = body.add(k, _const(1))
        k.add_incoming(after, loop)
        for phi, value in zip(acc, sums, strict=True):
            phi.add_incoming(value, loop)
        body.cbranch(body.icmp_signed("<", after, depth), loop, done)

        end = ir.IRBuilder(done)
        final = [_phi(end, (x, head), (y, loop)) for x, y in zip(first, sums, strict=True)]
        for i, row in enumerate(c_rows):
            for j in range(vectors):
                end.store(final[i * vectors + j], self._vector_at(end, row, j)).align = self.align
        end.ret_void()

    def _row_numbers(self, builder: Any, count: Any) -> list[Any]:
        """0, 1, 2 …; clamped, rows that are not there repeat the last one: same values, same stores."""
        numbers = [_const(i) for i in range(self.rows)]
        if self.clamped:
            last = builder.sub(count, _const(1))
            numbers[1:] = [builder.select(builder.icmp_signed("<", n, last), n, last) for n in numbers[1:]]
        return numbers

    def _addresses(self, builder: Any, a: Any, operands: Any, k: Any, head: Any) -> tuple[Any, Any]:
        """Where A's column and B's row of step k begin."""
        if self.kernel.indexed:
            b, table = operands
            entry = builder.gep(table, [builder.shl(k, _const(1))])
            return (
                builder.gep(a, [builder.load(entry)]),
                builder.gep(b, [builder.load(builder.gep(entry, [_const(1)]))]),
            )
        a_k, b, b_k = operands
        a_at, b_at = _phi(builder, (a, head)), _phi(builder, (b, head))
        a_at.add_incoming(builder.gep(a_at, [a_k]), builder.block)
        b_at.add_incoming(builder.gep(b_at, [b_k]), builder.block)
        return a_at, b_at

    def _step(self, builder: Any, acc: list[Any], a_at: Any, b_at: Any) -> list[Any]:
        """One k: all B vectors, then a splat and its multiply-adds row by row."""
        vectors = self.kernel.tile.vectors
        b_row = [self._load(builder, b_at, j) for j in range(vectors)]
        sums = []
        for i in range(self.rows):
            value = self._splat(builder, builder.load(self._a_address(builder, a_at, i)))
            sums += [builder.call(self.fma, [value, b_row[j], acc[i * vectors + j]]) for j in range(vectors)]
        return sums

    def _a_address(self, builder: Any, a_at: Any, i: int) -> Any:
        if self.clamped:
            return builder.gep(a_at, [self.a_rows[i]])
        # Three rows share one base register and two strides: twelve pointers would not fit the register file.
        group = i - i % 3
        base = builder.gep(a_at, [self.a_rows[group]]) if group else a_at
        return builder.gep(base, [self.a_rows[i - group]]) if i > group else base

    def _splat(self, builder: Any, value: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        mask = ir.Constant(ir.VectorType(_I32, self.kernel.tile.lanes), [0] * self.kernel.tile.lanes)
        lane0 = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
        return builder.shuffle_vector(lane0, undefined, mask)

    def _vector_at(self, builder: Any, pointer: Any, j: int) -> Any:
        at = builder.gep(pointer, [_const(j * self.kernel.tile.lanes)])
        return builder.bitcast(at, self.vector.as_pointer())

    def _load(self, builder: Any, pointer: Any, j: int) -> Any:
        value = builder.load(self._vector_at(builder, pointer, j))
        value.align = self.align
        return value
