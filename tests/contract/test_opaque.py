"""Cumulative sums, sorting, selection and indexing against the operator table's references, in any split."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tracemill.compiler.opaque.indexing import Gather, IndexSelect, IndexStore, Scatter
from tracemill.compiler.opaque.ordering import CumSum, Sort, TopK
from tracemill.ir import dtypes
from tracemill.ir.ops import indexing, ordering
from tracemill.ir.types import TensorType

FEW = [dtypes.f32, dtypes.f64, dtypes.bf16, dtypes.i32, dtypes.i64]
MORE = [*FEW, dtypes.f16, dtypes.i8, dtypes.u8, dtypes.boolean]
LANES = [((7,), 0), ((3, 40), 1), ((4, 5, 37), 1), ((0, 3), 0), ((3, 0), 1), ((2, 1), 1)]


def values(dtype, shape, seed=0, nan=False):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2, shape).astype(bool) if dtype.is_bool else rng.integers(-9, 9, shape).astype(dtype.numpy)
    if nan and dtype.is_float and x.size:
        x.reshape(-1)[rng.integers(0, x.size, 4)] = [np.nan, np.inf, -np.inf, np.nan]
    return x


def same(got, want):
    assert got.shape == want.shape
    np.testing.assert_array_equal(got.astype(np.float64), want.astype(np.float64))


def view(shape, axis):
    """`[outer, extent, inner]`."""
    return int(np.prod(shape[:axis])), shape[axis], int(np.prod(shape[axis + 1 :]))


@pytest.mark.parametrize("dtype", FEW, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape,axis", LANES)
def test_cumsum(launch, dtype, reverse, shape, axis):
    x, (outer, extent, inner) = values(dtype, shape), view(shape, axis)
    spec = CumSum(dtype, reverse)
    wide = x.astype(dtype.compute.numpy)
    want = ordering._cumsum(SimpleNamespace(axis=axis, reverse=reverse), None, wide).astype(dtype.numpy)
    for shares in (1, 2):
        (y,) = launch(
            spec.kernel(),
            [x],
            [(shape, dtype.numpy)],
            [outer, extent, inner],
            spec.parallel_range(outer, inner),
            spec.scratch_bytes(),
            shares=shares,
        )
        same(y, want)


@pytest.mark.parametrize("dtype", MORE, ids=str)
@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("shape,axis", LANES)
def test_sort(launch, dtype, falling, shape, axis):
    x, (outer, extent, inner) = values(dtype, shape, nan=True), view(shape, axis)
    spec = Sort(dtype, falling)
    indices = ordering.order(x.astype(dtype.compute.numpy), axis, falling)
    for shares in (1, 3):
        got, at = launch(
            spec.kernel(),
            [x],
            [(shape, dtype.numpy), (shape, np.int64)],
            [outer, extent, inner],
            spec.parallel_range(outer, inner),
            spec.scratch_bytes(extent),
            shares=shares,
        )
        same(at, indices)
        same(got, np.take_along_axis(x, indices, axis))


@pytest.mark.parametrize("dtype", [dtypes.f32, dtypes.f16, dtypes.i64], ids=str)
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("shape,axis,k", [((50,), 0, 7), ((3, 60), 1, 40), ((4, 5, 3), 1, 5), ((4, 5), 0, 0)])
def test_topk(launch, dtype, largest, shape, axis, k):
    x, (outer, extent, inner) = values(dtype, shape, nan=True), view(shape, axis)
    spec = TopK(dtype, largest)
    indices = np.take(ordering.order(x.astype(dtype.compute.numpy), axis, largest), range(k), axis)
    result = indices.shape
    for shares in (1, 2):
        got, at = launch(
            spec.kernel(),
            [x],
            [(result, dtype.numpy), (result, np.int64)],
            [outer, extent, inner, k],
            spec.parallel_range(outer, inner),
            spec.scratch_bytes(extent),
            shares=shares,
        )
        same(at, indices)
        same(got, np.take_along_axis(x, indices, axis))


SLICES = [((5,), 0, 7), ((9, 40), 0, 12), ((3, 5, 2), 1, 17), ((4, 2), 0, 0), ((2, 3, 0), 1, 2)]


@pytest.mark.parametrize("index", [dtypes.i64, dtypes.i32], ids=str)
@pytest.mark.parametrize("dtype", MORE, ids=str)
@pytest.mark.parametrize("shape,axis,count", SLICES)
def test_slices(launch, dtype, index, shape, axis, count):
    x, (outer, extent, inner) = values(dtype, shape), view(shape, axis)
    idx = np.random.default_rng(1).integers(0, extent, count).astype(index.numpy)
    attrs, picked = SimpleNamespace(axis=axis), (*shape[:axis], count, *shape[axis + 1 :])
    update = values(dtype, picked, seed=2)
    extents = [outer, extent, inner, count]
    spec = IndexSelect(dtype, index)
    for shares in (1, 3):
        (y,) = launch(
            spec.kernel(),
            [x, idx],
            [(picked, dtype.numpy)],
            extents,
            spec.parallel_range(outer, count),
            0,
            shares=shares,
        )
        same(y, indexing._index_select(attrs, TensorType(dtype, picked), x, idx))
        for kind, reference in (("copy", indexing._index_copy), ("add", indexing._index_add)):
            if kind == "add" and dtype.is_bool:
                continue
            store = IndexStore(kind, dtype, index)
            (y,) = launch(
                store.kernel(),
                [x, idx, update],
                [(shape, dtype.numpy)],
                extents,
                store.parallel_range(outer, inner),
                store.scratch_bytes(extent),
                shares=shares,
            )
            wide = dtype.numpy if dtype.is_bool else dtype.compute.numpy
            same(y, reference(attrs, None, x.astype(wide), idx, update.astype(wide)).astype(dtype.numpy))


ELEMENTS = [
    ((5,), (7,), 0),
    ((3, 4), (3, 2), 1),
    ((4, 5, 2), (9, 5, 1), 0),
    ((3, 6), (2, 17), 1),
    ((4, 3, 40), (3, 8, 35), 1),
    ((2, 3), (0, 3), 0),
    ((3, 4), (2, 4), 1),
]


@pytest.mark.parametrize("index", [dtypes.i64, dtypes.i32], ids=str)
@pytest.mark.parametrize("dtype", [dtypes.f32, dtypes.f16, dtypes.i8, dtypes.boolean], ids=str)
@pytest.mark.parametrize("shape,where,axis", ELEMENTS)
def test_elements(launch, dtype, index, shape, where, axis):
    x, update = values(dtype, shape), values(dtype, where, seed=2)
    idx = np.random.default_rng(1).integers(0, shape[axis], where).astype(index.numpy)
    attrs, rank = SimpleNamespace(axis=axis), len(shape)
    gather = Gather(dtype, index, rank, axis)
    for shares in (1, 3):
        (y,) = launch(
            gather.kernel(),
            [x, idx],
            [(where, dtype.numpy)],
            [*shape, *where],
            gather.parallel_range(where),
            0,
            shares=shares,
        )
        same(y, indexing._gather(attrs, None, x, idx))
        for kind, reference in (("copy", indexing._scatter), ("add", indexing._scatter_add)):
            if kind == "add" and dtype.is_bool:
                continue
            spec = Scatter(kind, dtype, index, rank, axis)
            (y,) = launch(
                spec.kernel(),
                [x, idx, update],
                [(shape, dtype.numpy)],
                [*shape, *where],
                spec.parallel_range(shape),
                spec.scratch_bytes(shape),
                shares=shares,
            )
            wide = dtype.numpy if dtype.is_bool else dtype.compute.numpy
            same(y, reference(attrs, None, x.astype(wide), idx, update.astype(wide)).astype(dtype.numpy))


@pytest.mark.parametrize("bad", [-1, 5])
def test_bad_index_sets_status(launch, kernel_failed, bad):
    x, idx, update = values(dtypes.f32, (5, 3)), np.array([0, bad, 1]), values(dtypes.f32, (3, 3))
    f32, i64 = dtypes.f32, dtypes.i64
    grid = np.repeat(idx[:, None], 3, 1)
    for spec, arrays, extents, steps, scratch in (
        (IndexSelect(f32, i64), [x, idx], [1, 5, 3, 3], 3, 0),
        (IndexStore("add", f32, i64), [x, idx, update], [1, 5, 3, 3], 1, 0),
        (IndexStore("copy", f32, i64), [x, idx, update], [1, 5, 3, 3], 1, 0),
        (Gather(f32, i64, 2, 0), [x, grid], [5, 3, 3, 3], 3, 0),
        (Scatter("add", f32, i64, 2, 0), [x, grid, update], [5, 3, 3, 3], 1, 0),
    ):
        kernel = spec.kernel()
        assert kernel.fallible
        with pytest.raises(kernel_failed) as failure:
            launch(kernel, arrays, [(x.shape, np.float32)], extents, steps, scratch)
        assert failure.value.status == [1, 0, bad, 5]
