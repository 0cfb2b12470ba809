"""Dropout layers: active in training mode only."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from . import dropout_functions as f
from .module import Module


class _Dropout(Module):
    _drop: Any

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if p < 0 or p > 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._drop(input, self.p, self.training, self.inplace)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Elements set to zero at random."""

    _drop = staticmethod(f.dropout)


class Dropout1d(_Dropout):
    """Whole channels of [N, C, L] set to zero at random."""

    _drop = staticmethod(f.dropout1d)


class Dropout2d(_Dropout):
    """Whole channels of [N, C, H, W] set to zero at random."""

    _drop = staticmethod(f.dropout2d)


class Dropout3d(_Dropout):
    """Whole channels of [N, C, D, H, W] set to zero at random."""

    _drop = staticmethod(f.dropout3d)


class AlphaDropout(_Dropout):
    """Dropout for self-normalising networks."""

    _drop = staticmethod(f.alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    """`AlphaDropout` of whole channels."""

    _drop = staticmethod(f.feature_alpha_dropout)
