"""Operations on blocks of scores as LLVM code; see `blocks`. Imported on cold paths only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .blocks import BLOCK_PRODUCTS, GROUP
from .code_llvm import I64, Code, const
from .micro_llvm import emit
from .pack_llvm import emit_pack
from .tiles import MicroKernel, parse_micro_kernel

# Arguments of each (see `Code`), and whether it gives an int64.
SIGNATURES = {
    "seen": ("pipiipiipieiii", False), "early": ("pipipiipieiiii", False), "late": ("pipipiipieiii", False),
    "count_rows": ("eiiii", False), "place": ("eiiii", True),
}  # fmt: skip


def operation_of(name: str) -> str:
    """The key of a block operation in `SIGNATURES`, or "" for another name."""
    match = BLOCK_PRODUCTS.fullmatch(name)
    return match[1] if match else name if name in SIGNATURES else ""


def dtype_of(name: str) -> str:
    """The element type in a block operation's name."""
    match = BLOCK_PRODUCTS.fullmatch(name)
    return match[3] if match else "f32"


def emit_block(module: Any, name: str) -> Any:
    """The LLVM function of a block operation in `module`, written on first use."""
    known = module.globals.get(name)
    if known is not None:
        return known
    operation = operation_of(name)
    letters, gives = SIGNATURES[operation]
    f = Code(module, name, dtype_of(name), letters, I64 if gives else None)
    match = BLOCK_PRODUCTS.fullmatch(name)
    if match is None:
        _PLAIN[operation](f)
        return f.function
    kernel = parse_micro_kernel(f"rows_{match[2]}")
    assert kernel is not None
    _PRODUCTS[operation](f, _Product(f, module, kernel))
    f.builder.ret_void()
    return f.function


class _Product:
    """The micro-kernel and the packing of a block operation."""

    def __init__(self, f: Code, module: Any, kernel: MicroKernel) -> None:
        tile = kernel.tile
        self.f, self.columns = f, tile.columns
        self.rows = emit(module, kernel)
        self.packing = emit_pack(module, kernel.dtype, tile.columns, tile.lanes)

    def multiply(self, *arguments: Any) -> None:
        """`c, c_row, a, a_row, a_k, b, b_k, depth, count, resume`."""
        self.f.builder.call(self.rows, arguments)

    def pack(self, *arguments: Any) -> None:
        """`panel, b, b_k, b_n, depth, width`."""
        self.f.builder.call(self.packing, arguments)

    def side(self, at: Any, size: Any, operand: tuple[Any, Any, Any], side: Any, depth: Any) -> tuple[Any, Any]:
        """A block of columns of a right factor, and the distance of its rows."""
        f, b = self.f, self.f.builder
        pointer, row, column = operand
        width = f.least(const(self.columns), b.sub(size, at))
        there = f.at(pointer, b.mul(at, column))
        lies = b.and_(b.icmp_signed("==", column, const(1)), b.icmp_signed("==", width, const(self.columns)))
        with b.if_then(b.not_(lies)):
            self.pack(side, there, row, column, depth, width)
        return b.select(lies, there, side), b.select(lies, row, const(self.columns))


def _first(f: Code, ends: Any, start: Any, rows: Any, column: Any) -> Any:
    """The first row from `start` on that takes part in a key from `column` on."""
    b = f.builder
    before = b.block
    head, test, more, after = (f.function.append_basic_block(name) for name in ("find", "test", "more", "found"))
    b.branch(head)
    b.position_at_end(head)
    first = b.phi(I64)
    first.add_incoming(start, before)
    b.cbranch(b.icmp_signed("<", first, rows), test, after)
    b.position_at_end(test)
    b.cbranch(b.icmp_signed("<=", b.load(f.at(ends, first)), column), more, after)
    b.position_at_end(more)
    first.add_incoming(b.add(first, const(1)), more)
    b.branch(head)
    b.position_at_end(after)
    return first


def _seen(f: Code, product: _Product) -> None:
    score, pitch, a, a_row, a_k, right, b_row, b_k, panel, depth, ends, key0, keys, rows = f.function.args
    b, columns = f.builder, const(product.columns)
    with f.loop(const(0), keys, product.columns, [const(0)]) as (column, firsts):
        first = firsts[0] = _first(f, ends, firsts[0], rows, b.add(key0, column))
        width = f.least(columns, b.sub(keys, column))
        product.pack(panel, f.at(right, b.mul(column, b_row)), b_k, b_row, depth, width)
        target = f.at(score, b.add(b.mul(first, pitch), column))
        product.multiply(target, pitch, f.at(a, b.mul(first, a_row)), a_row, a_k, panel, columns, depth,
                         b.sub(rows, first), const(0))


def _early(f: Code, product: _Product) -> None:
    acc, acc_row, score, pitch, right, b_row, b_col, side, size, ends, key0, keys, rows, resume = f.function.args
    b = f.builder
    with f.loop(const(0), size, product.columns, []) as (at, _):
        source, source_k = product.side(at, size, (right, b_row, b_col), side, keys)
        with f.loop(const(0), rows, GROUP, []) as (i, _):
            count = f.least(const(GROUP), b.sub(rows, i))
            with f.loop(i, b.add(i, count), 1, [const(0)]) as (j, depths):
                depths[0] = f.most(depths[0], f.least(keys, b.sub(b.load(f.at(ends, j)), key0)))
            product.multiply(f.at(acc, b.add(b.mul(i, acc_row), at)), acc_row, f.at(score, b.mul(i, pitch)), pitch,
                             const(1), source, source_k, depths[0], count, resume)


def _late(f: Code, product: _Product) -> None:
    acc, acc_row, score, pitch, right, b_row, b_col, side, size, ends, key0, keys, rows = f.function.args
    b = f.builder
    with f.loop(const(0), size, product.columns, []) as (at, _):
        source, source_k = product.side(at, size, (right, b_row, b_col), side, rows)
        with f.loop(const(0), keys, GROUP, [const(0)]) as (j, firsts):
            first = firsts[0] = _first(f, ends, firsts[0], rows, b.add(key0, j))
            product.multiply(f.at(acc, b.add(b.mul(j, acc_row), at)), acc_row,
                             f.at(score, b.add(b.mul(first, pitch), j)), const(1), pitch,
                             f.at(source, b.mul(first, source_k)), source_k, b.sub(rows, first),
                             f.least(const(GROUP), b.sub(keys, j)), const(1))


def _count_rows(f: Code) -> None:
    ends, rows, start, step, limit = f.function.args
    b = f.builder
    with f.loop(const(0), rows, 1, []) as (i, _):
        b.store(f.least(limit, f.most(const(0), b.add(start, b.mul(i, step)))), f.at(ends, i))
    b.ret_void()


def _place(f: Code) -> None:
    extents, strides, sizes, rank, position = f.function.args
    b = f.builder
    with f.loop(const(0), rank, 1, [const(0), position]) as (step, carried):
        axis = b.sub(b.sub(rank, const(1)), step)
        size = b.load(f.at(extents, b.add(sizes, axis)))
        rest = b.udiv(carried[1], size)
        index = b.sub(carried[1], b.mul(rest, size))
        carried[:] = [b.add(carried[0], b.mul(index, b.load(f.at(extents, b.add(strides, axis))))), rest]
    b.ret(carried[0])


_PRODUCTS: dict[str, Callable[[Code, _Product], None]] = {"seen": _seen, "early": _early, "late": _late}
_PLAIN: dict[str, Callable[[Code], None]] = {"count_rows": _count_rows, "place": _place}
