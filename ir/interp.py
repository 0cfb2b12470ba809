"""The reference interpreter: any graph, one operator at a time, in NumPy. The oracle of all differential tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .dims import Dim
from .dims import evaluate as evaluate_dim
from .dtypes import DType
from .errors import DTypeError, ShapeError, TracemillError, VerifyError
from .graph import Graph, bind_sizes
from .node import Node
from .opdef import Kind
from .types import TensorType

Array = np.ndarray[Any, Any]

# Kinds whose arithmetic on sixteen-bit floats is done in float32.
_ARITHMETIC = frozenset({Kind.ELEMENTWISE, Kind.REDUCTION, Kind.CONTRACTION, Kind.OPAQUE, Kind.SCATTER})


def evaluate(graph: Graph, inputs: Sequence[Any], sizes: Mapping[str, int] | None = None) -> list[Array]:
    """The outputs of a graph.

    Args:
        inputs: one array per graph input; None takes a hyper-parameter's default.
        sizes: values of the free sizes (`Graph.sizes`), where they differ from the defaults.

    Raises:
        ShapeError, DTypeError: inputs that do not fit; IndexRangeError: an index out of range while running.
    """
    values: dict[Node, Any] = {}
    for node, value in trace(graph, inputs, sizes):
        values[node] = value
    return [values[o] for o in graph.outputs]


def trace(
    graph: Graph, inputs: Sequence[Any], sizes: Mapping[str, int] | None = None
) -> Iterator[tuple[Node, Any]]:
    """Every node with its value (a tuple for several results), in graph order: to find where a number goes wrong."""
    arrays = [_fill(graph, i, x) for i, x in enumerate(inputs)]
    if len(arrays) != len(graph.inputs):
        raise ShapeError(f"graph {graph.name} takes {len(graph.inputs)} inputs, got {len(arrays)}")
    free = [(name, (sizes or {}).get(name, default)) for name, default in graph.sizes]
    bound = {**bind_sizes(graph.inputs, [a.shape for a in arrays], free), **(sizes or {})}
    _check_inputs(graph, arrays, bound)
    yield from _run(graph, arrays, bound)


def exact_only(graph: Graph) -> bool:
    """True if every operator is exactly rounded, so that the interpreter gives a kernel's very bits."""
    return all(n.op.exact or n.op.name == "input" for n in graph.nodes)


def _fill(graph: Graph, i: int, x: Any) -> Array:
    spec = graph.inputs[i] if i < len(graph.inputs) else None
    if x is None and spec is not None and spec.default is not None:
        return np.asarray(spec.default, dtype=spec.type.dtype.numpy)
    if x is None:
        raise ShapeError(f"graph {graph.name}: input %{spec.name if spec else i} has no value and no default")
    return np.asarray(x)


def _check_inputs(graph: Graph, arrays: Sequence[Array], sizes: Mapping[str, int]) -> None:
    for spec, a in zip(graph.inputs, arrays, strict=True):
        if a.dtype != spec.type.dtype.numpy:
            raise DTypeError(f"input %{spec.name} is {spec.type.dtype.long_name}, got {a.dtype}")
        if len(a.shape) != spec.type.rank or a.shape != _shape(spec.type, sizes):
            raise ShapeError(f"input %{spec.name} has type {spec.type}, got shape {list(a.shape)}")


def _shape(t: TensorType, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(_dim(d, sizes) for d in t.shape)


def _dim(d: Dim, sizes: Mapping[str, int]) -> int:
    try:
        return evaluate_dim(d, sizes)
    except KeyError as missing:
        raise VerifyError(f"size {missing} is not bound by any input") from None


def _run(graph: Graph, inputs: Sequence[Array], sizes: Mapping[str, int]) -> Iterator[tuple[Node, Any]]:
    values: dict[Node, Any] = {}
    for node in graph.nodes:
        if node.op.name == "input":
            value: Any = inputs[node.attrs.index]
        else:
            try:
                value = apply_node(node, [values[i] for i in node.inputs], sizes)
            except TracemillError as error:
                error.location = error.location or node.place.location
                raise
        values[node] = value
        yield node, value


def apply_node(node: Node, args: list[Any], sizes: Mapping[str, int]) -> Any:
    """The value of one node on its operands' values: an array, or a tuple for several results."""
    body = _BODIES.get(node.op.name)
    if body is not None:
        return body(node, args, sizes)
    if node.op.reference is None:
        raise VerifyError(
            f"{node.op.name} has no value of its own",
            hint="run the passes up to phase `optimizer` first (tracemill opt --passes autodiff,optimizer)",
        )
    attrs = _evaluate_attrs(node, sizes)
    types = tuple(t.with_shape(_shape(t, sizes)) for t in node.result_types)
    if node.op.kind in _ARITHMETIC and node.op.name not in ("cast", "bitcast"):
        args = [_widen(a) for a in args]
    if isinstance(node.type, TensorType):
        return _finish(node.op.reference(attrs, types[0], *args), types[0])
    return tuple(_finish(v, t) for v, t in zip(node.op.reference(attrs, types, *args), types, strict=True))


def _evaluate_attrs(node: Node, sizes: Mapping[str, int]) -> Any:
    def value(kind: str, v: Any) -> Any:
        if v is None:
            return None
        match kind:
            case "dim":
                return _dim(v, sizes)
            case "dims":
                return tuple(_dim(d, sizes) for d in v)
            case "pads":
                return tuple(tuple(_dim(d, sizes) for d in p) for p in v)
        return v

    return node.op.make_attrs(*(value(s.kind, v) for s, v in zip(node.op.attrs, node.attrs, strict=True)))


def _narrow(dtype: np.dtype[Any]) -> bool:
    return dtype.name in ("float16", "bfloat16")


def _widen(a: Array) -> Array:
    return a.astype(np.float32) if _narrow(a.dtype) else a


def _finish(value: Any, t: TensorType) -> Array:
    """The value as stored: of the inferred dtype (sixteen-bit floats rounded here) and shape."""
    out = np.asarray(value)
    if out.shape != t.shape:
        raise VerifyError(f"a reference returned shape {out.shape} where {t} was inferred")
    if out.dtype != t.dtype.numpy:
        with np.errstate(all="ignore"):
            out = out.astype(t.dtype.numpy)
    return out


# -- operators with bodies ------------------------------------------------------------------------------------------


def _call(graph: Graph, args: Sequence[Array], sizes: Mapping[str, int]) -> list[Array]:
    values = dict(_run(graph, args, sizes))
    return [values[o] for o in graph.outputs]


def _fused(node: Node, args: list[Any], sizes: Mapping[str, int]) -> Any:
    out = _call(node.attrs.body, args, sizes)
    return out[0] if isinstance(node.type, TensorType) else tuple(out)


def _scan(node: Node, args: list[Any], sizes: Mapping[str, int]) -> Any:
    a = node.attrs
    carry, xs, consts = args[: a.n_carry], args[a.n_carry : a.n_carry + a.n_xs], args[a.n_carry + a.n_xs :]
    length = _dim(a.length, sizes)
    stacks = [np.zeros(_shape(t, sizes), t.dtype.numpy) for t in node.result_types[a.n_carry :]]
    for i in reversed(range(length)) if a.reverse else range(length):
        out = _call(a.body, [*carry, *(x[i] for x in xs), *consts], sizes)
        carry = out[: a.n_carry]
        for stack, y in zip(stacks, out[a.n_carry :], strict=True):
            stack[i] = y
    return (*carry, *stacks)


def _cond(node: Node, args: list[Any], sizes: Mapping[str, int]) -> Any:
    return tuple(_call(node.attrs.then if args[0] else node.attrs.other, args[1:], sizes))


def _while(node: Node, args: list[Any], sizes: Mapping[str, int]) -> Any:
    a = node.attrs
    carry, consts = args[: a.n_carry], args[a.n_carry :]
    while _call(a.cond, [*carry, *consts], sizes)[0]:
        carry = _call(a.body, [*carry, *consts], sizes)
    return tuple(carry)


def _custom_vjp(node: Node, args: list[Any], sizes: Mapping[str, int]) -> Any:
    return tuple(_call(node.attrs.forward, args, sizes))


_BODIES = {"fused": _fused, "scan": _scan, "cond": _cond, "while": _while, "custom_vjp": _custom_vjp}

__all__ = ["DType", "apply_node", "evaluate", "exact_only", "trace"]
