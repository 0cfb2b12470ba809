"""Pooling without overlap as arithmetic on strided slices, which fuses with what is around it.

Where windows neither overlap nor leave gaps, every element is in one window: a maximum is a chain of comparisons of as
many slices as a window has taps, and the way back is a broadcast of each window to its taps. As elementwise work both
join their neighbours: bias and activation before the pooling, the activation's mask behind its gradient.

Only with channels innermost: there a slice is a run of neighbouring elements. Windows along the last axis keep their
own kernels, and so do those of more taps than a fused loop should read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...ir.build import Builder
from ...ir.dims import Dim
from ...ir.graph import Graph, all_nodes
from ...ir.node import Node
from .rewriting import rewrite
from .simplify import Simplify

# Most taps of a window that is taken apart.
_TAPS = 16


@dataclass(frozen=True)
class Windows:
    """Write windows without overlap over channels-last values as slices, comparisons and broadcasts."""

    name: ClassVar[str] = "windows"

    def run(self, graph: Graph) -> Graph:
        if not any(map(_applies, all_nodes(graph))):
            return graph
        return Simplify().run(rewrite(graph, _visit))


def _applies(node: Node) -> bool:
    if node.op.name not in _FORMS:
        return False
    at = node.attrs
    return (at.window == at.stride and at.window[-1] == 1 and math.prod(at.window) <= _TAPS
            and all(d == 1 for d, k in zip(at.dilation, at.window, strict=True) if k > 1)
            and all(tuple(p) == (0, 0) for p in at.pads))


def _visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
    return _FORMS[node.op.name](Builder(node.place), node, *inputs) if _applies(node) else None


def _parts(b: Builder, node: Node, x: Node) -> list[Node]:
    """The elements of x at each tap of all windows, in the order of the taps."""
    window = node.attrs.window
    lead = len(node.shape) - len(window)
    step = (1,) * lead + window
    return [b.slice(x, start=(0,) * lead + tap, size=node.shape, step=step) for tap in np.ndindex(*window)]


def _greatest(b: Builder, parts: list[Node]) -> tuple[Node, list[Node]]:
    """The greatest parts, and for each part but the first whether it beats those before: first wins, NaN beats all."""
    best, beats = parts[0], []
    for part in parts[1:]:
        if part.dtype.is_float:
            better = b.and_(b.not_(b.le(part, best)), b.eq(best, best))
        else:
            better = b.gt(part, best)
        best = b.select(better, part, best)
        beats.append(better)
    return best, beats


def _max(b: Builder, node: Node, x: Node) -> Node:
    return _greatest(b, _parts(b, node, x))[0]


def _argmax(b: Builder, node: Node, x: Node) -> Node:
    place = b.full(0, node.dtype, node.shape)
    for number, better in enumerate(_greatest(b, _parts(b, node, x))[1], 1):
        place = b.select(better, b.scalar(number, node.dtype), place)
    return place


def _sum(b: Builder, node: Node, x: Node) -> Node:
    wide = x.dtype.compute
    first, *others = (b.cast(part, dtype=wide) for part in _parts(b, node, x))
    for part in others:
        first = b.add(first, part)
    return b.cast(first, dtype=x.dtype)


def _take(b: Builder, node: Node, x: Node, place: Node) -> Node:
    found = b.full(0, x.dtype, node.shape)
    for number, part in enumerate(_parts(b, node, x)):
        found = b.select(b.eq(place, b.scalar(number, place.dtype)), part, found)
    return found


def _spread(b: Builder, node: Node, dy: Node) -> Node:
    return _joined(b, node, _at_taps(b, node, dy))


def _put(b: Builder, node: Node, dy: Node, place: Node) -> Node:
    apart, here = _at_taps(b, node, dy), _at_taps(b, node, place)
    window = node.attrs.window
    lead = len(node.shape) - len(window)
    number: Node = b.full(0, place.dtype, apart.shape)
    for i, k in enumerate(window):
        along = b.iota(shape=apart.shape, axis=lead + 2 * i + 1, dtype=place.dtype)
        number = b.add(b.mul(number, b.scalar(k, place.dtype)), along)
    return _joined(b, node, b.select(b.eq(here, number), apart, b.like(0, dy)))


def _at_taps(b: Builder, node: Node, y: Node) -> Node:
    """y repeated for the taps of its windows: behind each window axis one of the window's extent."""
    window = node.attrs.window
    lead = len(node.shape) - len(window)
    shape = list(y.shape[:lead])
    for d, k in zip(y.shape[lead:], window, strict=True):
        shape += [d, k]
    return b.broadcast(y, shape=tuple(shape), dims=(*range(lead), *range(lead, len(shape), 2)))


def _joined(b: Builder, node: Node, y: Node) -> Node:
    """The windows beside one another, with zeros for the elements behind the last ones that are in none."""
    lead = len(node.shape) - len(node.attrs.window)
    shape: list[Dim] = [*y.shape[:lead]]
    shape += [d * k for d, k in zip(y.shape[lead::2], y.shape[lead + 1::2], strict=True)]
    whole = b.reshape(y, shape=tuple(shape))
    if whole.shape == node.shape:
        return whole
    pads = tuple((0, full - d, 0) for full, d in zip(node.shape, shape, strict=True))
    return b.pad(whole, b.like(0, y), pads=pads)


_FORMS: dict[str, Callable[..., Node]] = {
    "window_max": _max, "window_argmax": _argmax, "window_sum": _sum, "window_take": _take,
    "window_spread": _spread, "window_put": _put,
}  # fmt: skip
