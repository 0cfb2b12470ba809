"""The micro-kernel over runs as LLVM vector IR. Imported on cold paths only."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .micro_llvm import RegisterTile, const, internal_function, make_phi, scalar_type
from .micro_runs import RunsKernel

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def emit_runs(module: Any, kernel: RunsKernel) -> Any:
    """The LLVM function of a variant in `module`, written on first use.

    Parameters: c, c_row, a, a_row, a_k, b, b_k, table, runs, depth, count, resume; pointers have their offsets
    added.
    """
    return module.globals.get(kernel.name) or _emit_row_loop(module, kernel)


def _arguments(kernel: RunsKernel) -> list[Any]:
    pointer = scalar_type(kernel.dtype)[0].as_pointer()
    return [pointer, _I64, pointer, _I64, _I64, pointer, _I64, _I64.as_pointer(), _I64, _I64, _I64, _I64]


def _emit_row_loop(module: Any, kernel: RunsKernel) -> Any:
    """Whole tiles; then, where there is one, tiles of the middle height; then tiles of `tail_rows`."""
    function = internal_function(module, kernel.name, _arguments(kernel))
    c, c_row, a, a_row, *operands, count, resume = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    full, middle, tail = kernel.tile.rows, kernel.middle_rows, kernel.tile.tail_rows
    stop = builder.sub(count, const(full - 1))
    stops = [(full, stop), (tail, count)] if tail < full else [(tail, count)]
    if middle:
        # What is left over, in units of half a tail, is best finished by 3 + 3 + 3 instead of two full tiles,
        # by 3 + 3 instead of one, by 3 alone, by tails: small tiles wait for their own multiply-adds.
        unit = tail // 2
        left = builder.urem(count, const(full))
        replaced = builder.select(
            builder.icmp_unsigned("<=", left, const(unit)),
            const(2 * full),
            builder.select(builder.icmp_unsigned("<=", left, const(2 * unit)), const(full), const(0)),
        )
        fits = builder.icmp_signed("<=", replaced, count)
        whole = builder.icmp_unsigned("==", left, const(0))
        by_tails = builder.icmp_unsigned(">", left, const(middle))
        none = builder.or_(whole, builder.or_(by_tails, builder.not_(fits)))
        stop = builder.select(none, stop, builder.sub(stop, replaced))
        stops = [(full, stop), (middle, builder.select(none, const(0), count)), (tail, count)]
    at = const(0)
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
        m.add_incoming(builder.add(m, const(rows)), body)
        builder.branch(head)
        builder.position_at_end(after)
        at = m
    builder.ret_void()
    return function


class _Tile(RegisterTile):
    """Builds the function of one register tile."""

    def __init__(self, module: Any, kernel: RunsKernel, rows: int, clamped: bool) -> None:
        super().__init__(module, kernel, f"{kernel.name}_tile{rows}", _arguments(kernel), rows, clamped)
        self._build()

    def _build(self) -> None:
        _, _, a, _, a_k, b, b_k, table, runs, depth, _, _ = self.function.args
        block = self.function.append_basic_block
        entry, load, head, run, step, latch, done = map(
            block, ("entry", "load", "head", "run", "step", "latch", "done")
        )
        c_rows, check, first = self._begin(entry, load, head)
        some = check.and_(check.icmp_signed(">", depth, const(0)), check.icmp_signed(">", runs, const(0)))
        check.cbranch(some, run, done)

        outer = ir.IRBuilder(run)
        r = make_phi(outer, (const(0), head))
        carried = [make_phi(outer, (value, head)) for value in first]
        place = outer.gep(table, [outer.shl(r, const(1))])
        a_run = outer.gep(a, [outer.load(place)])
        b_run = outer.gep(b, [outer.load(outer.gep(place, [const(1)]))])
        outer.branch(step)

        body = ir.IRBuilder(step)
        k, a_at, b_at = make_phi(body, (const(0), run)), make_phi(body, (a_run, run)), make_phi(body, (b_run, run))
        acc = [make_phi(body, (value, run)) for value in carried]
        sums = self._step(body, acc, a_at, b_at)
        k_after = body.add(k, const(1))
        for phi, value in ((k, k_after), (a_at, body.gep(a_at, [a_k])), (b_at, body.gep(b_at, [b_k]))):
            phi.add_incoming(value, step)
        for phi, value in zip(acc, sums, strict=True):
            phi.add_incoming(value, step)
        body.cbranch(body.icmp_signed("<", k_after, depth), step, latch)

        back = ir.IRBuilder(latch)
        r_after = back.add(r, const(1))
        r.add_incoming(r_after, latch)
        for phi, value in zip(carried, sums, strict=True):
            phi.add_incoming(value, latch)
        back.cbranch(back.icmp_signed("<", r_after, runs), run, done)

        self._end(done, c_rows, (first, head), (sums, latch))
