"""Values of operators whose rules no shape shows: known answers, ties, NaN, repeated and wrong indices."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import DType, bf16, boolean, f16, f32, f64, from_numpy, i32, i64
from tracemill.ir.errors import AttributeValueError, DTypeError, IndexRangeError, ShapeError
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.ops.random import philox4x32
from tracemill.ir.types import TensorType, TupleType

NAN = float("nan")
B = sym("B")


def run(name: str, *arrays: Any, **attrs: Any) -> Any:
    """The operator's value on arrays (a list of values if it has several results)."""
    arrays = tuple(np.asarray(a) for a in arrays)
    types = [TensorType(from_numpy(a.dtype), a.shape) for a in arrays]
    node = Node.make(name, [input_node(i, t) for i, t in enumerate(types)], attrs)
    several = isinstance(node.type, TupleType)
    outputs = Builder().results(node) if several else (node,)
    values = evaluate(Graph("g", tuple(InputSpec(f"x{i}", t) for i, t in enumerate(types)), outputs), arrays)
    return values if several else values[0]


def infer(name: str, *types: tuple[DType, tuple[Any, ...]], **attrs: Any) -> Any:
    return Node.make(name, [input_node(i, TensorType(d, s)) for i, (d, s) in enumerate(types)], attrs).type


def conv_attrs(n: int, stride: int = 1, pad: int = 0, **more: Any) -> dict[str, Any]:
    return {"stride": (stride,) * n, "pads": ((pad, pad),) * n, "dilation": (1,) * n, **more}


# Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, result.
@pytest.mark.parametrize(("counter", "key", "expected"), [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1))])
def test_philox_known_answers(counter: Any, key: Any, expected: Any) -> None:
    words = philox4x32([np.array([c], np.uint64) for c in counter], key)
    assert tuple(int(w[0]) for w in words) == expected


def test_random_bits_are_a_function_of_position() -> None:
    state = np.array([0, 0], np.int64)
    bits = run("random_bits", state, shape=(3, 5))
    assert bits.ravel()[:4].tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    np.testing.assert_array_equal(run("random_bits", state, shape=(6,)), bits.ravel()[:6])
    advanced = run("random_advance", state, count=8)
    assert advanced.tolist() == [0, 2]
    np.testing.assert_array_equal(run("random_bits", advanced, shape=(4,)), bits.ravel()[8:12])
    assert run("random_advance", state, count=9).tolist() == [0, 3]


def test_random_state_is_read_as_unsigned_words() -> None:
    # Seed −1 is the key (2³²−1, 2³²−1); the counter carries into its second word at 2³² and wraps at 2⁶⁴.
    carry = run("random_bits", np.array([-1, 0xFFFFFFFF], np.int64), shape=(8,))
    key = (0xFFFFFFFF, 0xFFFFFFFF)
    for block, words in (((0xFFFFFFFF, 0), carry[:4]), ((0, 1), carry[4:])):
        expected = philox4x32([np.array([c], np.uint64) for c in (*block, 0, 0)], key)
        assert words.tolist() == [int(w[0]) for w in expected]
    wrapped = run("random_bits", np.array([5, -1], np.int64), shape=(8,))
    np.testing.assert_array_equal(wrapped[4:], run("random_bits", np.array([5, 0], np.int64), shape=(4,)))


@pytest.mark.parametrize("wrong", [-1, 4])
@pytest.mark.parametrize(("name", "index_shape", "update_shape"), [
    ("gather", (2, 3), None), ("scatter", (2, 3), (2, 3)), ("scatter_add", (2, 3), (2, 3)),
    ("index_select", (2,), None), ("index_copy", (2,), (2, 3)), ("index_add", (2,), (2, 3))])
def test_index_out_of_range_is_an_error(name: str, index_shape: Any, update_shape: Any, wrong: int) -> None:
    index = np.zeros(index_shape, np.int64)
    index.flat[-1] = wrong
    updates = () if update_shape is None else (np.ones(update_shape, np.float32),)
    with pytest.raises(IndexRangeError,
                       match=rf"{name}: index {wrong} is out of range for axis 0 with extent 4"):
        run(name, np.zeros((4, 3), np.float32), index, *updates, axis=0)


def test_last_of_several_stores_stays_and_sums_are_in_order() -> None:
    x, index = np.zeros(3, np.float32), np.array([1, 1, 2, 1])
    update = np.array([1, 2, 3, 4], np.float32)
    for store in ("scatter", "index_copy"):
        assert run(store, x, index, update, axis=0).tolist() == [0, 4, 3]
    for add in ("scatter_add", "index_add"):
        assert run(add, x, index, update, axis=0).tolist() == [0, 7, 3]
        # (1e8 + 1) − 1e8 is 0 in float32; another order would give 1.
        assert run(add, x, index[:2].repeat(2)[:3], np.array([1e8, 1, -1e8], np.float32), axis=0)[1] == 0


def test_scatter_gradient_goes_to_the_stored_update_only() -> None:
    b = Builder()
    types = [TensorType(f64, (3,)), TensorType(i64, (4,)), TensorType(f64, (4,)), TensorType(f64, (3,))]
    x, index, update, g = (input_node(i, t) for i, t in enumerate(types))
    specs = tuple(InputSpec(f"x{i}", t) for i, t in enumerate(types))
    for name in ("scatter", "index_copy"):
        node = getattr(b, name)(x, index, update, axis=0)
        dx, none, dupdate = node.op.vjp(b, node, g, x, index, update)
        values = evaluate(Graph("g", specs, (dx, dupdate)),
                          [np.zeros(3), np.array([1, 1, 2, 1]), np.zeros(4), np.array([5.0, 6.0, 7.0])])
        assert none is None
        assert [v.tolist() for v in values] == [[5, 0, 0], [0, 0, 7, 6]]


def test_index_select_of_embedding_rows() -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(run("index_select", table, np.array([[3, 0], [1, 1]]), axis=0),
                                  table[[[3, 0], [1, 1]]])
    np.testing.assert_array_equal(run("index_select", table, np.array(2, np.int32), axis=1), table[:, 2])


@pytest.mark.parametrize("dt", [f16, bf16])
def test_narrow_dot_accumulates_in_float32(dt: DType) -> None:
    ones = np.ones(5000).astype(dt.numpy)
    # In sixteen bits the sum would stall at 2048 (float16) or 256 (bfloat16).
    expected = np.float32(5000).astype(dt.numpy)
    value = run("dot", ones, ones, contract_a=(0,), contract_b=(0,))
    assert value == expected and value.dtype == dt.numpy


def test_dot_orders_axes_batch_free_a_free_b() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 2, 4, 5)), rng.standard_normal((5, 3, 6, 2))
    value = run("dot", a, b, contract_a=(3,), contract_b=(0,), batch_a=(1, 0), batch_b=(3, 1))
    np.testing.assert_allclose(value, np.einsum("nbmk,knob->bnmo", a, b), rtol=1e-13)


def test_integer_dot_wraps() -> None:
    big = np.array([2**31 - 1, 1], np.int32)
    assert run("dot", big, np.ones(2, np.int32), contract_a=(0,), contract_b=(0,)) == -(2**31)


def test_conv_against_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 5, 6)), rng.standard_normal((6, 2, 3, 2))
    stride, pads, dilation, groups = (2, 1), ((1, 0), (2, 1)), (1, 2), 2
    value = run("conv", x, w, stride=stride, pads=pads, dilation=dilation, groups=groups)
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    expected = np.zeros(value.shape)
    for n, o, i, j in np.ndindex(*value.shape):
        first = 2 * (o // 3)
        for c, p, q in itertools.product(range(2), range(3), range(2)):
            expected[n, o, i, j] += w[o, c, p, q] * padded[n, first + c, i * 2 + p, j + q * 2]
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_window_max_prefers_first_maximum_and_nan() -> None:
    at = {"window": (3,), "stride": (1,), "pads": ((1, 1),), "dilation": (1,)}
    x = np.array([1, 3, 3, NAN, 0, NAN], np.float32)
    np.testing.assert_array_equal(run("window_max", x, **at),
                                  np.array([3, 3, NAN, NAN, NAN, NAN], np.float32))
    assert run("window_argmax", x, **at).tolist() == [2, 1, 2, 1, 0, 1]


def test_window_max_never_takes_padding() -> None:
    at = {"window": (2, 2), "stride": (2, 2), "pads": ((1, 0), (1, 0)), "dilation": (1, 1)}
    x = np.full((1, 3, 3), -np.inf, np.float32)
    assert run("window_argmax", x, **at).ravel().tolist() == [3, 2, 1, 0]
    low = np.full((1, 3, 3), np.iinfo(np.int32).min, np.int32)
    assert run("window_argmax", low, **at).ravel().tolist() == [3, 2, 1, 0]
    assert run("window_max", low, **at).ravel().tolist() == [np.iinfo(np.int32).min] * 4


def test_window_take_and_put_are_transposes() -> None:
    at = {"window": (2,), "stride": (1,), "pads": ((1, 0),), "dilation": (2,)}
    place = np.array([[1, 1, 0, 1, 7]], np.uint8)
    x = np.array([[1, 2, 3, 4, 5, 6]], np.float32)
    assert run("window_take", x, place, **at).tolist() == [[2, 3, 2, 5, 0]]
    assert run("window_put", x[:, :5], place, **at, spatial=(6,)).tolist() == [[0, 1 + 3, 2, 0, 4, 0]]
    assert run("window_take", x, 0 * place, **at).tolist() == [[0, 1, 2, 3, 4]]


def test_window_sum_counts_what_a_mean_divides_by() -> None:
    at = {"window": (3,), "stride": (2,), "pads": ((1, 1),), "dilation": (1,)}
    assert run("window_sum", np.ones((1, 5), np.float32), **at).tolist() == [[2, 3, 2]]
    assert run("window_spread", np.ones((1, 3), np.float32), **at, spatial=(5,)).tolist() == [[1, 2, 1, 2, 1]]


def test_sort_is_stable_and_nan_is_greatest() -> None:
    x = np.array([2, NAN, 1, 2, -0.0, 0.0, NAN], np.float32)
    values, order = run("sort", x, axis=0)
    assert order.tolist() == [4, 5, 2, 0, 3, 1, 6]
    np.testing.assert_array_equal(values, x[order])
    assert run("sort", x, axis=0, descending=True)[1].tolist() == [1, 6, 0, 3, 2, 4, 5]
    assert run("topk", x, axis=0, k=3)[1].tolist() == [1, 6, 0]
    assert run("topk", x, axis=0, k=3, largest=False)[1].tolist() == [4, 5, 2]


def test_cumsum_of_small_integers_wraps_in_their_dtype() -> None:
    x = np.array([[2**31 - 1, 1, 1]], np.int32)
    assert run("cumsum", x, axis=1).tolist() == [[2**31 - 1, -(2**31), -(2**31) + 1]]
    assert run("cumsum", np.array([1, 2, 3]), axis=0, reverse=True).tolist() == [6, 5, 3]


# types with named sizes


def test_types_with_named_sizes() -> None:
    assert infer("conv", (f32, (B, 3, 32, B)), (f32, (8, 3, 3, 3)),
                 **conv_attrs(2, stride=2, pad=1)).shape == \
        (B, 8, 16, (B - 1) // 2 + 1)
    assert infer("dot", (f32, (B, 784)), (f32, (10, 784)), contract_a=(1,), contract_b=(1,)).shape == (B, 10)
    assert infer("index_select", (f32, (100, 16)), (i64, (B, 7)), axis=0).shape == (B, 7, 16)
    assert infer("random_bits", (i64, (2,)), shape=(B, 4)).shape == (B, 4)
    values, indices = infer("topk", (f32, (B, 10)), axis=1, k=3).items
    assert values.shape == indices.shape == (B, 3) and indices.dtype is i64
    spread = infer("window_spread", (f32, (B, 5)), window=(2,), stride=(2,), pads=((0, 0),), dilation=(1,),
                   spatial=(11,))
    assert spread.shape == (B, 11)
    with pytest.raises(ShapeError, match=r"contract axis 0.*extent B.*extent 4"):
        infer("dot", (f32, (B,)), (f32, (4,)), contract_a=(0,), contract_b=(0,))


@pytest.mark.parametrize(("error", "pattern", "build"), [
    (ShapeError, r"conv: a weight of 3 input channels per group and groups=1 expects 3 input channels, got 4",
     lambda: infer("conv", (f32, (2, 4, 9)), (f32, (8, 3, 3)), **conv_attrs(1))),
    (ShapeError, r"conv: window \[5\].*does not fit into the input \[3\]",
     lambda: infer("conv", (f32, (2, 3, 3)), (f32, (8, 3, 5)), **conv_attrs(1))),
    (DTypeError, r"gather needs an index of int64 or int32, got bool\[3\].*\n.*mask",
     lambda: infer("gather", (f32, (3,)), (boolean, (3,)), axis=0)),
    (DTypeError, r"one dtype, got f32\[3\], f16\[3\]",
     lambda: infer("dot", (f32, (3,)), (f16, (3,)), contract_a=(0,), contract_b=(0,))),
    (ShapeError,
     r"index_add: with index \[2\] on axis 0 of f32\[4,3\] the update must have shape \[2, 3\], got \[2, 4\]",
     lambda: infer("index_add", (f32, (4, 3)), (i32, (2,)), (f32, (2, 4)), axis=0)),
    (ShapeError, r"topk: k=5 is more than the extent 4 of axis 1",
     lambda: infer("topk", (f32, (2, 4)), axis=1, k=5)),
    (AttributeValueError, r"window_sum: stride \(0,\) must be positive",
     lambda: infer("window_sum", (f32, (4,)), window=(2,), stride=(0,), pads=((0, 0),), dilation=(1,)))])
def test_messages_say_what_does_not_fit(error: Any, pattern: str, build: Any) -> None:
    with pytest.raises(error, match=pattern):
        build()
