"""Data layout: convolutions read and write channels innermost, and so does what lies between them.

Every value of the graph gets a *home*: the order of axes that it is computed in. Convolutions set it to `[N, spatial…,
C]`; elementwise operators, reductions, pads, windows and other movement take over the order of what they read, with
their attributes renumbered; a permute of a value in another order is that value under other axis numbers. Where a
value is needed in an order that it is not computed in (the graph's outputs, a flatten, operators without a rule), a
permute makes it so, once for all its readers. Broadcasts, index numbers and what is computed from nothing else are
made in whatever order they are wanted.

The permutes that remain stand at the borders: before the first convolution, where the channels of the images go
behind their pixels, and at the flatten before a linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...ir.build import Builder
from ...ir.graph import Graph, all_nodes
from ...ir.node import Node
from ...ir.opdef import Kind
from ...ir.types import TensorType
from .rewriting import has_bodies, map_bodies
from .simplify import Simplify
from .simplify.shapes import reshape_groups

# A value in order `o` is the value permuted by `o`: its axis i is axis `o[i]` of the value.
Order = tuple[int, ...]

CONVOLUTIONS = frozenset({"conv", "conv_input_grad", "conv_weight_grad"})
# Channels of a group from which on vectors of them pay.
_WIDE_GROUP = 8
# What is computed from broadcasts and index numbers alone is computed again in each order it is wanted in, if the chain
# is no longer than this.
_LAZY_DEPTH = 32


@dataclass(frozen=True)
class Layout:
    """Run convolutions with channels innermost, and move permutes from between them to the graph's borders.

    Values change in their last bits: sums over pixels and channels run in another order.
    """

    name: ClassVar[str] = "layout"

    def run(self, graph: Graph) -> Graph:
        if not any(map(gains, all_nodes(graph))):
            return graph
        moved = self._moved(graph)
        return Simplify().run(moved)  # permutes that meet are one, those of axes of extent 1 are reshapes

    def _moved(self, graph: Graph) -> Graph:
        forms = _Forms(self._moved)
        for node in graph.nodes:
            forms.place(node)
        outputs = tuple(forms.plain(o) for o in graph.outputs)
        return graph if outputs == graph.outputs else graph.with_outputs(outputs)


def gains(node: Node) -> bool:
    """Whether a node is a convolution to run with channels innermost.

    Those are the ones with generated kernels, and among them of those with groups the ones whose groups fill vectors: a
    depthwise convolution takes its vectors along the pixels of a line.
    """
    if node.op.name not in CONVOLUTIONS or node.attrs.channels_last:
        return False
    if not node.dtype.is_float or len(node.attrs.stride) > 2:
        return False
    groups, weight = node.attrs.groups, node if node.op.name == "conv_weight_grad" else node.inputs[1]
    filters, channels = weight.shape[0], weight.shape[1]
    return groups == 1 or (isinstance(filters, int) and isinstance(channels, int)
                           and min(filters // groups, channels) >= _WIDE_GROUP)


def identity(rank: int) -> Order:
    """The order of a value as it is."""
    return tuple(range(rank))


def innermost(rank: int) -> Order:
    """The order `[N, spatial…, C]` of `[N, C, spatial…]`."""
    return (0, *range(2, rank), 1)


class _Forms:
    """The forms in which each value of a graph is at hand.

    Args:
        inside: the same rewriting for body graphs.
    """

    def __init__(self, inside: Callable[[Graph], Graph]) -> None:
        self._inside = inside
        self._forms: dict[Node, dict[Order, Node]] = {}
        self._home: dict[Node, Order] = {}
        self._lazy: dict[Node, int] = {}  # values with no home, with the length of the longest chain below them

    # -- values in an order -------------------------------------------------------------------------------------

    def place(self, node: Node) -> None:
        """Choose a node's home and compute it there. Its inputs have been placed."""
        depth = self._depth(node)
        if depth is not None:
            self._lazy[node] = depth
            self._forms[node] = {}
            return
        found = None
        if isinstance(node.type, TensorType) and any(self._moved(i) for i in node.inputs):
            found = self._rule(node)
        elif gains(node):
            found = _convolution(self, node)
        if found is None:
            found = self._as_it_is(node)
        order, form = found
        self._home[node] = order
        self._forms[node] = {order: form}

    def _depth(self, node: Node) -> int | None:
        """Length of the chain to the broadcasts and index numbers that a value is made of, if of nothing else."""
        if node.op.kind is Kind.BROADCAST or node.op.name == "iota":
            return 0
        if node.op.kind is not Kind.ELEMENTWISE or not node.inputs or not node.tensor_type.rank:
            return None
        depths = [self._lazy.get(i) for i in node.inputs if i.tensor_type.rank]
        known = [d + 1 for d in depths if d is not None]
        return max(known) if len(known) == len(depths) and max(known) <= _LAZY_DEPTH else None

    def _moved(self, node: Node) -> bool:
        home = self._home.get(node)
        return home is not None and home != identity(len(home))

    def home(self, node: Node) -> Order:
        """The order that a value is computed in; its own if it has none."""
        return self._home.get(node) or identity(node.tensor_type.rank)

    def form(self, node: Node, order: Order) -> Node:
        """A value in an order."""
        forms = self._forms[node]
        if order not in forms:
            forms[order] = self._made(node, order)
        return forms[order]

    def plain(self, node: Node) -> Node:
        """A value in its own order, whatever its type."""
        if isinstance(node.type, TensorType):
            return self.form(node, identity(node.tensor_type.rank))
        (only,) = self._forms[node].values()
        return only

    def _made(self, node: Node, order: Order) -> Node:
        b = Builder(node.place)
        if node not in self._lazy:
            home = self._home[node]
            return b.permute(self._forms[node][home], dims=tuple(home.index(axis) for axis in order))
        if node.op.name == "iota":
            at = node.attrs
            return b.iota(shape=_arranged(at.shape, order), axis=order.index(at.axis), dtype=at.dtype)
        if node.op.kind is not Kind.BROADCAST:
            return node.with_inputs(self.form(i, order if i.tensor_type.rank else ()) for i in node.inputs)
        (x,) = node.inputs
        place = {axis: i for i, axis in enumerate(order)}
        own = tuple(sorted(range(x.tensor_type.rank), key=lambda i: place[node.attrs.dims[i]]))
        return b.broadcast(self.form(x, own), shape=_arranged(node.shape, order),
                           dims=tuple(place[node.attrs.dims[i]] for i in own))

    # -- homes --------------------------------------------------------------------------------------------------

    def _as_it_is(self, node: Node) -> tuple[Order, Node]:
        inputs = tuple(self.plain(i) for i in node.inputs)
        new = map_bodies(node, inputs, self._inside) if has_bodies(node) else node.with_inputs(inputs)
        return (identity(node.tensor_type.rank) if isinstance(node.type, TensorType) else ()), new

    def _rule(self, node: Node) -> tuple[Order, Node] | None:
        if gains(node):
            return _convolution(self, node)
        if node.op.kind is Kind.ELEMENTWISE:
            return _alike(self, node, {})
        if node.op.kind is Kind.REDUCTION:
            return _reduction(self, node)
        rule = _RULES.get(node.op.name)
        return None if rule is None else rule(self, node)

    def shared(self, node: Node) -> Order:
        """The order for a node whose operands, but for scalars, have its rank: that of the first that is moved."""
        homes = (self.home(i) for i in node.inputs if self._moved(i))
        return next(homes, identity(node.tensor_type.rank))


def _arranged(values: Sequence[Any], order: Order) -> tuple[Any, ...]:
    return tuple(values[axis] for axis in order)


def _alike(forms: _Forms, node: Node, attrs: dict[str, Any], order: Order | None = None) -> tuple[Order, Node]:
    """A node whose operands, but for scalars, and whose result are in one order."""
    order = forms.shared(node) if order is None else order
    inputs = [forms.form(i, order if i.tensor_type.rank else ()) for i in node.inputs]
    return order, Node.make(node.op, inputs, node.attrs._replace(**attrs) if attrs else node.attrs, node.place)


def _convolution(forms: _Forms, node: Node) -> tuple[Order, Node]:
    order = innermost(len(node.attrs.stride) + 2)
    activations = 2 if node.op.name == "conv_weight_grad" else 1
    inputs = [forms.form(x, order) if k < activations else forms.plain(x) for k, x in enumerate(node.inputs)]
    new = Node.make(node.op, inputs, node.attrs._replace(channels_last=True), node.place)
    return (order if activations == 1 else identity(len(order))), new


def _reduction(forms: _Forms, node: Node) -> tuple[Order, Node] | None:
    (x,) = node.inputs
    order, axes = forms.home(x), node.attrs.axes
    places = tuple(i for i, axis in enumerate(order) if axis in axes)
    if node.op.name in ("argmax", "argmin") and _arranged(order, places) != tuple(sorted(axes)):
        return None  # its indices count along the reduced axes
    kept = [axis for axis in order if axis not in axes]
    rank = {axis: i for i, axis in enumerate(sorted(kept))}
    new = Node.make(node.op, (forms.form(x, order),), node.attrs._replace(axes=places), node.place)
    return tuple(rank[axis] for axis in kept), new


def _permute(forms: _Forms, node: Node) -> tuple[Order, Node]:
    """The same value under other axis numbers."""
    (x,) = node.inputs
    home, dims = forms.home(x), node.attrs.dims
    return tuple(dims.index(axis) for axis in home), forms.form(x, home)


def _reshape(forms: _Forms, node: Node) -> tuple[Order, Node] | None:
    """A reshape that splits and joins axes which lie together in the operand's order too."""
    (x,) = node.inputs
    home = forms.home(x)
    before, after = ([i for i, d in enumerate(n.shape) if d != 1] for n in (x, node))
    groups = reshape_groups(_arranged(x.shape, tuple(before)), _arranged(node.shape, tuple(after)))
    if groups is None:
        return None
    order: list[int] = []
    seen = [axis for axis in home if axis in before]
    by_first = {before[old[0]]: ([before[i] for i in old], [after[j] for j in new]) for old, new in groups if old}
    while seen:
        old, new = by_first.get(seen[0], ([], []))
        if not old or seen[: len(old)] != old:
            return None
        order += new
        del seen[: len(old)]
    for axis in range(len(node.shape)):
        if axis not in after:  # an axis of extent 1 stays behind its neighbour
            order.insert(order.index(axis - 1) + 1 if axis else 0, axis)
    new_form = Builder(node.place).reshape(forms.form(x, home), shape=_arranged(node.shape, tuple(order)))
    return tuple(order), new_form


def _slice(forms: _Forms, node: Node) -> tuple[Order, Node]:
    order, at = forms.home(node.inputs[0]), node.attrs
    moved = {name: _arranged(getattr(at, name), order) for name in ("start", "size", "step")}
    return _alike(forms, node, moved, order)


def _pad(forms: _Forms, node: Node) -> tuple[Order, Node]:
    order = forms.home(node.inputs[0])
    return _alike(forms, node, {"pads": _arranged(node.attrs.pads, order)}, order)


def _flip(forms: _Forms, node: Node) -> tuple[Order, Node]:
    order = forms.home(node.inputs[0])
    axes = tuple(sorted(order.index(axis) for axis in node.attrs.axes))
    return _alike(forms, node, {"axes": axes}, order)


def _concat(forms: _Forms, node: Node) -> tuple[Order, Node]:
    order = forms.shared(node)
    return _alike(forms, node, {"axis": order.index(node.attrs.axis)}, order)


def _window(forms: _Forms, node: Node) -> tuple[Order, Node] | None:
    """Windows over the same axes, further in front: the axes behind them get windows of one element."""
    order, at = forms.shared(node), node.attrs
    lead = len(order) - len(at.window)
    moving = [i for i, axis in enumerate(order) if axis >= lead]
    if _arranged(order, tuple(moving)) != tuple(sorted(order[i] for i in moving)):
        return None  # taps are counted, and summed, in the order of the axes

    def entries(values: Sequence[Any], other: Any) -> tuple[Any, ...]:
        return tuple(values[axis - lead] if axis >= lead else other for axis in order[moving[0]:])

    attrs = {name: entries(getattr(at, name), 1) for name in ("window", "stride", "dilation")}
    attrs["pads"] = entries(at.pads, (0, 0))
    if "spatial" in at._fields:
        attrs["spatial"] = tuple(at.spatial[axis - lead] if axis >= lead else node.shape[axis]
                                 for axis in order[moving[0]:])
    return _alike(forms, node, attrs, order)


_RULES: dict[str, Callable[[_Forms, Node], tuple[Order, Node] | None]] = {
    "permute": _permute, "reshape": _reshape, "slice": _slice, "pad": _pad, "flip": _flip, "concat": _concat,
    **dict.fromkeys(("window_max", "window_argmax", "window_take", "window_sum", "window_spread", "window_put"),
                    _window),
}  # fmt: skip
