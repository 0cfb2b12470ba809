"""Runs lowered nodes on NumPy arrays, compiled or as plain Python: one launch after the other, in chosen shares."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from tracemill.compiler.backend.flags import kernel_symbol
from tracemill.compiler.backend.numba_cpu import compile_source
from tracemill.compiler.backend.plain import run_python
from tracemill.compiler.lower import Launch, Lowered, lower
from tracemill.ir.dims import evaluate, product
from tracemill.ir.graph import Graph, bind_sizes
from tracemill.ir.node import Node
from tracemill.runtime.loader import load_object

Array = np.ndarray[Any, Any]
_ABI = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 2)


class KernelFault(Exception):
    """A kernel stopped; holds its status."""


@cache
def compiled(source: str, entry: str) -> Any:
    """The kernel as a C function."""
    return _ABI(load_object(compile_source(source, entry), kernel_symbol(source, entry)))


@cache
def plain(source: str, entry: str) -> Any:
    """The kernel as a Python function."""
    return run_python(source, entry)


def shares(total: int, cuts: int) -> list[tuple[int, int]]:
    """`[0, total)` in `cuts` parts."""
    edges = [total * k // cuts for k in range(cuts + 1)]
    return list(itertools.pairwise(edges))


def launch(step: Launch, buffers: Sequence[Array], sizes: Mapping[str, int], *, leg: str = "compiled",
           cuts: int = 1) -> None:
    """Run one launch on flat arrays."""
    extents = np.array([evaluate(d, sizes) for d in step.extents] + [0], np.int64)
    scratch = np.zeros(evaluate(step.scratch, sizes) + 64, np.uint8)
    scratch = scratch[-scratch.ctypes.data % 64:]
    status = np.zeros(4, np.int64)
    get = plain if leg == "plain" else compiled
    links = [get(link.kernel.source, link.kernel.entry) for link in step.kernel.links]
    for begin, end in shares(evaluate(step.range, sizes), cuts):
        if leg == "plain":
            operands = [*links, *buffers]
            failed = plain(step.kernel.source, step.kernel.entry)(operands, extents, begin, end, scratch, status)
        else:
            words = [*(ctypes.cast(f, ctypes.c_void_p).value for f in links), *(b.ctypes.data for b in buffers)]
            table = (ctypes.c_void_p * max(len(words), 1))(*words)
            failed = compiled(step.kernel.source, step.kernel.entry)(
                ctypes.addressof(table), extents.ctypes.data, begin, end, scratch.ctypes.data, status.ctypes.data)
        if failed:
            raise KernelFault(*status.tolist())


def _flat(a: Array) -> Array:
    """A flat array that has at least one element to point at."""
    flat = np.ascontiguousarray(a).reshape(-1)
    flat = flat if flat.size else np.zeros(1, a.dtype)
    return flat.view(np.uint16) if flat.dtype.itemsize == 2 and flat.dtype.kind not in "iu" else flat


def run_node(node: Node, inputs: Sequence[Array], sizes: Mapping[str, int], *, leg: str = "compiled", cuts: int = 1,
             low: Lowered | None = None) -> tuple[Array, ...]:
    """The results of one node of a fused graph."""
    low = low or lower(node)

    def empty(t: Any) -> Array:
        return np.zeros(tuple(evaluate(d, sizes) for d in t.shape), t.dtype.numpy)

    results = [empty(t) for t in node.result_types]
    memory = {("input", k): _flat(a) for k, a in enumerate(inputs)}
    memory |= {("result", k): _flat(a) for k, a in enumerate(results)}
    memory |= {("temporary", k): _flat(empty(t)) for k, t in enumerate(low.temporaries)}
    for step in low.launches:
        shifted = [memory[s.role, s.index].view(np.uint8)[evaluate(s.offset, sizes):] for s in step.operands]
        buffers = [a.view(memory[s.role, s.index].dtype) for a, s in zip(shifted, step.operands, strict=True)]
        launch(step, buffers, sizes, leg=leg, cuts=cuts)
    return tuple(memory["result", k].view(a.dtype)[:a.size].reshape(a.shape) for k, a in enumerate(results))


def run_graph(graph: Graph, inputs: Sequence[Array], *, leg: str = "compiled", cuts: int = 1,
              sizes: Mapping[str, int] | None = None) -> list[Array]:
    """The outputs of a graph, every node through its kernels (aliases and projections by hand)."""
    free = [(name, default) for name, default in graph.sizes]
    bound = {**bind_sizes(graph.inputs, [a.shape for a in inputs], free), **(sizes or {})}
    values: dict[Node, Any] = {}
    for node in graph.nodes:
        if node.op.name == "input":
            values[node] = inputs[node.attrs.index]
        elif node.op.name == "constant":
            values[node] = node.attrs.value.array
        elif node.op.name == "result":
            values[node] = values[node.inputs[0]][node.attrs.index]
        elif node.op.name == "reshape":
            values[node] = values[node.inputs[0]].reshape([evaluate(d, bound) for d in node.shape])
        else:
            out = run_node(node, [values[i] for i in node.inputs], bound, leg=leg, cuts=cuts)
            values[node] = out if len(node.result_types) > 1 else out[0]
    return [values[o] for o in graph.outputs]


__all__ = ["KernelFault", "launch", "product", "run_graph", "run_node"]
