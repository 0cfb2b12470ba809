"""Dropout: elements or whole channels set to zero at random, the rest scaled so that the mean stays."""

from __future__ import annotations

import math

from ..random import bernoulli
from ..random import dropout as drop
from ..tensor import Tensor


def _check(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _finish(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    return input.copy_(result) if inplace else result


def _drop(input: Tensor, p: float, training: bool, inplace: bool, shape: tuple[int, ...] | None = None) -> Tensor:
    _check(p)
    if not training or p == 0:
        return input
    if p == 1:  # nothing is kept: 1 / (1 − p) has no value
        return _finish(input, input * 0, inplace)
    return _finish(input, drop(input, p, shape), inplace)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element becomes 0 with probability p, else x / (1 − p)."""
    return _drop(input, p, training, inplace)


def _channels(input: Tensor, p: float, training: bool, inplace: bool, batched: int) -> Tensor:
    """Whole channels dropped: one draw for each leading pair (sample, channel)."""
    lead = 2 if input.dim() == batched else 1
    shape = (*input._shape[:lead], *(1,) * (input.dim() - lead))
    return _drop(input, p, training, inplace, shape)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of [N, C, L] or [C, L] dropped."""
    if input.dim() not in (2, 3):
        raise RuntimeError(f"dropout1d: Expected 2D or 3D input, but received a {input.dim()}D input.")
    return _channels(input, p, training, inplace, 3)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of [N, C, H, W] or [C, H, W] dropped."""
    return _channels(input, p, training, inplace, input.dim() if input.dim() != 3 else 4)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of [N, C, D, H, W] or [C, D, H, W] dropped."""
    return _channels(input, p, training, inplace, 5)


def _alpha(input: Tensor, p: float, training: bool, inplace: bool, shape: tuple[int, ...]) -> Tensor:
    """Dropped elements become SELU's negative limit; mean and variance are kept (Klambauer et al., 2017)."""
    _check(p)
    if not training or p == 0:
        return input
    if p == 1:
        return _finish(input, input * 0, inplace)
    limit = 1.7580993408473766
    scale = 1.0 / math.sqrt((limit * limit * p + 1) * (1 - p))
    kept = bernoulli(input.new_full(shape, 1 - p))
    return _finish(input, input * (kept * scale) + ((kept - 1) * (limit * scale) + limit * scale * p), inplace)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout for self-normalising networks."""
    return _alpha(input, p, training, inplace, tuple(input._shape))


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels."""
    return _alpha(input, p, training, inplace, (*input._shape[:2], *(1,) * (input.dim() - 2)))


__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]
