"""Elementwise operators: operands of one shape, or rank 0 (splat).

`scalar` is the expression of one element in generated kernels; `tm_NAME(...)` names a math-library function of the
operand's compute dtype. Where it is None the kernel generator has a rule per dtype: casts, select, minimum and maximum
(NaN rules), integer division and remainder, shifts, rounding.

A vjp returns full-shape cotangents also for rank-0 operands: autodiff sums those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..attrs import Attr
from ..dtypes import DType, boolean
from ..errors import AttributeValueError, DTypeError, ShapeError
from ..opdef import Kind, OpDef, Sample, register
from ..types import TensorType, Type
from ._common import Array, one, quiet, require, same_dtype, show, tensor, two

FLOAT = ("f32", "f64", "f16", "bf16")
SIGNED = (*FLOAT, "i8", "i16", "i32", "i64")
NUMBER = (*SIGNED, "u8")
INTEGER = ("i8", "i16", "i32", "i64", "u8")
ALL = (*NUMBER, "bool")


def common_shape(op: str, *types: TensorType) -> tuple[Any, ...]:
    """The one shape of all operands of rank > 0. Raises ShapeError."""
    shapes = [t.shape for t in types if t.shape]
    for s in shapes[1:]:
        if s != shapes[0]:
            raise ShapeError(
                f"{op}: shapes {' and '.join(show(x) for x in shapes)} do not match",
                hint="in the IR only scalars broadcast by themselves; insert `broadcast`",
            )
    return shapes[0] if shapes else ()


def _infer(name: str, kinds: tuple[str, ...], result: DType | None) -> Callable[..., Type]:
    def infer(attrs: Any, *xs: Type) -> Type:
        ts = [tensor(name, x) for x in xs]
        for t in ts:
            require(name, t, kinds=kinds)
        dtype = same_dtype(name, *ts)
        return TensorType(result or dtype, common_shape(name, *ts))

    return infer


_KINDS = {
    FLOAT: ("float",),
    SIGNED: ("float", "int"),
    NUMBER: ("float", "int", "uint"),
    INTEGER: ("int", "uint"),
    ALL: ("float", "int", "uint", "bool"),
    (*INTEGER, "bool"): ("int", "uint", "bool"),
}


def _register(
    name: str,
    arity: int,
    reference: Callable[..., Any],
    dtypes: tuple[str, ...],
    doc: str,
    *,
    result: DType | None = None,
    vjp: Any = None,
    scalar: str | None = None,
    low: float = -2.0,
    high: float = 2.0,
    exact: bool = False,
    grad: bool = True,
    ranges: Any = (),
) -> None:
    shapes: tuple[tuple[tuple[int, ...], ...], ...] = (((3, 17),), ((),), ((0, 4),))
    if arity == 2:
        shapes = (((3, 17), (3, 17)), ((5,), ()), ((), (5,)), ((0, 2), (0, 2)))
    samples = tuple(
        Sample(
            tuple(("*", s) for s in each), low=low, high=high, grad=grad and vjp is not None, ranges=ranges
        )
        for each in shapes
    )
    wrong = "bool" if "bool" not in dtypes else None
    bad = [Sample((("f32", (3,)),) * (arity + 1))]
    if wrong:
        bad.append(Sample(((wrong, (3,)),) * arity))
    if arity == 2:
        bad += [
            Sample(
                (("f32" if "f32" in dtypes else "i32", (3,)), ("f32" if "f32" in dtypes else "i32", (4,)))
            ),
            Sample((("f32", (3,)), ("i32", (3,)))),
        ]
    register(
        OpDef(
            name,
            arity,
            _infer(name, _KINDS[dtypes], result),
            lambda a, t, *xs: reference(*xs),
            Kind.ELEMENTWISE,
            vjp=vjp,
            scalar=scalar,
            doc=doc,
            dtypes=dtypes,
            samples=samples,
            bad=tuple(bad),
            exact=exact,
            family="elementwise",
        )
    )


def _unary(
    name: str, reference: Callable[..., Any], doc: str, dtypes: tuple[str, ...] = FLOAT, **options: Any
) -> None:
    _register(name, 1, quiet(reference), dtypes, doc, **options)


def _binary(
    name: str, reference: Callable[..., Any], doc: str, dtypes: tuple[str, ...] = NUMBER, **options: Any
) -> None:
    _register(name, 2, quiet(reference), dtypes, doc, **options)


def math_function(
    name: str, reference: Callable[..., Any], doc: str, vjp: Any, low: float = -2.0, high: float = 2.0
) -> None:
    """Register a transcendental function: a float operator that the math library computes."""
    _unary(name, reference, doc, scalar=f"tm_{name}({{0}})", vjp=vjp, low=low, high=high)


# -- arithmetic ---------------------------------------------------------------------------------------------------

_unary("neg", np.negative, "−x.", SIGNED, scalar="-{0}", exact=True, vjp=lambda b, n, g, x: [b.neg(g)])
_unary(
    "abs",
    np.abs,
    "|x|; its gradient at 0 is 0.",
    SIGNED,
    exact=True,
    low=0.1,
    vjp=lambda b, n, g, x: [b.mul(g, b.sign(x))],
)
_unary(
    "sign",
    np.sign,
    "−1, 0 or 1; NaN stays NaN.",
    SIGNED,
    exact=True,
    vjp=lambda b, n, g, x: [b.mul(g, b.like(0, g))],
)
_binary("add", np.add, "x + y.", scalar="{0} + {1}", exact=True, vjp=lambda b, n, g, x, y: [g, g])
_binary("sub", np.subtract, "x − y.", scalar="{0} - {1}", exact=True, vjp=lambda b, n, g, x, y: [g, b.neg(g)])
_binary(
    "mul",
    np.multiply,
    "x · y.",
    scalar="{0} * {1}",
    exact=True,
    vjp=lambda b, n, g, x, y: [b.mul(g, y), b.mul(g, x)],
)
_binary(
    "div",
    np.divide,
    "x / y for floats.",
    FLOAT,
    scalar="{0} / {1}",
    exact=True,
    low=0.5,
    vjp=lambda b, n, g, x, y: [b.div(g, y), b.neg(b.mul(g, b.div(n, y)))],
)


def _floordiv(x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        return np.floor(np.divide(x, y))
    return np.floor_divide(x, y)


def _rem(x: Array, y: Array) -> Array:
    return np.remainder(x, y)


_binary(
    "floordiv",
    _floordiv,
    "⌊x / y⌋; integers round toward −∞ and give 0 for y = 0.",
    exact=True,
    low=1,
    high=9,
    vjp=lambda b, n, g, x, y: [None, None],
    grad=False,
)
_binary(
    "rem",
    _rem,
    "x − y·⌊x / y⌋, with the sign of y (torch.remainder); integers give 0 for y = 0.",
    low=1,
    high=9,
    exact=True,
    grad=False,
    vjp=lambda b, n, g, x, y: [g, b.neg(b.mul(g, b.floor(b.div(x, y))))],
)
_binary(
    "fmod",
    np.fmod,
    "x − y·trunc(x / y), with the sign of x.",
    low=1,
    high=9,
    exact=True,
    grad=False,
    vjp=lambda b, n, g, x, y: [g, b.neg(b.mul(g, b.trunc(b.div(x, y))))],
)


def _pow_vjp(b: Any, n: Any, g: Any, x: Any, y: Any) -> list[Any]:
    zero, one_ = b.like(0, x), b.like(1, x)
    # d/dx is 0 where y = 0 (also at x = 0, where y·x^(y−1) would be 0·inf), d/dy is 0 where x = 0 and y ≥ 0.
    dx = b.select(b.eq(_full(b, y, n), zero), b.mul(g, zero), b.mul(g, b.mul(y, b.pow(x, b.sub(y, one_)))))
    if y.op.name == "constant":
        return [dx, None]
    safe = b.select(
        b.and_(b.eq(_full(b, x, n), zero), b.ge(_full(b, y, n), zero)),
        b.mul(g, zero),
        b.mul(g, b.mul(n, b.log(x))),
    )
    return [dx, safe]


def _full(b: Any, x: Any, n: Any) -> Any:
    return x if x.shape == n.shape else b.splat(x, n.shape)


def _pow(x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        return np.power(x, y)
    # Integers wrap; a negative exponent gives 0 but for bases 1 and −1, as C's integer division of 1 by the power.
    power = np.power(x, np.maximum(y, 0)) if x.dtype.kind == "i" else np.power(x, y)
    if x.dtype.kind != "i":
        return power
    unit = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 == 0, 1, -1), 0)).astype(x.dtype)
    return np.where(y < 0, unit, power)


_binary("pow", _pow, "x to the power y.", NUMBER, scalar=None, vjp=_pow_vjp, low=0.5, high=3)
_binary(
    "atan2",
    np.arctan2,
    "Angle of the point (y, x), first operand y.",
    FLOAT,
    scalar="tm_atan2({0}, {1})",
    low=0.3,
    vjp=lambda b, n, g, y, x: [
        b.mul(g, b.div(x, b.add(b.mul(x, x), b.mul(y, y)))),
        b.neg(b.mul(g, b.div(y, b.add(b.mul(x, x), b.mul(y, y))))),
    ],
)


def _extreme_vjp(compare: str) -> Any:
    def vjp(b: Any, n: Any, g: Any, x: Any, y: Any) -> list[Any]:
        half = b.mul(g, b.like(0.5, g))
        same = b.eq(_full(b, x, n), _full(b, y, n))
        wins = getattr(b, compare)(_full(b, x, n), _full(b, y, n))
        zero = b.mul(g, b.like(0, g))
        return [b.select(same, half, b.select(wins, g, zero)), b.select(same, half, b.select(wins, zero, g))]

    return vjp




def _maximum(x: Array, y: Array) -> Array:
    """Unlike NumPy's, sure of the zero it gives: of zeros of both signs, as of NaNs, the first operand's."""
    return np.maximum(x, y) if x.dtype.kind != "f" else np.where((x >= y) | np.isnan(x), x, y)


def _minimum(x: Array, y: Array) -> Array:
    return np.minimum(x, y) if x.dtype.kind != "f" else np.where((x <= y) | np.isnan(x), x, y)


_binary(
    "maximum",
    _maximum,
    "The greater; NaN wins. Of zeros of both signs the first operand. Equal operands share the gradient.",
    ALL,
    exact=True,
    vjp=_extreme_vjp("gt"),
)
_binary(
    "minimum",
    _minimum,
    "The lesser; NaN wins. Of zeros of both signs the first operand. Equal operands share the gradient.",
    ALL,
    exact=True,
    vjp=_extreme_vjp("lt"),
)

# -- comparisons and logic ----------------------------------------------------------------------------------------

_COMPARISONS: tuple[tuple[str, str, Any], ...] = (
    ("eq", "==", np.equal),
    ("ne", "!=", np.not_equal),
    ("lt", "<", np.less),
    ("le", "<=", np.less_equal),
    ("gt", ">", np.greater),
    ("ge", ">=", np.greater_equal),
)
for _name, _sign, _ref in _COMPARISONS:
    _binary(_name, _ref, f"x {_sign} y.", ALL, result=boolean, scalar=f"{{0}} {_sign} {{1}}", exact=True)
_BITWISE: tuple[tuple[str, str, Any], ...] = (
    ("and", "&", np.bitwise_and),
    ("or", "|", np.bitwise_or),
    ("xor", "^", np.bitwise_xor),
)
for _name, _sign, _ref in _BITWISE:
    _binary(
        _name,
        _ref,
        f"x {_sign} y, logical for bool, bitwise for integers.",
        (*INTEGER, "bool"),
        scalar=f"{{0}} {_sign} {{1}}",
        exact=True,
    )
_unary("not", np.invert, "Logical not for bool, bitwise for integers.", (*INTEGER, "bool"), exact=True)


def _shift(f: Any) -> Any:
    def run(x: Array, y: Array) -> Array:
        bits = x.dtype.itemsize * 8
        inside = (y >= 0) & (y < bits)
        gone = np.where(x < 0, -1, 0).astype(x.dtype) if f is np.right_shift else np.zeros_like(x)
        return np.where(inside, f(x, np.where(inside, y, 0).astype(x.dtype)), gone).astype(x.dtype)

    return run


_binary(
    "shl",
    _shift(np.left_shift),
    "x·2^y modulo the width; 0 for y outside [0, bits).",
    INTEGER,
    low=0,
    high=7,
    exact=True,
)
_binary(
    "shr",
    _shift(np.right_shift),
    "⌊x / 2^y⌋, arithmetic for signed; all sign bits for y outside [0, bits).",
    INTEGER,
    low=0,
    high=7,
    exact=True,
)
_unary("isnan", np.isnan, "x is not a number.", result=boolean, exact=True)
_unary("isinf", np.isinf, "x is +∞ or −∞.", result=boolean, exact=True)
_unary("isfinite", np.isfinite, "x is neither infinite nor NaN.", result=boolean, exact=True)

# -- roots and rounding -------------------------------------------------------------------------------------------

_unary(
    "sqrt",
    np.sqrt,
    "Square root, correctly rounded.",
    scalar="tm_sqrt({0})",
    exact=True,
    low=0.2,
    high=4,
    vjp=lambda b, n, g, x: [b.div(g, b.add(n, n))],
)
_unary(
    "rsqrt",
    lambda x: (1 / np.sqrt(x)).astype(x.dtype),
    "1 / √x.",
    scalar="tm_rsqrt({0})",
    low=0.2,
    high=4,
    exact=True,
    vjp=lambda b, n, g, x: [b.mul(b.mul(g, b.like(-0.5, n)), b.div(n, x))],
)
_unary(
    "reciprocal",
    lambda x: (1 / x).astype(x.dtype),
    "1 / x.",
    exact=True,
    low=0.3,
    high=3,
    vjp=lambda b, n, g, x: [b.neg(b.mul(g, b.mul(n, n)))],
)
_ROUNDINGS: tuple[tuple[str, Any, str], ...] = (
    ("floor", np.floor, "Greatest integer ≤ x."),
    ("ceil", np.ceil, "Least integer ≥ x."),
    ("round", np.rint, "Nearest integer, halves to even."),
    ("trunc", np.trunc, "x without its fraction."),
)
for _name, _ref, _doc in _ROUNDINGS:
    _unary(_name, _ref, _doc, exact=True, grad=False, vjp=lambda b, n, g, x: [b.mul(g, b.like(0, g))])
_unary(
    "stop_gradient", lambda x: x, "x, held constant by differentiation (detach).", ALL, exact=True, grad=False
)

# -- select, clamp, casts -----------------------------------------------------------------------------------------


def _infer_select(attrs: Any, c: Type, x: Type, y: Type) -> Type:
    tc, tx, ty = tensor("select", c), tensor("select", x), tensor("select", y)
    require("select", tc, kinds=("bool",))
    return TensorType(same_dtype("select", tx, ty), common_shape("select", tc, tx, ty))


def _select_vjp(b: Any, n: Any, g: Any, c: Any, x: Any, y: Any) -> list[Any]:
    zero = b.like(0, g)
    return [None, b.select(c, g, zero), b.select(c, zero, g)]


register(
    OpDef(
        "select",
        3,
        _infer_select,
        lambda a, t, c, x, y: np.asarray(np.where(c, x, y)).astype(x.dtype),
        Kind.ELEMENTWISE,
        vjp=_select_vjp,
        doc="x where c, else y. The branch not taken never reaches value or gradient.",
        family="elementwise",
        dtypes=ALL,
        exact=True,
        samples=(
            Sample((("bool", (3, 17)), ("*", (3, 17)), ("*", (3, 17)))),
            Sample((("bool", (5,)), ("*", ()), ("*", (5,)))),
            Sample((("bool", ()), ("*", (4,)), ("*", (4,)))),
        ),
        bad=(
            Sample((("f32", (3,)), ("f32", (3,)), ("f32", (3,)))),
            Sample((("bool", (3,)), ("f32", (3,)), ("f32", (2,)))),
        ),
    )
)


def _infer_clamp(attrs: Any, x: Type, lo: Type, hi: Type) -> Type:
    ts = [tensor("clamp", t) for t in (x, lo, hi)]
    for t in ts:
        require("clamp", t, kinds=("float", "int", "uint"))
    return TensorType(same_dtype("clamp", *ts), common_shape("clamp", *ts))


def _clamp_vjp(b: Any, n: Any, g: Any, x: Any, lo: Any, hi: Any) -> list[Any]:
    x_, lo_, hi_ = (_full(b, v, n) for v in (x, lo, hi))
    zero = b.like(0, g)
    inside = b.and_(b.ge(x_, lo_), b.le(x_, hi_))
    below = b.and_(b.lt(x_, lo_), b.lt(lo_, hi_))
    above = b.or_(b.gt(x_, hi_), b.gt(lo_, hi_))
    grads: list[Any] = [b.select(inside, g, zero)]
    for bound, hit in ((lo, below), (hi, above)):
        grads.append(None if bound.op.name == "constant" else b.select(hit, g, zero))
    return grads


register(
    OpDef(
        "clamp",
        3,
        _infer_clamp,
        quiet(lambda a, t, x, lo, hi: _minimum(_maximum(x, lo), hi)),
        Kind.ELEMENTWISE,
        vjp=_clamp_vjp,
        doc="min(max(x, lo), hi); NaN stays NaN. The gradient passes inside [lo, hi], ends included.",
        family="elementwise",
        dtypes=NUMBER,
        exact=True,
        samples=(
            Sample(
                (("*", (3, 17)), ("*", ()), ("*", ())),
                low=-2,
                high=2,
                ranges=(None, (-1.2, -0.7), (0.6, 1.1)),
            ),
            Sample((("*", (5,)), ("*", (5,)), ("*", (5,))), grad=False),
        ),
        bad=(
            Sample((("f32", (3,)), ("f32", (2,)), ("f32", ()))),
            Sample((("bool", (3,)), ("bool", ()), ("bool", ()))),
        ),
    )
)


def _cast(attrs: Any, t: TensorType, x: Array) -> Array:
    """C's conversion: toward zero; NaN and values out of range give the least value of 64 (or 32) bits, then wrap."""
    target = t.dtype
    with np.errstate(all="ignore"):
        if (x.dtype.kind != "f" and x.dtype.name != "bfloat16") or target.is_float or target.is_bool:
            return x.astype(target.numpy)
        wide = x.astype(np.float64)
        least = -(2.0**63)
        fits = (wide >= least) & (wide < 2.0**63)
        return np.where(fits, wide, least).astype(np.int64).astype(target.numpy)


def _cast_vjp(b: Any, n: Any, g: Any, x: Any) -> list[Any]:
    return [b.cast(g, dtype=x.dtype) if x.dtype.is_float and n.dtype.is_float else None]


def _to(name: str) -> dict[str, Any]:
    from ..dtypes import dtype

    return {"dtype": dtype(name)}


register(
    OpDef(
        "cast",
        1,
        lambda a, x: tensor("cast", x).with_dtype(a.dtype),
        _cast,
        Kind.ELEMENTWISE,
        (Attr("dtype", "dtype"),),
        vjp=_cast_vjp,
        family="elementwise",
        dtypes=ALL,
        exact=True,
        doc="Conversion: floats round to nearest even; float → integer truncates (NaN and what does not fit 64 bits "
        "become the "
        "least i64, then wrap); integers wrap; to bool is `!= 0`.",
        samples=(
            *(
                one(3, 17, attrs=_to(d), low=-100, high=100, grad=False)
                for d in ("f32", "f64", "f16", "bf16", "i32", "i64", "u8", "bool")
            ),
            one(attrs=_to("f64"), grad=False),
        ),
        bad=(Sample((("f32", (3,)),)), Sample((("f32", (3,)),), {"dtype": "f32"})),
    )
)


def _infer_bitcast(attrs: Any, x: Type) -> Type:
    t = tensor("bitcast", x)
    if t.dtype.bits != attrs.dtype.bits or t.dtype.is_bool or attrs.dtype.is_bool:
        raise DTypeError(f"bitcast: {t.dtype} and {attrs.dtype} differ in width (or are bool)")
    return t.with_dtype(attrs.dtype)


register(
    OpDef(
        "bitcast",
        1,
        _infer_bitcast,
        lambda a, t, x: np.ascontiguousarray(x).view(a.dtype.numpy).reshape(x.shape),
        Kind.ELEMENTWISE,
        (Attr("dtype", "dtype"),),
        family="elementwise",
        exact=True,
        doc="The same bits as another dtype of equal width.",
        samples=(
            Sample((("f32", (3, 5)),), _to("i32")),
            Sample((("i64", ()),), _to("f64")),
            Sample((("u32", (4,)),), _to("f32")),
        ),
        bad=(Sample((("f32", (3,)),), _to("i64")), Sample((("u8", (3,)),), _to("bool"))),
    )
)

__all__ = ["ALL", "FLOAT", "INTEGER", "NUMBER", "SIGNED", "AttributeValueError", "common_shape", "two"]
