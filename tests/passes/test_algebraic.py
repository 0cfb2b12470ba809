"""Every row of the algebraic table: it fires, and it keeps the bits (or errs less) on values chosen to
hurt.
"""

from __future__ import annotations

import ast
import itertools
from typing import Any

import numpy as np
import pytest
from tracemill.compiler.passes.simplify.algebraic import TABLE, Algebraic, power_of_two
from tracemill.compiler.passes.simplify.patterns import CONSTANT_NAMES, Row, build
from tracemill.ir.build import Builder
from tracemill.ir.dtypes import DType, boolean, f32, f64, i32, i64, u8
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.opdef import lookup
from tracemill.ir.types import TensorType

b = Builder()

_FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e-3, 1e30, -1e-30, 1e-42, np.inf, -np.inf, np.nan, 7.25,
           -1e20]
VALUES: dict[DType, list[Any]] = {
    f32: _FLOATS, f64: [*_FLOATS, 1e-310, 1e300],
    i32: [0, 1, -1, 2, -7, 2**31 - 1, -2**31, 12345], i64: [0, 1, -1, 2**63 - 1, -2**63, 99],
    u8: [0, 1, 2, 127, 128, 255],
    boolean: [False, True],
}
CONSTANTS: dict[DType, list[Any]] = {f32: [2.0, -0.25, 3.0, 1024.0], f64: [2.0, -0.25, 3.0, 2.0**-300],
                                     i32: [3, -5], i64: [3, -5], u8: [3, 200], boolean: [True]}


def names_of(row: Row) -> list[str]:
    found = {n.id for n in ast.walk(row.pattern) if isinstance(n, ast.Name)}
    called = {n.func.id for n in ast.walk(row.pattern) if isinstance(n, ast.Call)}  # type: ignore[attr-defined]
    return sorted(found - called)


def dtypes_of(row: Row) -> list[DType]:
    """Dtypes of the table's kinds; a row on the results of comparisons has operands of any."""
    return [t for t in VALUES if t.kind in row.kinds.split()]


def environment(row: Row, dtype: DType, constant: Any) -> tuple[dict[str, Node], list[np.ndarray],
                                                                list[InputSpec]]:
    """Inputs for the names: together they run through all combinations of the values."""
    bound: dict[str, Node] = {}
    free = [n for n in names_of(row) if n not in CONSTANT_NAMES]
    pools = [VALUES[boolean] if n == "p" else VALUES[dtype] for n in free]
    grid = list(zip(*itertools.product(*pools), strict=True))
    specs, arrays = [], []
    for i, (name, column) in enumerate(zip(free, grid, strict=True)):
        t = TensorType(boolean if name == "p" else dtype, (len(column),))
        bound[name] = input_node(i, t)
        specs.append(InputSpec(name, t))
        arrays.append(np.asarray(column, dtype=t.dtype.numpy))
    for name in names_of(row):
        if name in CONSTANT_NAMES:
            bound[name] = b.scalar(constant, dtype)
    return bound, arrays, specs


def cases() -> list[Any]:
    found = []
    for row in TABLE:
        for t in dtypes_of(row):
            for c in CONSTANTS[t] if set(names_of(row)) & CONSTANT_NAMES else [None]:
                if row.when is None or row.when(np.asarray(c, t.numpy)):
                    found.append(pytest.param(row, t, c, id=f"{row.before}-{t}-{c}"))
    return found


@pytest.mark.parametrize("row, dtype, constant", cases())
def test_row(row: Row, dtype: DType, constant: Any) -> None:
    bound, arrays, specs = environment(row, dtype, constant)
    before = build(row.pattern, bound, b, dtype)
    after = build(row.result, bound, b, dtype)
    if after.shape != before.shape:
        after = b.splat(after, before.shape)
    g = Graph("row", tuple(specs), (before,))
    with np.errstate(all="ignore"):
        old, = evaluate(g, arrays)
        new, = evaluate(g.with_outputs([after]), arrays)
    if row.exact:
        same = (old == new) | ((old != old) & (new != new))
        if before.dtype.is_float:
            same &= (np.signbit(old) == np.signbit(new)) | (old != old)
        assert np.all(same), (old, new)
    else:
        np.testing.assert_allclose(new, old, rtol=4 * np.finfo(dtype.numpy).eps)


@pytest.mark.parametrize("row", TABLE, ids=lambda r: r.before)
def test_row_fires(row: Row) -> None:
    dtype = dtypes_of(row)[0]
    bound, _, specs = environment(row, dtype, CONSTANTS[dtype][0])
    before = build(row.pattern, bound, b, dtype)
    g = Graph("row", tuple(specs), (before,))
    assert Algebraic().run(g) != g


def test_every_row_is_documented_and_names_operators() -> None:
    for row in TABLE:
        assert row.doc.endswith((".", ")")) and lookup(row.root)
        assert set(row.kinds.split()) <= {"float", "int", "uint", "bool"}


@pytest.mark.parametrize("make", [
    lambda x: b.add(x, b.scalar(0.0, f32)), lambda x: b.mul(x, b.scalar(0.0, f32)), lambda x: b.sub(x, x),
    lambda x: b.div(x, x), lambda x: b.neg(b.sub(x, b.abs(x))), lambda x: b.div(x, b.scalar(3.0, f32)),
    lambda x: b.exp(b.log(x)), lambda x: b.not_(b.lt(x, b.abs(x))),
])
def test_what_would_change_a_value_stays(make: Any) -> None:
    t = TensorType(f32, (4,))
    g = Graph("g", (InputSpec("x", t),), (make(input_node(0, t)),))
    assert Algebraic().run(g) is g


def test_powers_of_two() -> None:
    for value in (1.0, -2.0, 0.125, 2.0**100):
        assert power_of_two(np.float32(value)[()].reshape(()))
    for value in (0.0, 3.0, np.inf, np.nan, 2.0**-149, 2.0**127):
        assert not power_of_two(np.asarray(value, np.float32))
