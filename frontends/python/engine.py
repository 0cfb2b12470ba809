"""The seam to the compiler: a traced graph in, something that runs out.

`TRACEMILL_ENGINE=interpret` runs graphs by the reference interpreter instead (a debugging aid: slow, exact, no cache);
`compiled` is the default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...ir.errors import TracemillError
from ...ir.graph import Graph
from ...ir.interp import evaluate, exact_only
from ...ir.node import Node

Array = np.ndarray[Any, Any]
Sizes = Any  # named sizes: a mapping, what a runner's `ordered` made of one, or None to read them off the inputs


class Runner(Protocol):
    """A graph that can be run."""

    def run(self, inputs: Sequence[Array], sizes: Sizes = None,
            out: Sequence[Array | None] | None = None) -> list[Array]:
        """The outputs; donated ones are the very input arrays, given ones the arrays in `out`."""
        ...

    def ordered(self, sizes: Mapping[str, int]) -> Sizes:
        """All named sizes in the form that `run` takes fastest."""
        ...


class Interpreted:
    """Runs a graph, expanded to plain operators, one operator at a time in NumPy."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def ordered(self, sizes: Mapping[str, int]) -> Sizes:
        return sizes

    def run(self, inputs: Sequence[Array], sizes: Sizes = None,
            out: Sequence[Array | None] | None = None) -> list[Array]:
        graph = self.graph
        results = evaluate(graph, inputs, sizes)
        returned = []
        for i, (value, donated) in enumerate(zip(results, graph.donations, strict=True)):
            target = out[i] if out is not None else None
            if target is None and donated is not None:
                target = inputs[donated]
            if target is None:
                target = np.array(value, order="C", copy=True)
            else:
                np.copyto(target, value)
            returned.append(target)
        return returned


def expand(graph: Graph) -> Graph:
    """The graph with `gradient` and `update` nodes replaced by plain operators."""
    from ...compiler.driver import expand_symbolic

    return expand_symbolic(graph)


def residuals(graph: Graph, outputs: Sequence[Node], wrt: Sequence[Node]) -> list[Node]:
    """The nodes of `graph` whose values a later gradient of `outputs` with respect to `wrt` reads."""
    from ...compiler.driver import residuals as find

    return find(graph, outputs, wrt)


Hook = Callable[[Graph, Any], None]
_hooks: list[Hook] = []


def on_compile(hook: Hook) -> Callable[[], None]:
    """Call `hook(graph, first inputs)` for every graph handed to the compiler; returns the function that undoes it."""
    _hooks.append(hook)
    return lambda: _hooks.remove(hook)


def selected() -> str:
    """The engine in use: `compiled` or `interpret`."""
    name = os.environ.get("TRACEMILL_ENGINE", "compiled")
    if name not in ("compiled", "interpret"):
        raise TracemillError(f"TRACEMILL_ENGINE={name!r}: choose compiled or interpret")
    return name


def load(graph: Graph, inputs: Sequence[Array], sizes: Mapping[str, int] | None = None) -> Runner:
    """Something that runs the graph.

    Args:
        inputs: its first inputs.
        sizes: the named sizes of the graph that was compiled in numbers before: what is decided by bytes is then
            decided as it was, and the kernels are the same.
    """
    for hook in _hooks:
        hook(graph, inputs)
    if selected() == "interpret":
        return Interpreted(expand(graph))
    from ...compiler.driver import compile_graph

    return compile_graph(graph, sizes=sizes)


__all__ = ["Interpreted", "Runner", "evaluate", "exact_only", "expand", "load", "on_compile", "residuals", "selected"]
