"""Plans run: native and reference runner agree to the bit for any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from tracemill.ir.dims import sym


def rising(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape), dtype=np.float32).reshape(shape) * np.float32(0.37)) % 5


def test_chain_of_kernels_with_barriers(kit, b):
    n = 1003
    x, t, u, y = b.input("x", n), b.temporary(n), b.temporary(n), b.output("y", n)
    plan = b.plan(
        b.call("affine", x, t, range=n, waits=False),
        b.call("mirror", t, u, range=n, extents=(n,)),
        b.call("mirror", u, y, range=n, extents=(n,)),
    )
    (got,) = kit.check(plan, lambda: [rising(n)])
    t = rising(n) * np.float32(2) + np.float32(1)
    for _ in range(2):
        t = np.float32(0.5) * t + t[::-1]
    np.testing.assert_array_equal(got, t)
