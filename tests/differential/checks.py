"""What must hold for every random graph: values, and that bits depend on nothing but the graph.

Kernels run compiled or as plain Python, bit for bit the same; compiling them is what takes the time.
"""

from __future__ import annotations

from compare import Array, Narrow, Split, assert_close_f64, assert_same_bits, copies, in_python, reference
from random_graphs import RandomGraph, f32, f64, random_graph, with_sizes
from tracemill.compiler import driver
from tracemill.ir.graph import Graph
from tracemill.ir.text import parse_graph, print_graph
from tracemill.runtime.plan import KernelCall

NODES = 24
# A size that no other extent of a random graph is near.
FAR = {"B": 1009}


def compiled(r: RandomGraph, fuse: bool, symbolic: bool = False) -> driver.Compiled:
    return driver.compile_graph(r.symbolic if symbolic else r.graph, driver.CompileOptions(fuse=fuse), sizes=r.sizes)


def results(r: RandomGraph, fuse: bool = True, *, plain: bool = False, symbolic: bool = False) -> list[Array]:
    """The outputs, by compiled kernels or by plain Python."""
    if plain:
        return in_python(r.symbolic if symbolic else r.graph, r.inputs, fuse, sizes=r.sizes)
    return compiled(r, fuse, symbolic).run(copies(r.inputs))


def check_values(seed: int, nodes: int = NODES, fuse: bool = True, plain: bool = False) -> None:
    """Forward and gradient: float64 against the reference, float32 against both."""
    wide, narrow = random_graph(seed, f64, nodes), random_graph(seed, f32, nodes)
    assert len(wide.families) >= 10 and len(wide.graph.nodes) >= 20
    exact = reference(wide.graph, wide.inputs)
    for k, (a, w) in enumerate(zip(results(wide, fuse, plain=plain), exact, strict=True)):
        assert_close_f64(a, w, f"seed {seed}, float64 output {k}")
    Narrow(narrow.graph, narrow.inputs, exact).check(results(narrow, fuse, plain=plain), f"seed {seed}, float32")


def check_bits(r: RandomGraph, plain: bool = False) -> None:
    """Fusion, a named size, threads, repetition and the language the kernels run in change no bit."""
    wanted = results(r, plain=plain)
    assert_same_bits(results(r, fuse=False, plain=plain), wanted, f"seed {r.seed}, unfused and fused")
    for fuse in (True, False):
        named = results(r, fuse, plain=plain, symbolic=True)
        assert_same_bits(named, wanted, f"seed {r.seed}, a named size and a number")
        shared = in_python(r.graph, r.inputs, fuse, shares=3)
        assert_same_bits(shared, wanted, f"seed {r.seed}, plain Python in three shares")
        if plain:
            continue
        split = Split(compiled(r, fuse))
        for threads in (1, 2, 4, 2):
            assert_same_bits(split.run(r.inputs, threads), wanted, f"seed {r.seed}, {threads} threads")


def check_plans(r: RandomGraph) -> None:
    """Fusion takes no more memory and no more launches; a named size takes the very kernels of a number.

    The kernels are compared at a far-off number: the graph's own may coincide with another extent, or be 1, which
    is structure.
    """
    launches, peaks = [], []
    for fuse in (False, True):
        options = driver.CompileOptions(fuse=fuse)
        _, numbered = driver.lower_to_plan(with_sizes(r.symbolic, FAR), options)
        _, named = driver.lower_to_plan(r.symbolic, options, FAR)
        calls = [c for _, c in named.plan.flat if isinstance(c, KernelCall)]
        new = [c.node for c in calls if c.kernel not in numbered.kernels]
        assert not new, f"seed {r.seed}: other kernels for a named size: {new}"
        launches.append(len(calls))
        peaks.append(numbered.plan.arena)
    assert launches[1] <= launches[0], f"seed {r.seed}: {launches[1]} launches fused, {launches[0]} unfused"
    assert peaks[1] <= peaks[0], f"seed {r.seed}: {peaks[1]} bytes fused, {peaks[0]} unfused"


def check_text(graph: Graph) -> None:
    """Text and back."""
    arrays: dict[str, Array] = {}
    text = print_graph(graph, constants=arrays)
    assert parse_graph(text, arrays) == graph


def check_all(seed: int, nodes: int = NODES, plain: bool = False) -> None:
    """Everything above."""
    check_values(seed, nodes, plain=plain)
    r = random_graph(seed, f32 if seed % 2 else f64, nodes)
    check_text(r.graph)
    check_text(r.symbolic)
    check_plans(r)
    check_bits(r, plain)
