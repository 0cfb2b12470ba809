"""Where the values of a group lie, followed forward from nodes whose coordinates are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...ir.dims import Dim
from ...ir.node import Node
from ...ir.opdef import Kind
from .index_maps import Vector, flatten, split
from .sizes import GroupSizes, reshape_groups


def forward(nodes: Iterable[Node], known: Mapping[Node, Vector], sizes: GroupSizes,
            ranges: Mapping[str, Dim]) -> dict[Node, Vector]:
    """Coordinates of the nodes that follow from the `known` ones by elementwise operators, permutes and reshapes."""
    found = dict(known)
    for node in nodes:
        if node in found:
            continue
        if node.op.name == "permute" and node.inputs[0] in found:
            source = found[node.inputs[0]]
            found[node] = tuple(source[d] for d in node.attrs.dims)
        elif node.op.name == "reshape" and node.inputs[0] in found:
            found[node] = _reshaped(node, found[node.inputs[0]], sizes, ranges)
        elif node.op.kind is Kind.ELEMENTWISE:
            operand = next((i for i in node.inputs if i in found and i.tensor_type.rank), None)
            if operand is not None:
                found[node] = found[operand]
    return found


def _reshaped(node: Node, source: Vector, sizes: GroupSizes, ranges: Mapping[str, Dim]) -> Vector:
    (x,) = node.inputs
    before, after = sizes.shape(x), sizes.shape(node)
    index: list[Dim] = [0] * len(after)
    for ins, outs in reshape_groups(x.shape, node.shape):
        position = flatten([source[i] for i in ins], [before[i] for i in ins])
        for o, at in zip(outs, split(position, [after[o] for o in outs], ranges), strict=True):
            index[o] = at
    return tuple(index)
