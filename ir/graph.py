"""Graphs: typed, named inputs with roles, and outputs that say which input they replace."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .dims import Dim, names
from .node import Node, postorder
from .types import TensorType

ROLES = ("parameter", "state", "batch", "hyper", "constant")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One graph input.

    Attributes:
        role: `parameter`, `state` (optimizer state, buffers, RNG counter), `batch`, `hyper` (a number read at each
            call; the text prints its default) or `constant`.
        default: value of a hyper-parameter when none is given (a Python number), else None.
    """

    name: str
    type: TensorType
    role: str = "batch"
    default: float | int | bool | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """A pure function. Its inputs are the nodes `input{index=i}` wherever they occur below the outputs.

    Attributes:
        outputs: nodes with a single result.
        donations: for each output the index of the input whose buffer it replaces, or None.
        sizes: named sizes that no input's dims bind (slots such as a slice start), with a default.
    """

    name: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[Node, ...]
    output_names: tuple[str, ...] = ()
    donations: tuple[int | None, ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.output_names:
            object.__setattr__(self, "output_names", tuple(f"out{i}" for i in range(len(self.outputs))))
        if not self.donations:
            object.__setattr__(self, "donations", (None,) * len(self.outputs))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes below the outputs, inputs before users, in a fixed order."""
        return tuple(postorder(self.outputs))

    def input_node(self, index: int) -> Node:
        """The node that stands for input `index`."""
        return input_node(index, self.inputs[index].type)

    @cached_property
    def size_names(self) -> tuple[str, ...]:
        """Named sizes in the order they are bound: by input dims, then the free ones."""
        found: dict[str, None] = {}
        for spec in self.inputs:
            for d in spec.type.shape:
                found.update(dict.fromkeys(names(d)))
        found.update(dict.fromkeys(name for name, _ in self.sizes))
        return tuple(found)

    @cached_property
    def digest(self) -> bytes:
        """16 bytes equal exactly for structurally equal graphs; names and places of nodes are ignored."""
        h = hashlib.blake2b(digest_size=16)
        for spec in self.inputs:
            h.update(f"{spec.type}|{spec.role}|{spec.default!r};".encode())
        for out, donated in zip(self.outputs, self.donations, strict=True):
            h.update(out.digest + f"|{donated};".encode())
        h.update(repr(self.sizes).encode())
        return h.digest()

    @cached_property
    def users(self) -> Mapping[Node, tuple[Node, ...]]:
        """For every node the nodes that read it, in graph order."""
        found: dict[Node, list[Node]] = {n: [] for n in self.nodes}
        for n in self.nodes:
            for i in dict.fromkeys(n.inputs):
                found[i].append(n)
        return {n: tuple(u) for n, u in found.items()}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Graph)
            and self.name == other.name
            and self.output_names == other.output_names
            and [i.name for i in self.inputs] == [i.name for i in other.inputs]
            and self.digest == other.digest
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    def with_outputs(self, outputs: Sequence[Node]) -> Graph:
        """The same signature over other output nodes."""
        return replace(self, outputs=tuple(outputs))

    def rewrite(self, visit: Callable[[Node, tuple[Node, ...]], Node | None]) -> Graph:
        """A graph with every node mapped once, inputs first.

        Args:
            visit: called with the old node and its new inputs; returns the replacement, or None for
                `node.with_inputs(new inputs)`.
        """
        mapped: dict[Node, Node] = {}
        for node in self.nodes:
            inputs = tuple(mapped[i] for i in node.inputs)
            new = visit(node, inputs)
            mapped[node] = node.with_inputs(inputs) if new is None else new
        return self.with_outputs([mapped[o] for o in self.outputs])

    def __str__(self) -> str:
        from .text import print_graph

        return print_graph(self)


def input_node(index: int, type: TensorType) -> Node:
    """The node of graph input number `index`."""
    return Node.make("input", (), {"index": index, "type": type})


def bodies(node: Node) -> Iterator[Graph]:
    """The body graphs of a node's attributes."""
    for schema, value in zip(node.op.attrs, node.attrs, strict=True):
        if schema.kind == "graph":
            yield value


def all_nodes(graph: Graph) -> Iterator[Node]:
    """Every node of the graph and of the graphs inside it."""
    for node in graph.nodes:
        yield node
        for body in bodies(node):
            yield from all_nodes(body)


def bind_sizes(
    specs: Sequence[InputSpec], shapes: Sequence[Sequence[int]], free: Sequence[tuple[str, int]] = ()
) -> dict[str, int]:
    """Named sizes that make the specs' dims equal the given shapes.

    A name is bound by the first dim that is the bare name (or `k*name`); everything else is checked by the caller.
    """
    bound: dict[str, Any] = dict(free)
    for spec, shape in zip(specs, shapes, strict=True):
        for d, extent in zip(spec.type.shape, shape, strict=True):
            if not isinstance(d, int) and len(d.terms) == 1:
                ((mono, coeff),) = d.terms
                if len(mono) == 1 and isinstance(mono[0], str) and mono[0] not in bound:
                    bound[mono[0]] = int(extent) // coeff
    return bound


__all__ = ["ROLES", "Dim", "Graph", "InputSpec", "all_nodes", "bind_sizes", "bodies", "input_node"]
