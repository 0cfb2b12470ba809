"""Losses of pairs of elements, as functions over primitives. All reduce by "mean", "sum" or "none".

Losses over classes are in `class_loss_functions`.
"""

from __future__ import annotations

import math
from typing import Any

from ....ir.build import Builder
from ....ir.errors import ShapeError
from ....ir.node import Node
from ..nodes import align, cast, mean, promote
from ..place import location
from ..tensor import Tensor
from ..trace import apply, apply_mixed
from .reporting import warn


def reduction_of(reduction: str, size_average: bool | None = None, reduce: bool | None = None) -> str:
    """The reduction meant by PyTorch's old and new arguments. Raises ValueError."""
    if size_average is not None or reduce is not None:
        meant = "none" if reduce is False else "sum" if size_average is False else "mean"
        warn(f"size_average and reduce args will be deprecated, please use reduction='{meant}' instead.")
        return meant
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return reduction


def reduced(b: Builder, x: Node, reduction: str) -> Node:
    """All elements averaged or summed, or left as they are."""
    if reduction == "none" or not x.shape:
        return x
    axes = tuple(range(len(x.shape)))
    return mean(b, x, axes) if reduction == "mean" else b.sum(x, axes=axes)


def _warn_of_broadcast(input: Tensor, target: Tensor) -> None:
    if input._shape != target._shape:
        warn(f"Using a target size ({target.size()}) that is different to the input size ({input.size()}). "
                      "This will likely lead to incorrect results due to broadcasting. Please ensure they have the "
                      "same size.")


def _pointwise(f: Any) -> Any:
    """A loss of pairs of elements: operands promoted and broadcast, computed wide, reduced, narrowed again."""

    def run(b: Builder, x: Node, y: Node, reduction: str, *args: Any) -> Node:
        x, y = align(b, *promote(b, x, y))
        dtype = x.dtype
        x, y = cast(b, x, dtype.compute), cast(b, y, dtype.compute)
        return cast(b, reduced(b, f(b, x, y, *args), reduction), dtype)

    return run


def _weighted(each: Tensor, weight: Tensor, reduction: str) -> Tensor:
    """A loss per element with a weight per element; the mean divides by the weights' sum."""
    each = each * weight
    if reduction == "mean":
        return each.sum() / weight.expand(each.shape).sum()  # type: ignore[no-any-return]
    return each.sum() if reduction == "sum" else each


# -- regression ---------------------------------------------------------------------------------------------


@_pointwise
def _mse(b: Builder, x: Node, y: Node) -> Node:
    gap = b.sub(x, y)
    return b.mul(gap, gap)


def mse_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
             reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """(input − target)²."""
    _warn_of_broadcast(input, target)
    reduction = reduction_of(reduction, size_average, reduce)
    if weight is not None:
        return _weighted(apply(_mse, (input, target), ("none",)), weight, reduction)
    return apply(_mse, (input, target), (reduction,))  # type: ignore[no-any-return]


@_pointwise
def _l1(b: Builder, x: Node, y: Node) -> Node:
    return b.abs(b.sub(x, y))


def l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
            reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """|input − target|."""
    _warn_of_broadcast(input, target)
    reduction = reduction_of(reduction, size_average, reduce)
    if weight is not None:
        return _weighted(apply(_l1, (input, target), ("none",)), weight, reduction)
    return apply(_l1, (input, target), (reduction,))  # type: ignore[no-any-return]


@_pointwise
def _smooth_l1(b: Builder, x: Node, y: Node, beta: float) -> Node:
    size = b.abs(b.sub(x, y))
    if beta == 0:
        return size
    square = b.mul(b.like(0.5 / beta, size), b.mul(size, size))
    return b.select(b.lt(size, b.like(beta, size)), square, b.sub(size, b.like(0.5 * beta, size)))


def smooth_l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
                   reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """(input − target)² / 2·beta where the difference is below beta, else its size less beta / 2."""
    _warn_of_broadcast(input, target)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    return apply(_smooth_l1, (input, target), (reduction_of(reduction, size_average, reduce), float(beta)))  # type: ignore[no-any-return]


@_pointwise
def _huber(b: Builder, x: Node, y: Node, delta: float) -> Node:
    size = b.abs(b.sub(x, y))
    linear = b.mul(b.like(delta, size), b.sub(size, b.like(0.5 * delta, size)))
    square = b.mul(b.like(0.5, size), b.mul(size, size))
    return b.select(b.le(size, b.like(delta, size)), square, linear)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None) -> Tensor:
    """(input − target)² / 2 up to delta, beyond it delta·(size − delta / 2)."""
    _warn_of_broadcast(input, target)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    reduction = reduction_of(reduction)
    if weight is not None:
        return _weighted(apply(_huber, (input, target), ("none", float(delta))), weight, reduction)
    return apply(_huber, (input, target), (reduction, float(delta)))  # type: ignore[no-any-return]


# -- binary classification ----------------------------------------------------------------------------------


def _same_shape(name: str, input: Tensor, target: Tensor) -> None:
    if input._shape != target._shape:
        raise ShapeError(f"{name}: target size ({list(target.shape)}) must be the same as input size "
                         f"({list(input.shape)})", location=location(),
                         hint="reshape one of them, for example target.unsqueeze(1) or input.squeeze(1)")


def _clamped_log(b: Builder, x: Node) -> Node:
    """log x, but at least −100; where that bound holds the gradient is 0."""
    above = b.gt(x, b.like(math.exp(-100), x))
    return b.select(above, b.log(b.select(above, x, b.like(1, x))), b.like(-100, x))


def _bce(b: Builder, x: Node, t: Node, weight: Node | None, reduction: str) -> Node:
    dtype = x.dtype
    x, t = cast(b, x, dtype.compute), cast(b, t, dtype.compute)
    one = b.like(1, x)
    found = b.add(b.mul(t, _clamped_log(b, x)), b.mul(b.sub(one, t), _clamped_log(b, b.sub(one, x))))
    return _finish_binary(b, b.neg(found), weight, reduction, dtype)


def _finish_binary(b: Builder, loss: Node, weight: Node | None, reduction: str, dtype: Any) -> Node:
    if weight is not None:
        loss = b.mul(*align(b, loss, cast(b, weight, loss.dtype)))
    return cast(b, reduced(b, loss, reduction), dtype)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                         size_average: bool | None = None, reduce: bool | None = None,
                         reduction: str = "mean") -> Tensor:
    """−(t·log x + (1 − t)·log(1 − x)) for probabilities x; logarithms are at least −100."""
    _same_shape("binary_cross_entropy", input, target)
    args = (reduction_of(reduction, size_average, reduce),)
    return apply_mixed(_bce, (input, target, weight), args)  # type: ignore[no-any-return]


def _bce_logits(b: Builder, x: Node, t: Node, weight: Node | None, pos_weight: Node | None,
                reduction: str) -> Node:
    """(1 − t)·x + w·(log(1 + e^−|x|) + max(−x, 0)) with w = 1 + (pos_weight − 1)·t: never overflows."""
    dtype = x.dtype
    x, t = cast(b, x, dtype.compute), cast(b, t, dtype.compute)
    zero, one = b.like(0, x), b.like(1, x)
    tail = b.add(b.log1p(b.exp(b.neg(b.abs(x)))), b.select(b.lt(x, zero), b.neg(x), zero))
    if pos_weight is not None:
        extra = b.sub(cast(b, pos_weight, x.dtype), one)
        tail = b.mul(tail, b.add(b.mul(*align(b, extra, t)), one))
    return _finish_binary(b, b.add(b.mul(b.sub(one, t), x), tail), weight, reduction, dtype)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     size_average: bool | None = None, reduce: bool | None = None,
                                     reduction: str = "mean", pos_weight: Tensor | None = None) -> Tensor:
    """Binary cross entropy of sigmoid(input), computed from the logits without overflow."""
    _same_shape("binary_cross_entropy_with_logits", input, target)
    args = (reduction_of(reduction, size_average, reduce),)
    return apply_mixed(_bce_logits, (input, target, weight, pos_weight), args)  # type: ignore[no-any-return]


# -- distributions ------------------------------------------------------------------------------------------


def _kl(b: Builder, x: Node, t: Node, reduction: str, log_target: bool) -> Node:
    x, t = align(b, *promote(b, x, t))
    dtype = x.dtype
    x, t = cast(b, x, dtype.compute), cast(b, t, dtype.compute)
    if log_target:
        loss = b.mul(b.exp(t), b.sub(t, x))
    else:
        positive = b.gt(t, b.like(0, t))
        entropy = b.mul(t, b.log(b.select(positive, t, b.like(1, t))))  # 0·log 0 = 0
        loss = b.sub(entropy, b.mul(t, x))
    if reduction != "batchmean":
        return cast(b, reduced(b, loss, reduction), dtype)
    total = reduced(b, loss, "sum")
    if not x.shape:
        return cast(b, total, dtype)
    return cast(b, b.div(total, b.cast(b.extent(value=x.shape[0]), dtype=total.dtype)), dtype)


def kl_div(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
           reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target·(log target − input) for log-probabilities `input`; "batchmean" divides by the batch size only."""
    if reduction == "mean" and size_average is None and reduce is None:
        warn("reduction: 'mean' divides the total loss by both the batch size and the support size."
                      "'batchmean' divides only by the batch size, and aligns with the KL math definition."
                      "'mean' will be changed to behave the same as 'batchmean' in the next major release.")
    kind = reduction if reduction == "batchmean" else reduction_of(reduction, size_average, reduce)
    return apply(_kl, (input, target), (kind, bool(log_target)))  # type: ignore[no-any-return]


@_pointwise
def _poisson(b: Builder, x: Node, t: Node, log_input: bool, full: bool, eps: float) -> Node:
    if log_input:
        loss = b.sub(b.exp(x), b.mul(t, x))
    else:
        loss = b.sub(x, b.mul(t, b.log(b.add(x, b.like(eps, x)))))
    if full:  # Stirling's approximation of log t!
        large = b.gt(t, b.like(1, t))
        safe = b.select(large, t, b.like(1, t))
        rest = b.add(b.sub(b.mul(safe, b.log(safe)), safe),
                     b.mul(b.like(0.5, t), b.log(b.mul(b.like(2 * math.pi, t), safe))))
        loss = b.add(loss, b.select(large, rest, b.like(0, t)))
    return loss


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     size_average: bool | None = None, eps: float = 1e-8, reduce: bool | None = None,
                     reduction: str = "mean") -> Tensor:
    """Negative log-likelihood of counts under a Poisson distribution."""
    args = (reduction_of(reduction, size_average, reduce), bool(log_input), bool(full), float(eps))
    return apply(_poisson, (input, target), args)  # type: ignore[no-any-return]


def gaussian_nll_loss(input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6,
                      reduction: str = "mean") -> Tensor:
    """Negative log-likelihood under normal distributions of means `input` and variances `var` (at least eps)."""
    reduction = reduction_of(reduction)
    spread_ = var if isinstance(var, Tensor) else input.new_full((1,) * max(input.dim(), 1), float(var))
    if spread_._shape != input._shape and spread_._shape == input._shape[:-1]:
        spread_ = spread_.unsqueeze(-1)
    # A clamp without gradient, as in PyTorch: the variance may be learnt below eps, too.
    spread_ = spread_ + (spread_.detach().clamp(min=eps) - spread_.detach())
    loss = 0.5 * (spread_.log() + (input - target) ** 2 / spread_)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return _reduce_tensor(loss, reduction)


# -- margins ------------------------------------------------------------------------------------------------


def _reduce_tensor(loss: Tensor, reduction: str) -> Tensor:
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def soft_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
                     reduction: str = "mean") -> Tensor:
    """log(1 + e^(−target·input)) for targets 1 and −1."""
    from .activation_functions import softplus

    return _reduce_tensor(softplus(-target * input, 1.0, 50.0), reduction_of(reduction, size_average, reduce))


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                        size_average: bool | None = None, reduce: bool | None = None,
                        reduction: str = "mean") -> Tensor:
    """max(0, −target·(input1 − input2) + margin)."""
    loss = (-target * (input1 - input2) + margin).clamp_min(0)
    return _reduce_tensor(loss, reduction_of(reduction, size_average, reduce))


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, size_average: bool | None = None,
                         reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """input where target is 1, max(0, margin − input) where it is −1."""
    zero = input * 0
    near = (margin - input).clamp_min(0)
    loss = near.where(target != 1, zero) + input.where(target != -1, zero)
    return _reduce_tensor(loss, reduction_of(reduction, size_average, reduce))


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                          size_average: bool | None = None, reduce: bool | None = None,
                          reduction: str = "mean") -> Tensor:
    """1 − cos where target is 1, max(0, cos − margin) where it is −1."""
    from .distance_functions import cosine_similarity

    cosine = cosine_similarity(input1, input2, dim=-1)
    loss = (1 - cosine).where(target == 1, (cosine - margin).clamp_min(0))
    return _reduce_tensor(loss, reduction_of(reduction, size_average, reduce))


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2,
                        eps: float = 1e-6, swap: bool = False, size_average: bool | None = None,
                        reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """max(0, d(anchor, positive) − d(anchor, negative) + margin)."""
    from .distance_functions import pairwise_distance

    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = far.minimum(pairwise_distance(positive, negative, p, eps))
    return _reduce_tensor((near - far + margin).clamp_min(0), reduction_of(reduction, size_average, reduce))
