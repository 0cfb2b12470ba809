"""The verifier: re-runs type inference and checks what types alone do not say. Runs after every pass in tests."""

from __future__ import annotations

from collections.abc import Iterator

from .dims import Dim, names
from .errors import TracemillError, VerifyError
from .graph import ROLES, Graph
from .node import Node
from .types import TensorType


def verify(graph: Graph) -> None:
    """Raises VerifyError, naming node and place, if `graph` breaks a rule of the IR."""
    _signature(graph)
    bound = {name for s in graph.inputs for d in s.type.shape for name in names(d)} | {
        n for n, _ in graph.sizes
    }
    _nodes(graph, bound)
    _outputs(graph)


def _signature(graph: Graph) -> None:
    seen: set[str] = set()
    for spec in graph.inputs:
        if spec.name in seen:
            raise VerifyError(f"two inputs are named %{spec.name}")
        seen.add(spec.name)
        if spec.role not in ROLES:
            raise VerifyError(f"input %{spec.name} has the unknown role {spec.role}")
        if spec.default is not None and spec.type.shape:
            raise VerifyError(f"input %{spec.name} has a default but is not a scalar")


def _nodes(graph: Graph, bound: set[str]) -> None:
    for node in graph.nodes:
        if node.op.name == "input":
            _input(graph, node)
            continue
        try:
            again = node.op.infer(node.attrs, *(i.type for i in node.inputs))
        except TracemillError as error:
            raise VerifyError(f"{node.op.name}: {error.message}", location=node.place.location) from None
        if again != node.type:
            raise VerifyError(
                f"{node.op.name} is typed {node.type}, inference says {again}", location=node.place.location
            )
        for d in _dims(node):
            free = set(names(d)) - bound
            if free:
                raise VerifyError(
                    f"{node.op.name}: size {min(free)} is bound by no input", location=node.place.location
                )
        for schema, value in zip(node.op.attrs, node.attrs, strict=True):
            if schema.kind == "graph" and value is not None:
                _signature(value)
                _nodes(value, bound)
                _outputs(value)


def _input(graph: Graph, node: Node) -> None:
    index = node.attrs.index
    if index >= len(graph.inputs):
        raise VerifyError(f"input number {index} of a graph with {len(graph.inputs)} inputs")
    if node.type != graph.inputs[index].type:
        raise VerifyError(
            f"input %{graph.inputs[index].name} is {graph.inputs[index].type}, a node reads it as {node.type}"
        )


def _dims(node: Node) -> Iterator[Dim]:
    for t in node.result_types:
        yield from t.shape
    for schema, value in zip(node.op.attrs, node.attrs, strict=True):
        if schema.kind == "dim":
            yield value
        elif schema.kind == "dims":
            yield from value
        elif schema.kind == "pads":
            for pair in value:
                yield from pair


def _outputs(graph: Graph) -> None:
    if not len(graph.outputs) == len(graph.output_names) == len(graph.donations):
        raise VerifyError("outputs, output names and donations differ in number")
    if len(set(graph.output_names)) != len(graph.output_names):
        raise VerifyError("two outputs have one name")
    donated: set[int] = set()
    for name, node, index in zip(graph.output_names, graph.outputs, graph.donations, strict=True):
        if not isinstance(node.type, TensorType):
            raise VerifyError(f"output {name} is a tuple", location=node.place.location)
        if index is None:
            continue
        if not 0 <= index < len(graph.inputs):
            raise VerifyError(f"output {name} replaces input number {index}, which does not exist")
        if index in donated:
            raise VerifyError(f"input %{graph.inputs[index].name} is replaced by two outputs")
        donated.add(index)
        if graph.inputs[index].type != node.type:
            raise VerifyError(
                f"output {name} is {node.type}, it cannot replace %{graph.inputs[index].name} of type "
                f"{graph.inputs[index].type}"
            )
