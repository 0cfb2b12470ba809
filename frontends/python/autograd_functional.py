"""`autograd.functional`: Jacobians, Hessians and products with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .autograd import enable_grad, grad
from .creation import zeros_like
from .ops_join import stack
from .tensor import Tensor

Many = Any  # a tensor, or a tuple of tensors


def _as_tuple(x: Many) -> tuple[Tensor, ...]:
    return (x,) if isinstance(x, Tensor) else tuple(x)


def _leaves(inputs: tuple[Tensor, ...], create_graph: bool) -> tuple[Tensor, ...]:
    if create_graph:
        return tuple([x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in inputs])
    return tuple([x.detach().requires_grad_() for x in inputs])


def _like(results: Sequence[Any], given: Many) -> Any:
    return results[0] if isinstance(given, Tensor) else tuple(results)


@enable_grad()
def jacobian(func: Callable[..., Many], inputs: Many, create_graph: bool = False, strict: bool = False,
             vectorize: bool = False, strategy: str = "reverse-mode") -> Any:
    """The derivatives of all outputs with respect to all inputs: for each pair a tensor of both shapes joined."""
    xs = _leaves(_as_tuple(inputs), create_graph)
    outputs = func(*xs)
    rows = []
    for y in _as_tuple(outputs):
        flat = y.reshape(-1)
        parts: list[list[Tensor]] = [[] for _ in xs]
        for i in range(flat.numel()):
            if not y.requires_grad:
                found: tuple[Tensor | None, ...] = (None,) * len(xs)
            else:
                found = grad(flat[i], xs, retain_graph=True, create_graph=create_graph, allow_unused=True)
            for part, g, x in zip(parts, found, xs, strict=True):
                part.append(zeros_like(x.detach()) if g is None else g)
        rows.append([stack(part).reshape((*y._shape, *x._shape)) for part, x in zip(parts, xs, strict=True)])
    return _like([_like(row, inputs) for row in rows], outputs)


def hessian(func: Callable[..., Tensor], inputs: Many, create_graph: bool = False, strict: bool = False,
            vectorize: bool = False, outer_jacobian_strategy: str = "reverse-mode") -> Any:
    """The second derivatives of a scalar function."""

    def first(*xs: Tensor) -> Any:
        return _like(_as_tuple(jacobian(func, xs if len(xs) > 1 else xs[0], create_graph=True)), inputs)

    return jacobian(first, inputs, create_graph)


@enable_grad()
def vjp(func: Callable[..., Many], inputs: Many, v: Many = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """The outputs, and the product of `v` with the Jacobian."""
    xs = _leaves(_as_tuple(inputs), create_graph)
    outputs = func(*xs)
    found = grad(outputs, xs, None if v is None else _as_tuple(v), create_graph=create_graph, materialize_grads=True)
    return outputs if create_graph else _detached(outputs), _like(found, inputs)


@enable_grad()
def jvp(func: Callable[..., Many], inputs: Many, v: Many = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """The outputs, and the product of the Jacobian with `v` (by differentiating a vjp with respect to its vector)."""
    xs = _leaves(_as_tuple(inputs), True)
    outputs = func(*xs)
    ys = _as_tuple(outputs)
    dummies = tuple([zeros_like(y.detach()).requires_grad_() for y in ys])
    back = grad(ys, xs, dummies, create_graph=True, materialize_grads=True)
    vectors = tuple([zeros_like(x.detach()) + 1 for x in xs]) if v is None else _as_tuple(v)
    found = grad(back, dummies, vectors, create_graph=create_graph, materialize_grads=True)
    return outputs if create_graph else _detached(outputs), _like(found, outputs)


@enable_grad()
def hvp(func: Callable[..., Tensor], inputs: Many, v: Many = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """The output of a scalar function, and the product of its Hessian with `v`."""
    xs = _leaves(_as_tuple(inputs), create_graph)
    output = func(*xs)
    first = grad(output, xs, create_graph=True, materialize_grads=True)
    vectors = tuple([zeros_like(x.detach()) + 1 for x in xs]) if v is None else _as_tuple(v)
    live = [(g, u) for g, u in zip(first, vectors, strict=True) if g is not None and g.requires_grad]
    found = grad([g for g, _ in live], xs, [u for _, u in live], create_graph=create_graph, materialize_grads=True)
    return output if create_graph else output.detach(), _like(found, inputs)


def _detached(outputs: Many) -> Any:
    return _like([y.detach() for y in _as_tuple(outputs)], outputs)
