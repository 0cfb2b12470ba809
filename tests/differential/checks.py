"""What must hold for every random graph: values, and that bits depend on nothing but the graph."""

from __future__ import annotations

from collections.abc import Sequence

from compare import (
    Array,
    Narrow,
    Split,
    assert_close_f64,
    assert_same_bits,
    copies,
    reference,
)
from random_graphs import RandomGraph, f32, f64, random_graph, with_sizes
from tracemill.compiler import driver
from tracemill.ir.text import parse_graph, print_graph
from tracemill.runtime.plan import KernelCall


def compile_form(r: RandomGraph, fuse: bool, symbolic: bool = False) -> driver.Compiled:
    return driver.compile_graph(r.symbolic if symbolic else r.graph, driver.CompileOptions(fuse=fuse), sizes=r.sizes)


def check_values(seed: int, nodes: int = 24, fuse: bool = True) -> tuple[list[Array], list[Array]]:
    """Forward and gradient: float64 against the reference, float32 against both. Returns the results."""
    wide, narrow = random_graph(seed, f64, nodes), random_graph(seed, f32, nodes)
    exact = reference(wide.graph, wide.inputs)
    results = compile_form(wide, fuse).run(copies(wide.inputs))
    for k, (a, w) in enumerate(zip(results, exact, strict=True)):
        assert_close_f64(a, w, f"seed {seed}, float64 output {k}")
    narrow_results = compile_form(narrow, fuse).run(copies(narrow.inputs))
    Narrow(narrow.graph, narrow.inputs, exact).check(narrow_results, f"seed {seed}, float32")
    return results, narrow_results


# A size that no other extent of a random graph is near.
FAR = {"B": 1009}


def check_symbolic(r: RandomGraph, wanted: Sequence[Array], fuse: bool = True) -> None:
    """With a named size: the same bits, and the very kernels of a number.

    The kernels are compared at a far-off number: the graph's own may coincide with another extent, or be 1, which
    is structure.
    """
    run = compile_form(r, fuse, symbolic=True)
    assert_same_bits(run.run(copies(r.inputs)), wanted, f"seed {r.seed}, a named size and a number")
    options = driver.CompileOptions(fuse=fuse)
    _, numbered = driver.lower_to_plan(with_sizes(r.symbolic, FAR), options)
    _, named = driver.lower_to_plan(r.symbolic, options, FAR)
    new = [call.node for _, call in named.plan.flat if isinstance(call, KernelCall) and call.kernel not in numbered.kernels]
    assert not new, f"seed {r.seed}: other kernels for a named size: {new}"


def check_threads(r: RandomGraph, run: driver.Compiled, wanted: Sequence[Array], counts: Sequence[int] = (1, 2, 4)) -> None:
    """Any number of threads, repeated runs: the same bits."""
    split = Split(run)
    for threads in counts:
        for attempt in range(2):
            assert_same_bits(split.run(r.inputs, threads), wanted, f"seed {r.seed}, {threads} threads, run {attempt}")


def check_text(r: RandomGraph) -> None:
    """Text and back, in both forms."""
    for graph in (r.graph, r.symbolic):
        arrays: dict[str, Array] = {}
        text = print_graph(graph, constants=arrays)
        assert parse_graph(text, arrays) == graph, f"seed {r.seed}: the text of the graph says something else"


def check_fusion(r: RandomGraph, fused: driver.Compiled, unfused: driver.Compiled) -> None:
    """The same bits and at most the memory of one kernel an operator, and fewer launches."""
    assert_same_bits(fused.run(copies(r.inputs)), unfused.run(copies(r.inputs)), f"seed {r.seed}, fused and unfused")
    held, plain = fused.peak_bytes(r.sizes), unfused.peak_bytes(r.sizes)
    assert held <= plain, f"seed {r.seed}: {held} bytes fused, {plain} unfused"
    assert len(fused.plan.flat) <= len(unfused.plan.flat)


def check_all(seed: int, nodes: int = 24) -> None:
    """Everything above, in both precisions."""
    check_values(seed, nodes)
    for dtype in (f32, f64):
        r = random_graph(seed, dtype, nodes)
        check_text(r)
        fused, unfused = compile_form(r, True), compile_form(r, False)
        check_fusion(r, fused, unfused)
        wanted = fused.run(copies(r.inputs))
        for run, fuse in ((fused, True), (unfused, False)):
            check_symbolic(r, wanted, fuse)
            check_threads(r, run, wanted)
