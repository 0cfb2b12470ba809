"""Activations as functions over primitives: readable in dumps by their scope, fast by fusion."""

from __future__ import annotations

import math
from typing import Any

from ....ir.build import Builder
from ....ir.dtypes import DType
from ....ir.node import Node
from .. import dtypes
from ..nodes import axes_of, cast, spread
from ..tensor import Tensor
from ..trace import apply
from .reporting import warn


def _inplace(x: Tensor, value: Tensor, inplace: bool) -> Tensor:
    return x.copy_(value) if inplace else value


def _widened(f: Any) -> Any:
    """Sixteen-bit floats are computed in float32 as a whole, as PyTorch does, not rounded after every operator."""

    def run(b: Builder, x: Node, *args: Any) -> Node:
        return cast(b, f(b, cast(b, x, x.dtype.compute), *args), x.dtype)

    return run


def _relu(b: Builder, x: Node) -> Node:
    # maximum would split the gradient at 0; PyTorch's is 0 there, and NaN must stay NaN.
    zero = b.like(0, x)
    return b.select(b.le(x, zero), zero, x)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0), elementwise."""
    return _inplace(input, apply(_relu, (input,)), inplace)


def _relu6(b: Builder, x: Node) -> Node:
    zero, six = b.like(0, x), b.like(6, x)
    return b.select(b.le(x, zero), zero, b.select(b.ge(x, six), six, x))


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    return _inplace(input, apply(_relu6, (input,)), inplace)


def _leaky(b: Builder, x: Node, slope: float) -> Node:
    return b.select(b.gt(x, b.like(0, x)), x, b.mul(x, b.like(slope, x)))


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x for x > 0, else negative_slope·x."""
    return _inplace(input, apply(_leaky, (input,), (float(negative_slope),)), inplace)


def _prelu(b: Builder, x: Node, w: Node) -> Node:
    if w.shape and w.shape != (1,):
        w = b.broadcast(w, shape=x.shape, dims=(1,))
    else:
        w = b.reshape(w, shape=()) if w.shape else w
    return b.select(b.gt(x, b.like(0, x)), x, b.mul(x, w))


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x for x > 0, else weight·x with one weight, or one per channel."""
    return apply(_prelu, (input, weight))  # type: ignore[no-any-return]


@_widened
def _elu(b: Builder, x: Node, alpha: float) -> Node:
    positive = b.gt(x, b.like(0, x))
    below = b.select(positive, b.like(0, x), x)  # expm1 of a large positive x would overflow in the branch not taken
    return b.select(positive, x, b.mul(b.expm1(below), b.like(alpha, x)))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x for x > 0, else alpha·(e^x − 1)."""
    return _inplace(input, apply(_elu, (input,), (float(alpha),)), inplace)


@_widened
def _selu(b: Builder, x: Node) -> Node:
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    positive = b.gt(x, b.like(0, x))
    below = b.select(positive, b.like(0, x), x)
    return b.mul(b.select(positive, x, b.mul(b.expm1(below), b.like(alpha, x))), b.like(scale, x))


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Scaled ELU (Klambauer et al., 2017)."""
    return _inplace(input, apply(_selu, (input,)), inplace)


@_widened
def _gelu(b: Builder, x: Node, approximate: str) -> Node:
    half, one = b.like(0.5, x), b.like(1, x)
    if approximate == "tanh":
        inner = b.mul(b.like(math.sqrt(2 / math.pi), x),
                      b.add(x, b.mul(b.like(0.044715, x), b.mul(x, b.mul(x, x)))))
        return b.mul(b.mul(half, x), b.add(one, b.tanh(inner)))
    return b.mul(b.mul(half, x), b.add(one, b.erf(b.mul(x, b.like(math.sqrt(0.5), x)))))


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x·Φ(x) with the exact normal distribution function, or its tanh approximation."""
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"approximate argument must be either none or tanh, got {approximate!r}")
    return apply(_gelu, (input,), (approximate,))  # type: ignore[no-any-return]


@_widened
def _silu(b: Builder, x: Node) -> Node:
    return b.mul(x, b.sigmoid(x))


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x·sigmoid(x), also called swish."""
    return _inplace(input, apply(_silu, (input,)), inplace)


@_widened
def _softplus(b: Builder, x: Node, beta: float, threshold: float) -> Node:
    scaled = b.mul(x, b.like(beta, x))
    linear = b.gt(scaled, b.like(threshold, x))
    safe = b.select(linear, b.like(0, x), scaled)
    return b.select(linear, x, b.div(b.log1p(b.exp(safe)), b.like(beta, x)))


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e^(beta·x)) / beta, and x where beta·x exceeds the threshold."""
    return apply(_softplus, (input,), (float(beta), float(threshold)))  # type: ignore[no-any-return]


@_widened
def _mish(b: Builder, x: Node) -> Node:
    return b.mul(x, b.tanh(_softplus(b, x, 1.0, 20.0)))


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x·tanh(softplus(x))."""
    return _inplace(input, apply(_mish, (input,)), inplace)


@_widened
def _hardsigmoid(b: Builder, x: Node) -> Node:
    shifted = b.div(b.add(x, b.like(3, x)), b.like(6, x))
    return b.clamp(shifted, b.like(0, x), b.like(1, x))


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """clamp((x + 3) / 6, 0, 1)."""
    return _inplace(input, apply(_hardsigmoid, (input,)), inplace)


@_widened
def _hardswish(b: Builder, x: Node) -> Node:
    return b.mul(x, _hardsigmoid(b, x))


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x·hardsigmoid(x)."""
    return _inplace(input, apply(_hardswish, (input,)), inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """clamp(x, min_val, max_val)."""
    return _inplace(input, input.clamp(min_val, max_val), inplace)


def _softsign(b: Builder, x: Node) -> Node:
    return b.div(x, b.add(b.abs(x), b.like(1, x)))


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return apply(_softsign, (input,))  # type: ignore[no-any-return]


@_widened
def _logsigmoid(b: Builder, x: Node) -> Node:
    """min(x, 0) − log(1 + e^−|x|): no overflow on either side."""
    low = b.select(b.lt(x, b.like(0, x)), x, b.like(0, x))
    return b.sub(low, b.log1p(b.exp(b.neg(b.abs(x)))))


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x))."""
    return apply(_logsigmoid, (input,))  # type: ignore[no-any-return]


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return input.tanh()  # type: ignore[no-any-return]


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e^−x)."""
    return input.sigmoid()  # type: ignore[no-any-return]


def tanhshrink(input: Tensor) -> Tensor:
    """x − tanh(x)."""
    return input - input.tanh()  # type: ignore[no-any-return]


# -- softmax --------------------------------------------------------------------------------------------------------


def softmax_node(b: Builder, x: Node, dim: int, dtype: DType | None = None) -> Node:
    """e^(x − max) / Σ e^(x − max); the maximum is a constant to differentiation, which it cancels out of."""
    target = dtype or x.dtype
    x = cast(b, x, target.compute)
    axes = axes_of(dim, len(x.shape))
    if not axes:
        return cast(b, b.full(1, x.dtype, ()), target)
    e = b.exp(b.sub(x, spread(b, b.stop_gradient(b.max(x, axes=axes)), x.shape, axes)))
    return cast(b, b.div(e, spread(b, b.sum(e, axes=axes), x.shape, axes)), target)


def log_softmax_node(b: Builder, x: Node, dim: int, dtype: DType | None = None) -> Node:
    """x − max − log Σ e^(x − max)."""
    target = dtype or x.dtype
    x = cast(b, x, target.compute)
    axes = axes_of(dim, len(x.shape))
    if not axes:
        return cast(b, b.full(0, x.dtype, ()), target)
    shifted = b.sub(x, spread(b, b.stop_gradient(b.max(x, axes=axes)), x.shape, axes))
    total = b.log(b.sum(b.exp(shifted), axes=axes))
    return cast(b, b.sub(shifted, spread(b, total, x.shape, axes)), target)


def _default_dim(name: str, x: Tensor) -> int:
    """PyTorch's legacy choice of the dimension when none is given (with its warning)."""
    warn(f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an "
                  "argument.")
    return 0 if x.dim() in (0, 1, 3) else 1


def _dtype(dtype: Any) -> DType | None:
    return None if dtype is None else dtypes.resolve(dtype)


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """Softmax along `dim`."""
    dim = _default_dim("softmax", input) if dim is None else dim
    return apply(softmax_node, (input,), (dim, _dtype(dtype)))  # type: ignore[no-any-return]


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """log(softmax(x)) along `dim`, computed without overflow."""
    dim = _default_dim("log_softmax", input) if dim is None else dim
    return apply(log_softmax_node, (input,), (dim, _dtype(dtype)))  # type: ignore[no-any-return]


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """softmax(−x)."""
    return softmax(-input, dim, _stacklevel, dtype)


def _glu(b: Builder, x: Node, axis: int) -> Node:
    half = x.shape[axis] // 2
    size = tuple(half if i == axis else d for i, d in enumerate(x.shape))
    step = (1,) * len(size)
    first = b.slice(x, start=(0,) * len(size), size=size, step=step)
    second = b.slice(x, start=tuple(half if i == axis else 0 for i in range(len(size))), size=size, step=step)
    return b.mul(first, b.sigmoid(second))


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """First half · sigmoid(second half) along `dim`."""
    axis = dim % max(input.dim(), 1)
    if input.dim() == 0 or input.shape[axis] % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim} is size "
                           f"{input.shape[axis] if input.dim() else 1}")
    return apply(_glu, (input,), (axis,))  # type: ignore[no-any-return]


# -- thresholds -----------------------------------------------------------------------------------------------------


@_widened
def _celu(b: Builder, x: Node, alpha: float) -> Node:
    positive = b.gt(x, b.like(0, x))
    below = b.select(positive, b.like(0, x), b.div(x, b.like(alpha, x)))
    return b.select(positive, x, b.mul(b.expm1(below), b.like(alpha, x)))


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x for x > 0, else alpha·(e^(x / alpha) − 1)."""
    return _inplace(input, apply(_celu, (input,), (float(alpha),)), inplace)


def _threshold(b: Builder, x: Node, limit: float, value: float) -> Node:
    return b.select(b.le(x, b.like(limit, x)), b.like(value, x), x)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else `value`."""
    return _inplace(input, apply(_threshold, (input,), (float(threshold), float(value))), inplace)


def _hardshrink(b: Builder, x: Node, lambd: float) -> Node:
    return b.select(b.le(b.abs(x), b.like(lambd, x)), b.like(0, x), x)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > lambd, else 0."""
    return apply(_hardshrink, (input,), (float(lambd),))  # type: ignore[no-any-return]


def _softshrink(b: Builder, x: Node, lambd: float) -> Node:
    limit, low = b.like(lambd, x), b.like(-lambd, x)
    below = b.select(b.lt(x, low), b.add(x, limit), b.like(0, x))
    return b.select(b.gt(x, limit), b.sub(x, limit), below)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by lambd, 0 within it."""
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return apply(_softshrink, (input,), (float(lambd),))  # type: ignore[no-any-return]


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False,
          inplace: bool = False) -> Tensor:
    """Leaky ReLU with a slope drawn for each element in training, their middle otherwise."""
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    slope = input.detach().new_empty(tuple(input._shape)).uniform_(lower, upper)
    return _inplace(input, input.where(input >= 0, input * slope), inplace)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """Softmax of the logits with Gumbel noise; `hard` gives one-hot values with the soft ones' gradient."""
    noise = -logits.detach().new_empty(tuple(logits._shape)).exponential_().log()
    soft = softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    best = soft.detach().argmax(dim, keepdim=True)
    one = soft.detach().new_zeros(tuple(soft._shape)).scatter_(dim, best, 1.0)
    return one - soft.detach() + soft  # type: ignore[no-any-return]
