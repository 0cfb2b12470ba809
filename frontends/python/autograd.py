"""Gradients: modes, `backward`, `grad`. A backward pass is one symbolic `gradient` node of the pending trace."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from ...ir.build import Builder
from ...ir.errors import AutogradError, ShapeError
from ...ir.node import Node, postorder
from . import hooks
from .place import here
from .registry import METHODS, function, method
from .tensor import Consumed, Tensor
from .trace import TRACE, assign, begin, cut, node_of, wrap

F = TypeVar("F", bound=Callable[..., Any])


# --- modes ------------------------------------------------------------------------------------------------------------
class _Mode:
    """Base of the gradient modes: a context manager, and a decorator of functions and generators."""

    _value = True

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(TRACE.grad)
        TRACE.grad = self._value

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        TRACE.grad = self._before.pop()

    def __call__(self, function: F) -> F:
        import inspect

        if inspect.isgeneratorfunction(function):
            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                running = function(*args, **kwargs)
                sent = None
                while True:
                    with self._clone():
                        try:
                            item = running.send(sent)
                        except StopIteration as stop:
                            return stop.value
                    sent = yield item

            return generator  # type: ignore[return-value]

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self._clone():
                return function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    def _clone(self) -> _Mode:
        return type(self)()


@function("no_grad")
class no_grad(_Mode):
    """Operators record no history: a context manager or decorator."""

    _value = False

    def __new__(cls, function: Any = None) -> Any:
        mode = super().__new__(cls)
        if function is not None:
            mode.__init__()  # type: ignore[misc]
            return mode(function)
        return mode

    def __init__(self, function: Any = None) -> None:
        super().__init__()


@function("enable_grad")
class enable_grad(no_grad):
    """Operators record histories again, within `no_grad`."""

    _value = True


@function("inference_mode")
class inference_mode(_Mode):
    """As `no_grad`; `inference_mode(False)` changes nothing."""

    def __new__(cls, mode: Any = True) -> Any:
        made = super().__new__(cls)
        if callable(mode) and not isinstance(mode, bool):
            made.__init__()  # type: ignore[misc]
            return made(mode)
        return made

    def __init__(self, mode: Any = True) -> None:
        super().__init__()
        self._mode = mode

    def __enter__(self) -> None:
        self._before.append(TRACE.grad)
        if self._mode:
            TRACE.grad = False

    def _clone(self) -> _Mode:
        return inference_mode(self._mode)


@function("set_grad_enabled")
class set_grad_enabled(_Mode):
    """Set the mode, at once and for the rest of the `with` block."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self._value = bool(mode)
        self._before.append(TRACE.grad)
        TRACE.grad = self._value

    def __enter__(self) -> None:
        TRACE.grad = self._value

    def __call__(self, function: F) -> F:
        TRACE.grad = self._before.pop()
        return super().__call__(function)

    def _clone(self) -> _Mode:
        return set_grad_enabled(self._value)


@function("is_grad_enabled")
def is_grad_enabled() -> bool:
    """Whether operators record histories."""
    return TRACE.grad


@function("is_inference_mode_enabled")
def is_inference_mode_enabled() -> bool:
    return False


# --- what a node's gradient reaches -----------------------------------------------------------------------------------
_reach: dict[Any, Any] = {}


def reach(outputs: tuple[Node, ...], targets: tuple[Node, ...],
          dead: tuple[Node, ...]) -> tuple[tuple[Node, ...], frozenset[Node], bool]:
    """What a gradient of `outputs` flows through.

    Returns:
        the targets it reaches, in their order; all nodes it visits; whether it reaches one of `dead`.
    """
    key = (outputs, targets, dead)
    found = _reach.get(key)
    if found is None:
        if len(_reach) > 4096:
            _reach.clear()
        found = _reach[key] = _find_reach(outputs, targets, dead)
    return found


def _find_reach(outputs: tuple[Node, ...], targets: tuple[Node, ...],
                dead: tuple[Node, ...]) -> tuple[tuple[Node, ...], frozenset[Node], bool]:
    order = postorder(outputs)
    sources = set(targets) | set(dead)
    live: set[Node] = set()
    for n in order:
        if n in sources or any(i in live for i in _flows(n)):
            live.add(n)
    visited: set[Node] = set()
    stack = [o for o in outputs if o in live]
    while stack:
        n = stack.pop()
        if n not in visited:
            visited.add(n)
            stack.extend(i for i in _flows(n) if i in live)
    return tuple([t for t in targets if t in visited]), frozenset(visited), any(d in visited for d in dead)


def _flows(n: Node) -> Sequence[Node]:
    """The inputs that a gradient of `n` flows into."""
    if n.op.name == "stop_gradient" or n.op.kind.value == "input" or not any(t.dtype.is_float for t in n.result_types):
        return ()
    return n.inputs[:1] if n.op.name == "with_value" else n.inputs


# Operators whose gradient reads no value of the forward pass: a second backward pass needs nothing freed.
_NO_SAVED = frozenset({"add", "sub", "neg", "reshape", "permute", "broadcast", "slice", "pad", "concat", "flip", "sum",
                       "cast", "result", "stop_gradient", "input", "constant", "with_value", "cumsum"})


# --- backward and grad ------------------------------------------------------------------------------------------------
def _tensors(value: Any) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _cotangents(outputs: tuple[Tensor, ...], given: Any) -> list[Tensor | None]:
    grads: list[Any] = [None] * len(outputs) if given is None else list(
        (given,) if isinstance(given, Tensor) else given)
    if len(grads) != len(outputs):
        raise AutogradError(f"got {len(outputs)} tensors and {len(grads)} gradients")
    for i, (out, grad) in enumerate(zip(outputs, grads, strict=True)):
        if not out._cell.tracked:
            raise AutogradError(f"element {i} of tensors does not require grad and does not have a grad_fn",
                                location=here(3).location,
                                hint="compute it from a tensor with requires_grad=True, outside tm.no_grad()")
        if grad is None:
            if out.numel() != 1:
                raise AutogradError("grad can be implicitly created only for scalar outputs",
                                    location=here(3).location, hint="reduce it first, e.g. loss.mean().backward(), or "
                                                                    "pass a gradient of its shape")
        elif grad._shape != out._shape:
            raise ShapeError(f"Mismatch in shape: grad_output[{i}] has a shape of {list(grad._shape)} and output[{i}] "
                             f"has a shape of {list(out._shape)}.", location=here(3).location)
    return grads


_gradients: dict[Any, tuple[Node, ...]] = {}


def _gradient_nodes(outputs: tuple[Node, ...], cotangents: tuple[Node | None, ...], wrt: tuple[Node, ...],
                    create_graph: bool) -> tuple[Node, ...]:
    """The result nodes of one gradient node."""
    place = here(3)
    key = (outputs, cotangents, wrt, create_graph, id(place))
    made = _gradients.get(key)
    if made is None:
        b = Builder(place)
        given = [b.full(1, o.dtype, o.shape) if c is None else c for o, c in zip(outputs, cotangents, strict=True)]
        node = Node.make("gradient", (*outputs, *given, *wrt), {"n_outputs": len(outputs), "n_wrt": len(wrt)}, place)
        results = b.results(node)
        made = results if create_graph else tuple([cut(r) for r in results])
        if len(_gradients) > 4096:
            _gradients.clear()
        _gradients[key] = made
    return made


_SECOND_TIME = ("Trying to backward through the graph a second time (or directly access saved tensors after they have "
                "already been freed). Saved intermediate values of the graph are freed when you call .backward() or "
                "autograd.grad(). Specify retain_graph=True if you need to backward through the graph a second time "
                "or if you need to access saved tensors after calling backward.")


def _differentiate(outputs: tuple[Tensor, ...], grads: list[Tensor | None], targets: tuple[Node, ...],
                   create_graph: bool, retain_graph: bool) -> dict[Node, Node]:
    """Gradient nodes of the targets that the outputs depend on."""
    return _differentiate_nodes(tuple([node_of(o) for o in outputs]), grads, targets, create_graph, retain_graph)


def _differentiate_nodes(heads: tuple[Node, ...], grads: list[Tensor | None], targets: tuple[Node, ...],
                         create_graph: bool, retain_graph: bool) -> dict[Node, Node]:
    trace = TRACE
    wrt, visited, dead = reach(heads, targets, tuple(trace.dead))
    if dead or (trace.freed and _freed(visited)):
        raise AutogradError(_SECOND_TIME, location=here(3).location)
    if not wrt:
        return {}
    cotangents = tuple([None if g is None else _as(node_of(g), o) for g, o in zip(grads, heads, strict=True)])
    made = _gradient_nodes(heads, cotangents, wrt, create_graph)
    if not retain_graph:
        _free(visited)
    return dict(zip(wrt, made, strict=True))


def _free(visited: frozenset[Node]) -> None:
    """A backward pass has used up these nodes."""
    TRACE.freed |= visited
    for segment in TRACE.segments:
        segment.free(visited)


def _as(grad: Node, out: Node) -> Node:
    return grad if grad.dtype is out.dtype else Node.make("cast", (grad,), {"dtype": out.dtype}, grad.place)


def _freed(visited: frozenset[Node]) -> bool:
    return any(n in TRACE.freed and n.op.name not in _NO_SAVED for n in visited)


def run_backward(tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None, create_graph: bool = False,
                 inputs: Any = None) -> None:
    """Accumulate the gradients of `tensors` into the `.grad` of leaves (or of `inputs` only)."""
    outputs = _tensors(tensors)
    grads = _cotangents(outputs, grad_tensors)
    if TRACE.capture is not None:
        TRACE.capture.differentiated = True
    only = None if inputs is None else _tensors(inputs)
    retain = create_graph if retain_graph is None else retain_graph
    begin([*outputs, *[g for g in grads if g is not None], *(only or ())])
    for o in outputs:
        node_of(o)
    hooked = hooks.live()
    if hooked:
        found = _staged(outputs, grads, only, hooked, create_graph, retain)
    else:
        receivers = _receivers(only)
        made = _differentiate(outputs, grads, tuple(receivers), create_graph, retain)
        found = [(receivers[node], grad) for node, grad in made.items()]
    for tensor, grad in found:
        _accumulate(tensor, grad, create_graph)
    for tensor, _ in found:
        if tensor.__dict__:
            hooks.after_accumulation(tensor)


def _through_hooks(output: Tensor, grad: Tensor | None) -> Tensor | None:
    """The cotangent of an output after the output's own hooks."""
    if not output.__dict__.get("_grad_hooks"):
        return grad
    from .creation import ones_like

    return hooks.run_hooks(output, ones_like(output.detach()) if grad is None else grad)


def _receivers(only: tuple[Tensor, ...] | None) -> dict[Node, Tensor]:
    """The nodes whose gradients are accumulated, with their tensors."""
    if only is not None:
        return {_target(t): t for t in only}
    trace = TRACE
    receivers = dict(trace.grad_leaves)
    trace.retained = [ref for ref in trace.retained if ref() is not None]
    for ref in trace.retained:
        kept = ref()
        if kept is not None and kept._cell.tracked:
            receivers[_target(kept)] = kept
    return receivers


def _staged(outputs: tuple[Tensor, ...], grads: list[Tensor | None], only: tuple[Tensor, ...] | None,
            hooked: list[Tensor], create_graph: bool, retain: bool) -> list[tuple[Tensor, Node]]:
    """The gradients of the receivers, where hooked tensors see theirs on the way."""
    sums: dict[int, Tensor] = {}
    tensors: dict[int, Tensor] = {}
    waiting: list[Tensor] = []
    grads = [_through_hooks(o, g) for o, g in zip(outputs, grads, strict=True)]
    stage: tuple[tuple[Tensor, ...], list[Tensor | None]] = (outputs, grads)
    first = True
    while True:
        outs, cotangents = stage
        begin([*outs, *[g for g in cotangents if g is not None], *hooked])
        heads = tuple([node_of(o) for o in outs])
        nodes = {_target(h): h for h in hooked if not any(h is o for o in outs)}
        if first:
            inner = reach(heads, tuple(nodes), ())[0]
            waiting = hooks.ordered(heads, {n: nodes[n] for n in inner if n.op.kind.value != "input"})
            first = False
        cut_heads, stands = hooks.stand_ins(heads, nodes)
        receivers = {n: t for n, t in _receivers(only).items() if not any(t is o for o in outs)}
        made = _differentiate_nodes(cut_heads, cotangents, (*receivers, *stands), create_graph, True)
        for node, grad in made.items():
            t = stands[node] if node in stands else receivers[node]
            part = _gradient_tensor(grad, create_graph)
            tensors[id(t)] = t
            sums[id(t)] = sums[id(t)] + part if id(t) in sums else part
        waiting = [h for h in waiting if not any(h is o for o in outs)]
        upcoming = next((h for h in waiting if id(h) in sums), None)
        if upcoming is None:
            break
        waiting.remove(upcoming)
        total = hooks.run_hooks(upcoming, sums.pop(id(upcoming)))
        if any(ref() is upcoming for ref in TRACE.retained):
            upcoming._grad = total
        stage = ((upcoming,), [total])
    if not retain:
        begin(outputs)
        _free(reach(tuple([node_of(o) for o in outputs]), tuple(_receivers(only)), ())[1])
    found = []
    for key, total in sums.items():
        t = tensors[key]
        total = hooks.run_hooks(t, total) if t.is_leaf else total
        found.append((t, node_of(total)))
    return found


def _target(t: Tensor) -> Node:
    """The node whose gradient is the tensor's: values kept from earlier runs stand beside their history."""
    node = node_of(t)
    while node.op.name == "with_value":
        node = node.inputs[0]
    return node


def _accumulate(tensor: Tensor, grad: Node, create_graph: bool) -> None:
    present = tensor._grad
    if TRACE.capture is not None:
        TRACE.capture.accumulates(tensor)
    if present is not None and present.__class__ is Consumed:
        raise present.error()
    if present is None:
        tensor._grad = _gradient_tensor(grad, create_graph)
        return
    old = node_of(present)
    total = Node.make("add", (old, _as(grad, old)), (), grad.place)
    if create_graph:
        tensor._grad = _gradient_tensor(total, True)
    elif present._view is None:
        assign(present._cell, cut(total) if present._cell.tracked else total, False)
        from .trace import after_write

        after_write(present._cell)
    else:
        from .tensor import write

        mode, TRACE.grad = TRACE.grad, False
        try:
            write(present, total, False)
        finally:
            TRACE.grad = mode


def _gradient_tensor(node: Node, tracked: bool) -> Tensor:
    mode, TRACE.grad = TRACE.grad, tracked
    try:
        return wrap(node, tracked)
    finally:
        TRACE.grad = mode


@method("backward")
def backward(self: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False,
             inputs: Any = None) -> None:
    """Accumulate the gradient of this tensor with respect to the leaves into their `.grad`.

    Args:
        gradient: cotangent of this tensor's shape; 1 for a scalar.
        retain_graph: keep what a second call needs (default: `create_graph`).
        create_graph: make the gradients differentiable themselves.
        inputs: accumulate into these tensors only.
    """
    run_backward(self, gradient, retain_graph, create_graph, inputs)


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
         create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` with respect to `inputs`, as new tensors.

    Args:
        allow_unused: None for an input that the outputs do not depend on, instead of an error.
        materialize_grads: zeros for such inputs.
    """
    outs, ins = _tensors(outputs), _tensors(inputs)
    grads = _cotangents(outs, grad_outputs)
    for i, t in enumerate(ins):
        if not t._cell.tracked:
            raise AutogradError("One of the differentiated Tensors does not require grad" if len(ins) > 1 or i == 0
                                else f"input {i} does not require grad", location=here(2).location)
    begin([*outs, *ins, *[g for g in grads if g is not None]])
    for o in outs:
        node_of(o)
    targets = tuple([_target(t) for t in ins])
    retain = create_graph if retain_graph is None else retain_graph
    found = _differentiate(outs, grads, tuple(dict.fromkeys(targets)), create_graph, retain)
    results: list[Tensor | None] = []
    for t, node in zip(ins, targets, strict=True):
        made = found.get(node)
        if made is not None:
            results.append(_gradient_tensor(made, create_graph))
        elif materialize_grads:
            from .creation import zeros_like

            results.append(zeros_like(t.detach()))
        elif allow_unused:
            results.append(None)
        else:
            raise AutogradError("One of the differentiated Tensors appears to not have been used in the graph. Set "
                                "allow_unused=True if this is the desired behavior.", location=here(2).location)
    return tuple(results)


@method()
def retain_grad(self: Tensor) -> None:
    """Keep the gradient of this non-leaf tensor in its `.grad`."""
    import weakref

    if not self._cell.tracked:
        raise AutogradError("can't retain_grad on Tensor that has requires_grad=False")
    if self.is_leaf:
        return
    self.__dict__["retains_grad"] = True
    begin((self,))
    node_of(self)
    TRACE.retained.append(weakref.ref(self))


METHODS["retains_grad"] = property(lambda self: self.__dict__.get("retains_grad", False))


# --- grad_fn ----------------------------------------------------------------------------------------------------------
class GradFn:
    """What computed a tensor, by name (`AddBackward0`), with the functions before it."""

    def __init__(self, op: str, node: Node | None = None) -> None:
        self._op, self._node = op, node

    def name(self) -> str:
        """The name PyTorch gives such a function."""
        return "".join([w.capitalize() for w in self._op.split("_")]) + "Backward0"

    @property
    def next_functions(self) -> tuple[tuple[GradFn, int], ...]:
        """The functions that computed the operands, as far as they are known."""
        if self._node is None:
            return ()
        return tuple([(GradFn(i.op.name, i), 0) for i in _flows(self._node) if i.op.kind.value != "input"])

    def __repr__(self) -> str:
        return f"<{self.name()}>"


def grad_fn(t: Tensor) -> GradFn | None:
    """The `grad_fn` of a tensor."""
    if t.is_leaf:
        return None
    cell = t._cell
    if t._view is not None and t._view.steps:
        return GradFn("view")
    node = cell.node if cell.stale else cell.history.node if cell.history is not None else None
    return GradFn(cell.made_by or "unknown") if node is None else GradFn(node.op.name, node)


class _VariableType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=_VariableType):
    """Old scripts wrap tensors in it: `Variable(x)` is x itself; every tensor is an instance."""

    def __new__(cls, data: Tensor, requires_grad: bool = False, volatile: bool = False) -> Any:
        if requires_grad and not data.requires_grad:
            return data.detach().requires_grad_()
        return data


class detect_anomaly(_Mode):
    """Accepted for PyTorch's sake: recorded operators always know the line they come from."""

    def __init__(self, check_nan: bool = True) -> None:
        super().__init__()

    def __enter__(self) -> None:
        self._before.append(TRACE.grad)


class set_detect_anomaly(detect_anomaly):
    """Accepted for PyTorch's sake, as `detect_anomaly`."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        super().__init__()

    def _clone(self) -> _Mode:
        return set_detect_anomaly(True)
