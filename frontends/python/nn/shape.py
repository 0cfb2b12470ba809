"""Layers that only move elements, and distances."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from . import distance_functions
from . import shape_functions as f
from .linear_functions import each
from .module import Module


class Flatten(Module):
    """Dimensions start … end merged into one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """One dimension split into several."""

    def __init__(self, dim: int, unflattened_size: Any) -> None:
        super().__init__()
        if not isinstance(dim, int):
            raise TypeError("unflatten: names of dimensions are not supported, give its number")
        self.dim, self.unflattened_size = dim, unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class _Pad(Module):
    _n = 2
    _mode = "constant"
    value: float = 0.0

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = each(padding, 2 * self._n, "padding")

    def forward(self, input: Tensor) -> Tensor:
        return f.pad(input, self.padding, self._mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ConstantPad1d(_Pad):
    """The last dimension padded with a value."""

    _n = 1

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad2d(ConstantPad1d):
    """The last two dimensions padded with a value."""

    _n = 2


class ZeroPad1d(_Pad):
    """The last dimension padded with zeros."""

    _n = 1


class ZeroPad2d(_Pad):
    """The last two dimensions padded with zeros."""


class ReflectionPad1d(_Pad):
    """The last dimension padded by reflection."""

    _n, _mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """The last two dimensions padded by reflection."""

    _mode = "reflect"


class ReplicationPad1d(_Pad):
    """The last dimension padded with its edge."""

    _n, _mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The last two dimensions padded with their edges."""

    _mode = "replicate"


class CircularPad1d(_Pad):
    """The last dimension continued periodically."""

    _n, _mode = 1, "circular"


class CircularPad2d(_Pad):
    """The last two dimensions continued periodically."""

    _mode = "circular"


class Upsample(Module):
    """Spatial dimensions enlarged by repeating elements."""

    def __init__(self, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                 align_corners: bool | None = None, recompute_scale_factor: bool | None = None) -> None:
        super().__init__()
        self.size, self.mode, self.align_corners = size, mode, align_corners
        self.scale_factor = (None if scale_factor is None else tuple(float(s) for s in scale_factor)
                             if isinstance(scale_factor, (tuple, list)) else float(scale_factor))

    def forward(self, input: Tensor) -> Tensor:
        return f.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        what = f"scale_factor={self.scale_factor!r}" if self.scale_factor is not None else f"size={self.size!r}"
        return f"{what}, mode={self.mode!r}"


class PixelShuffle(Module):
    """[…, C·r², H, W] → […, C, H·r, W·r]."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return f.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class CosineSimilarity(Module):
    """The cosine of the angle between vectors along a dimension."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return distance_functions.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """The p-norm of differences along the last dimension."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return distance_functions.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
