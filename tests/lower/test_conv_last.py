"""Convolutions with channels last: values, bits in both legs and any split, tiles, epilogues, symbolic batches."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from harness import run_graph, run_node
from tracemill.compiler.contract import conv_last_weight_grad
from tracemill.compiler.contract.conv_last import ConvLast, pixel_tile
from tracemill.compiler.lower import lower
from tracemill.ir.build import Builder
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import DType, bf16, f16, f32, f64, i32
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.node import Node
from tracemill.ir.types import TensorType

b = Builder()

# (batch, groups, channels, filters, input, window, strides, dilations, pads low/high); channels and filters per group
CASES = {
    "plain": (2, 1, 3, 5, (7, 9), (3, 3), (1, 1), (1, 1), ((0, 0), (0, 0))),
    "same": (3, 1, 16, 32, (8, 8), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    "one-channel": (9, 1, 1, 32, (6, 7), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    "one-filter": (2, 1, 17, 1, (5, 5), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    "stride": (2, 1, 16, 20, (9, 11), (3, 3), (2, 2), (1, 1), ((1, 1), (1, 0))),
    "stride-1x1": (1, 1, 5, 3, (6, 7), (1, 1), (2, 3), (1, 1), ((0, 0), (0, 0))),
    "1x1": (2, 1, 18, 33, (5, 6), (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0))),
    "wide-stride": (1, 1, 2, 3, (11, 12), (2, 3), (5, 4), (1, 1), ((1, 2), (3, 0))),
    "dilated": (1, 1, 2, 3, (10, 11), (2, 3), (1, 2), (3, 2), ((2, 1), (0, 3))),
    "dilated-stride": (1, 1, 9, 3, (11, 13), (3, 3), (2, 2), (2, 3), ((2, 2), (3, 1))),
    "far-padding": (1, 1, 8, 4, (2, 3), (3, 3), (1, 1), (1, 1), ((5, 4), (4, 6))),
    "groups": (2, 3, 2, 4, (5, 6), (3, 2), (1, 1), (1, 1), ((1, 1), (1, 0))),
    "groups-stride": (2, 2, 16, 8, (7, 6), (3, 3), (2, 2), (1, 1), ((1, 1), (1, 1))),
    "depthwise": (1, 18, 1, 1, (6, 6), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    "1d": (2, 1, 3, 4, (20,), (4,), (2,), (1,), ((3, 1),)),
    "1d-same": (2, 1, 16, 8, (21,), (5,), (1,), (2,), ((4, 4),)),
    "rows": (1, 1, 2, 3, (3, 300), (2, 5), (1, 1), (1, 1), ((0, 1), (2, 2))),
    "column": (2, 1, 3, 5, (6, 7), (3, 1), (1, 1), (1, 1), ((1, 2), (0, 0))),
    "padded-1x1": (2, 1, 3, 5, (6, 7), (1, 1), (1, 1), (1, 1), ((1, 1), (2, 0))),
    "many": (1, 1, 20, 50, (5, 5), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    "empty": (0, 1, 3, 4, (5, 5), (3, 3), (1, 1), (1, 1), ((0, 0), (0, 0))),
}
TOLERANCE = {"f64": 1e-12, "f32": 1e-5, "f16": 1e-2, "bf16": 6e-2}


class Case:
    """The three operators over one geometry, with random operands."""

    def __init__(self, name: str, dtype: DType = f32) -> None:
        n, g, c, o, size, window, stride, dilation, pads = CASES[name]
        out = tuple((s + sum(p) - (k - 1) * d - 1) // t + 1
                    for s, p, k, d, t in zip(size, pads, window, dilation, stride, strict=True))
        rng = np.random.default_rng(1)
        self.dtype = dtype

        def draw(*shape: int) -> Any:
            return rng.standard_normal(shape).astype(dtype.numpy)

        self.x, self.w, self.dy = draw(n, *size, g * c), draw(g * o, c, *window), draw(n, *out, g * o)
        self.geometry = {"stride": stride, "pads": pads, "dilation": dilation, "groups": g, "channels_last": True}
        self.more = {"conv": {}, "conv_input_grad": {"spatial": size}, "conv_weight_grad": {"window": window}}

    def operands(self, op: str) -> tuple[Any, Any]:
        return {"conv": (self.x, self.w), "conv_input_grad": (self.dy, self.w)}.get(op, (self.x, self.dy))

    def node(self, op: str, dtype: DType, *shapes: Any) -> Node:
        shapes = shapes or tuple(a.shape for a in self.operands(op))
        inputs = [input_node(k, TensorType(dtype, shape)) for k, shape in enumerate(shapes)]
        return Node.make(op, inputs, self.geometry | self.more[op])

    def expected(self, op: str) -> Any:
        """In float64, by the reference."""
        wide = [a.astype(np.float64) for a in self.operands(op)]
        return evaluate(graph(self.node(op, f64)), wide)[0]

    def check(self, op: str, got: Any) -> None:
        want = self.expected(op)
        scale = np.abs(want).max(initial=1.0)
        np.testing.assert_allclose(got.astype(np.float64), want, atol=TOLERANCE[self.dtype.name] * scale, rtol=0)


def graph(*outputs: Node, inputs: tuple[Node, ...] = ()) -> Graph:
    specs = tuple(InputSpec(f"x{k}", x.tensor_type) for k, x in enumerate(inputs or outputs[0].inputs))
    return Graph("g", specs, outputs)


def both(node: Node, *arrays: Any, sizes: dict[str, int] | None = None) -> tuple[Any, ...]:
    """Results of the compiled kernels, which plain Python and every split must repeat to the bit."""
    whole = run_node(node, arrays, sizes or {})
    for other in (run_node(node, arrays, sizes or {}, leg="plain"), run_node(node, arrays, sizes or {}, cuts=3)):
        for a, c in zip(whole, other, strict=True):
            assert a.tobytes() == c.tobytes()
    return whole


OPERATORS = ("conv", "conv_input_grad", "conv_weight_grad")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("op", OPERATORS)
def test_values(op: str, name: str) -> None:
    case = Case(name)
    case.check(op, both(case.node(op, f32), *case.operands(op))[0])


@pytest.mark.parametrize("dtype", [f64, f16, bf16], ids=str)
@pytest.mark.parametrize("name", ["stride", "plain", "same"])
@pytest.mark.parametrize("op", OPERATORS)
def test_dtypes(op: str, name: str, dtype: DType) -> None:
    case = Case(name, dtype)
    case.check(op, run_node(case.node(op, dtype), case.operands(op), {})[0])


def test_integers_wrap_like_their_dtype() -> None:
    case = Case("groups-stride")
    x, w = (np.round(a * 1e5).astype(np.int32) for a in case.operands("conv"))
    got = run_node(case.node("conv", i32), (x, w), {})[0]
    np.testing.assert_array_equal(got, evaluate(graph(case.node("conv", i32)), (x, w))[0])


@pytest.mark.parametrize("op", OPERATORS)
def test_bits_do_not_depend_on_the_instruction_set(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of AVX-512 and AVX2 give one chain per output."""
    from tracemill.compiler.contract import conv_last, tiles

    for name in ("same", "stride", "one-channel", "many"):
        case = Case(name)
        results = []
        for isa in ("avx512", "avx2", "neon"):
            def shape(dtype: DType, _: str | None = None, *, vectors: int = 2, isa: str = isa) -> Any:
                return tiles.tile_shape(dtype, isa, vectors=vectors)

            for place in (conv_last, conv_last_weight_grad):
                monkeypatch.setattr(place, "tile_shape", shape)
            results.append(run_node(case.node(op, f32), case.operands(op), {})[0])
        assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


def test_filters_that_do_not_fit_are_packed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("many")
    whole = run_node(case.node("conv", f32), case.operands("conv"), {})[0]
    monkeypatch.setattr("tracemill.compiler.contract.conv_last._PANEL_BYTES", 1)
    assert run_node(case.node("conv", f32), case.operands("conv"), {}, cuts=2)[0].tobytes() == whole.tobytes()


def test_one_filter_vector_has_a_tile_of_its_own() -> None:
    assert [ConvLast.of(f32, n, isa).tile.vectors for isa in ("avx512", "avx2") for n in (8, 16, sym("C"))] == [
        1, 1, 2, 1, 2, 2]
    assert pixel_tile(f32, 64, "avx512").rows == 8


@pytest.mark.parametrize("batch", [1, 2, 9])
@pytest.mark.parametrize("op", OPERATORS)
def test_symbolic_batch(op: str, batch: int) -> None:
    """The same kernels at every batch size, the blocks of images of a weight gradient included."""
    case = Case("same")
    shapes = [(sym("B"), *a.shape[1:]) if k == 0 or op == "conv_weight_grad" else a.shape
              for k, a in enumerate(case.operands(op))]
    node = case.node(op, f32, *shapes)
    arrays = [np.resize(a, (batch, *a.shape[1:])) if shape[0] == sym("B") else a
              for a, shape in zip(case.operands(op), shapes, strict=True)]
    got = run_node(node, arrays, {"B": batch})[0]
    fixed = case.node(op, f32, *(a.shape for a in arrays))
    assert got.tobytes() == run_node(fixed, arrays, {})[0].tobytes()
    assert ([step.kernel.source for step in lower(node).launches]
            == [step.kernel.source for step in lower(fixed).launches])


def fused(outputs: list[Node], *xs: Node) -> Node:
    return b.fused(*xs, body=graph(*outputs, inputs=xs), kind="test")


@pytest.mark.parametrize("dtype", [f32, f16], ids=str)
@pytest.mark.parametrize("op", ["conv", "conv_input_grad"])
def test_epilogue(op: str, dtype: DType) -> None:
    """Bias, residual, mask, and a result with channels first: the same bits as operator by operator."""
    case = Case("stride", dtype)
    core = case.node(op, dtype)
    bias, rest = (input_node(2 + k, TensorType(dtype, s)) for k, s in enumerate((core.shape[-1:], core.shape)))
    shifted = b.add(core, b.broadcast(bias, shape=core.shape, dims=(3,)))
    out = b.select(b.gt(rest, b.scalar(0.0, dtype)), b.add(shifted, rest), b.scalar(0.0, dtype))
    outputs = [out, b.permute(shifted, dims=(0, 3, 1, 2))]
    xs = (*core.inputs, bias, rest)
    node = fused(outputs, *xs)
    rng = np.random.default_rng(2)
    arrays = [*case.operands(op), *(rng.standard_normal(x.shape).astype(dtype.numpy) for x in (bias, rest))]
    assert len(lower(node).launches) == 1 and lower(node).in_place == ((0, 3),)
    got = both(node, *arrays)
    unfused = run_graph(graph(*outputs, inputs=xs), arrays)
    assert [a.tobytes() for a in got] == [a.tobytes() for a in unfused]


def test_update_behind_a_weight_gradient() -> None:
    case = Case("same")
    core = case.node("conv_weight_grad", f32)
    w, rate = input_node(2, TensorType(f32, core.shape)), input_node(3, TensorType(f32, ()))
    moved = b.sub(w, b.mul(core, b.broadcast(rate, shape=core.shape, dims=())))
    node = fused([moved], *core.inputs, w, rate)
    assert lower(node).in_place == ((0, 2),)
    arrays = [*case.operands("conv_weight_grad"), case.w, np.array(0.5, np.float32)]
    (got,) = both(node, *arrays)
    np.testing.assert_array_equal(got, run_graph(graph(moved, inputs=(*core.inputs, w, rate)), arrays)[0])


def test_padding_meets_no_infinity() -> None:
    """Taps in rows outside the image are left out; weights there may be anything."""
    x, w = np.ones((1, 1, 1, 2), np.float32), np.ones((1, 2, 3, 3), np.float32)
    w[:, :, 0] = w[:, :, 2] = math.inf
    node = b.conv(*(input_node(k, TensorType(f32, a.shape)) for k, a in enumerate((x, w))),
                  stride=(1, 1), pads=((1, 1), (1, 1)), dilation=(1, 1), groups=1, channels_last=True)
    assert both(node, x, w)[0].reshape(-1).tolist() == [2.0]


def test_storage_of_narrow_floats_is_their_own() -> None:
    case = Case("1x1", bf16)
    got = run_node(case.node("conv", bf16), case.operands("conv"), {})[0]
    assert got.dtype == ml_dtypes.bfloat16
