"""Calls of a BLAS library as LLVM IR. Imported on cold paths only."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .micro_llvm import internal_function, scalar_type

_I32, _I64 = ir.IntType(32), ir.IntType(64)
# The C interface's enumerations.
_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112


def emit_blas(module: Any, dtype: str, integers: str) -> Any:
    """`gemm(m, n, k, a, a_m, a_k, b, b_k, b_n, c, c_row)`; see `primitives`."""
    name = f"blas_{dtype}"
    if name in module.globals:
        return module.globals[name]
    scalar, _ = scalar_type(dtype)
    pointer, word = scalar.as_pointer(), ir.IntType(int(integers[1:]))
    numbers = [_I64, _I64]
    arguments = [_I64, *numbers, pointer, *numbers, pointer, *numbers, pointer, _I64]
    function = internal_function(module, name, arguments)
    m, n, k, a, a_m, a_k, b, b_k, b_n, c, c_row = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    kind = ir.FunctionType(
        ir.VoidType(),
        [_I32, _I32, _I32, word, word, word, scalar, pointer, word, pointer, word, scalar, pointer, word],
    )
    symbol = f"tracemill_cblas_{'s' if dtype == 'f32' else 'd'}gemm_{integers}"
    gemm = module.globals.get(symbol) or ir.Function(module, kind, symbol)

    def longest(*values: Any) -> Any:
        """The greatest of some lengths, at least 1: the library checks distances even where they do not matter."""
        found = ir.Constant(_I64, 1)
        for value in values:
            found = builder.select(builder.icmp_signed("<", found, value), value, found)
        return found

    def matrix(rows: Any, columns: Any, row: Any, column: Any) -> tuple[Any, Any]:
        """How it is stored, and the distance of what is stored as rows (no less than their length)."""
        units = [builder.icmp_signed("==", value, ir.Constant(_I64, 1)) for value in (column, columns)]
        plain = builder.or_(*units)
        apart = builder.select(plain, row, column)
        least = builder.select(plain, columns, rows)
        apart = longest(apart, least)
        stored = builder.select(plain, ir.Constant(_I32, _AS_IT_IS), ir.Constant(_I32, _TRANSPOSED))
        return stored, builder.trunc(apart, word) if integers == "i32" else apart

    def cut(value: Any) -> Any:
        return builder.trunc(value, word) if integers == "i32" else value

    (how_a, lda), (how_b, ldb) = matrix(m, k, a_m, a_k), matrix(k, n, b_k, b_n)
    one, zero = ir.Constant(scalar, 1.0), ir.Constant(scalar, 0.0)
    order = ir.Constant(_I32, _ROW_MAJOR)
    sizes, ldc = [cut(m), cut(n), cut(k)], cut(longest(c_row, n))
    builder.call(gemm, [order, how_a, how_b, *sizes, one, a, lda, b, ldb, zero, c, ldc])
    builder.ret_void()
    return function
