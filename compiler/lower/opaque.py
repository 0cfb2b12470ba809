"""Launches of the operators with a generator of their own: windows, order along an axis, stores at computed places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...ir.dims import Dim, product
from ...ir.node import Node
from ..contract.window import Window, WindowKind
from ..kernel import KernelSource
from ..opaque.indexing import IndexStore, Scatter
from ..opaque.ordering import CumSum, Sort, TopK
from .lowered import Launch, Lowered, Slot
from .source import module


def _launch(node: Node, kernel: KernelSource, extents: tuple[Dim, ...], steps: Dim, scratch: Dim, work: Dim,
            in_place: tuple[tuple[int, int], ...] = ()) -> Lowered:
    results = len(node.result_types)
    operands = (*(Slot("input", k) for k in range(len(node.inputs))), *(Slot("result", k) for k in range(results)))
    text = module(kernel.source, (node.op.name,))
    launch = Launch(replace(kernel, source=text), operands, extents, steps, results, scratch=scratch, work=work,
                    faults=(node,) if kernel.fallible else (), ir=f"# {node.op.name}\n")
    return Lowered((launch,), in_place=in_place)


def _window(node: Node) -> Lowered:
    at, (x,) = node.attrs, node.inputs
    kinds: dict[str, WindowKind] = {"window_max": "max", "window_argmax": "argmax", "window_sum": "sum",
                                    "window_spread": "spread"}
    spec = Window(kinds[node.op.name], x.dtype, at.window, at.stride, at.dilation)
    n = len(at.window)
    lead = product(x.shape[:x.tensor_type.rank - n])
    small, large = node.shape[len(node.shape) - n:], x.shape[x.tensor_type.rank - n:]
    if node.op.name == "window_spread":
        small, large = large, small
    low = tuple(p[0] for p in at.pads)
    work = lead * product(small) * product(list(at.window)) * 2
    return _launch(node, spec.kernel(), (lead, *large, *small, *low), spec.parallel_range(lead, large, small),
                   spec.scratch_bytes(large, small), work)


def _axis(node: Node, shape: tuple[Dim, ...]) -> tuple[Dim, Dim, Dim]:
    """Extents before, along and behind the operator's axis."""
    at = node.attrs.axis
    return product(shape[:at]), shape[at], product(shape[at + 1:])


def _cumsum(node: Node) -> Lowered:
    outer, extent, inner = _axis(node, node.shape)
    spec = CumSum(node.dtype, node.attrs.reverse)
    return _launch(node, spec.kernel(), (outer, extent, inner), spec.parallel_range(outer, inner), spec.scratch_bytes(),
                   outer * extent * inner * 2)


def _sort(node: Node) -> Lowered:
    (x,) = node.inputs
    outer, extent, inner = _axis(node, x.shape)
    spec = Sort(x.dtype, node.attrs.descending)
    return _launch(node, spec.kernel(), (outer, extent, inner), spec.parallel_range(outer, inner),
                   spec.scratch_bytes(extent), outer * extent * inner * 40)


def _topk(node: Node) -> Lowered:
    (x,) = node.inputs
    outer, extent, inner = _axis(node, x.shape)
    spec = TopK(x.dtype, node.attrs.largest)
    return _launch(node, spec.kernel(), (outer, extent, inner, node.attrs.k), spec.parallel_range(outer, inner),
                   spec.scratch_bytes(extent), outer * extent * inner * 8)


def _index_store(node: Node) -> Lowered:
    x, index, _ = node.inputs
    outer, extent, inner = _axis(node, x.shape)
    count = product(index.shape)
    spec = IndexStore("copy" if node.op.name == "index_copy" else "add", x.dtype, index.dtype)
    return _launch(node, spec.kernel(), (outer, extent, inner, count), spec.parallel_range(outer, inner),
                   spec.scratch_bytes(extent), outer * (extent + count) * inner * 2, ((0, 0),))


def _scatter(node: Node) -> Lowered:
    x, index, _ = node.inputs
    spec = Scatter("copy" if node.op.name == "scatter" else "add", x.dtype, index.dtype, x.tensor_type.rank,
                   node.attrs.axis)
    return _launch(node, spec.kernel(), (*x.shape, *index.shape), spec.parallel_range(x.shape),
                   spec.scratch_bytes(x.shape), x.tensor_type.size * 2 + index.tensor_type.size * 4, ((0, 0),))


OPAQUE: dict[str, Callable[[Node], Lowered]] = {
    "window_max": _window, "window_argmax": _window, "window_sum": _window, "window_spread": _window,
    "cumsum": _cumsum, "sort": _sort, "topk": _topk, "index_copy": _index_store, "index_add": _index_store,
    "scatter": _scatter, "scatter_add": _scatter,
}  # fmt: skip
