"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any

from ..tensor import Parameter, Tensor
from . import init
from .linear import parameter
from .linear_functions import _convolve, _convolve_transposed, each
from .module import Module
from .shape_functions import pad

_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What convolutions of any rank share."""

    weight: Parameter
    bias: Parameter | None
    _n = 2
    _transposed = False

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any,
                 dilation: Any, groups: int, bias: bool, padding_mode: str, output_padding: Any, device: Any,
                 dtype: Any) -> None:
        super().__init__()
        n = self._n
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups:
            raise ValueError("out_channels must be divisible by groups")
        if padding_mode not in _MODES:
            raise ValueError(f"padding_mode must be one of {set(_MODES)}, but got padding_mode='{padding_mode}'")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = each(kernel_size, n, "kernel_size"), each(stride, n, "stride")
        self.padding = padding if isinstance(padding, str) else each(padding, n, "padding")
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"Invalid padding string {padding!r}, should be one of {{'same', 'valid'}}")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
        self.dilation, self.groups = each(dilation, n, "dilation"), groups
        self.output_padding, self.padding_mode = each(output_padding, n, "output_padding"), padding_mode
        first, second = (in_channels, out_channels) if self._transposed else (out_channels, in_channels)
        self.weight = parameter(first, second // groups, *self.kernel_size, device=device, dtype=dtype)
        if bias:
            self.bias = parameter(out_channels, device=device, dtype=dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform on ±1/√fan_in, as PyTorch."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            if fan_in:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def _layer(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels})"

    def _edge(self) -> tuple[int, ...]:
        """The padding as `pad` takes it: (low, high) of the last dimension first."""
        if self.padding == "valid":
            return (0, 0) * self._n
        if self.padding == "same":
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return tuple(x for t in reversed(totals) for x in (t // 2, t - t // 2))
        return tuple(p for p in reversed(self.padding) for _ in (0, 1))  # type: ignore[misc]

    def forward(self, input: Tensor) -> Tensor:
        own = self._parameters
        weight, bias, padding = own["weight"], own["bias"], self.padding
        assert weight is not None
        if self.padding_mode != "zeros":
            input, padding = pad(input, self._edge(), self.padding_mode), 0  # type: ignore[assignment]
        return _convolve(self._n, input, weight, bias, self.stride, padding, self.dilation, self.groups,
                         self._layer())

    def extra_repr(self) -> str:
        n = self._n
        text = (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}")
        if self.padding != (0,) * n:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * n:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * n:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class Conv2d(_Convolution):
    """Cross-correlation of [N, C, H, W] with learnt filters."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
                         padding_mode, 0, device, dtype)


class Conv1d(Conv2d):
    """Cross-correlation of [N, C, L] with learnt filters."""

    _n = 1


class ConvTranspose2d(_Convolution):
    """The transpose of `Conv2d`: [N, C, H, W] to a larger image."""

    _transposed = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
                         padding_mode, output_padding, device, dtype)

    def _extra_for(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """The output padding that gives a wanted size. Raises ValueError."""
        n = self._n
        size = tuple(int(d) for d in output_size)[-n:]
        extra = []
        for wanted, d, s, p, k, dil in zip(size, input._shape[-n:], self.stride, self.padding, self.kernel_size,
                                           self.dilation, strict=True):
            least = (d - 1) * s - 2 * int(p) + dil * (k - 1) + 1
            if not least <= wanted < least + max(s, dil):
                raise ValueError(f"requested an output size of {list(size)}, but valid sizes of this dimension range "
                                 f"from {least} to {least + max(s, dil) - 1} (for an input of {list(input.shape)})")
            extra.append(wanted - least)
        return tuple(extra)

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        extra = self.output_padding if output_size is None else self._extra_for(input, output_size)
        return _convolve_transposed(self._n, input, self.weight, self.bias, self.stride, self.padding, extra,
                                    self.groups, self.dilation, self._layer())


class ConvTranspose1d(ConvTranspose2d):
    """The transpose of `Conv1d`."""

    _n = 1
