"""Batched matrix products against NumPy, in both legs and any split, with the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from tracemill.compiler.contract.gemm import BatchAxis, DotGeneral, Strides
from tracemill.compiler.contract.text import EPILOGUE_SIGNATURE, Epilogue, storage, store, tile_loads
from tracemill.compiler.contract.tiles import TileShape, tile_shape
from tracemill.ir import dtypes
from tracemill.ir.dims import sym

SMALL = TileShape(rows=3, vectors=2, lanes=4, tail_rows=2)


def random(rng: np.random.Generator, dtype: dtypes.DType, *shape: int) -> np.ndarray:
    if dtype.is_float:
        return rng.standard_normal(shape).astype(dtype.numpy)
    return rng.integers(0, 200, shape).astype(dtype.numpy)


def store_to(dtype: dtypes.DType) -> Epilogue:
    """The epilogue that stores a product as it is, rounded to its dtype."""
    put = store(dtype, "y", "(b * extents[0] + m) * extents[1] + n", "acc[(m - m0) * acc_stride + n - n0]")
    source = f"""
{EPILOGUE_SIGNATURE}
    {"; ".join(tile_loads(dtype.compute))}
    y = {storage(dtype)}_ptr(buffers, 0)
    for m in range(m0, m1):
        for n in range(n0, n1):
            {put}
    return 0
"""
    return Epilogue(source, 1, ("rows", "columns"))


def run(launch, spec, a, b, *, shares=1, direct=True):
    """A [b..., m, k] and B [b..., k, n] as arrays of any strides; `direct`: full tiles need no epilogue."""
    r = a.ndim - 2
    batch, (m, k), n = a.shape[:r], a.shape[r:], b.shape[-1]
    sa, sb = ([s // x.itemsize for s in x.strides] for x in (a, b))
    c = Strides(n, 1, tuple(int(np.prod(batch[i + 1 :], dtype=int)) * m * n for i in range(r)))
    if spec.dtype.is_float and not (direct and spec.can_write(c)):
        c = None
    axes = [BatchAxis(*axis) for axis in zip(batch, sa, sb, strict=False)]
    extents = [*spec.extents((m, n, k), (sa[r], sa[r + 1]), (sb[r], sb[r + 1]), axes, c)]
    if spec.dtype.is_float:
        extents += [m, n]
    steps = spec.parallel_range(int(np.prod(batch, dtype=int)), m, n)
    memory = [x if not x.size else np.lib.stride_tricks.as_strided(x, (span(x),), (x.itemsize,)) for x in (a, b)]
    (c,) = launch(
        spec.kernel(store_to(spec.dtype) if spec.dtype.is_float else None),
        memory,
        [((*batch, m, n), spec.dtype.numpy)],
        extents,
        steps,
        spec.scratch_bytes(),
        shares=shares,
    )
    return c


def span(x: np.ndarray) -> int:
    return 1 + sum((n - 1) * s // x.itemsize for n, s in zip(x.shape, x.strides, strict=True))


def expected(a: np.ndarray, b: np.ndarray, dtype: dtypes.DType) -> np.ndarray:
    if dtype.is_float:
        return a.astype(np.float64) @ b.astype(np.float64)
    with np.errstate(all="ignore"):
        return (a.astype(np.int64) @ b.astype(np.int64)).astype(dtype.numpy)


def check(c: np.ndarray, a: np.ndarray, b: np.ndarray, dtype: dtypes.DType) -> None:
    want = expected(a, b, dtype)
    if not dtype.is_float:
        np.testing.assert_array_equal(c, want)
        return
    scale = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    eps = {"f64": 2e-16, "f32": 1.2e-7, "f16": 1e-3, "bf16": 8e-3}[dtype.name]
    assert np.all(np.abs(c.astype(np.float64) - want) <= eps * (scale + 1e-30) * max(1, a.shape[-1] ** 0.5))


SHAPES = [
    (1, 1, 1),
    (1, 5, 40),
    (13, 33, 32),
    (24, 17, 64),
    (7, 3, 10),
    (29, 20, 47),
    (4, 0, 5),
    (0, 3, 4),
    (3, 4, 0),
]


@pytest.mark.parametrize("dtype", [dtypes.f32, dtypes.f64], ids=str)
@pytest.mark.parametrize("m,k,n", SHAPES)
@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
def test_float_product(launch, dtype, m, k, n, layout):
    rng = np.random.default_rng(m + 10 * k + 100 * n)
    a = random(rng, dtype, k, m).T if layout[0] == "t" else random(rng, dtype, m, k)
    b = random(rng, dtype, n, k).T if layout[1] == "t" else random(rng, dtype, k, n)
    spec = DotGeneral(dtype)
    c = run(launch, spec, a, b)
    check(c, a, b, dtype)
    for shares in (2, 3):
        np.testing.assert_array_equal(run(launch, spec, a, b, shares=shares), c)
    np.testing.assert_array_equal(run(launch, spec, a, b, direct=False), c)


@pytest.mark.parametrize("launch", ["compiled"], indirect=True)
@pytest.mark.parametrize("m,k,n", [(100, 600, 40), (800, 1100, 33), (130, 513, 64)])
@pytest.mark.parametrize("transposed", [False, True])
def test_blocked_k(launch, m, k, n, transposed):
    rng = np.random.default_rng(0)
    a = random(rng, dtypes.f32, m, k)
    b = random(rng, dtypes.f32, n, k).T if transposed else random(rng, dtypes.f32, k, n)
    spec = DotGeneral(dtypes.f32)
    c = run(launch, spec, a, b)
    check(c, a, b, dtypes.f32)
    np.testing.assert_array_equal(run(launch, spec, a, b, shares=3), c)
    np.testing.assert_array_equal(run(launch, spec, a, b, direct=False), c)


@pytest.mark.parametrize("dtype", [dtypes.f32, dtypes.f64], ids=str)
def test_bits_do_not_depend_on_tile_layout_or_leg(launcher, dtype):
    rng = np.random.default_rng(1)
    a, b = random(rng, dtype, 19, 37), random(rng, dtype, 37, 45)
    reference = chain(a, b)
    for leg in ("plain", "compiled"):
        launch = launcher(leg)
        for tile in (None, SMALL, TileShape(6, 2, 8, 2)):
            for layout in (b, np.ascontiguousarray(b.T).T):
                np.testing.assert_array_equal(run(launch, DotGeneral(dtype, tile=tile), a, layout), reference)
        rows = np.concatenate([run(launch, DotGeneral(dtype), a[i : i + 1], b) for i in range(3)])
        np.testing.assert_array_equal(rows, reference[:3])


def chain(a, b):
    """Every output as one chain of fused multiply-adds in ascending k."""
    from tracemill.compiler.contract.softfma import fma_f32, fma_f64

    acc = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for k in range(a.shape[1]):
        acc = (fma_f32 if a.dtype == np.float32 else fma_f64)(a[:, k, None], b[None, k], acc)
    return acc


@pytest.mark.parametrize(
    "dtype", [dtypes.f16, dtypes.bf16, dtypes.i64, dtypes.i32, dtypes.i8, dtypes.u8, dtypes.u64], ids=str
)
@pytest.mark.parametrize("m,k,n", [(1, 1, 1), (13, 6, 35), (5, 9, 70), (3, 4, 0)])
def test_other_dtypes(launch, dtype, m, k, n):
    rng = np.random.default_rng(2)
    a, b = random(rng, dtype, m, k), random(rng, dtype, n, k).T
    c = run(launch, DotGeneral(dtype), a, b)
    check(c, a, b, dtype)
    np.testing.assert_array_equal(run(launch, DotGeneral(dtype), a, np.ascontiguousarray(b), shares=2), c)


def test_batch_axes_with_free_strides(launch):
    """Attention's layout: batch and heads are not adjacent, nothing is copied."""
    rng = np.random.default_rng(3)
    q, k = random(rng, dtypes.f32, 2, 9, 3, 8), random(rng, dtypes.f32, 2, 11, 3, 8)
    a, b = q.transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1)
    c = run(launch, DotGeneral(dtypes.f32), a, b)
    check(c, a, b, dtypes.f32)
    np.testing.assert_array_equal(run(launch, DotGeneral(dtypes.f32), a, b, shares=3), c)


def test_strided_result(launch):
    """C written transposed over its batch axis: [b, t, h, d] in memory for result axes b, h, t, d."""
    rng = np.random.default_rng(4)
    p, v = random(rng, dtypes.f32, 2, 3, 7, 7), random(rng, dtypes.f32, 2, 3, 7, 32)
    spec = DotGeneral(dtypes.f32)
    axes = [BatchAxis(2, 147, 672), BatchAxis(3, 49, 224)]
    extents = spec.extents((7, 32, 7), (7, 1), (32, 1), axes, Strides(96, 1, (672, 32)))
    (c,) = launch(
        spec.kernel(store_to(dtypes.f32)),
        [p, v],
        [((2, 7, 3, 32), np.float32)],
        [*extents, 0, 0],
        spec.parallel_range(6, 7, 32),
        spec.scratch_bytes(),
    )
    np.testing.assert_allclose(c, (p @ v).transpose(0, 2, 1, 3), rtol=1e-5, atol=1e-5)


BIAS_RELU = f"""
{EPILOGUE_SIGNATURE}
    {"; ".join(tile_loads(dtypes.f32))}
    bias = f32_ptr(buffers, 0)
    y = f32_ptr(buffers, 1)
    for m in range(m0, m1):
        for n in range(n0, n1):
            value = acc[(m - m0) * acc_stride + n - n0] + bias[n]
            y[(b * extents[0] + m) * extents[1] + n] = value if value > f32(0.0) else f32(0.0)
    return 0
"""


@pytest.mark.parametrize("m,k,n", [(1, 1, 1), (100, 600, 70), (13, 5, 64)])
def test_epilogue(launch, m, k, n, request):
    if k > 100 and "plain" in request.node.name:
        k = 30
    rng = np.random.default_rng(5)
    spec = DotGeneral(dtypes.f32)
    a, b, bias = (
        random(rng, dtypes.f32, 2, m, k),
        random(rng, dtypes.f32, 2, k, n),
        random(rng, dtypes.f32, n),
    )
    extents = [*spec.extents((m, n, k), (k, 1), (n, 1), [BatchAxis(2, m * k, k * n)]), m, n]
    for shares in (1, 3):
        (y,) = launch(
            spec.kernel(Epilogue(BIAS_RELU, 2, ("rows", "columns"))),
            [a, b, bias],
            [((2, m, n), np.float32)],
            extents,
            spec.parallel_range(2, m, n),
            spec.scratch_bytes(),
            shares=shares,
        )
        np.testing.assert_allclose(y, np.maximum(a @ b + bias, 0), rtol=1e-4, atol=1e-4)


def test_what_takes_an_epilogue():
    with pytest.raises(ValueError, match="f32 takes an epilogue"):
        DotGeneral(dtypes.f32).kernel()
    with pytest.raises(ValueError, match="i32 takes no epilogue"):
        DotGeneral(dtypes.i32).kernel(store_to(dtypes.f32))


def test_formulas_take_symbolic_sizes():
    spec = DotGeneral(dtypes.f32, tile=TileShape(12, 2, 16, 4))
    assert spec.parallel_range(1, sym("B"), 64).evaluate({"B": 25}) == 3 * 2
    assert isinstance(spec.scratch_bytes(), int)


def test_one_kernel_serves_every_epilogue():
    sources = {d: DotGeneral(d).kernel(store_to(d)).source for d in dtypes.FLOATS}
    assert len(set(sources.values())) == 4
    assert DotGeneral(dtypes.f32).kernel(Epilogue(BIAS_RELU, 2)).source == sources[dtypes.f32]


@pytest.mark.parametrize("m,k,n", [(1, 1, 1), (29, 20, 10), (13, 40, 16), (5, 7, 3), (1, 30, 40), (1, 200, 300)])
@pytest.mark.parametrize("transposed", [False, True])
def test_tiles_for_few_columns_and_for_one_row(launch, m, k, n, transposed):
    rng = np.random.default_rng(6)
    a, b = random(rng, dtypes.f32, m, k), random(rng, dtypes.f32, n, k).T
    b = b if transposed else np.ascontiguousarray(b)
    spec = DotGeneral(dtypes.f32)
    shaped = spec.shaped(m, n)
    assert (shaped.tile is not None) == (m == 1 or n <= tile_shape(dtypes.f32).lanes)
    np.testing.assert_array_equal(run(launch, shaped, a, b, shares=2), run(launch, spec, a, b))
    assert spec.shaped(2, 1000) is spec and spec.shaped(sym("B"), sym("B")) is spec


def test_crowded_columns_are_packed(launcher):
    rng = np.random.default_rng(7)
    a, wide = random(rng, dtypes.f32, 200, 30), random(rng, dtypes.f32, 30, 512)
    spec, launch = DotGeneral(dtypes.f32), launcher("compiled")
    crowded = run(launch, spec, a, wide[:, :64])
    np.testing.assert_array_equal(crowded, run(launch, spec, a, np.ascontiguousarray(wide[:, :64])))
