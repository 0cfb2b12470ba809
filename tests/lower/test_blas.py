"""Products by the BLAS that NumPy brings (`TRACEMILL_GEMM=blas`)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tracemill.compiler.backend.kernel_store import KernelStore
from tracemill.compiler.contract.blas import BlasDot
from tracemill.compiler.driver import CompileOptions, _plan_key, compile_graph, lower_to_plan
from tracemill.ir import dtypes
from tracemill.ir.errors import TracemillError
from tracemill.ir.text import parse_graph
from tracemill.runtime import blas, workers


@pytest.fixture(autouse=True)
def with_blas(monkeypatch):
    monkeypatch.setenv("TRACEMILL_GEMM", "blas")
    try:
        blas.find()
    except TracemillError:
        pytest.skip("NumPy has no BLAS of its own here")
    monkeypatch.setattr("tracemill.compiler.driver.store", lambda: KernelStore(None))


def product(m: int, k: int, n: int, layout: str, dtype: str = "f32", batch: int = 0, after: str = "") -> str:
    a, b = ([m, k] if layout[0] == "n" else [k, m]), ([k, n] if layout[1] == "n" else [n, k])
    head, r = ([batch], 1) if batch else ([], 0)
    axes = ", ".join(f"{name}={value}" for name, value in (
        ("contract_a", [r + (layout[0] == "n")]), ("contract_b", [r + (layout[1] == "t")]),
        ("batch_a", list(range(r))), ("batch_b", list(range(r)))))
    shapes = [",".join(map(str, head + s)) for s in (a, b, [m, n])]
    return (f"graph (%a: {dtype}[{shapes[0]}], %b: {dtype}[{shapes[1]}]) {{ %0 = dot(%a, %b) {{{axes}}} "
            f": {dtype}[{shapes[2]}] {after or 'return y = %0'} }}")


def check(text: str, layout: str, threads: int) -> None:
    graph = parse_graph(text)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(spec.type.shape).astype(spec.type.dtype.numpy) for spec in graph.inputs)
    before = workers.get_num_threads()
    workers.set_num_threads(threads)
    try:
        (y,) = compile_graph(graph).run([a, b])
    finally:
        workers.set_num_threads(before)
    left = a if layout[0] == "n" else a.swapaxes(-1, -2)
    right = b if layout[1] == "n" else b.swapaxes(-1, -2)
    want = left.astype(np.float64) @ right.astype(np.float64)
    np.testing.assert_allclose(y, np.abs(want) if "abs" in text else want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("m,k,n", [(70, 33, 41), (1, 30, 20), (30, 20, 1), (5, 1, 7)])
def test_product(layout, m, k, n):
    check(product(m, k, n, layout), layout, 2)


@pytest.mark.parametrize("layout", ["nn", "tt"])
def test_batches_epilogues_and_float64(layout):
    check(product(40, 9, 11, layout, "f64", batch=3), layout, 2)
    check(product(70, 9, 11, layout, after="%1 = abs(%0) return y = %1"), layout, 1)


def test_what_the_library_cannot_read_is_generated():
    spec = BlasDot(dtypes.f32)
    good = [(30, 1), (1, 30)]
    for a, b in itertools.product(good, good):
        assert spec.suits((30, 30, 30), a, b)
    assert not spec.suits((30, 30, 30), (60, 2), (30, 1))
    assert not spec.suits((30, 30, 30), (0, 1), (30, 1))
    assert not BlasDot(dtypes.bf16).suits((30, 30, 30), (30, 1), (30, 1))


def test_plans_differ_and_say_so(monkeypatch):
    graph = parse_graph(product(4, 5, 6, "nn"))
    with_library, _ = _plan_key(graph, CompileOptions())
    assert any("blas_f32" in k.source for k in lower_to_plan(graph)[1].kernels.values())
    monkeypatch.setenv("TRACEMILL_GEMM", "generated")
    assert _plan_key(graph, CompileOptions())[0] != with_library
    monkeypatch.setenv("TRACEMILL_GEMM", "fast")
    with pytest.raises(TracemillError, match="TRACEMILL_GEMM='fast': expected generated or blas"):
        blas.chosen()


def test_no_library_is_said_clearly(monkeypatch):
    monkeypatch.setattr(blas, "_candidates", lambda: iter(()))
    with pytest.raises(TracemillError, match="found no BLAS"):
        blas.find.__wrapped__()
