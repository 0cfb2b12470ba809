"""Normalisation layers."""

from __future__ import annotations

from typing import Any

from ....ir.dtypes import i64
from ....ir.errors import DTypeError
from .. import device as devices
from ..autograd import no_grad
from ..creation import ones, tensor, zeros
from ..place import location
from ..tensor import Parameter, Tensor
from . import init
from . import norm_functions as f
from .linear import parameter
from .module import Module


def _check_dtype(x: Tensor, layer: str) -> None:
    if not x._dtype.is_float:
        raise DTypeError(f"{layer} needs a floating input, got {x._dtype.long_name}", location=location(),
                         hint="convert it with .float()")


class _Running(Module):
    """Batch and instance normalisation: learnt scale and shift, running statistics as buffers."""

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    _ranks: tuple[int, ...] = (2, 3)

    def __init__(self, num_features: int, eps: float, momentum: float | None, affine: bool,
                 track_running_stats: bool, device: Any, dtype: Any, bias: bool) -> None:
        super().__init__()
        devices.check(device)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        if affine:
            self.weight = parameter(num_features, dtype=dtype)
        else:
            self.register_parameter("weight", None)
        if affine and bias:
            self.bias = parameter(num_features, dtype=dtype)
        else:
            self.register_parameter("bias", None)
        if track_running_stats:
            self.register_buffer("running_mean", zeros(num_features, dtype=dtype))
            self.register_buffer("running_var", ones(num_features, dtype=dtype))
            self.register_buffer("num_batches_tracked", tensor(0, dtype=i64))
        else:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Means 0, variances 1."""
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Running statistics reset, scale 1, shift 0."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _layer(self) -> str:
        return f"{type(self).__name__}({self.num_features})"

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")


class BatchNorm1d(_Running):
    """Normalisation of every channel of [N, C] or [N, C, L] over the batch."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def _factor(self) -> Any:
        """How far the running statistics move: the momentum, or 1 / batches for a cumulative average."""
        count = self.num_batches_tracked
        if not (self.training and self.track_running_stats) or count is None:
            return 0.0 if self.momentum is None else self.momentum
        with no_grad():
            count.add_(1)
            return self.momentum if self.momentum is not None else 1.0 / count.detach().float()

    def forward(self, input: Tensor) -> Tensor:
        f.check_features(input, self.num_features, self._layer(), self._ranks)
        _check_dtype(input, self._layer())
        factor = self._factor()
        mean, var = self.running_mean, self.running_var
        training = self.training or (mean is None and var is None)
        if training and not self.track_running_stats:
            mean = var = None
        return f.batch_norm(input, mean, var, self.weight, self.bias, training, factor, self.eps)


class BatchNorm2d(BatchNorm1d):
    """Normalisation of every channel of [N, C, H, W] over the batch."""

    _ranks = (4,)


class BatchNorm3d(BatchNorm1d):
    """Normalisation of every channel of [N, C, D, H, W] over the batch."""

    _ranks = (5,)


class InstanceNorm1d(_Running):
    """Normalisation of every channel of every sample of [N, C, L] (or one sample [C, L])."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
                 track_running_stats: bool = False, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        _check_dtype(input, self._layer())
        rank = max(self._ranks)
        x = input.unsqueeze(0) if input.dim() == rank - 1 else input
        f.check_features(x, self.num_features, self._layer(), (rank,))
        stats = self.training or not self.track_running_stats
        y = f.instance_norm(x, self.running_mean, self.running_var, self.weight, self.bias, stats,
                            self.momentum if self.momentum is not None else 0.0, self.eps)
        return y if x is input else y.squeeze(0)


class InstanceNorm2d(InstanceNorm1d):
    """Normalisation of every channel of every sample of [N, C, H, W] (or one sample [C, H, W])."""

    _ranks = (3, 4)


class LayerNorm(Module):
    """Normalisation over the last dimensions."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        if elementwise_affine:
            self.weight = parameter(*shape, device=device, dtype=dtype)
        else:
            self.register_parameter("weight", None)
        if elementwise_affine and bias:
            self.bias = parameter(*shape, device=device, dtype=dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        layer = f"LayerNorm({', '.join(map(str, self.normalized_shape))})"
        f._check_normalized(input, self.normalized_shape, layer)
        _check_dtype(input, layer)
        return f.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}")


class RMSNorm(Module):
    """Division by the root mean square over the last dimensions."""

    weight: Parameter | None

    def __init__(self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        if elementwise_affine:
            self.weight = parameter(*shape, device=device, dtype=dtype)
        else:
            self.register_parameter("weight", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        f._check_normalized(input, self.normalized_shape, f"RMSNorm({', '.join(map(str, self.normalized_shape))})")
        return f.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Normalisation over groups of channels."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
                 device: Any = None, dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        if affine:
            self.weight = parameter(num_channels, device=device, dtype=dtype)
        else:
            self.register_parameter("weight", None)
        if affine and bias:
            self.bias = parameter(num_channels, device=device, dtype=dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        layer = f"GroupNorm({self.num_groups}, {self.num_channels})"
        f.check_features(input, self.num_channels, layer, range(2, 9))
        return f.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
                f"bias={self.bias is not None}")


class LocalResponseNorm(Module):
    """Division by a function of the squares in neighbouring channels."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return f.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
