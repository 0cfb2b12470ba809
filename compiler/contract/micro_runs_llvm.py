"""The micro-kernel over runs as LLVM vector IR. Imported on cold paths only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from .micro_llvm import internal_function, scalar_type
from .micro_runs import RunsKernel

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def emit_runs(module: Any, kernel: RunsKernel) -> Any:
    """The LLVM function of a variant in `module`, written on first use.

    Parameters: c, c_row, a, a_row, a_k, b, b_k, table, runs, depth, count, resume; pointers have their offsets
    added.
    """
    return module.globals.get(kernel.name) or _emit_row_loop(module, kernel)


def _const(value: int) -> Any:
    return ir.Constant(_I64, value)


def _arguments(kernel: RunsKernel) -> list[Any]:
    pointer = scalar_type(kernel.dtype)[0].as_pointer()
    return [pointer, _I64, pointer, _I64, _I64, pointer, _I64, _I64.as_pointer(), _I64, _I64, _I64, _I64]


def _emit_row_loop(module: Any, kernel: RunsKernel) -> Any:
    """Whole tiles; then, where there is one, tiles of the middle height; then tiles of `tail_rows`."""
    function = internal_function(module, kernel.name, _arguments(kernel))
    c, c_row, a, a_row, *operands, count, resume = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    full, middle, tail = kernel.tile.rows, kernel.middle_rows, kernel.tile.tail_rows
    stop = builder.sub(count, _const(full - 1))
    stops = [(full, stop), (tail, count)] if tail < full else [(tail, count)]
    if middle:
        # What is left over, in units of half a tail, is best finished by 3 + 3 + 3 instead of two full tiles,
        # by 3 + 3 instead of one, by 3 alone, by tails: small tiles wait for their own multiply-adds.
        unit = tail // 2
        left = builder.urem(count, _const(full))
        replaced = builder.select(
            builder.icmp_unsigned("<=", left, _const(unit)),
            _const(2 * full),
            builder.select(builder.icmp_unsigned("<=", left, _const(2 * unit)), _const(full), _const(0)),
        )
        fits = builder.icmp_signed("<=", replaced, count)
        whole = builder.icmp_unsigned("==", left, _const(0))
        by_tails = builder.icmp_unsigned(">", left, _const(middle))
        none = builder.or_(whole, builder.or_(by_tails, builder.not_(fits)))
        stop = builder.select(none, stop, builder.sub(stop, replaced))
        stops = [(full, stop), (middle, builder.select(none, _const(0), count)), (tail, count)]
    at = _const(0)
    for rows, stop in stops:
        tile = _Tile(module, kernel, rows, clamped=rows != full or tail == full).function
        head, body, after = (function.append_basic_block(f"{label}{rows}") for label in ("head", "body", "after"))
        before = builder.block
        builder.branch(head)
        builder.position_at_end(head)
        m = builder.phi(_I64)
        m.add_incoming(at, before)
        builder.cbranch(builder.icmp_signed("<", m, stop), body, after)
        builder.position_at_end(body)
        c_at, a_at = builder.gep(c, [builder.mul(m, c_row)]), builder.gep(a, [builder.mul(m, a_row)])
        builder.call(tile, [c_at, c_row, a_at, a_row, *operands, builder.sub(count, m), resume])
        m.add_incoming(builder.add(m, _const(rows)), body)
        builder.branch(head)
        builder.position_at_end(after)
        at = m
    builder.ret_void()
    return function


@dataclass
class _Tile:
    """Builds the function of one register tile."""

    module: Any
    kernel: RunsKernel
    rows: int
    clamped: bool

    def __post_init__(self) -> None:
        scalar, self.align = scalar_type(self.kernel.dtype)
        lanes = self.kernel.tile.lanes
        self.vector = ir.VectorType(scalar, lanes)
        name = f"{self.kernel.name}_tile{self.rows}"
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
        c, c_row, a, a_row, a_k, b, b_k, table, runs, depth, count, resume = self.function.args
        vectors = self.kernel.tile.vectors
        block = self.function.append_basic_block
        entry, load, head, run, step, latch, done = map(
            block, ("entry", "load", "head", "run", "step", "latch", "done")
        )
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
        some = check.and_(check.icmp_signed(">", depth, _const(0)), check.icmp_signed(">", runs, _const(0)))
        check.cbranch(some, run, done)

        outer = ir.IRBuilder(run)
        r = _phi(outer, (_const(0), head))
        carried = [_phi(outer, (value, head)) for value in first]
        place = outer.gep(table, [outer.shl(r, _const(1))])
        a_run = outer.gep(a, [outer.load(place)])
        b_run = outer.gep(b, [outer.load(outer.gep(place, [_const(1)]))])
        outer.branch(step)

        body = ir.IRBuilder(step)
        k, a_at, b_at = _phi(body, (_const(0), run)), _phi(body, (a_run, run)), _phi(body, (b_run, run))
        acc = [_phi(body, (value, run)) for value in carried]
        sums = self._step(body, acc, a_at, b_at)
        k_after = body.add(k, _const(1))
        for phi, value in ((k, k_after), (a_at, body.gep(a_at, [a_k])), (b_at, body.gep(b_at, [b_k]))):
            phi.add_incoming(value, step)
        for phi, value in zip(acc, sums, strict=True):
            phi.add_incoming(value, step)
        body.cbranch(body.icmp_signed("<", k_after, depth), step, latch)

        back = ir.IRBuilder(latch)
        r_after = back.add(r, _const(1))
        r.add_incoming(r_after, latch)
        for phi, value in zip(carried, sums, strict=True):
            phi.add_incoming(value, latch)
        back.cbranch(back.icmp_signed("<", r_after, runs), run, done)

        end = ir.IRBuilder(done)
        final = [_phi(end, (x, head), (y, latch)) for x, y in zip(first, sums, strict=True)]
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


def _phi(builder: Any, *incoming: tuple[Any, Any]) -> Any:
    phi = builder.phi(incoming[0][0].type)
    for value, block in incoming:
        phi.add_incoming(value, block)
    return phi
