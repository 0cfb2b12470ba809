"""Memory of a graph without running or planning it: what is alive at once, launch by launch."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.dims import evaluate
from ...ir.graph import Graph
from ..schedule import producer, schedule


def peak_bytes(graph: Graph, sizes: Mapping[str, int]) -> int:
    """The greatest number of bytes of temporaries alive at once, in the order that launches will have.

    Args:
        sizes: values of the named sizes.
    """
    order = schedule(graph, sizes).launches
    step = {n: i for i, n in enumerate(order)}
    kept = {producer(o) for o in graph.outputs}
    last = dict(step)
    for n in order:
        for i in n.inputs:
            source = producer(i)
            if source in step:
                last[source] = max(last[source], step[n])
    change = [0] * (len(order) + 1)
    for n in order:
        if n not in kept:
            nbytes = sum(evaluate(t.nbytes, sizes) for t in n.result_types)
            change[step[n]] += nbytes
            change[last[n] + 1] -= nbytes
    peak = alive = 0
    for delta in change:
        alive += delta
        peak = max(peak, alive)
    return peak
