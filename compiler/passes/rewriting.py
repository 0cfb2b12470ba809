"""Tools that passes share: rewriting with results that split into several nodes, body graphs, inlining."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ...ir.graph import Graph
from ...ir.node import Node, postorder
from ...ir.types import TupleType

# What a node becomes: another node; for one with several results also one node per result; None for "the
# same".
Replacement = Node | tuple[Node, ...] | None
Visit = Callable[[Node, tuple[Node, ...]], Replacement]


def has_bodies(node: Node) -> bool:
    """True for control flow, custom gradients and fused nodes."""
    return any(schema.kind == "graph" for schema in node.op.attrs)


def map_bodies(node: Node, inputs: tuple[Node, ...], transform: Callable[[Graph], Graph]) -> Node:
    """The node on `inputs`, every body graph transformed."""
    attrs = tuple(transform(value) if schema.kind == "graph" else value
                  for schema, value in zip(node.op.attrs, node.attrs, strict=True))
    if attrs == tuple(node.attrs):
        return node.with_inputs(inputs)
    return Node.make(node.op, inputs, node.op.make_attrs(*attrs), node.place)


def rewrite(graph: Graph, visit: Visit, *, inside: bool = True) -> Graph:
    """The graph with every node replaced once, inputs first.

    Unlike `Graph.rewrite` a node with several results may become separate nodes, and body graphs are
    rewritten too.

    Args:
        visit: called with the old node (its bodies already rewritten) and its new inputs.
        inside: rewrite body graphs, before the node that holds them.
    """
    outputs = rewrite_nodes(graph.outputs, visit, inside=inside)
    return graph if outputs == graph.outputs else graph.with_outputs(outputs)


def rewrite_nodes(roots: Sequence[Node], visit: Visit, *, inside: bool = True) -> tuple[Node, ...]:
    """`rewrite` for the nodes below `roots`."""
    mapped: dict[Node, Node] = {}
    split: dict[Node, tuple[Node, ...]] = {}
    for node in postorder(roots):
        if node.op.name == "result" and node.inputs[0] in split:
            mapped[node] = split[node.inputs[0]][node.attrs.index]
            continue
        inputs = tuple(mapped[i] for i in node.inputs)
        current = node
        if inside and has_bodies(node):
            current = map_bodies(node, node.inputs, lambda body: rewrite(body, visit))
        new = visit(current, inputs)
        if isinstance(new, tuple) and isinstance(node.type, TupleType):
            split[node] = new
            mapped[node] = node  # only `result` nodes read it, and they are redirected
        elif isinstance(new, tuple):
            mapped[node], = new
        else:
            mapped[node] = current.with_inputs(inputs) if new is None else new
    return tuple(mapped[r] for r in roots)


def substitute(roots: Sequence[Node], replace: Mapping[Node, Node]) -> tuple[Node, ...]:
    """`roots` with some of the nodes below them replaced; replacements are not searched again."""
    mapped: dict[Node, Node] = {}
    for node in postorder(roots, skip=replace.__contains__):
        mapped[node] = node.with_inputs(replace[i] if i in replace else mapped[i] for i in node.inputs)
    return tuple(replace[r] if r in replace else mapped[r] for r in roots)


def inline(graph: Graph, args: Sequence[Node]) -> tuple[Node, ...]:
    """The outputs of `graph` with `args` in the place of its inputs."""
    inputs = {n: args[n.attrs.index] for n in graph.nodes if n.op.name == "input"}
    return substitute(graph.outputs, inputs)


def depends_on(roots: Sequence[Node], sources: Iterable[Node], through: Callable[[Node], bool]) -> set[Node]:
    """The `sources`, and nodes below `roots` that read one by a path on which `through` holds everywhere."""
    found = set(sources)
    for node in postorder(roots):
        if node not in found and any(i in found for i in node.inputs) and through(node):
            found.add(node)
    return found
