"""Normalisations as functions over primitives, computed in the compute dtype (float32 for narrow floats)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ....ir.build import Builder
from ....ir.dtypes import DType
from ....ir.errors import ShapeError
from ....ir.graph import Graph, InputSpec, input_node
from ....ir.node import Node, Place
from ....ir.types import TensorType
from .. import dtypes
from ..autograd import no_grad
from ..inplace import store
from ..nodes import cast, count_of, mean, spread
from ..place import location
from ..tensor import Tensor
from ..trace import apply, apply_mixed

Axes = tuple[int, ...]


def _moments(b: Builder, x: Node, axes: Axes) -> tuple[Node, Node, Node]:
    """x minus its mean, the mean, and the sum of squares of the difference (both over `axes`, dropped)."""
    if not axes:
        gap = b.sub(x, x)
        return gap, x, b.mul(gap, gap)
    forward, backward = _moment_bodies(x.tensor_type, axes, b.place)
    center, squares = b.results(b.custom_vjp(x, forward=forward, backward=backward))
    return b.sub(x, spread(b, center, x.shape, axes)), center, squares


@lru_cache(maxsize=256)
def _moment_bodies(x: TensorType, axes: Axes, place: Place) -> tuple[Graph, Graph]:
    """The mean and the sum of squared differences from it, and their joint derivative.

    The squares' derivative with respect to the mean is left out: it is twice the sum of the differences, which is zero.
    As a computed zero it would make the gradient of a normalisation wait for one sum before it can begin the next.
    """
    b = Builder(place)
    node = input_node(0, x)
    center = mean(b, node, axes)
    gap = b.sub(node, spread(b, center, node.shape, axes))
    squares = b.sum(b.mul(gap, gap), axes=axes)
    forward = Graph("moments", (InputSpec("x", x),), (center, squares))
    small = center.tensor_type
    given, _, d_center, d_squares = (input_node(1 + i, small) for i in range(4))
    gap = b.sub(node, spread(b, given, node.shape, axes))
    shift = b.div(d_center, count_of(b, node, axes, x.dtype))
    slope = b.mul(gap, spread(b, b.add(d_squares, d_squares), node.shape, axes))
    names = ("mean", "squares", "d_mean", "d_squares")
    specs = (InputSpec("x", x), *(InputSpec(name, small) for name in names))
    return forward, Graph("moments_vjp", specs, (b.add(slope, spread(b, shift, node.shape, axes)),))


def _scaled(b: Builder, gap: Node, variance: Node, eps: float, axes: Axes) -> Node:
    """A difference from the mean divided by the standard deviation."""
    inverse = b.rsqrt(b.add(variance, b.like(eps, variance)))
    return b.mul(gap, spread(b, inverse, gap.shape, axes))


def _affine(b: Builder, y: Node, weight: Node | None, bias: Node | None, dims: Axes) -> Node:
    """y·weight + bias, whose axes are `dims` of y."""
    if weight is not None:
        y = b.mul(y, b.broadcast(cast(b, weight, y.dtype), shape=y.shape, dims=dims))
    if bias is not None:
        y = b.add(y, b.broadcast(cast(b, bias, y.dtype), shape=y.shape, dims=dims))
    return y


# -- batch and instance normalisation -----------------------------------------------------------------------


def _batch_axes(x: Node) -> Axes:
    return (0, *range(2, len(x.shape)))


def _batch_norm_train(b: Builder, x: Node, weight: Node | None, bias: Node | None,
                      eps: float) -> tuple[Node, Node, Node]:
    """The normalised batch, its means, and its unbiased variances."""
    dtype, wide, axes = x.dtype, cast(b, x, x.dtype.compute), _batch_axes(x)
    gap, center, squares = _moments(b, wide, axes)
    count = count_of(b, wide, axes, wide.dtype)
    y = _scaled(b, gap, b.div(squares, count), eps, axes)
    unbiased = b.div(squares, b.sub(count, b.like(1, count)))
    return cast(b, _affine(b, y, weight, bias, (1,)), dtype), center, unbiased


def _batch_norm_eval(b: Builder, x: Node, center: Node, variance: Node, weight: Node | None,
                     bias: Node | None, eps: float) -> Node:
    dtype, wide, axes = x.dtype, cast(b, x, x.dtype.compute), _batch_axes(x)
    center, variance = cast(b, center, wide.dtype), cast(b, variance, wide.dtype)
    gap = b.sub(wide, spread(b, center, wide.shape, axes))
    return cast(b, _affine(b, _scaled(b, gap, variance, eps, axes), weight, bias, (1,)), dtype)


def _blend(b: Builder, old: Node, new: Node, momentum: Node) -> Node:
    momentum = cast(b, momentum, old.dtype)
    new = cast(b, new, old.dtype)
    return b.add(b.mul(old, b.sub(b.like(1, old), momentum)), b.mul(new, momentum))


def _update_running(running: Tensor | None, found: Tensor, momentum: float | Tensor) -> None:
    """running ← (1 − momentum)·running + momentum·found."""
    if running is None:
        return
    with no_grad():
        factor = momentum if isinstance(momentum, Tensor) else (float(momentum), running._dtype.compute)
        store(running, apply_mixed(_blend, (running, found, factor)))


def check_features(x: Tensor, count: int, layer: str, ranks: Sequence[int]) -> None:
    """Raises ShapeError unless x has one of the ranks and `count` channels."""
    if x.dim() not in ranks:
        wanted = " or ".join(f"{r}D" for r in ranks)
        raise ShapeError(f"{layer}: expected {wanted} input (got {x.dim()}D input of shape {list(x.shape)})",
                         location=location(), hint="channels are dimension 1: shape the input [batch, channels, …]")
    if x._shape[1] != count:
        raise ShapeError(f"{layer} expects {count} channels in dimension 1, the input of shape {list(x.shape)} "
                         f"has {x._shape[1]}", location=location(),
                         hint="channels come right after the batch dimension")


def _check_batch_size(x: Tensor) -> None:
    if math.prod(x._shape) == x._shape[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
               weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
               momentum: float | Tensor = 0.1, eps: float = 1e-5) -> Tensor:
    """Normalisation of every channel (dimension 1) by the batch's statistics, or by the running ones.

    In training the running statistics move towards the batch's by `momentum` (the variance is the unbiased one).
    """
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("Expected running_mean and running_var to be defined when training=False")
        operands = (input, running_mean, running_var, weight, bias)
        return apply_mixed(_batch_norm_eval, operands, (float(eps),))  # type: ignore[no-any-return]
    _check_batch_size(input)
    y, center, variance = apply_mixed(_batch_norm_train, (input, weight, bias), (float(eps),))
    _update_running(running_mean, center, momentum)
    _update_running(running_var, variance, momentum)
    return y  # type: ignore[no-any-return]


def _instance_norm(b: Builder, x: Node, weight: Node | None, bias: Node | None,
                   eps: float) -> tuple[Node, Node, Node]:
    """The normalised instances; means and unbiased variances averaged over the batch."""
    dtype, wide, axes = x.dtype, cast(b, x, x.dtype.compute), tuple(range(2, len(x.shape)))
    gap, center, squares = _moments(b, wide, axes)
    count = count_of(b, wide, axes, wide.dtype)
    y = _scaled(b, gap, b.div(squares, count), eps, axes)
    unbiased = b.div(squares, b.sub(count, b.like(1, count)))
    y = cast(b, _affine(b, y, weight, bias, (1,)), dtype)
    return y, mean(b, center, (0,)), mean(b, unbiased, (0,))


def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
                  weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Normalisation of every channel of every sample over its spatial dimensions."""
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if math.prod(input._shape[2:]) == 1:
        raise ValueError("Expected more than 1 spatial element when training, got input size "
                         f"{input.shape}")
    y, center, variance = apply_mixed(_instance_norm, (input, weight, bias), (float(eps),))
    _update_running(running_mean, center, momentum)
    _update_running(running_var, variance, momentum)
    return y  # type: ignore[no-any-return]


# -- layer, group and root-mean-square normalisation --------------------------------------------------------


def _layer_norm(b: Builder, x: Node, weight: Node | None, bias: Node | None, rank: int, eps: float) -> Node:
    dtype, wide = x.dtype, cast(b, x, x.dtype.compute)
    axes = tuple(range(len(x.shape) - rank, len(x.shape)))
    gap, _, squares = _moments(b, wide, axes)
    y = _scaled(b, gap, b.div(squares, count_of(b, wide, axes, wide.dtype)), eps, axes)
    return cast(b, _affine(b, y, weight, bias, axes), dtype)


def _rms_norm(b: Builder, x: Node, weight: Node | None, rank: int, eps: float) -> Node:
    dtype, wide = x.dtype, cast(b, x, x.dtype.compute)
    axes = tuple(range(len(x.shape) - rank, len(x.shape)))
    return cast(b, _affine(b, _scaled(b, wide, mean(b, b.mul(wide, wide), axes), eps, axes), weight, None, axes),
                dtype)


def _check_normalized(x: Tensor, normalized_shape: Any, layer: str) -> tuple[int, ...]:
    """The normalised shape as a tuple. Raises ShapeError unless x ends in it."""
    given = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
    shape = tuple(int(d) for d in given)
    if not shape or x._shape[len(x._shape) - len(shape):] != shape:
        wanted = ", ".join(["*", *map(str, shape)])
        raise ShapeError(f"{layer}: given normalized_shape={list(shape)}, expected input with shape [{wanted}], "
                         f"but got input of size {list(x.shape)}", location=location(),
                         hint="the normalised dimensions are the last ones")
    return shape


def layer_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """(x − mean) / √(var + eps) · weight + bias over the last dimensions."""
    rank = len(_check_normalized(input, normalized_shape, "layer_norm"))
    return apply_mixed(_layer_norm, (input, weight, bias), (rank, float(eps)))  # type: ignore[no-any-return]


def rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None,
             eps: float | None = None) -> Tensor:
    """x / √(mean(x²) + eps) · weight over the last dimensions; `eps` is the dtype's unless given."""
    rank = len(_check_normalized(input, normalized_shape, "rms_norm"))
    eps = _machine_eps(input._dtype) if eps is None else float(eps)
    return apply_mixed(_rms_norm, (input, weight), (rank, eps))  # type: ignore[no-any-return]


def _machine_eps(dtype: DType) -> float:
    return float(dtypes.finfo(dtype).eps)


def _group_norm(b: Builder, x: Node, weight: Node | None, bias: Node | None, groups: int, eps: float) -> Node:
    dtype, wide = x.dtype, cast(b, x, x.dtype.compute)
    n, channels, *rest = x.shape
    grouped = b.reshape(wide, shape=(n, groups, channels // groups, *rest))
    axes = tuple(range(2, len(grouped.shape)))
    gap, _, squares = _moments(b, grouped, axes)
    y = _scaled(b, gap, b.div(squares, count_of(b, grouped, axes, wide.dtype)), eps, axes)
    return cast(b, _affine(b, b.reshape(y, shape=x.shape), weight, bias, (1,)), dtype)


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """Normalisation over groups of channels (dimension 1) of every sample."""
    if input.dim() < 2:
        raise ShapeError(f"Expected at least 2 dimensions for input tensor but received {input.dim()}",
                         location=location(), hint="shape the input [batch, channels, …]")
    if input._shape[1] % num_groups:
        raise ShapeError("Expected number of channels in input to be divisible by num_groups, but got input of "
                         f"shape {list(input.shape)} and num_groups={num_groups}", location=location())
    return apply_mixed(_group_norm, (input, weight, bias), (int(num_groups), float(eps)))  # type: ignore[no-any-return]


def _local_response(b: Builder, x: Node, size: int, alpha: float, beta: float, k: float) -> Node:
    rank = len(x.shape)
    order = (0, *range(2, rank), 1)
    squares = b.permute(b.mul(x, x), dims=order)
    total = b.window_sum(squares, window=(size,), stride=(1,), pads=((size // 2, (size - 1) // 2),), dilation=(1,))
    total = b.permute(total, dims=(0, rank - 1, *range(1, rank - 1)))
    scale = b.add(b.mul(total, b.like(alpha / size, x)), b.like(k, x))
    return b.div(x, b.pow(scale, b.full(beta, x.dtype, x.shape)))


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75,
                        k: float = 1.0) -> Tensor:
    """x / (k + alpha/size · Σ x² over neighbouring channels)^beta."""
    return apply(_local_response, (input,), (size, float(alpha), float(beta), float(k)))  # type: ignore[no-any-return]


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
    """x / max(‖x‖_p, eps) along a dimension."""
    return input / input.norm(p, dim, keepdim=True).clamp_min(eps)  # type: ignore[no-any-return]
