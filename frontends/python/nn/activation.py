"""Activations as modules."""

from __future__ import annotations

from typing import Any

from .. import device as devices
from ..creation import full
from ..tensor import Parameter, Tensor
from . import activation_functions as f
from .module import Module


class _Plain(Module):
    """An activation without options."""

    _function: Any

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input)  # type: ignore[no-any-return]


class _InPlace(Module):
    """An activation that may overwrite its input."""

    _function: Any
    _shown = True

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def _options(self) -> tuple[Any, ...]:
        return ()

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, *self._options(), inplace=self.inplace)  # type: ignore[no-any-return]

    def _described(self) -> str:
        return ""

    def extra_repr(self) -> str:
        parts = [self._described(), "inplace=True" if self.inplace and self._shown else ""]
        return ", ".join(p for p in parts if p)


class ReLU(_InPlace):
    """max(x, 0)."""

    _function = staticmethod(f.relu)


class ReLU6(_InPlace):
    """min(max(x, 0), 6)."""

    _function = staticmethod(f.relu6)


class SELU(_InPlace):
    """Scaled ELU."""

    _function = staticmethod(f.selu)


class SiLU(_InPlace):
    """x·sigmoid(x)."""

    _function = staticmethod(f.silu)


class Mish(_InPlace):
    """x·tanh(softplus(x))."""

    _function = staticmethod(f.mish)


class Hardswish(_InPlace):
    """x·hardsigmoid(x)."""

    _function, _shown = staticmethod(f.hardswish), False


class Hardsigmoid(_InPlace):
    """clamp((x + 3) / 6, 0, 1)."""

    _function, _shown = staticmethod(f.hardsigmoid), False


class LeakyReLU(_InPlace):
    """x for x > 0, else negative_slope·x."""

    _function = staticmethod(f.leaky_relu)

    def __init__(self, negative_slope: float = 1e-2, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def _options(self) -> tuple[Any, ...]:
        return (self.negative_slope,)

    def _described(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(_InPlace):
    """x for x > 0, else alpha·(e^x − 1)."""

    _function = staticmethod(f.elu)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def _options(self) -> tuple[Any, ...]:
        return (self.alpha,)

    def _described(self) -> str:
        return f"alpha={self.alpha}"


class CELU(ELU):
    """x for x > 0, else alpha·(e^(x / alpha) − 1)."""

    _function = staticmethod(f.celu)


class Hardtanh(_InPlace):
    """clamp(x, min_val, max_val)."""

    _function = staticmethod(f.hardtanh)

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        if max_val <= min_val:
            raise AssertionError("max_val must be larger than min_val")
        self.min_val, self.max_val = min_val, max_val

    def _options(self) -> tuple[Any, ...]:
        return (self.min_val, self.max_val)

    def _described(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}"


class Threshold(_InPlace):
    """x where x > threshold, else a value."""

    _function = staticmethod(f.threshold)

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.threshold, self.value = threshold, value

    def _options(self) -> tuple[Any, ...]:
        return (self.threshold, self.value)

    def _described(self) -> str:
        return f"threshold={self.threshold}, value={self.value}"


class RReLU(_InPlace):
    """Leaky ReLU with a random slope in training."""

    _function = staticmethod(f.rrelu)

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.lower, self.upper = lower, upper

    def _options(self) -> tuple[Any, ...]:
        return (self.lower, self.upper, self.training)

    def _described(self) -> str:
        return f"lower={self.lower}, upper={self.upper}"


class Sigmoid(_Plain):
    """1 / (1 + e^−x)."""

    _function = staticmethod(f.sigmoid)


class Tanh(_Plain):
    """Hyperbolic tangent."""

    _function = staticmethod(f.tanh)


class LogSigmoid(_Plain):
    """log(sigmoid(x))."""

    _function = staticmethod(f.logsigmoid)


class Softsign(_Plain):
    """x / (1 + |x|)."""

    _function = staticmethod(f.softsign)


class Tanhshrink(_Plain):
    """x − tanh(x)."""

    _function = staticmethod(f.tanhshrink)


class GELU(Module):
    """x·Φ(x), exactly or by the tanh approximation."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return f.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """log(1 + e^(beta·x)) / beta."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        return f.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Hardshrink(Module):
    """x where |x| > lambd, else 0."""

    _function: Any = staticmethod(f.hardshrink)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, self.lambd)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Softshrink(Hardshrink):
    """x moved towards 0 by lambd."""

    _function = staticmethod(f.softshrink)


class PReLU(Module):
    """x for x > 0, else a learnt slope times x."""

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        devices.check(device)
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(full((num_parameters,), float(init), dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        return f.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class _AlongDim(Module):
    _function: Any
    dim: int | None

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, self.dim)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_AlongDim):
    """Softmax along a dimension."""

    _function = staticmethod(f.softmax)


class Softmin(_AlongDim):
    """softmax(−x) along a dimension."""

    _function = staticmethod(f.softmin)


class LogSoftmax(_AlongDim):
    """log(softmax(x)) along a dimension."""

    _function = staticmethod(f.log_softmax)


class GLU(_AlongDim):
    """First half · sigmoid(second half) along a dimension."""

    _function = staticmethod(f.glu)

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim)


class Softmax2d(_Plain):
    """Softmax over the channels of [N, C, H, W]."""

    _function = staticmethod(lambda x: f.softmax(x, -3))
