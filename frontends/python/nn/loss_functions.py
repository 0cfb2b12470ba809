"""Losses as functions over primitives. All reduce by `reduction`: "mean", "sum" or "none"."""

from __future__ import annotations

import warnings
from typing import Any

from ....ir.build import Builder
from ....ir.node import Node
from ..nodes import align, axes_of, cast, mean, promote
from ..tensor import Tensor
from ..trace import apply


def reduction_of(reduction: str, size_average: bool | None, reduce: bool | None) -> str:
    """The reduction meant by PyTorch's old and new arguments. Raises ValueError."""
    if size_average is not None or reduce is not None:
        warnings.warn("size_average and reduce args will be deprecated, please use reduction='...' instead.",
                      stacklevel=3)
        if reduce is False:
            return "none"
        return "sum" if size_average is False else "mean"
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return reduction


def reduced(b: Builder, x: Node, reduction: str) -> Node:
    """All elements averaged or summed, or left as they are."""
    if reduction == "none" or not x.shape:
        return x
    axes = tuple(range(len(x.shape)))
    return mean(b, x, axes) if reduction == "mean" else b.sum(x, axes=axes)  # type: ignore[no-any-return]


def _warn_of_broadcast(input: Tensor, target: Tensor) -> None:
    if input._shape != target._shape:
        warnings.warn(f"Using a target size ({target.size()}) that is different to the input size ({input.size()}). "
                      "This will likely lead to incorrect results due to broadcasting. Please ensure they have the "
                      "same size.", stacklevel=3)


def _pointwise(f: Any) -> Any:
    """A loss of each pair of elements: operands promoted and broadcast, computed wide, reduced, narrowed again."""

    def run(b: Builder, x: Node, y: Node, reduction: str, *args: Any) -> Node:
        x, y = align(b, *promote(b, x, y))
        dtype = x.dtype
        x, y = cast(b, x, dtype.compute), cast(b, y, dtype.compute)
        return cast(b, reduced(b, f(b, x, y, *args), reduction), dtype)

    return run


@_pointwise
def _mse(b: Builder, x: Node, y: Node) -> Node:
    gap = b.sub(x, y)
    return b.mul(gap, gap)  # type: ignore[no-any-return]


def mse_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
             reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """(input − target)²."""
    _warn_of_broadcast(input, target)
    reduction = reduction_of(reduction, size_average, reduce)
    if weight is not None:
        each = apply(_mse, (input, target), ("none",)) * weight
        return each if reduction == "none" else each.sum() / weight.sum() if reduction == "mean" else each.sum()
    return apply(_mse, (input, target), (reduction,))  # type: ignore[no-any-return]
