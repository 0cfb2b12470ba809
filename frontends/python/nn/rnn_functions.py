"""Recurrent layers: one `scan` for each layer and direction.

The products of the inputs with their weights do not depend on the state, so one contraction over all steps stands
before the loop; the loop's body holds the product with the state and the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ....ir.build import Builder
from ....ir.graph import InputSpec, input_node
from ....ir.node import Node


def _times(b: Builder, x: Node, w: Node) -> Node:
    """x·Wᵀ over the last axis of x."""
    return b.dot(x, w, contract_a=(len(x.shape) - 1,), contract_b=(1,))


def _plus(b: Builder, x: Node, bias: Node | None) -> Node:
    """x + bias along the last axis."""
    if bias is None:
        return x
    return b.add(x, b.broadcast(bias, shape=x.shape, dims=(len(x.shape) - 1,)))


def _parts(b: Builder, x: Node, count: int) -> list[Node]:
    """Equal parts along the last axis."""
    *lead, total = x.shape
    size = total // count
    step = (1,) * len(x.shape)
    return [b.slice(x, start=(*(0 for _ in lead), i * size), size=(*lead, size), step=step) for i in range(count)]


def _projected(b: Builder, h: Node, w: Node | None) -> Node:
    return h if w is None else _times(b, h, w)


# --- one step: (projected input, state, weights) -> state; biases of LSTM and RNN are in the projected input ----------


def _simple(activation: str) -> Callable[..., tuple[Node, ...]]:
    def step(b: Builder, xw: Node, h: Node, w_hh: Node, b_hh: Node | None, w_hr: Node | None) -> tuple[Node, ...]:
        total = _plus(b, b.add(xw, _times(b, h, w_hh)), b_hh)
        if activation == "tanh":
            return (b.tanh(total),)
        zero = b.like(0, total)
        return (b.select(b.le(total, zero), zero, total),)

    return step


def _lstm(b: Builder, xw: Node, h: Node, c: Node, w_hh: Node, b_hh: Node | None,
          w_hr: Node | None) -> tuple[Node, ...]:
    gates = _plus(b, b.add(xw, _times(b, h, w_hh)), b_hh)
    i, f, g, o = _parts(b, gates, 4)
    c = b.add(b.mul(b.sigmoid(f), c), b.mul(b.sigmoid(i), b.tanh(g)))
    return _projected(b, b.mul(b.sigmoid(o), b.tanh(c)), w_hr), c


def _gru(b: Builder, xw: Node, h: Node, w_hh: Node, b_hh: Node | None, w_hr: Node | None) -> tuple[Node, ...]:
    xr, xz, xn = _parts(b, xw, 3)
    hr, hz, hn = _parts(b, _plus(b, _times(b, h, w_hh), b_hh), 3)
    reset, update = b.sigmoid(b.add(xr, hr)), b.sigmoid(b.add(xz, hz))
    new = b.tanh(b.add(xn, b.mul(reset, hn)))
    return (b.add(b.mul(b.sub(b.like(1, new), update), new), b.mul(update, h)),)


STEPS: dict[str, Callable[..., tuple[Node, ...]]] = {
    "RNN_TANH": _simple("tanh"), "RNN_RELU": _simple("relu"), "LSTM": _lstm, "GRU": _gru,
}
GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


def cell(b: Builder, x: Node, *operands: Any) -> Any:
    """One step of a cell: x [N, I], the states [N, H], weights and biases (or None), then the mode."""
    *states, w_ih, w_hh, b_ih, b_hh, mode = operands
    made = STEPS[mode](b, _plus(b, _times(b, x, w_ih), b_ih), *states, w_hh, b_hh, None)
    return made if len(made) > 1 else made[0]


def layer(b: Builder, x: Node, *operands: Any) -> tuple[Node, ...]:
    """One direction of one layer over x [T, N, I].

    Args:
        operands: the states at the start [N, H] (or None for zeros): one, or two for LSTM; weight_ih, weight_hh,
            bias_ih, bias_hh, weight_hr (or None); mode; whether to run backwards.

    Returns:
        the outputs [T, N, H], then the last states.
    """
    *given, w_ih, w_hh, b_ih, b_hh, w_hr, mode, reverse = operands
    time, n = x.shape[:2]
    hidden = w_hh.shape[0] // GATES[mode]
    sizes = (w_hh.shape[1], hidden) if mode == "LSTM" else (hidden,)
    states = [b.full(0, x.dtype, (n, size)) if s is None else s for s, size in zip(given, sizes, strict=True)]
    xw = _plus(b, _times(b, x, w_ih), b_ih)
    if mode != "GRU":  # there the state's bias is inside a gate
        xw, b_hh = _plus(b, xw, b_hh), None
    constants = [w for w in (w_hh, b_hh, w_hr) if w is not None]
    body = _body(b, mode, states, xw, constants, b_hh is not None, w_hr is not None)
    loop = b.scan(*states, xw, *constants, body=body, n_carry=len(states), n_xs=1, length=time, reverse=reverse)
    *last, outputs = b.results(loop)
    return (outputs, *last)


def _body(b: Builder, mode: str, states: Sequence[Node], xw: Node, constants: Sequence[Node], bias: bool,
          projection: bool) -> Any:
    """The graph of one step: (states, input, constants) -> (states, output)."""
    types = [s.tensor_type for s in states]
    types.append(xw.tensor_type.with_shape(xw.shape[1:]))
    types += [c.tensor_type for c in constants]
    names = ["h", "c"][: len(states)] + ["x", "weight_hh"] + ["bias_hh"] * bias + ["weight_hr"] * projection
    nodes = [input_node(i, t) for i, t in enumerate(types)]
    *before, x = nodes[: len(states) + 1]
    rest = iter(nodes[len(states) + 1:])
    w_hh = next(rest)
    b_hh = next(rest) if bias else None
    after = STEPS[mode](b, x, *before, w_hh, b_hh, next(rest) if projection else None)
    specs = [InputSpec(name, t) for name, t in zip(names, types, strict=True)]
    return b.graph(mode.lower(), specs, [*after, after[0]])
