"""`autograd.Function`: a forward with a backward of the user's own, as one `custom_vjp` operator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ...ir.build import Builder
from ...ir.errors import AutogradError, ShapeError
from ...ir.node import Node
from .autograd import no_grad
from .bodies import constants_of, graph_over, placeholders, run_restartable, standing_for, trace_body
from .nodes import cast
from .place import here
from .pytree import flatten, unflatten
from .tensor import Tensor
from .trace import TRACE, begin, cut, node_of, record, wrap


class FunctionCtx:
    """What forward leaves for backward.

    Attributes:
        needs_input_grad: for each argument, whether a gradient flows to it.
    """

    def __init__(self) -> None:
        self._saved: tuple[Tensor | None, ...] = ()
        self._plain: tuple[Tensor, ...] = ()
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `saved_tensors` in backward."""
        self._saved = tensors

    save_for_forward = save_for_backward

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The tensors given to `save_for_backward`."""
        return self._saved

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """These results have no gradient."""
        self._plain = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Declares in-place writes (they are followed without it)."""

    def set_materialize_grads(self, value: bool) -> None:
        """Gradients are always tensors (zeros where nothing flows)."""


class Function:
    """Base class: subclasses define static methods `forward(ctx, *args)` and `backward(ctx, *grads)`, or
    `forward(*args)` with `setup_context(ctx, inputs, output)`; use by `Name.apply(*args)`.

    Both are recorded when `apply` is called; neither may need a tensor's value.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise TypeError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise TypeError("You must implement either the backward or vjp method for your custom autograd.Function to use "
                        "it with backward mode AD.")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward on the arguments, with this class's backward as its derivative."""
        tracked = TRACE.grad and any(isinstance(a, Tensor) and a._cell.tracked for a in args)
        if not tracked:
            with no_grad():
                return _forward(cls, FunctionCtx(), args)
        return run_restartable(lambda: _apply(cls, args))


def _forward(cls: type[Function], ctx: FunctionCtx, args: Sequence[Any]) -> Any:
    setup = getattr(cls, "setup_context", None)
    if setup is None:
        return cls.forward(ctx, *args)
    output = cls.forward(*args)
    setup(ctx, tuple(args), output)
    return output


def _custom(b: Builder, *args: Any) -> tuple[Node, ...]:
    *nodes, forward, backward = args
    made = b.custom_vjp(*nodes, forward=forward, backward=backward)
    return b.results(made)


class _Forward:
    """The user's forward as a body: returns its results and everything the context keeps, as flat lists.

    Attributes:
        structure: of the results.
        kept: structure of what the context keeps.
        plain: for each result, whether it was marked as not differentiable.
    """

    def __init__(self, cls: type[Function], ctx: FunctionCtx, args: tuple[Any, ...]) -> None:
        self.cls, self.ctx, self.args = cls, ctx, args
        self.structure: Any = None
        self.kept: Any = None
        self.plain: list[bool] = []

    def __call__(self, *tensors: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        it = iter(tensors)
        with no_grad():
            result = _forward(self.cls, self.ctx, [next(it) if isinstance(a, Tensor) else a for a in self.args])
        results: list[Tensor] = []
        kept: list[Tensor] = []
        self.structure = flatten(result, results)
        self.kept = flatten(_state(self.ctx), kept)
        self.plain = [any(t is p for p in self.ctx._plain) or not t._dtype.is_float for t in results]
        self.ctx._plain = ()
        return results, kept


def _state(ctx: FunctionCtx) -> dict[str, Any]:
    """Everything in the context that may hold tensors."""
    return {k: v for k, v in ctx.__dict__.items() if k != "_plain" and isinstance(v, (Tensor, tuple, list, dict))}


def _apply(cls: type[Function], args: tuple[Any, ...]) -> Any:
    given = [a for a in args if isinstance(a, Tensor)]
    begin(given)
    nodes = [node_of(t) for t in given]
    ctx = FunctionCtx()
    ctx.needs_input_grad = tuple([isinstance(a, Tensor) and a._cell.tracked for a in args])
    inside = placeholders([n.tensor_type for n in nodes])
    forward = _Forward(cls, ctx, args)
    body = trace_body(f"{cls.__name__}.forward", forward, tuple([standing_for(n, False) for n in inside]), inside)
    count = len(forward.plain)
    results, kept = body.outputs[:count], body.outputs[count:]
    outs = [*results, *dict.fromkeys([n for n in kept if n not in results and n not in inside])]
    later, returned = _backward_body(forward, inside, outs, kept)
    fixed = constants_of([(inside, outs), (later, returned)])
    n, b = len(inside), Builder(here(2))
    names = [*[f"x{i}" for i in range(n)], *[f"const{i}" for i in range(len(fixed))]]
    names_later = [*names, *[f"y{i}" for i in range(len(outs))], *[f"g{i}" for i in range(len(outs))]]
    forward_graph = graph_over([*inside, *fixed], names, outs)
    zeros = [_zeros(b, c) for c in fixed]
    backward_graph = graph_over([*later[:n], *fixed, *later[n:]], names_later, [*returned, *zeros])
    made = record(_custom, (*nodes, *fixed), (forward_graph, backward_graph), True, 4)
    tensors = [wrap(cut(m) if plain else m, not plain) for m, plain in zip(made[:count], forward.plain, strict=True)]
    return unflatten(forward.structure, iter(tensors))


def _zeros(b: Builder, like: Node) -> Node:
    return b.full(False if like.dtype.is_bool else 0, like.dtype, like.shape)


def _backward_body(forward: _Forward, inside: list[Node], outs: list[Node],
                   kept: list[Node]) -> tuple[list[Node], list[Node]]:
    """Trace the user's backward over placeholders for operands, results and cotangents."""
    cls, ctx, count = forward.cls, forward.ctx, len(forward.plain)
    TRACE.depth += 1
    nodes = placeholders([n.tensor_type for n in (*inside, *outs, *outs)])
    TRACE.depth -= 1
    n = len(inside)
    stands = dict(zip([*outs, *inside], [*nodes[n:n + len(outs)], *nodes[:n]], strict=True))
    present: list[bool] = []

    def backward(*cotangents: Tensor) -> list[Tensor]:
        ctx.__dict__.update(unflatten(forward.kept, iter([standing_for(stands.get(k, k), True) for k in kept])))
        made = cls.backward(ctx, *cotangents)
        found = _operand_gradients(cls, forward.args, made if isinstance(made, tuple) else (made,))
        present.extend(g is not None for g in found)
        return [g for g in found if g is not None]

    cotangents = [standing_for(c, True) for c in nodes[n + len(outs):n + len(outs) + count]]
    body = trace_body(f"{cls.__name__}.backward", backward, tuple(cotangents), nodes)
    it, b = iter(body.outputs), Builder(here(3))
    returned = []
    for operand, there in zip(inside, present, strict=True):
        g = next(it) if there else _zeros(b, operand)
        if g.shape != operand.shape:
            raise ShapeError(f"Function {cls.__name__}Backward returned an invalid gradient: got {list(g.shape)} but "
                             f"expected shape compatible with {list(operand.shape)}", location=here(4).location)
        returned.append(cast(b, g, operand.dtype))
    return nodes, returned


def _operand_gradients(cls: type[Function], args: tuple[Any, ...], made: tuple[Any, ...]) -> tuple[Any, ...]:
    """The gradients of the tensor arguments, in their order."""
    if len(made) > len(args) and all(m is None for m in made[len(args):]):
        made = made[:len(args)]
    if len(made) != len(args):
        raise AutogradError(f"function {cls.__name__}Backward returned an incorrect number of gradients (expected "
                            f"{len(args)}, got {len(made)})", location=here(4).location)
    return tuple([m for a, m in zip(args, made, strict=True) if isinstance(a, Tensor)])


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A backward whose result is not differentiable again."""

    @functools.wraps(fn)
    def backward(ctx: Any, *grads: Any) -> Any:
        with no_grad():
            return fn(ctx, *grads)

    return backward

