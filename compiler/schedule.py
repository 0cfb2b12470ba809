"""Scheduling: one order of kernel launches that is legal, stops before harm, and keeps few bytes alive.

Three kinds of edges order the launches: data, anti-dependence (whoever reads a donated input goes before the launch
that overwrites it) and safety (launches that can stop a run, by an index out of range, go before every donated write,
so that a failed step leaves parameters as they were). Where an anti-dependence or safety edge would close a cycle the
output is computed aside and copied at the end instead.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ir.dims import Dim, evaluate
from ..ir.graph import Graph
from ..ir.node import Node
from ..ir.opdef import Kind
from ..ir.types import TensorType

# A node that runs, and the number of one of its results.
Cell = tuple[Node, int]

# Operators that only rename memory: their value is their operand's buffer.
ALIASES = frozenset({"reshape", "result", "stop_gradient"})


@dataclass(frozen=True, slots=True)
class Schedule:
    """Launches in order.

    Attributes:
        launches: every node that runs, aliases and inputs left out.
        in_place: for each output index that may be written straight into its donated input, that input index.
    """

    launches: tuple[Node, ...]
    in_place: Mapping[int, int]


def root(node: Node) -> Node:
    """The node whose memory a value lies in: `node` itself, or what it renames."""
    while node.op.name in ALIASES and node.op.name != "result":
        node = node.inputs[0]
    return node


def producer(node: Node) -> Node:
    """The launch (or input, or constant) that computes a value."""
    node = root(node)
    return node.inputs[0] if node.op.name == "result" else node


def cell_of(node: Node) -> Cell:
    """The launch (or input, constant) behind a value, and which of its results."""
    node = root(node)
    return (producer(node), node.attrs.index) if node.op.name == "result" else (node, 0)


def is_launch(node: Node) -> bool:
    """True for nodes that run; false for inputs, constants and aliases."""
    return node.op.kind is not Kind.INPUT and node.op.name not in ALIASES


def is_fallible(node: Node) -> bool:
    """True if running the node can stop the step."""
    if node.op.fallible:
        return True
    return any(
        is_fallible(n)
        for s, v in zip(node.op.attrs, node.attrs, strict=True)
        if s.kind == "graph"
        for n in v.nodes
    )


def schedule(graph: Graph, sizes: Mapping[str, int]) -> Schedule:
    """An order of the graph's launches.

    Args:
        sizes: a binding of the named sizes, to weigh bytes by; the order is legal for any other.
    """
    launches = [n for n in graph.nodes if is_launch(n)]
    before: dict[Node, dict[Node, None]] = {
        n: dict.fromkeys(p for i in n.inputs if is_launch(p := producer(i))) for n in launches
    }
    in_place = _donations(graph, launches, before)
    return Schedule(tuple(_order(graph, launches, before, sizes)), in_place)


def _donations(
    graph: Graph, launches: Sequence[Node], before: dict[Node, dict[Node, None]]
) -> dict[int, int]:
    """Outputs that overwrite their input while the step runs; adds the edges that make it safe to `before`."""
    fallible = [n for n in launches if is_fallible(n)]
    taken: dict[Node, int] = {}
    for out in graph.outputs:
        taken[root(out)] = taken.get(root(out), 0) + 1
    reading: dict[Node, list[Node]] = {}
    for n in launches:
        for i in dict.fromkeys(map(root, n.inputs)):
            reading.setdefault(i, []).append(n)
    chosen: dict[int, int] = {}
    for k, (out, donated) in enumerate(zip(graph.outputs, graph.donations, strict=True)):
        if donated is None or out.op.name == "input":
            continue
        writer, old = producer(out), graph.input_node(donated)
        control = writer.op.kind is Kind.CONTROL and writer.op.name != "fused"
        if not is_launch(writer) or control or taken[root(out)] > 1:
            continue
        readers = [n for n in reading.get(old, ()) if n is not writer]
        if taken.get(old, 0):
            continue  # the old value is an output too
        first = dict.fromkeys([*readers, *(n for n in fallible if n is not writer)])
        if (is_fallible(writer)) or _reaches(writer, first, before):
            continue
        before[writer].update(first)
        chosen[k] = donated
    return chosen


def _reaches(source: Node, targets: Mapping[Node, None], before: Mapping[Node, Mapping[Node, None]]) -> bool:
    """True if some target has to run after `source`."""
    seen: set[Node] = set()
    stack = list(targets)
    while stack:
        n = stack.pop()
        if n is source:
            return True
        if n not in seen:
            seen.add(n)
            stack.extend(before[n])
    return False


def _order(
    graph: Graph,
    launches: Sequence[Node],
    before: Mapping[Node, Mapping[Node, None]],
    sizes: Mapping[str, int],
) -> list[Node]:
    """List scheduling: of the launches that are ready, the one that leaves the fewest bytes alive; then graph order."""
    position = {n: i for i, n in enumerate(launches)}
    after: dict[Node, list[Node]] = {n: [] for n in launches}
    missing = {n: len(before[n]) for n in launches}
    for n in launches:
        for p in before[n]:
            after[p].append(n)
    weigh = _Weights(graph, launches, sizes)
    ready = [(weigh.delta(n), position[n], n) for n in launches if not missing[n]]
    heapq.heapify(ready)
    order: list[Node] = []
    while ready:
        _, _, node = heapq.heappop(ready)
        if node in weigh.done:  # an entry made before its delta shrank
            continue
        order.append(node)
        for woken in weigh.run(node):
            if not missing[woken] and woken not in weigh.done:
                heapq.heappush(ready, (weigh.delta(woken), position[woken], woken))
        for n in after[node]:
            missing[n] -= 1
            if not missing[n]:
                heapq.heappush(ready, (weigh.delta(n), position[n], n))
    return order


class _Weights:
    """Bytes that running a launch adds to, or takes from, what is alive."""

    def __init__(self, graph: Graph, launches: Sequence[Node], sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.done: set[Node] = set()
        self.kept = {producer(o) for o in graph.outputs}
        self.readers: dict[Node, set[Node]] = {}
        for n in launches:
            for i in n.inputs:
                if is_launch(p := producer(i)):
                    self.readers.setdefault(p, set()).add(n)
        self.bytes = {n: 0 if n in self.kept else sum(self.size(t) for t in n.result_types) for n in launches}

    def size(self, t: TensorType) -> int:
        nbytes: Dim = t.nbytes
        return evaluate(nbytes, self.sizes)

    def delta(self, node: Node) -> int:
        operands = dict.fromkeys(p for i in node.inputs if is_launch(p := producer(i)))
        return self.bytes[node] - sum(self.bytes[p] for p in operands if len(self.readers[p]) == 1)

    def run(self, node: Node) -> list[Node]:
        """Mark as run; the launches whose delta shrank because they are now the last reader of something."""
        self.done.add(node)
        woken: list[Node] = []
        for p in dict.fromkeys(producer(i) for i in node.inputs):
            if p in self.readers:
                self.readers[p].discard(node)
                if len(self.readers[p]) == 1:
                    woken.extend(self.readers[p])
        return woken
