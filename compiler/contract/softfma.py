"""Fused multiply-add in NumPy: `a * b + c` rounded once, whatever the machine has.

The plain-Python leg of the contraction kernels uses these, so that it gives the bits of the compiled leg,
whose `llvm.fma` rounds once too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_SPLIT = 134217729.0  # 2**27 + 1: Veltkamp's constant for a 53-bit significand


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Knuth: `s + e == a + b` exactly, `s` the rounded sum."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """Dekker: `p + e == a * b` exactly, `p` the rounded product."""
    p = a * b
    ta, tb = _SPLIT * a, _SPLIT * b
    ah, bh = ta - (ta - a), tb - (tb - b)
    al, bl = a - ah, b - bh
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _to_odd(s: Array, e: Array) -> Array:
    """Round-to-odd of the exact sum `s + e`: where inexact, the neighbour with an odd significand."""
    bits = np.ascontiguousarray(s).view(np.int64)
    inexact = (e != 0) & np.isfinite(e) & np.isfinite(s) & (bits & 1 == 0)
    # Towards `e`: one unit up in magnitude where the signs agree, one down where they differ.
    step = np.where((e > 0) == (s > 0), 1, -1)
    return (bits + np.where(inexact, step, 0)).view(np.float64)


def fma_f32(a: Array, b: Array, c: Array) -> Array:
    """`a * b + c` in float32, rounded once (exact for all inputs). Operands broadcast; at least one axis."""
    with np.errstate(all="ignore"):
        # The product of two 24-bit significands is exact in float64; rounding the sum to odd first makes the
        # second rounding, to float32, the only one that counts.
        s, e = _two_sum(np.multiply(a, b, dtype=np.float64), np.asarray(c, dtype=np.float64))
        return _to_odd(s, e).astype(np.float32)


def fma_f64(a: Array, b: Array, c: Array) -> Array:
    """`a * b + c` in float64, rounded once unless an intermediate leaves the exponent range.

    Method: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008. Operands broadcast; at
    least one axis. Non-finite intermediates fall back to `a * b + c`, which then has the right special value.
    """
    with np.errstate(all="ignore"):
        a, b, c = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64), np.asarray(c, np.float64))
        ph, pl = _two_product(a, b)
        th, tl = _two_sum(c, pl)
        vh, vl = _two_sum(ph, th)
        exact = vh + _to_odd(*_two_sum(tl, vl))
        return np.where(np.isfinite(exact), exact, a * b + c)
