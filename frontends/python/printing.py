"""`repr` of tensors, as PyTorch prints them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ir.dtypes import boolean, f32, i64
from . import dtypes
from .tensor import Tensor

OPTIONS: dict[str, Any] = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80, "sci_mode": None}


def set_printoptions(precision: int | None = None, threshold: int | None = None, edgeitems: int | None = None,
                     linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None) -> None:
    """Set how tensors print, as PyTorch's function of this name."""
    if profile == "full":
        OPTIONS.update(precision=4, threshold=math.inf, edgeitems=3, linewidth=80)
    elif profile == "short":
        OPTIONS.update(precision=2, threshold=1000, edgeitems=2, linewidth=80)
    elif profile == "default":
        OPTIONS.update(precision=4, threshold=1000, edgeitems=3, linewidth=80)
    for key, value in (("precision", precision), ("threshold", threshold), ("edgeitems", edgeitems),
                       ("linewidth", linewidth)):
        if value is not None:
            OPTIONS[key] = value
    OPTIONS["sci_mode"] = sci_mode


class _Formatter:
    """Width and style of all elements of one tensor."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.floating = array.dtype.kind == "f"
        self.integral = self.scientific = False
        self.width = 1
        flat = array.reshape(-1)
        if not self.floating:
            self.width = max((len(str(v)) for v in flat.tolist()), default=1)
            return
        wide = flat.astype(np.float64)
        regular = wide[np.isfinite(wide) & (wide != 0)]
        if regular.size == 0:
            self.integral = bool(np.all(np.isfinite(wide)))
            self.width = max((len(self(v)) for v in wide.tolist()), default=1)
            return
        sizes = np.abs(regular)
        low, high = sizes.min(), sizes.max()
        self.integral = bool(np.all(regular == np.ceil(regular)))
        if self.integral:
            self.scientific = bool(high / low > 1000.0 or high > 1e8)
        else:
            self.scientific = bool(high / low > 1000.0 or high > 1e8 or low < 1e-4)
        if OPTIONS["sci_mode"] is not None:
            self.scientific = OPTIONS["sci_mode"]
        self.width = max(len(self(v)) for v in wide.tolist())

    def __call__(self, value: Any) -> str:
        if not self.floating:
            return str(value)
        if self.scientific:
            return f"{value:.{OPTIONS['precision']}e}"
        if self.integral:
            return f"{value:.0f}." if math.isfinite(value) else f"{value:.0f}"
        return f"{value:.{OPTIONS['precision']}f}"

    def padded(self, value: Any) -> str:
        return self(value).rjust(self.width)


def _summarised(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The elements at the edges, which are all that is printed of a large tensor."""
    edge = OPTIONS["edgeitems"]
    for axis, extent in enumerate(array.shape):
        if extent > 2 * edge:
            keep = [*range(edge), *range(extent - edge, extent)]
            array = np.take(array, keep, axis)
    return array


def _lines(array: np.ndarray[Any, Any], indent: int, summarise: bool, show: _Formatter) -> str:
    if array.ndim == 0:
        return show.padded(array.item())
    edge = OPTIONS["edgeitems"]
    cut = summarise and array.shape[0] > 2 * edge
    if array.ndim == 1:
        per_line = max(1, math.floor((OPTIONS["linewidth"] - indent) / (show.width + 2)))
        if cut:
            data = [show.padded(v) for v in array[:edge].tolist()] + [" ..."] + \
                [show.padded(v) for v in array[-edge:].tolist()]
        else:
            data = [show.padded(v) for v in array.tolist()]
        rows = [data[i:i + per_line] for i in range(0, len(data), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join([", ".join(row) for row in rows]) + "]"
    if cut:
        parts = [_lines(array[i], indent + 1, summarise, show) for i in range(edge)] + ["..."] + \
            [_lines(array[i], indent + 1, summarise, show) for i in range(len(array) - edge, len(array))]
    else:
        parts = [_lines(row, indent + 1, summarise, show) for row in array]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def tensor_repr(t: Tensor) -> str:
    """`tensor([...], dtype=…, grad_fn=…)`."""
    prefix = "tensor("
    array = t._array("print")
    if t._dtype.name == "bf16":
        array = array.astype(np.float32)
    suffixes = []
    shape = tuple(t._shape)
    if array.size == 0:
        if t.dim() != 1:
            suffixes.append(f"size={shape}")
        text = "[]"
        plain = t._dtype is dtypes.default()
    else:
        summarise = array.size > OPTIONS["threshold"]
        seen = _summarised(array) if summarise else array
        text = _lines(array, len(prefix), summarise, _Formatter(seen))
        plain = t._dtype in (dtypes.default(), i64, boolean)
    if not plain or (array.size == 0 and t._dtype is not f32):
        suffixes.append(f"dtype={t.dtype!r}")
    if t.is_leaf:
        if t.requires_grad:
            suffixes.append("requires_grad=True")
    else:
        suffixes.append(f"grad_fn={t.grad_fn!r}")
    out = [prefix + text]
    length = len(out[0]) - out[0].rfind("\n") - 1 if "\n" in out[0] else len(out[0])
    for suffix in suffixes:
        if length + len(suffix) + 2 > OPTIONS["linewidth"]:
            out.append(",\n" + " " * len(prefix) + suffix)
            length = len(prefix) + len(suffix)
        else:
            out.append(", " + suffix)
            length += len(suffix) + 2
    return "".join(out) + ")"
