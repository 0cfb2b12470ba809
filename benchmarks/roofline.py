"""How fast a step could be: a model of each workload's arithmetic and traffic, and this machine's two roofs.

The time limit is flops / GEMM peak + bytes / copy bandwidth, nothing overlapped. The rules are the same for all:

* flops: the contractions' multiply-adds count 2, forward, input gradient (not for the first layer) and weight
  gradient; pointwise work counts only where there is nothing else (W7).
* bytes: a layer's result (contraction or normalisation, pointwise work fused into it) is written once and read twice,
  by the next layer and in the backward pass; its gradient is written once and read once. An optimizer reads and
  writes all that it keeps (SGD 1, momentum 2, Adam 3 arrays per parameter), and reads the gradient from registers.
  A batch is read once. What stays in a cache is counted all the same, so a small model can beat its limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from workloads import BLOCKS, CONTEXT, HEADS, LAYERS, VOCABULARY, WIDTH

F32 = 4
PASSES = 5  # over a layer's result: see above
POINTWISE_W7 = 150  # flops an element: two norms and their gradients 40, exact GELU and its derivative 100, loss 10


@dataclass(frozen=True)
class Model:
    """What one step must do: floating-point operations and bytes."""

    flops: float
    bytes: float

    def seconds(self, roof: Roof) -> float:
        """The limit on a machine."""
        return self.flops / roof.flops + self.bytes / roof.bandwidth


@dataclass(frozen=True)
class Roof:
    """A machine's measured limits: flop/s of a large matrix product, bytes/s read plus written of a large copy."""

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class _Layer:
    """One contraction: multiply-adds of a forward pass, elements of its result, its parameters."""

    multiplies: float
    result: float
    parameters: float
    first: bool = False


def _linear(rows: int, inner: int, outer: int, first: bool = False) -> _Layer:
    return _Layer(rows * inner * outer, rows * outer, inner * outer + outer, first)


def _conv(n: int, side: int, inner: int, outer: int, taps: int, first: bool = False) -> _Layer:
    pixels = n * side * side
    return _Layer(pixels * inner * outer * taps, pixels * outer, inner * outer * taps, first)


def _norm(elements: float, width: int) -> _Layer:
    return _Layer(0, elements, 2 * width)


def _sum(layers: Iterable[_Layer], batch: float, kept: int) -> Model:
    layers = list(layers)
    flops = sum(2 * layer.multiplies * (2 if layer.first else 3) for layer in layers)
    elements = batch + sum(PASSES * layer.result + 2 * kept * layer.parameters for layer in layers)
    return Model(flops, F32 * elements)


def _gpt() -> Model:
    rows = 12 * CONTEXT
    layers = [_Layer(0, rows * WIDTH, (VOCABULARY + CONTEXT) * WIDTH)]
    for _ in range(LAYERS):
        layers += [_norm(rows * WIDTH, WIDTH), _linear(rows, WIDTH, 3 * WIDTH)]
        # Half of the two products' scores are masked; the backward pass makes five products of them.
        causal = 12 * HEADS * CONTEXT * CONTEXT * (WIDTH // HEADS)
        layers += [_Layer(causal * 7 / 6, rows * WIDTH, 0), _linear(rows, WIDTH, WIDTH)]
        layers += [_norm(rows * WIDTH, WIDTH), _linear(rows, WIDTH, 4 * WIDTH), _linear(rows, 4 * WIDTH, WIDTH)]
    layers += [_norm(rows * WIDTH, WIDTH), _linear(rows, WIDTH, VOCABULARY)]
    return _sum(layers, rows, 3)


def _resnet() -> Model:
    n, side = 32, 32
    layers = [_conv(n, side, 3, 16, 9, first=True), _norm(n * side * side * 16, 16)]
    for inner, outer, stride in BLOCKS:
        side //= stride
        elements = n * side * side * outer
        layers += [_conv(n, side, inner, outer, 9), _norm(elements, outer)]
        layers += [_conv(n, side, outer, outer, 9), _norm(elements, outer)]
        if stride != 1:
            layers += [_conv(n, side, inner, outer, 1), _norm(elements, outer)]
    return _sum([*layers, _linear(n, 64, 10)], n * 3 * 32 * 32, 2)


def model(name: str) -> Model:
    """The model of a workload."""
    match name:
        case "W1":
            return _sum([_linear(100, 1, 1, first=True)], 200, 1)
        case "W2":
            return _sum([_linear(128, 784, 512, True), _linear(128, 512, 512), _linear(128, 512, 10)], 128 * 784, 3)
        case "W3":
            layers = [_conv(64, 26, 1, 32, 9, first=True), _conv(64, 24, 32, 64, 9)]
            return _sum([*layers, _linear(64, 9216, 128), _linear(64, 128, 10)], 64 * 28 * 28, 3)
        case "W4":
            return _gpt()
        case "W5":
            layers = [_linear(32 * 32, 64, 512, first=True), _Layer(32 * 32 * 128 * 512, 32 * 32 * 128, 128 * 512)]
            return _sum([*layers, _linear(32, 128, 10)], 32 * 32 * 64, 3)
        case "W6":
            return _resnet()
        case "W7":
            return Model(POINTWISE_W7 * 4096 * 1024, F32 * 2 * 4096 * 1024)
    raise KeyError(name)


def measure_roof(threads: int) -> Roof:
    """The roofs of this machine: the better of NumPy's BLAS and tracemill at 1024³, and parts of a copy per thread."""
    import tracemill as tm

    tm.set_num_threads(threads)
    n = 1024
    a, b = (np.random.default_rng(i).standard_normal((n, n)).astype(np.float32) for i in range(2))
    out = np.empty_like(a)
    ta, tb = tm.from_numpy(a), tm.from_numpy(b)
    product = tm.compile(lambda a, b: a @ b)
    fastest = min(_best(lambda: np.matmul(a, b, out=out)), _best(lambda: product(ta, tb)))
    source = np.ones(2**26, np.float32)
    target = np.zeros_like(source)

    def part(i: int) -> None:
        share = slice(i * source.size // threads, (i + 1) * source.size // threads)
        np.copyto(target[share], source[share])

    def copy() -> None:
        workers = [threading.Thread(target=part, args=(i,)) for i in range(threads)]
        for w in workers:
            w.start()
        for w in workers:
            w.join()

    return Roof(2 * n**3 / fastest, 2 * source.nbytes / _best(copy, 5))


def _best(run: object, count: int = 20) -> float:
    times = []
    for _ in range(count):
        at = time.perf_counter()
        run()  # type: ignore[operator]
        times.append(time.perf_counter() - at)
    return min(times)
