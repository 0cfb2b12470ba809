"""Linear maps: linear, convolutions, embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....ir.build import Builder
from ....ir.errors import DTypeError, NotSupportedError, ShapeError
from ....ir.node import Node
from ..place import location
from ..tensor import Tensor
from ..trace import apply


def _linear(b: Builder, x: Node, w: Node, bias: Node | None = None) -> Node:
    y = b.dot(x, w, contract_a=(len(x.shape) - 1,), contract_b=(len(w.shape) - 1,))
    if bias is None:
        return y
    if bias.shape != y.shape:
        bias = b.broadcast(bias, shape=y.shape, dims=tuple(range(len(y.shape) - len(bias.shape), len(y.shape))))
    return b.add(y, bias)


def check_linear(x: Tensor, w: Tensor, layer: str) -> None:
    """Raises ShapeError naming the layer, both shapes, and the usual remedies."""
    features = w.shape[-1]
    if x.dim() and x.shape[-1] == features:
        if x._dtype is not w._dtype:
            raise DTypeError(f"{layer}: the input is {x._dtype.long_name} but the weight is {w._dtype.long_name}",
                             location=location(), hint=f"convert one of them, for example x.to({w.dtype})")
        return
    hint = f"its last dimension must have {features} elements"
    if features == 1:
        hint = "the feature dimension is missing: x.unsqueeze(-1) gives " + str([*x.shape, 1])
    elif x.dim() and x.numel() % features == 0 and x.dim() > 2:
        hint += "; to merge trailing dimensions use x.flatten(1)"
    raise ShapeError(f"{layer} cannot take an input of shape {list(x.shape)}: the weight has shape {list(w.shape)}",
                     location=location(), hint=hint)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·Wᵀ + b for x [..., in], W [out, in], b [out].

    Raises:
        ShapeError, DTypeError: at the user's line.
    """
    check_linear(input, weight, "linear")
    operands = (input, weight) if bias is None else (input, weight, bias)
    return apply(_linear, operands)  # type: ignore[no-any-return]


def _bilinear(b: Builder, x1: Node, x2: Node, w: Node, bias: Node | None = None) -> Node:
    lead = x1.shape[:-1]
    n = 1
    for d in lead:
        n *= d
    left, right = b.reshape(x1, shape=(n, x1.shape[-1])), b.reshape(x2, shape=(n, x2.shape[-1]))
    partial = b.dot(left, w, contract_a=(1,), contract_b=(1,))  # [n, out, in2]
    y = b.dot(partial, right, contract_a=(2,), contract_b=(1,), batch_a=(0,), batch_b=(0,))
    if bias is not None:
        y = b.add(y, b.broadcast(bias, shape=y.shape, dims=(1,)))
    return b.reshape(y, shape=(*lead, w.shape[0]))


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x1ᵀ·W·x2 + b for W [out, in1, in2]."""
    operands = (input1, input2, weight) if bias is None else (input1, input2, weight, bias)
    return apply(_bilinear, operands)  # type: ignore[no-any-return]


# -- convolution ----------------------------------------------------------------------------------------------------


def each(value: Any, n: int, name: str) -> tuple[int, ...]:
    """An int or a sequence as n ints. Raises RuntimeError in PyTorch's words."""
    if isinstance(value, (tuple, list)):
        if len(value) == 1:
            value = (*value,) * n
        if len(value) != n:
            raise RuntimeError(f"expected {name} to be a single integer value or a list of {n} values, got {value}")
        return tuple(int(v) for v in value)
    return (int(value),) * n


def _padding(padding: Any, window: Sequence[int], dilation: Sequence[int],
             stride: Sequence[int]) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(window)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        total = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    if isinstance(padding, str):
        raise ValueError(f"Invalid padding string {padding!r}, should be one of 'valid', 'same'")
    return tuple((p, p) for p in each(padding, len(window), "padding"))


def _conv(b: Builder, x: Node, w: Node, bias: Node | None, stride: Any, pads: Any, dilation: Any, groups: int) -> Node:
    y = b.conv(x, w, stride=stride, pads=pads, dilation=dilation, groups=groups)
    return _channel_bias(b, y, bias)


def _conv_plain(b: Builder, x: Node, w: Node, *args: Any) -> Node:
    return _conv(b, x, w, None, *args)


def _channel_bias(b: Builder, y: Node, bias: Node | None) -> Node:
    return y if bias is None else b.add(y, b.broadcast(bias, shape=y.shape, dims=(1,)))


def check_conv(x: Tensor, w: Tensor, n: int, groups: int, layer: str, transposed: bool = False) -> None:
    """Raises ShapeError or DTypeError naming the layer and both shapes."""
    if x.dim() not in (n + 1, n + 2):
        raise ShapeError(f"{layer} expects an input of {n + 1} (unbatched) or {n + 2} dimensions, got shape "
                         f"{list(x.shape)}", location=location(),
                         hint=f"shape it [batch, channels, {', '.join('DHW'[3 - n:])}]")
    channels = x.shape[-n - 1]
    wanted = w.shape[0] if transposed else w.shape[1] * groups
    if channels != wanted:
        raise ShapeError(f"{layer}: the weight of shape {list(w.shape)} (groups={groups}) expects {wanted} channels, "
                         f"the input of shape {list(x.shape)} has {channels}", location=location(),
                         hint="channels come before the spatial dimensions")
    if x._dtype is not w._dtype:
        raise DTypeError(f"{layer}: the input is {x._dtype.long_name} but the weight is {w._dtype.long_name}",
                         location=location(), hint=f"convert one of them, for example x.to({w.dtype})")


def _convolve(n: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
              groups: int, layer: str) -> Tensor:
    check_conv(input, weight, n, groups, layer)
    stride, dilation = each(stride, n, "stride"), each(dilation, n, "dilation")
    pads = _padding(padding, weight.shape[2:], dilation, stride)
    batched = input if input.dim() == n + 2 else input.unsqueeze(0)
    args = (stride, pads, dilation, int(groups))
    y = apply(_conv_plain, (batched, weight), args) if bias is None else apply(_conv, (batched, weight, bias), args)
    return y if batched is input else y.squeeze(0)  # type: ignore[no-any-return]


def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
           dilation: Any = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of [N, C, L] with [O, C/groups, K]."""
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups, "conv1d")


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
           dilation: Any = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of [N, C, H, W] with [O, C/groups, KH, KW]."""
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups, "conv2d")


def _conv_transpose(b: Builder, x: Node, w: Node, bias: Node | None, stride: Any, pads: Any, dilation: Any, groups: int,
                    spatial: Any) -> Node:
    y = b.conv_input_grad(x, w, stride=stride, pads=pads, dilation=dilation, groups=groups, spatial=spatial)
    return _channel_bias(b, y, bias)


def _conv_transpose_plain(b: Builder, x: Node, w: Node, *args: Any) -> Node:
    return _conv_transpose(b, x, w, None, *args)


def _convolve_transposed(n: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any,
                         output_padding: Any, groups: int, dilation: Any, layer: str) -> Tensor:
    check_conv(input, weight, n, groups, layer, transposed=True)
    stride, dilation = each(stride, n, "stride"), each(dilation, n, "dilation")
    padding, extra = each(padding, n, "padding"), each(output_padding, n, "output_padding")
    for e, s, d in zip(extra, stride, dilation, strict=True):
        if e >= max(s, d):
            raise RuntimeError(f"output padding must be smaller than either stride or dilation, but got "
                               f"output_padding: {extra}, stride: {stride}, dilation: {dilation}")
    batched = input if input.dim() == n + 2 else input.unsqueeze(0)
    sizes = zip(batched.shape[2:], weight.shape[2:], stride, padding, extra, dilation, strict=True)
    spatial = tuple((d - 1) * s - 2 * p + dl * (k - 1) + e + 1 for d, k, s, p, e, dl in sizes)
    args = (stride, tuple((p, p) for p in padding), dilation, int(groups), spatial)
    y = (apply(_conv_transpose_plain, (batched, weight), args) if bias is None
         else apply(_conv_transpose, (batched, weight, bias), args))
    return y if batched is input else y.squeeze(0)  # type: ignore[no-any-return]


def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Tensor:
    """The transpose of conv1d: [N, C, L] with [C, O/groups, K]."""
    return _convolve_transposed(1, input, weight, bias, stride, padding, output_padding, groups, dilation,
                                "conv_transpose1d")


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Tensor:
    """The transpose of conv2d: [N, C, H, W] with [C, O/groups, KH, KW]."""
    return _convolve_transposed(2, input, weight, bias, stride, padding, output_padding, groups, dilation,
                                "conv_transpose2d")


# -- embedding ------------------------------------------------------------------------------------------------------


def _embedding(b: Builder, w: Node, idx: Node, padding_idx: int | None) -> Node:
    rows = b.index_select(w, idx, axis=0)
    if padding_idx is None:
        return rows
    pad = b.eq(idx, b.scalar(padding_idx, idx.dtype))
    spread = b.broadcast(pad, shape=rows.shape, dims=tuple(range(len(idx.shape))))
    return b.select(spread, b.stop_gradient(rows), rows)


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """Rows of `weight` [V, D] by index; `padding_idx`'s row gets no gradient.

    Raises:
        IndexRangeError: while running, for an index outside [0, V).
    """
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise NotSupportedError("embedding: max_norm, scale_grad_by_freq and sparse are not supported",
                                location=location(), hint="leave them at their defaults; gradients are dense")
    if not input._dtype.is_integer:
        raise DTypeError(f"embedding needs integer indices, got {input._dtype.long_name}", location=location(),
                         hint="convert them with .long()")
    if padding_idx is not None and padding_idx < 0:
        padding_idx += weight.shape[0]
    return apply(_embedding, (weight, input), (padding_idx,))  # type: ignore[no-any-return]


def _one_hot(b: Builder, idx: Node, classes: int) -> Node:
    shape = (*idx.shape, classes)
    line = b.iota(shape=shape, axis=len(shape) - 1, dtype=idx.dtype)
    hit = b.eq(b.broadcast(idx, shape=shape, dims=tuple(range(len(idx.shape)))), line)
    return b.cast(hit, dtype=idx.dtype)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Integers [...] → 0/1 of shape [..., num_classes]; −1 takes the greatest value plus one (needs the values)."""
    if num_classes == -1:
        num_classes = int(tensor.max().item()) + 1
    return apply(_one_hot, (tensor,), (int(num_classes),))  # type: ignore[no-any-return]


__all__ = ["bilinear", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "embedding", "linear", "one_hot"]
