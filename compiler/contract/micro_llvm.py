"""The micro-kernel as LLVM vector IR. Imported on cold paths only.

Each variant is three internal functions of the kernel's module: a full register tile, a clamped tile for the
rows that are left over, and the loop over rows. Within a tile the accumulators live in registers across the k
loop, A is broadcast where it lies, B rows are read as vectors where they lie.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .micro_runs import RunsKernel
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
    at = const(0)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    for tile, rows in tiles:
        head, body, after = (function.append_basic_block(f"{label}{rows}") for label in ("head", "body", "after"))
        before = builder.block
        builder.branch(head)
        builder.position_at_end(head)
        m = builder.phi(_I64)
        m.add_incoming(at, before)
        left = builder.sub(count, m)
        builder.cbranch(builder.icmp_signed(">=", left, const(rows if tile is full else 1)), body, after)
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
        m.add_incoming(builder.add(m, const(rows)), body)
        builder.branch(head)
        builder.position_at_end(after)
        at = m
    builder.ret_void()
    return function


def const(value: int) -> Any:
    """A 64-bit integer."""
    return ir.Constant(_I64, value)


def make_phi(builder: Any, *incoming: tuple[Any, Any]) -> Any:
    """A phi of values by the block that control comes from."""
    phi = builder.phi(incoming[0][0].type)
    for value, block in incoming:
        phi.add_incoming(value, block)
    return phi


class RegisterTile:
    """What the register tiles of both micro-kernels share: their function, its rows, and one step of k."""

    def __init__(self, module: Any, kernel: MicroKernel | RunsKernel, name: str, arguments: list[Any], rows: int,
                 clamped: bool) -> None:
        self.kernel, self.rows, self.clamped = kernel, rows, clamped
        scalar, self.align = scalar_type(kernel.dtype)
        lanes = kernel.tile.lanes
        self.vector = ir.VectorType(scalar, lanes)
        self.function = internal_function(module, name, arguments)
        for arg in self.function.args:
            if isinstance(arg.type, ir.PointerType):
                arg.add_attribute("noalias")
        # llvmlite's declare_intrinsic cannot name vector types: declare by name.
        fma = f"llvm.fma.v{lanes}{kernel.dtype}"
        self.fma = module.globals.get(fma) or ir.Function(module, ir.FunctionType(self.vector, [self.vector] * 3), fma)

    def _begin(self, entry: Any, load: Any, head: Any) -> tuple[list[Any], Any, list[Any]]:
        """The rows of C, the code of `head`, and the accumulators there: zero, or what C holds."""
        c, c_row, _, a_row, *_, count, resume = self.function.args
        vectors = self.kernel.tile.vectors
        top = ir.IRBuilder(entry)
        numbers = self._row_numbers(top, count)
        self.a_rows = [top.mul(number, a_row) for number in numbers]
        c_rows = [top.gep(c, [top.mul(number, c_row)]) for number in numbers]
        top.cbranch(top.icmp_signed("!=", resume, const(0)), load, head)

        start = ir.IRBuilder(load)
        loaded = [self._load(start, row, j) for row in c_rows for j in range(vectors)]
        start.branch(head)

        check = ir.IRBuilder(head)
        zero = ir.Constant(self.vector, [0.0] * self.kernel.tile.lanes)
        return c_rows, check, [make_phi(check, (zero, entry), (value, load)) for value in loaded]

    def _end(self, done: Any, c_rows: list[Any], first: tuple[list[Any], Any], last: tuple[list[Any], Any]) -> None:
        """Store the accumulators: those of `first`, or those of `last`, by the block control comes from."""
        end = ir.IRBuilder(done)
        final = [make_phi(end, (x, first[1]), (y, last[1])) for x, y in zip(first[0], last[0], strict=True)]
        vectors = self.kernel.tile.vectors
        for i, row in enumerate(c_rows):
            for j in range(vectors):
                end.store(final[i * vectors + j], self._vector_at(end, row, j)).align = self.align
        end.ret_void()

    def _row_numbers(self, builder: Any, count: Any) -> list[Any]:
        """0, 1, 2 …; clamped, rows that are not there repeat the last one: same values, same stores."""
        numbers = [const(i) for i in range(self.rows)]
        if self.clamped:
            last = builder.sub(count, const(1))
            numbers[1:] = [builder.select(builder.icmp_signed("<", n, last), n, last) for n in numbers[1:]]
        return numbers

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
        at = builder.gep(pointer, [const(j * self.kernel.tile.lanes)])
        return builder.bitcast(at, self.vector.as_pointer())

    def _load(self, builder: Any, pointer: Any, j: int) -> Any:
        value = builder.load(self._vector_at(builder, pointer, j))
        value.align = self.align
        return value


class _Tile(RegisterTile):
    """Builds the function of one register tile."""

    kernel: MicroKernel

    def __init__(self, module: Any, kernel: MicroKernel, rows: int, clamped: bool) -> None:
        name = f"{kernel.name}_{'tail' if clamped else 'tile'}"
        super().__init__(module, kernel, name, _arguments(kernel), rows, clamped)
        self._build()

    def _build(self) -> None:
        _, _, a, _, *operands, depth, _, _ = self.function.args
        block = self.function.append_basic_block
        entry, load, head, loop, done = (block(label) for label in ("entry", "load", "head", "loop", "done"))
        c_rows, check, first = self._begin(entry, load, head)
        check.cbranch(check.icmp_signed(">", depth, const(0)), loop, done)

        body = ir.IRBuilder(loop)
        k = make_phi(body, (const(0), head))
        acc = [make_phi(body, (value, head)) for value in first]
        sums = self._step(body, acc, *self._addresses(body, a, operands, k, head))
        after = body.add(k, const(1))
        k.add_incoming(after, loop)
        for phi, value in zip(acc, sums, strict=True):
            phi.add_incoming(value, loop)
        body.cbranch(body.icmp_signed("<", after, depth), loop, done)

        self._end(done, c_rows, (first, head), (sums, loop))

    def _addresses(self, builder: Any, a: Any, operands: Any, k: Any, head: Any) -> tuple[Any, Any]:
        """Where A's column and B's row of step k begin."""
        if self.kernel.indexed:
            b, table = operands
            entry = builder.gep(table, [builder.shl(k, const(1))])
            return (
                builder.gep(a, [builder.load(entry)]),
                builder.gep(b, [builder.load(builder.gep(entry, [const(1)]))]),
            )
        a_k, b, b_k = operands
        a_at, b_at = make_phi(builder, (a, head)), make_phi(builder, (b, head))
        a_at.add_incoming(builder.gep(a_at, [a_k]), builder.block)
        b_at.add_incoming(builder.gep(b_at, [b_k]), builder.block)
        return a_at, b_at
