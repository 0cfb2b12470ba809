"""Reductions over any axes; the axes are dropped.

Kernels add in an order that the reduced extents alone decide (docs/architecture.md, "Bits"); the references here use
NumPy's, so sums agree to rounding, all else exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..attrs import Attr
from ..dims import Dim, product
from ..dtypes import DType, boolean, i64
from ..errors import ShapeError
from ..opdef import Kind, OpDef, register
from ..types import TensorType, Type
from ._common import Array, check_axes, one, quiet, require, show, tensor
from .elementwise import ALL, FLOAT, NUMBER


def reduced(shape: tuple[Dim, ...], axes: tuple[int, ...]) -> tuple[Dim, ...]:
    """`shape` without `axes`."""
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _infer(
    name: str, kinds: tuple[str, ...], result: DType | None, needs_elements: bool
) -> Callable[..., Type]:
    def infer(attrs: Any, x: Type) -> Type:
        t = tensor(name, x)
        require(name, t, kinds=kinds)
        axes = check_axes(name, attrs.axes, t.rank)
        if needs_elements and product([t.shape[a] for a in axes]) == 0:
            raise ShapeError(
                f"{name} over axes {axes} of {show(t.shape)} has no element to choose",
                hint="an empty reduction has no identity here",
            )
        return TensorType(result or t.dtype, reduced(t.shape, axes))

    return infer


def _spread(b: Any, n: Any, v: Any, x: Any) -> Any:
    """A reduced value back at x's shape."""
    return b.expand(v, x.shape, n.attrs.axes)


def _extreme_vjp(b: Any, n: Any, g: Any, x: Any) -> list[Any]:
    """Ties share the gradient evenly, as torch.amax does."""
    hit = b.cast(b.eq(x, _spread(b, n, n, x)), dtype=x.dtype)
    share = b.div(g, b.sum(hit, axes=n.attrs.axes))
    return [b.mul(hit, _spread(b, n, share, x))]


def _prod_vjp(b: Any, n: Any, g: Any, x: Any) -> list[Any]:
    """Product of the others: with no zero n/x, with one zero the product of the rest at the zero, else 0."""
    axes = n.attrs.axes
    zero, one_ = b.like(0, x), b.like(1, x)
    is_zero = b.eq(x, zero)
    zeros = b.sum(b.cast(is_zero, dtype=x.dtype), axes=axes)
    safe = b.select(is_zero, one_, x)
    rest = b.prod(
        safe, axes=axes
    )  # of the nonzero elements; differentiable once more where there is at most one zero
    none = b.eq(_spread(b, n, zeros, x), zero)
    single = b.and_(b.eq(_spread(b, n, zeros, x), one_), is_zero)
    whole = _spread(b, n, rest, x)
    others = b.select(none, b.div(whole, safe), b.select(single, whole, zero))
    return [b.mul(_spread(b, n, g, x), others)]


def _arg(f: Any) -> Callable[..., Any]:
    def run(a: Any, t: TensorType, x: Array) -> Array:
        kept = [i for i in range(x.ndim) if i not in a.axes]
        flat = np.transpose(x, (*kept, *sorted(a.axes))).reshape(*[x.shape[i] for i in kept], -1)
        return np.asarray(f(flat, axis=-1), dtype=np.int64)

    return run


def _axes(f: Any) -> Callable[..., Any]:
    def run(a: Any, t: TensorType, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(f(x, axis=tuple(a.axes)), dtype=x.dtype)

    return run


def _whole(f: Any) -> Callable[..., Any]:
    """Sums and products in the operand's own dtype (NumPy would widen small integers)."""

    def run(a: Any, t: TensorType, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(f(x, axis=tuple(a.axes), dtype=x.dtype))

    return run


_EMPTY = (one(0, 3, attrs={"axes": (0,)}),)
_FULL = (
    one(3, 17, attrs={"axes": (1,)}),
    one(5, 4, 3, attrs={"axes": (0, 2)}),
    one(19, 3, attrs={"axes": (0,)}),
    one(2, 3, attrs={"axes": ()}),
    one(4, 5, attrs={"axes": (0, 1)}),
)
_KIND = {
    FLOAT: ("float",),
    NUMBER: ("float", "int", "uint"),
    ALL: ("float", "int", "uint", "bool"),
    ("bool",): ("bool",),
}


def _register(
    name: str,
    reference: Callable[..., Any],
    doc: str,
    dtypes: tuple[str, ...],
    *,
    result: DType | None = None,
    vjp: Any = None,
    empty: bool = True,
    exact: bool = True,
) -> None:
    register(
        OpDef(
            name,
            1,
            _infer(name, _KIND[dtypes], result, not empty),
            quiet(reference),
            Kind.REDUCTION,
            (Attr("axes", "ints"),),
            vjp=vjp,
            doc=doc,
            family="reduction",
            dtypes=dtypes,
            exact=exact,
            samples=_FULL + (_EMPTY if empty else ()),
            bad=(one(3, attrs={"axes": (1,)}), one(3, 3, attrs={"axes": (0, 0)}), one(3)),
        )
    )


_register(
    "sum",
    _whole(np.sum),
    "Sum; sixteen-bit floats accumulate in float32; integers wrap.",
    NUMBER,
    exact=False,
    vjp=lambda b, n, g, x: [_spread(b, n, g, x)],
)
_register("prod", _whole(np.prod), "Product.", NUMBER, exact=False, vjp=_prod_vjp)
_register(
    "max",
    _axes(np.max),
    "Greatest element; NaN wins. Ties share the gradient.",
    NUMBER,
    exact=False,  # which of two zeros of different sign wins is up to the order
    vjp=_extreme_vjp,
    empty=False,
)
_register(
    "min",
    _axes(np.min),
    "Least element; NaN wins. Ties share the gradient.",
    NUMBER,
    exact=False,  # which of two zeros of different sign wins is up to the order
    vjp=_extreme_vjp,
    empty=False,
)
_register(
    "argmax",
    _arg(np.argmax),
    "Index of the first greatest element, in row-major order of the reduced axes; NaN wins.",
    NUMBER,
    result=i64,
    empty=False,
)
_register(
    "argmin",
    _arg(np.argmin),
    "Index of the first least element, in row-major order of the reduced axes; NaN wins.",
    NUMBER,
    result=i64,
    empty=False,
)
_register("any", _axes(np.any), "True where some element is.", ("bool",), result=boolean)
_register("all", _axes(np.all), "True where every element is.", ("bool",), result=boolean)
