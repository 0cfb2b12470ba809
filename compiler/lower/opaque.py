"""Launches of the operators with a generator of their own: windows, order along an axis, stores at computed places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...ir.build import Builder
from ...ir.dims import Dim, product
from ...ir.graph import Graph, InputSpec, input_node
from ...ir.node import Node
from ..contract.window import TRANSPOSED, Window, WindowKind
from ..kernel import KernelSource
from ..opaque.indexing import IndexStore, Scatter
from ..opaque.ordering import CumSum, Sort, TopK
from ..passes.rewriting import substitute
from .attention import lower_attention
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
    """The kernel over the axes that windows move over: those in front are planes, those behind channels."""
    at, x = node.attrs, node.inputs[0]
    kind = _WINDOWS[node.op.name]
    n = len(at.window)
    small, large = node.shape[len(node.shape) - n:], x.shape[x.tensor_type.rank - n:]
    if kind in TRANSPOSED:
        small, large = large, small
    moving = [i for i in range(n) if not (at.window[i] == at.stride[i] == 1 and tuple(at.pads[i]) == (0, 0))] or [0]
    axes = slice(moving[0], moving[-1] + 1)
    planes = product(x.shape[:x.tensor_type.rank - n]) * product(small[:axes.start])
    behind = small[axes.stop:]
    spec = Window(kind, x.dtype, at.window[axes], at.stride[axes], at.dilation[axes], channels=bool(behind))
    windows = x if kind in TRANSPOSED else node
    work = windows.tensor_type.size * product(list(at.window)) * 2
    small, large, low, channels = small[axes], large[axes], tuple(p[0] for p in at.pads[axes]), product(behind)
    extents = (planes, *large, *small, *low, *((channels,) if behind else ()))
    return _launch(node, spec.kernel(), extents, spec.parallel_range(planes, large, small),
                   spec.scratch_bytes(large, small, channels), work)


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


_WINDOWS: dict[str, WindowKind] = {
    "window_max": "max", "window_argmax": "argmax", "window_sum": "sum", "window_take": "take",
    "window_spread": "spread", "window_put": "put",
}  # fmt: skip

def _attention(node: Node) -> Lowered:
    results = Builder(node.place).results(node)
    specs = tuple(InputSpec(f"x{k}", x.tensor_type) for k, x in enumerate(node.inputs))
    places = [input_node(k, s.type) for k, s in enumerate(specs)]
    body = Graph("body", specs, substitute(results, {node: node.with_inputs(places)}))
    return lower_attention(body, tuple(range(len(specs))))


OPAQUE: dict[str, Callable[[Node], Lowered]] = {
    **dict.fromkeys(_WINDOWS, _window),
    "cumsum": _cumsum, "sort": _sort, "topk": _topk, "index_copy": _index_store, "index_add": _index_store,
    "scatter": _scatter, "scatter_add": _scatter, "attention": _attention, "attention_grad": _attention,
}  # fmt: skip
