"""Gradients of the normalisations, and gradients of those, against differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tracemill as tm
from tracemill.nn import functional as F

NORMS: dict[str, tuple[tuple[int, ...], Callable[[Any, Any, Any], Any]]] = {
    "batch": ((3, 4, 2, 3), lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True)),
    "instance": ((2, 4, 3, 2), lambda x, w, b: F.instance_norm(x, None, None, w, b)),
    "layer": ((3, 2, 4), lambda x, w, b: F.layer_norm(x, (4,), w, b)),
    "group": ((2, 4, 3), lambda x, w, b: F.group_norm(x, 2, w, b)),
}


def difference(f: Callable[[Any], float], x: Any, h: float) -> Any:
    """The gradient of f at x by central differences."""
    out = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[i] = h
        out[i] = (f(x + step) - f(x - step)) / (2 * h)
    return out


def slopes(norm: Callable[..., Any], arrays: list[Any], mix: Any) -> list[Any]:
    """Gradients of Σ mix·tanh(norm(x, w, b)) as tensors with a history."""
    leaves = [tm.tensor(a, dtype=tm.float64, requires_grad=True) for a in arrays]
    loss = (tm.tensor(mix) * norm(*leaves).tanh()).sum()
    return [leaves, tm.autograd.grad(loss, leaves, create_graph=True)]


@pytest.mark.parametrize("name", NORMS)
def test_first_and_second_derivatives(name: str) -> None:
    shape, norm = NORMS[name]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape), rng.uniform(0.5, 2, 4), rng.normal(size=4)]
    mix, turn = rng.normal(size=shape), [rng.normal(size=a.shape) for a in arrays]

    def value(k: int, a: Any) -> float:
        given = [tm.tensor(a if i == k else x) for i, x in enumerate(arrays)]
        return (tm.tensor(mix) * norm(*given).tanh()).sum().item()

    def slope(k: int, a: Any) -> float:
        _, found = slopes(norm, [a if i == k else x for i, x in enumerate(arrays)], mix)
        return sum(float((t * g.detach().numpy()).sum()) for t, g in zip(turn, found, strict=True))

    leaves, first = slopes(norm, arrays, mix)
    second = tm.autograd.grad(sum((tm.tensor(t) * g).sum() for t, g in zip(turn, first, strict=True)), leaves)
    for k, x in enumerate(arrays):
        np.testing.assert_allclose(first[k].detach().numpy(), difference(lambda a, k=k: value(k, a), x, 1e-5),
                                   rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(second[k].numpy(), difference(lambda a, k=k: slope(k, a), x, 1e-5),
                                   rtol=1e-4, atol=1e-6)


def test_the_gradient_of_a_batch_norm_waits_for_one_sum() -> None:
    """Its sums over the batch read nothing that follows from another of them."""
    from tracemill.compiler.passes.autodiff import Autodiff
    from tracemill.frontends.python.nn.norm_functions import _batch_norm_train
    from tracemill.ir.build import Builder
    from tracemill.ir.dtypes import f32
    from tracemill.ir.graph import Graph, InputSpec, input_node
    from tracemill.ir.types import TensorType

    b = Builder()
    types = [TensorType(f32, s) for s in ((2, 3, 4, 4), (3,), (3,), (2, 3, 4, 4))]
    x, w, c, g = (input_node(i, t) for i, t in enumerate(types))
    y, _, _ = _batch_norm_train(b, x, w, c, 1e-5)
    grads = b.results(b.gradient(y, g, x, w, c, n_outputs=1, n_wrt=3))
    graph = Autodiff().run(Graph("g", tuple(InputSpec(f"x{i}", t) for i, t in enumerate(types)), grads))
    depth: dict[Any, int] = {}
    for node in graph.nodes:
        behind = max((depth[i] for i in node.inputs), default=0)
        depth[node] = behind + (node.op.name == "sum")
    assert max(depth.values()) == 3  # the mean, the squares, and the gradient's sums at once
