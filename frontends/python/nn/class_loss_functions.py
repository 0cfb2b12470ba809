"""Losses over classes: cross entropy and negative log-likelihood.

The class score of a label is loaded by index (so that a label out of range is found while running), but its gradient
flows through a comparison with the class numbers: that one is elementwise and joins the softmax's kernel, where a
scattered write would need one of its own.
"""

from __future__ import annotations

from typing import Any

from ....ir.build import Builder
from ....ir.dtypes import i64
from ....ir.errors import DTypeError, ShapeError
from ....ir.node import Node
from ..nodes import cast, count_of, mean, spread
from ..place import location
from ..tensor import Tensor
from ..trace import apply_mixed
from .loss_functions import reduced, reduction_of


def _picked(b: Builder, x: Node, target: Node, axis: int) -> Node:
    """x at the target's class (the class axis dropped)."""
    index = tuple(d for i, d in enumerate(x.shape) if i != axis)
    column = (*x.shape[:axis], 1, *x.shape[axis + 1:])
    value = b.reshape(b.gather(b.stop_gradient(x), b.reshape(target, shape=column), axis=axis), shape=index)
    here = b.eq(b.iota(shape=x.shape, axis=axis, dtype=target.dtype), spread(b, target, x.shape, (axis,)))
    history = b.sum(b.select(here, x, b.like(0, x)), axes=(axis,))
    return b.with_value(history, value)


def _log_softmax(b: Builder, x: Node, axis: int) -> tuple[Node, Node]:
    """x less its maximum, and the logarithm of the sum of its exponentials."""
    shifted = b.sub(x, spread(b, b.stop_gradient(b.max(x, axes=(axis,))), x.shape, (axis,)))
    return shifted, b.log(b.sum(b.exp(shifted), axes=(axis,)))


def _of_labels(b: Builder, x: Node, target: Node, weight: Node | None, reduction: str, ignore: int,
               smoothing: float, logits: bool) -> Node:
    """Losses of class numbers; ignored ones count nowhere, "mean" divides by the weights of the others."""
    dtype, axis = x.dtype, 0 if len(x.shape) == 1 else 1
    x, target = cast(b, x, dtype.compute), cast(b, target, i64)
    valid = b.ne(target, b.scalar(ignore, i64))
    safe = b.select(valid, target, b.scalar(0, i64))
    shifted, total = _log_softmax(b, x, axis) if logits else (x, None)
    score = _picked(b, shifted, safe, axis)
    loss = b.neg(score) if total is None else b.sub(total, score)
    zero = b.like(0, x)
    share = cast(b, valid, x.dtype)
    if weight is not None:
        weight = cast(b, weight, x.dtype)
        share = b.select(valid, b.index_select(weight, safe, axis=0), zero)
        loss = b.mul(loss, share)
    loss = b.select(valid, loss, zero)
    if smoothing:
        logp = shifted if total is None else b.sub(shifted, spread(b, total, x.shape, (axis,)))
        if weight is not None:
            logp = b.mul(logp, b.broadcast(weight, shape=x.shape, dims=(axis,)))
        even = b.div(b.neg(b.sum(logp, axes=(axis,))), count_of(b, x, (axis,), x.dtype))
        even = b.select(valid, even, zero)
        loss = b.add(b.mul(loss, b.like(1 - smoothing, x)), b.mul(even, b.like(smoothing, x)))
    if reduction != "mean":
        return cast(b, reduced(b, loss, reduction), dtype)
    axes = tuple(range(len(loss.shape)))
    if axes:
        loss, share = b.sum(loss, axes=axes), b.sum(share, axes=axes)
    return cast(b, b.div(loss, share), dtype)


def _of_probabilities(b: Builder, x: Node, target: Node, weight: Node | None, reduction: str,
                      smoothing: float) -> Node:
    """Losses of class probabilities; "mean" divides by the number of samples."""
    dtype, axis = x.dtype, 0 if len(x.shape) == 1 else 1
    x, target = cast(b, x, dtype.compute), cast(b, target, dtype.compute)
    if smoothing:
        even = b.div(b.like(smoothing, x), count_of(b, x, (axis,), x.dtype))
        target = b.add(b.mul(target, b.like(1 - smoothing, x)), even)
    shifted, total = _log_softmax(b, x, axis)
    logp = b.sub(shifted, spread(b, total, x.shape, (axis,)))
    if weight is not None:
        logp = b.mul(logp, b.broadcast(cast(b, weight, x.dtype), shape=x.shape, dims=(axis,)))
    loss = b.neg(b.sum(b.mul(logp, target), axes=(axis,)))
    if reduction == "mean" and loss.shape:
        return cast(b, mean(b, loss, tuple(range(len(loss.shape)))), dtype)
    return cast(b, reduced(b, loss, reduction), dtype)


def _check_classes(name: str, input: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """Raises ShapeError or DTypeError unless target holds one class number for each sample."""
    shape = input._shape
    if not shape:
        raise ShapeError(f"{name}: the input needs a dimension of classes, got a single number",
                         location=location(), hint="shape it [batch, classes]")
    wanted = () if len(shape) == 1 else (shape[0], *shape[2:])
    if target._shape != wanted:
        hint = f"class numbers have the shape {list(wanted)}"
        if target.dim() == len(wanted) + 1 and target._shape[-1] == 1:
            hint = "drop the last dimension: target.squeeze(-1)"
        raise ShapeError(f"{name}: an input of shape {list(shape)} needs class numbers of shape {list(wanted)}, "
                         f"got shape {list(target.shape)}", location=location(), hint=hint)
    if not target._dtype.is_integer:
        raise DTypeError(f"{name}: class numbers must be integers, got {target._dtype.long_name}",
                         location=location(), hint="convert them with target.long()")
    _check_weight(name, input, weight)


def _check_weight(name: str, input: Tensor, weight: Tensor | None) -> None:
    classes = input._shape[0 if input.dim() == 1 else 1]
    if weight is not None and weight._shape != (classes,):
        raise ShapeError(f"{name}: weight should have one element for each of {classes} classes, got shape "
                         f"{list(weight.shape)}", location=location())


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                  ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """−log softmax(input) of the right class, for logits [N, C, …].

    Args:
        target: class numbers [N, …], or probabilities of the input's shape.
        weight: a factor per class.
        ignore_index: class number of samples that do not count.
        label_smoothing: share of the target given to all classes evenly.

    Raises:
        ShapeError, DTypeError: at the user's line. IndexRangeError: while running, for a label outside [0, C).
    """
    reduction = reduction_of(reduction, size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    smoothing = float(label_smoothing)
    if target._dtype.is_float and target._shape == input._shape:
        _check_weight("cross_entropy", input, weight)
        return apply_mixed(_of_probabilities, (input, target, weight), (reduction, smoothing))  # type: ignore[no-any-return]
    _check_classes("cross_entropy", input, target, weight)
    args = (reduction, int(ignore_index), smoothing, True)
    return apply_mixed(_of_labels, (input, target, weight), args)  # type: ignore[no-any-return]


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
             ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """−input of the right class, for log-probabilities [N, C, …] and class numbers [N, …]."""
    reduction = reduction_of(reduction, size_average, reduce)
    _check_classes("nll_loss", input, target, weight)
    args: tuple[Any, ...] = (reduction, int(ignore_index), 0.0, False)
    return apply_mixed(_of_labels, (input, target, weight), args)  # type: ignore[no-any-return]
