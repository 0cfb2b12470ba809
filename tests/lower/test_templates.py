"""The loop templates: canonical order to the bit, splits, ragged and empty sizes, narrow floats, checks, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from harness import KernelFault, run_graph, run_node
from tracemill.compiler.lower import CannotLower, lower
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import DType, bf16, boolean, f16, f32, f64, i32, i64
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType

b = Builder()
RAGGED = (1, 15, 16, 17, 100, 4096, 4097)


def inputs(*types: tuple[DType, Sequence[Any]]) -> list[Node]:
    return [input_node(k, TensorType(d, tuple(shape))) for k, (d, shape) in enumerate(types)]


def fused(outputs: Sequence[Node], *xs: Node, kind: str = "test") -> Node:
    specs = tuple(InputSpec(f"x{k}", x.tensor_type) for k, x in enumerate(xs))
    return b.fused(*xs, body=Graph("body", specs, tuple(outputs)), kind=kind)


def both(node: Node, *arrays: Any, sizes: dict[str, int] | None = None) -> tuple[Any, ...]:
    """Results of the compiled kernel, which plain Python and every split must repeat to the bit."""
    whole = run_node(node, arrays, sizes or {})
    for other in (run_node(node, arrays, sizes or {}, leg="plain"), run_node(node, arrays, sizes or {}, cuts=3)):
        for a, c in zip(whole, other, strict=True):
            assert a.tobytes() == c.tobytes()
    return whole


def draw(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def lane_sum(x: Any) -> Any:
    """The canonical sum of a row: blocks of 4096, sixteen lanes, a fixed tree, blocks in order."""
    total = np.float32(0)
    for first in range(0, x.size, 4096):
        block = x[first:first + 4096]
        lanes = np.zeros(16, np.float32)
        for start in range(0, block.size, 16):
            part = block[start:start + 16]
            lanes[:part.size] += part
        for width in (8, 4, 2, 1):
            lanes[:width] += lanes[width:2 * width]
        total += lanes[0]
    return total


@pytest.mark.parametrize("n", RAGGED)
def test_rows_add_in_the_canonical_order(n: int) -> None:
    (x,) = inputs((f32, (3, sym("N"))))
    data = draw(3, n)
    (got,) = both(b.sum(x, axes=(1,)), data, sizes={"N": n})
    assert got.tobytes() == np.array([lane_sum(row) for row in data]).tobytes()


@pytest.mark.parametrize("n", RAGGED)
def test_totals_add_in_the_canonical_order(n: int) -> None:
    (x,) = inputs((f32, (sym("N"),)))
    data = draw(n)
    (got,) = both(b.sum(x, axes=(0,)), data, sizes={"N": n})
    assert got.tobytes() == lane_sum(data).tobytes()


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("columns", [1, 63, 65, 4100])
def test_columns_add_in_blocks_of_rows(n: int, columns: int) -> None:
    (x,) = inputs((f32, (sym("N"), sym("C"))))
    data = draw(n, columns)
    (got,) = both(b.sum(x, axes=(0,)), data, sizes={"N": n, "C": columns})
    want = np.zeros(columns, np.float32)
    for first in range(0, n, 64):
        block = np.zeros(columns, np.float32)
        for row in data[first:first + 64]:
            block += row
        want += block
    assert got.tobytes() == want.tobytes()


def test_several_reduced_axes_count_row_major() -> None:
    """Runs of the innermost axis that end anywhere give the sum over the flattened axes."""
    (x,) = inputs((f32, (sym("N"), sym("C"), sym("L"))))
    data = draw(700, 3, 7)
    (got,) = both(b.sum(x, axes=(0, 2)), data, sizes={"N": 700, "C": 3, "L": 7})
    want = [lane_sum(np.ascontiguousarray(data[:, c]).reshape(-1)) for c in range(3)]
    assert got.tobytes() == np.array(want).tobytes()


def softmax(x: Node) -> Node:
    last = (len(x.shape) - 1,)
    e = b.exp(b.sub(x, b.expand(b.max(x, axes=last), x.shape, last)))
    return b.div(e, b.expand(b.sum(e, axes=last), x.shape, last))


@pytest.mark.parametrize("n", [1, 17, 4097])
def test_stages_of_a_row(n: int) -> None:
    (x,) = inputs((f32, (sym("B"), sym("N"))))
    data = draw(4, n)
    node = fused([softmax(x), b.max(x, axes=(1,))], x)
    low = lower(node)
    assert len(low.launches) == 1
    got, peak = both(node, data, sizes={"B": 4, "N": n})
    e = np.exp(data.astype(np.float64) - data.max(1, keepdims=True))
    np.testing.assert_allclose(got, e / e.sum(1, keepdims=True), rtol=3e-6)
    np.testing.assert_array_equal(peak, data.max(1))


@pytest.mark.parametrize("axes", [(0,), (0, 2, 3), (2, 3), (1,)])
def test_normalisation_over_any_axes(axes: tuple[int, ...]) -> None:
    shape = (5, 3, 4, 7)
    (x,) = inputs((f32, shape))
    count = b.scalar(float(np.prod([shape[a] for a in axes])), f32)
    centred = b.sub(x, b.expand(b.div(b.sum(x, axes=axes), count), shape, axes))
    scale = b.rsqrt(b.add(b.div(b.sum(b.mul(centred, centred), axes=axes), count), b.scalar(1e-5, f32)))
    node = fused([b.mul(centred, b.expand(scale, shape, axes)), scale], x)
    data = draw(*shape)
    got, deviation = both(node, data)
    d = data.astype(np.float64)
    s = 1 / np.sqrt(d.var(axes) + 1e-5)
    np.testing.assert_allclose(deviation, s, rtol=1e-5)
    np.testing.assert_allclose(got, (d - d.mean(axes, keepdims=True)) / np.sqrt(d.var(axes, keepdims=True) + 1e-5),
                               rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", ["argmax", "argmin", "max", "min"])
@pytest.mark.parametrize("axes", [(1,), (0,), (0, 1)])
def test_extremes_take_the_first_and_nan(op: str, axes: tuple[int, ...]) -> None:
    data = np.random.default_rng(1).integers(0, 4, (33, 70)).astype(np.float32)
    data[5, 6] = data[8, 65] = np.nan
    (x,) = inputs((f32, (sym("A"), sym("B"))))
    node = getattr(b, op)(x, axes=axes)
    (got,) = both(node, data, sizes={"A": 33, "B": 70})
    graph = Graph("g", (InputSpec("x", x.tensor_type),), (node,))
    np.testing.assert_array_equal(got, evaluate(graph, [data])[0])


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_empty_tensors(shape: tuple[int, int], axes: tuple[int, ...]) -> None:
    (x,) = inputs((f32, (sym("A"), sym("B"))))
    total, full = b.sum(x, axes=axes), b.add(x, x)
    data = np.zeros(shape, np.float32)
    sizes = {"A": shape[0], "B": shape[1]}
    (got,) = both(total, data, sizes=sizes)
    assert not got.any() and got.shape == data.sum(axis=axes).shape
    assert both(full, data, sizes=sizes)[0].shape == shape


def test_a_size_is_no_part_of_the_source() -> None:
    """A batch of 128, of 64, and a symbolic one: the same text; also where two extents are equal by chance."""
    def sources(batch: Any, width: int) -> list[str]:
        x, w, t = inputs((f32, (batch, width)), (f32, (width,)), (i64, (batch,)))
        y = softmax(b.mul(x, b.broadcast(w, shape=x.shape, dims=(1,))))
        picked = b.gather(y, b.reshape(t, shape=(batch, 1)), axis=1)
        row = fused([b.log(b.reshape(picked, shape=(batch,)))], x, w, t)
        column = b.sum(x, axes=(0,))
        padded = b.pad(x, b.scalar(0.0, f32), pads=((1, 0, 0), (0, 2, 0)))
        joined = b.concat(x, x, axis=0)
        dot = b.dot(x, x, contract_a=(0,), contract_b=(0,))
        return [step.kernel.source for n in (row, column, padded, joined, dot) for step in lower(n).launches]

    assert sources(128, 784) == sources(sym("B"), 784) == sources(64, 100) == sources(128, 128)


def test_adjacent_axes_become_one_loop() -> None:
    x, y = inputs((f32, (2, 3, 4)), (f32, (4,)))
    assert lower(b.exp(x)).launches[0].ir.count("  for ") == 1
    biased = fused([b.add(x, b.broadcast(y, shape=(2, 3, 4), dims=(2,)))], x, y)
    assert lower(biased).launches[0].ir.count("  for ") == 2


@pytest.mark.parametrize("narrow", [f16, bf16])
def test_narrow_floats_round_after_every_operator(narrow: DType) -> None:
    x, y = inputs((narrow, (40,)), (narrow, (40,)))
    step = b.add(b.mul(x, y), y)
    node = fused([b.exp(step)], x, y)
    dt = np.float16 if narrow is f16 else ml_dtypes.bfloat16
    a, c = draw(40).astype(dt), draw(40, seed=1).astype(dt)
    product = (a.astype(np.float32) * c.astype(np.float32)).astype(dt)
    total = (product.astype(np.float32) + c.astype(np.float32)).astype(dt)
    (got,) = both(node, a, c)
    want = np.exp(total.astype(np.float64)).astype(dt).astype(np.float64)
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=2**-7 if narrow is bf16 else 2**-10)
    (sums,) = both(b.sum(x, axes=(0,)), a)
    assert abs(float(sums) - a.astype(np.float64).sum()) < 0.05


def test_bad_indices_stop_the_kernel() -> None:
    x, i = inputs((f32, (5, 3)), (i64, (4,)))
    node = b.index_select(x, i, axis=0)
    for leg in ("compiled", "plain"):
        for bad in (5, -1):
            with pytest.raises(KernelFault) as fault:
                run_node(node, [draw(5, 3), np.array([0, 4, bad, 1])], {}, leg=leg)
            assert fault.value.args == (1, 0, bad, 5)
    (launch,) = lower(node).launches
    assert launch.fallible and launch.faults[0].op.name == "index_select"


def test_guards_protect_loads_and_checks() -> None:
    """Padding around a gather of nothing reads nothing and stops nothing."""
    x, i = inputs((f32, (sym("N"),)), (i64, (sym("M"),)))
    node = fused([b.pad(b.index_select(x, i, axis=0), b.scalar(7.0, f32), pads=((2, 1, 0),))], x, i)
    (got,) = both(node, np.zeros(0, np.float32), np.zeros(0, np.int64), sizes={"N": 0, "M": 0})
    np.testing.assert_array_equal(got, [7, 7, 7])
    x, y = inputs((f32, (2, sym("N"), 3)), (f32, (2, 1, 3)))
    arrays = np.zeros((2, 0, 3), np.float32), np.ones((2, 1, 3), np.float32)
    (got,) = both(b.concat(x, y, axis=1), *arrays, sizes={"N": 0})
    np.testing.assert_array_equal(got, np.ones((2, 1, 3)))


def test_transposed_operands() -> None:
    x, y = inputs((f32, (sym("A"), 70, 2)), (f32, (70, sym("A"), 2)))
    node = fused([b.add(b.permute(x, dims=(1, 0, 2)), y)], x, y)
    a, c = draw(33, 70, 2), draw(70, 33, 2, seed=1)
    (got,) = both(node, a, c, sizes={"A": 33})
    np.testing.assert_array_equal(got, a.transpose(1, 0, 2) + c)
    (flat,) = inputs((f32, (33, 70)))
    np.testing.assert_array_equal(both(b.permute(flat, dims=(1, 0)), a[..., 0].copy())[0], a[..., 0].T)


def test_results_in_place() -> None:
    x, y = inputs((f32, (6, 8)), (f32, (8,)))
    wide = b.broadcast(y, shape=(6, 8), dims=(1,))
    assert lower(fused([b.add(x, wide)], x, y)).in_place == ((0, 0),)
    assert lower(fused([b.add(b.flip(x, axes=(1,)), wide)], x, y)).in_place == ()
    assert lower(fused([softmax(x)], x)).in_place == ((0, 0),)
    scaled = b.div(x, b.expand(b.sum(b.mul(x, x), axes=(1,)), x.shape, (1,)))
    early = fused([b.exp(x), b.sum(scaled, axes=(1,))], x)  # exp(x) is written before the last pass reads x
    assert lower(early).in_place == ()


def test_one_kernel_updates_many_tensors() -> None:
    """Segments of any size and number share one text; shared scalars are read once."""
    def update(*shapes: tuple[Any, ...]) -> tuple[Node, list[Node]]:
        types = [(f64, ())] + [(f32, s) for s in shapes for _ in range(2)]
        lr, *rest = inputs(*types)
        outs = []
        for p, g in zip(rest[::2], rest[1::2], strict=True):
            outs += [b.sub(p, b.mul(b.cast(lr, dtype=f32), g)), b.mul(g, g)]
        return fused(outs, lr, *rest, kind=f"update:{len(shapes)}"), outs

    node, _ = update((3, 5), (2000,), (0,), (sym("N"), 2))
    arrays = [np.array(0.5)] + [draw(*s, seed=k) for k, s in enumerate(
        s for s in ((3, 5), (2000,), (0,), (7, 2)) for _ in range(2))]
    results = both(node, *arrays, sizes={"N": 7})
    for k in range(4):
        p, g = arrays[1 + 2 * k], arrays[2 + 2 * k]
        np.testing.assert_array_equal(results[2 * k], p - np.float32(0.5) * g)
        np.testing.assert_array_equal(results[2 * k + 1], g * g)
    other, _ = update((9,), (4, 4))
    assert lower(node).launches[0].kernel.source == lower(other).launches[0].kernel.source
    assert (0, 1) in lower(node).in_place and (2, 3) in lower(node).in_place


def test_dot_reads_views_and_ends_in_an_epilogue() -> None:
    """Heads cut out of one tensor, scaled scores; nothing is copied."""
    (qkv,) = inputs((f32, (sym("B"), 6, 3 * 8)))

    def head(k: int) -> Node:
        cut = b.slice(qkv, start=(0, 0, 8 * k), size=(sym("B"), 6, 8), step=(1, 1, 1))
        return b.permute(b.reshape(cut, shape=(sym("B"), 6, 2, 4)), dims=(0, 2, 1, 3))

    scores = b.dot(head(0), head(1), contract_a=(3,), contract_b=(3,), batch_a=(0, 1), batch_b=(0, 1))
    node = fused([b.mul(scores, b.scalar(0.5, f32)), scores], qkv)
    assert len(lower(node).launches) == 1
    data = draw(3, 6, 24)
    scaled, raw = both(node, data, sizes={"B": 3})
    q, k = (data[..., 8 * i:8 * i + 8].reshape(3, 6, 2, 4).transpose(0, 2, 1, 3) for i in (0, 1))
    np.testing.assert_allclose(raw, q @ k.swapaxes(-1, -2), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(scaled, raw * np.float32(0.5))
    x, y = inputs((f32, (2, 3, 4)), (f32, (5, 4, 3)))
    crossed = b.dot(x, y, contract_a=(1, 2), contract_b=(2, 1))  # no common stride: one operand is copied
    assert len(lower(crossed).launches) == 2
    back = fused([b.reshape(b.permute(scores, dims=(0, 2, 1, 3)), shape=(sym("B"), 6, 12))], qkv)
    np.testing.assert_array_equal(both(back, data, sizes={"B": 3})[0], raw.transpose(0, 2, 1, 3).reshape(3, 6, 12))


@pytest.mark.parametrize("narrow", [f32, f16])
def test_convolution_epilogue(narrow: DType) -> None:
    x, w, bias, rest = inputs((narrow, (2, 3, 6, 7)), (narrow, (5, 3, 3, 3)), (narrow, (5,)), (narrow, (2, 5, 6, 7)))
    y = b.conv(x, w, stride=(1, 1), pads=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    shifted = b.add(y, b.broadcast(bias, shape=y.shape, dims=(1,)))
    out = b.maximum(b.add(shifted, rest), b.scalar(0.0, narrow))
    node = fused([out, shifted], x, w, bias, rest)
    dt = narrow.numpy
    arrays = [draw(2, 3, 6, 7), draw(5, 3, 3, 3), draw(5), draw(2, 5, 6, 7)]
    arrays = [a.astype(dt) for a in arrays]
    assert lower(node).in_place == ((0, 3), (1, 3))
    got, pre = both(node, *arrays)
    specs = tuple(InputSpec(f"x{k}", n.tensor_type) for k, n in enumerate((x, w, bias, rest)))
    unfused = run_graph(Graph("g", specs, (out, shifted)), arrays)
    assert got.tobytes() == unfused[0].tobytes() and pre.tobytes() == unfused[1].tobytes()


def test_what_no_template_covers() -> None:
    (x,) = inputs((f32, (4, 6, 5)))
    with pytest.raises(CannotLower):  # no common rows and columns
        lower(fused([b.sum(x, axes=(1,)), b.sum(x, axes=(2,))], x))
    (x,) = inputs((f32, (4, 6)))
    scaled = b.div(b.sub(x, rows_of(x, b.max(x, axes=(1,)))), b.expand(b.sum(x, axes=(0,)), x.shape, (0,)))
    with pytest.raises(CannotLower):  # a second pass that would repeat a row's reduction
        lower(fused([scaled], x))


def rows_of(x: Node, value: Node) -> Node:
    return b.expand(value, x.shape, (1,))


def column_sum(x: Any) -> Any:
    """The canonical sum of the columns: chunks of 64 rows one after the other, chunks in order."""
    total = np.zeros(x.shape[1], x.dtype)
    for first in range(0, len(x), 64):
        chunk = np.zeros(x.shape[1], x.dtype)
        for row in x[first:first + 64]:
            chunk += row
        total += chunk
    return total


def total_sum(x: Any) -> Any:
    """The canonical sum of everything: lanes over chunks of 64 rows of blocks of 4096 columns."""
    total = np.float32(0)
    for first in range(0, len(x), 64):
        for left in range(0, x.shape[1], 4096):
            lanes = np.zeros(16, np.float32)
            for row in x[first:first + 64, left:left + 4096]:
                for start in range(0, row.size, 16):
                    part = row[start:start + 16]
                    lanes[:part.size] += part
            for width in (8, 4, 2, 1):
                lanes[:width] += lanes[width:2 * width]
            total += lanes[0]
    return total


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (64, 10), (65, 16), (200, 37), (3, 4097), (0, 5), (5, 0)])
def test_a_grid_folds_rows_columns_and_everything(n: int, columns: int) -> None:
    """All three sums have their canonical order, whether in one kernel or alone."""
    (x,) = inputs((f32, (sym("N"), sym("C"))))
    data, sizes = draw(n, columns), {"N": n, "C": columns}
    found = [b.sum(x, axes=(1,)), b.sum(x, axes=(0,)), b.sum(x, axes=(0, 1))]
    by_row, by_column, total = both(fused(found, x), data, sizes=sizes)
    assert by_row.tobytes() == np.array([lane_sum(row) for row in data], np.float32).tobytes()
    assert by_column.tobytes() == column_sum(data).tobytes()
    assert total.tobytes() == total_sum(data).tobytes()
    for node, wanted in zip(found, (by_row, by_column, total), strict=True):
        assert both(node, data, sizes=sizes)[0].tobytes() == wanted.tobytes()


@pytest.mark.parametrize(("n", "columns"), [(70, 33), (5, 4100)])
def test_gradients_of_a_layer_norm_are_one_pass(n: int, columns: int) -> None:
    """A row's stages, what they add to the columns, a loss, and an update behind the columns' fold."""
    x, g, w = inputs((f32, (sym("N"), sym("C"))), (f32, (sym("N"), sym("C"))), (f32, (sym("C"),)))
    count = b.cast(b.extent(value=sym("C")), dtype=f32)
    centred = b.sub(x, rows_of(x, b.div(b.sum(x, axes=(1,)), count)))
    variance = b.div(b.sum(b.mul(centred, centred), axes=(1,)), count)
    unit = b.mul(centred, rows_of(x, b.rsqrt(b.add(variance, b.scalar(1e-5, f32)))))
    dw = b.sum(b.mul(unit, g), axes=(0,))
    out = [unit, b.sub(w, dw), b.sum(b.mul(g, g), axes=(0, 1))]
    node = fused(out, x, g, w)
    low = lower(node)
    assert [step.outputs for step in low.launches] == [3, 1, 1]  # a pass; the total's fold; the columns' fold
    assert (1, 2) in low.in_place  # the new weights may lie over the old ones
    data = [draw(n, columns), draw(n, columns, seed=1), draw(columns, seed=2)]
    got = both(node, *data, sizes={"N": n, "C": columns})
    for value, want in zip(got, evaluate(Graph("g", node.attrs.body.inputs, tuple(out)), data), strict=True):
        np.testing.assert_allclose(value, want, rtol=2e-4, atol=2e-5)


def test_rows_are_fetched_ahead() -> None:
    """In the longest pass of a kernel, every operand that is read row after row; not what all rows share."""
    x, g, w = inputs((f32, (sym("N"), sym("C"))), (f32, (sym("N"), sym("C"))), (f32, (sym("C"),)))
    y = b.mul(softmax(b.add(x, g)), b.broadcast(w, shape=x.shape, dims=(1,)))
    source = lower(fused([y], x, g, w)).launches[0].kernel.source
    fetched = [line.strip() for line in source.splitlines() if "prefetch(" in line]
    assert [line[:12] for line in fetched] == ["prefetch(x0,", "prefetch(x1,"]
    assert all("i0" in line and "base" in line for line in fetched)


@pytest.mark.parametrize(("n", "columns"), [(1, 3), (130, 16), (70, 64), (70, 65), (65, 4100)])
def test_stages_of_columns_are_passes(n: int, columns: int) -> None:
    """Batch norm over rows: mean, variance, result; each pass reads the values of the fold before it."""
    x, w = inputs((f32, (sym("N"), sym("C"))), (f32, (sym("C"),)))
    count = b.cast(b.extent(value=sym("N")), dtype=f32)
    mean = b.div(b.sum(x, axes=(0,)), count)
    centred = b.sub(x, b.expand(mean, x.shape, (0,)))
    variance = b.div(b.sum(b.mul(centred, centred), axes=(0,)), count)
    scale = b.mul(w, b.rsqrt(b.add(variance, b.scalar(1e-5, f32))))
    node = fused([b.mul(centred, b.expand(scale, x.shape, (0,))), mean, variance], x, w)
    assert len(lower(node).launches) == 5
    data = [draw(n, columns), draw(columns, seed=1)]
    got = both(node, *data, sizes={"N": n, "C": columns})
    for value, want in zip(got, evaluate(Graph("g", node.attrs.body.inputs, node.attrs.body.outputs), data),
                           strict=True):
        np.testing.assert_allclose(value, want, rtol=2e-4, atol=2e-5)
    (scaled,) = both(fused([b.div(x, b.broadcast(b.sum(x, axes=(0, 1)), shape=x.shape, dims=()))], x), data[0],
                     sizes={"N": n, "C": columns})
    assert scaled.tobytes() == (data[0] / total_sum(data[0])).tobytes()


def test_integers_and_booleans() -> None:
    x, y, m = inputs((i32, (50,)), (i32, (50,)), (boolean, (50,)))
    node = fused([b.add(b.mul(x, y), x), b.select(m, b.floordiv(x, y), b.rem(x, y)), b.not_(b.and_(m, b.gt(x, y)))],
                 x, y, m)
    rng = np.random.default_rng(3)
    a, c = (rng.integers(-2**31, 2**31, 50).astype(np.int32) for _ in range(2))
    c[:4] = (0, -1, 1, 2)
    a[1] = -2**31
    flags = rng.integers(0, 2, 50).astype(bool)
    got = both(node, a, c, flags)
    specs = tuple(InputSpec(f"x{k}", n.tensor_type) for k, n in enumerate((x, y, m)))
    with np.errstate(all="ignore"):
        want = evaluate(Graph("g", specs, tuple(node.attrs.body.outputs)), [a, c, flags])
    for g, e in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, e)
