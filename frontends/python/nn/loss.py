"""Losses as modules."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from . import loss_functions as f
from .module import Module


class _Loss(Module):
    reduction: str

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__()
        if size_average is not None or reduce is not None:
            reduction = f.reduction_of(reduction, size_average, reduce)
        self.reduction = reduction


class MSELoss(_Loss):
    """Mean squared error."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return f.mse_loss(input, target, reduction=self.reduction)
