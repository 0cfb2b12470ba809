"""The row operations of attention as LLVM vector code; see `rows`. Imported on cold paths only.

Several rows are taken at a time: what a row does is one chain of dependent instructions (maximum, its fold,
exponentials, their fold), and several of them hide each other's latency.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from ..mathlib.vectors_llvm import vector_call
from .code_llvm import I32, Code, const
from .rows import LANES

# Rows taken together by the softmax, whose chains are long, and by its derivative.
EXP_ROWS, GRAD_ROWS = 8, 4
_LINE = 64


def _rows_of(f: Code, first: Any, rows: Any, count: int) -> list[Any]:
    """The numbers of a group's rows; rows that are not there repeat the last one: same values, same stores."""
    last = f.builder.sub(rows, const(1))
    return [f.least(f.builder.add(first, const(i)), last) for i in range(count)]


class _Block:
    """Some rows of a block of scores: how many columns of each matter, and which of sixteen."""

    def __init__(self, f: Code, rows: list[Any], pitch: Any, ends: Any, key0: Any, keys: Any) -> None:
        b = f.builder
        self.f, self.keys = f, keys
        self.starts = [b.mul(row, pitch) for row in rows]
        many = [f.most(const(0), f.least(keys, b.sub(b.load(f.at(ends, row)), key0))) for row in rows]
        self.many = [f.splat(b.trunc(m, I32)) for m in many]
        greatest = many[0]
        for m in many[1:]:
            greatest = f.most(greatest, m)
        self.limit = f.rounded(greatest)
        self.count = ir.Constant(ir.VectorType(I32, LANES), list(range(LANES)))

    def seen(self, base: Any) -> list[Any]:
        """For each row which of the columns from `base` on matter."""
        b = self.f.builder
        columns = b.add(self.f.splat(b.trunc(base, I32)), self.count)
        return [b.icmp_signed("<", columns, many) for many in self.many]

    def pointers(self, area: Any, base: Any) -> list[Any]:
        """Where each row's columns from `base` on lie."""
        return [self.f.at(area, self.f.builder.add(start, base)) for start in self.starts]

    def clear(self, *areas: Any) -> None:
        """Zeros behind the columns that any of the rows needs."""
        f = self.f
        with f.loop(self.limit, self.keys, LANES, []) as (base, _):
            for area in areas:
                for pointer in self.pointers(area, base):
                    f.store(f.number(0.0), pointer)


def _power(f: Code, seen: Any, value: Any) -> Any:
    """exp(value) where it is seen, else 0; no exponential ever underflows for a lane that does not count."""
    zero = f.number(0.0)
    power = vector_call("exp", f.dtype, f.vector(f.builder.select(seen, value, zero)))
    return f.builder.select(seen, power.value, zero)


def _exp(f: Code) -> None:
    score, pitch, ends, key0, keys, rows, scale, top, total, shrink = f.function.args
    b, low = f.builder, float("-inf")
    wide_scale = f.splat(scale)
    with f.loop(const(0), rows, EXP_ROWS, []) as (first, _):
        numbers = _rows_of(f, first, rows, EXP_ROWS)
        block = _Block(f, numbers, pitch, ends, key0, keys)

        def scaled(base: Any) -> list[Any]:
            return [b.fmul(f.load(p), wide_scale) for p in block.pointers(score, base)]

        with f.loop(const(0), block.limit, LANES, [f.number(low)] * EXP_ROWS) as (base, most):
            values = [b.select(seen, v, f.number(low)) for seen, v in zip(block.seen(base), scaled(base), strict=True)]
            most[:] = [f.greater(m, v) for m, v in zip(most, values, strict=True)]
        old = f.gathered([b.load(f.at(top, row)) for row in numbers])
        best = f.greater(old, f.gathered([f.fold(m, f.greater) for m in most]))
        pivot = b.select(b.fcmp_ordered("==", best, f.number(low, EXP_ROWS)), f.number(0.0, EXP_ROWS), best)
        pivots = [f.splat(f.lane(pivot, i)) for i in range(EXP_ROWS)]
        with f.loop(const(0), block.limit, LANES, [f.number(0.0)] * EXP_ROWS) as (base, sums):
            powers = [_power(f, seen, b.fsub(v, p))
                      for seen, v, p in zip(block.seen(base), scaled(base), pivots, strict=True)]
            for pointer, power in zip(block.pointers(score, base), powers, strict=True):
                f.store(power, pointer)
            sums[:] = [b.fadd(s, p) for s, p in zip(sums, powers, strict=True)]
        block.clear(score)
        share = f.gathered([f.fold(s, b.fadd) for s in sums])
        less = vector_call("exp", f.dtype, f.vector(b.fsub(old, pivot))).value
        sum_so_far = f.gathered([b.load(f.at(total, row)) for row in numbers])
        new = b.fadd(b.fmul(sum_so_far, less), share)
        for area, values in ((top, best), (total, new), (shrink, less)):
            for lane, row in enumerate(numbers):
                b.store(f.lane(values, lane), f.at(area, row))


def _log(f: Code) -> None:
    top, total, rows = f.function.args
    with f.loop(const(0), rows, LANES, []) as (base, _):
        value = f.vector(f.load(f.at(total, base)))
        logarithm = vector_call("log", f.dtype, value)
        f.store(f.builder.fadd(f.load(f.at(top, base)), logarithm.value), f.at(top, base))
        f.store((1.0 / value).value, f.at(total, base))


def _grad(f: Code) -> None:
    score, slope, pitch, ends, key0, keys, rows, scale, factor, lse, delta = f.function.args
    b, zero = f.builder, f.number(0.0)
    wide_scale, wide_factor = f.splat(scale), f.splat(factor)
    with f.loop(const(0), rows, GRAD_ROWS, []) as (first, _):
        numbers = _rows_of(f, first, rows, GRAD_ROWS)
        block = _Block(f, numbers, pitch, ends, key0, keys)
        bases, deltas = ([f.splat(b.load(f.at(area, row))) for row in numbers] for area in (lse, delta))
        with f.loop(const(0), block.limit, LANES, []) as (base, _):
            spots = list(zip(block.pointers(score, base), block.pointers(slope, base), strict=True))
            values = [(b.fmul(f.load(s), wide_scale), f.load(d)) for s, d in spots]
            for i, (seen, (value, cotangent)) in enumerate(zip(block.seen(base), values, strict=True)):
                power = _power(f, seen, b.fsub(value, bases[i]))
                change = b.fmul(b.fmul(power, b.fsub(cotangent, deltas[i])), wide_factor)
                values[i] = power, b.select(seen, change, zero)
            for (s, d), (power, change) in zip(spots, values, strict=True):
                f.store(power, s)
                f.store(change, d)
        block.clear(score, slope)


def _dot(f: Code) -> None:
    total, a, a_row, b_in, b_row, width, rows = f.function.args
    b = f.builder
    whole = b.and_(width, const(-LANES))
    with f.loop(const(0), rows, 1, []) as (row, _):
        left, right = f.at(a, b.mul(row, a_row)), f.at(b_in, b.mul(row, b_row))
        with f.loop(const(0), whole, LANES, [f.number(0.0)]) as (at, sums):
            sums[0] = b.fadd(sums[0], b.fmul(f.load(f.at(left, at)), f.load(f.at(right, at))))
        with f.loop(whole, width, 1, [sums[0]]) as (at, rest):
            lane = b.trunc(b.sub(at, whole), I32)
            term = b.fmul(b.load(f.at(left, at)), b.load(f.at(right, at)))
            rest[0] = b.insert_element(rest[0], b.fadd(b.extract_element(rest[0], lane), term), lane)
        b.store(f.fold(rest[0], b.fadd), f.at(total, row))


def _put(f: Code) -> None:
    dst, dst_row, dst_col, src, src_row, factor, rows, width = f.function.args
    b = f.builder
    near = b.icmp_signed("==", dst_col, const(1))
    whole = b.select(near, b.and_(width, const(-LANES)), const(0))
    with f.loop(const(0), rows, 1, []) as (row, _):
        target, source = f.at(dst, b.mul(row, dst_row)), f.at(src, b.mul(row, src_row))
        number = b.load(f.at(factor, row))
        wide = f.splat(number)
        with f.loop(const(0), whole, LANES, []) as (at, _):
            f.store(b.fmul(f.load(f.at(source, at)), wide), f.at(target, at))
        with f.loop(whole, width, 1, []) as (at, _):
            b.store(b.fmul(b.load(f.at(source, at)), number), f.at(target, b.mul(at, dst_col)))


def _fetch(f: Code, write: bool) -> None:
    start, row, col, rows, width = f.function.args
    b, line = f.builder, _LINE // f.align
    address = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [address, I32, I32, I32])
    prefetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
    # Locality 3, data cache. The first and the last element of a row need not begin a line.
    hints = [ir.Constant(I32, value) for value in (int(write), 3, 1)]
    near = b.icmp_signed("==", col, const(1))
    with f.loop(const(0), b.select(near, rows, const(0)), 1, []) as (i, _):
        first = f.at(start, b.mul(i, row))
        with f.loop(const(0), width, line, []) as (at, _):
            b.call(prefetch, [b.bitcast(f.at(first, at), address), *hints])


# Arguments of each: p pointer to elements, e pointer to int64, i int64, s element.
SIGNATURES = {"exp": "pieiiisppp", "log": "ppi", "grad": "ppieiiisspp", "dot": "ppipiii", "put": "piipipii",
              "fetch": "piiii", "own": "piiii"}
_EMITTERS: dict[str, Callable[[Code], None]] = {
    "exp": _exp, "log": _log, "grad": _grad, "dot": _dot, "put": _put,
    "fetch": partial(_fetch, write=False), "own": partial(_fetch, write=True),
}  # fmt: skip


def emit_rows(module: Any, name: str, operation: str, dtype: str) -> Any:
    """The LLVM function of a row operation in `module`, written on first use."""
    known = module.globals.get(name)
    if known is not None:
        return known
    f = Code(module, name, dtype, SIGNATURES[operation])
    _EMITTERS[operation](f)
    f.builder.ret_void()
    return f.function
