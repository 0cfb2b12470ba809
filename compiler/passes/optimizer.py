"""Optimizer insertion: expands `update` nodes into arithmetic, by the rules of `ir/update_rules.py`.

The formulas are PyTorch's, hyper-parameter arithmetic (1 − beta, bias corrections, the step's learning rate)
is done in float64 as Python does it there, then rounded once to the dtype the parameter computes in.
Parameters and states of sixteen bits are widened first and rounded once at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ...ir.build import Builder
from ...ir.dtypes import DType, f64
from ...ir.errors import AttributeValueError
from ...ir.graph import Graph
from ...ir.node import Node
from ...ir.update_rules import UPDATE_RULES, parse_flags
from .rewriting import Replacement, rewrite


@dataclass(frozen=True)
class Optimizer:
    """Expand every update node."""

    name: ClassVar[str] = "optimizer"

    def run(self, graph: Graph) -> Graph:
        """Raises AttributeValueError for unknown flags, or a number of states that does not fit them."""
        return rewrite(graph, _expand)


def _expand(node: Node, inputs: tuple[Node, ...]) -> Replacement:
    if node.op.name != "update":
        return None
    n, k = node.attrs.n, node.attrs.n_states
    rule = UPDATE_RULES[node.attrs.rule]
    flags = parse_flags(rule, node.attrs.flags)
    names = rule.state_names(flags)
    if len(names) != k:
        raise AttributeValueError(f"update {rule.name} with flags {node.attrs.flags!r} has the states "
                                  f"{', '.join(names) or 'none'}, got {k}", location=node.place.location)
    b = Builder(node.place)
    params, grads, states, hypers = (inputs[:n], inputs[n:2 * n], inputs[2 * n:n * (2 + k)],
                                     inputs[n * (2 + k):])
    new_params: list[Node] = []
    new_states: list[list[Node]] = [[] for _ in names]
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        old = {name: states[j * n + i] for j, name in enumerate(names)}
        step = _Step(b, p.dtype.compute, frozenset(flags), dict(zip(rule.hypers, hypers, strict=True)))
        new_p, new = _RULES[rule.name](step, step.wide(p), step.wide(g),
                                       {s: step.wide(v) for s, v in old.items()})
        new_params.append(step.narrow(new_p, p))
        for j, name in enumerate(names):
            new_states[j].append(step.narrow(new[name], old[name]))
    return (*new_params, *(s for kind in new_states for s in kind))


class _Step:
    """Arithmetic of one parameter's update; hyper-parameters are rank-0 float64 nodes."""

    def __init__(self, b: Builder, dtype: DType, flags: frozenset[str], hypers: Mapping[str, Node]) -> None:
        self.b, self.dtype, self.flags, self.hypers = b, dtype, flags, hypers

    def wide(self, x: Node) -> Node:
        """A parameter, gradient, state or float64 number in the dtype of the arithmetic."""
        return x if x.dtype is self.dtype else self.b.cast(x, dtype=self.dtype)

    def narrow(self, x: Node, like: Node) -> Node:
        return x if x.dtype is like.dtype else self.b.cast(x, dtype=like.dtype)

    def one_minus(self, h: Node) -> Node:
        return self.b.sub(self.b.scalar(1.0, f64), h)

    def counted(self, states: Mapping[str, Node]) -> tuple[Node, Node]:
        """The step counter after this step: as state, and in float64."""
        step = self.b.add(states["step"], self.b.like(1.0, states["step"]))
        return step, step if step.dtype is f64 else self.b.cast(step, dtype=f64)

    def gradient(self, p: Node, g: Node, *, decay: bool = True) -> Node:
        """The gradient to follow: negated to maximise, with L2 decay added."""
        if "maximize" in self.flags:
            g = self.b.neg(g)
        if decay and "wd" in self.flags:
            g = self.b.add(g, self.b.mul(p, self.wide(self.hypers["weight_decay"])))
        return g

    def average(self, old: Node, new: Node, h: Node) -> Node:
        """h·old + (1 − h)·new."""
        b = self.b
        kept, added = b.mul(old, self.wide(h)), b.mul(new, self.wide(self.one_minus(h)))
        return b.add(kept, added)

    def descend(self, p: Node, direction: Node, h: Node) -> Node:
        """p − h·direction."""
        return self.b.sub(p, self.b.mul(direction, self.wide(h)))


States = dict[str, Node]


def _sgd(s: _Step, p: Node, g: Node, states: States) -> tuple[Node, States]:
    b, h, new = s.b, s.hypers, {}
    g = s.gradient(p, g)
    direction = g
    if "momentum" in s.flags:
        added = g
        if "dampening" in s.flags:
            first = b.eq(states["step"], b.like(0.0, states["step"]))
            new["step"], _ = s.counted(states)
            kept = b.select(first, b.scalar(1.0, f64), s.one_minus(h["dampening"]))
            added = b.mul(g, s.wide(kept))
        momentum = s.wide(h["momentum"])
        new["momentum_buffer"] = b.add(b.mul(states["momentum_buffer"], momentum), added)
        direction = new["momentum_buffer"]
        if "nesterov" in s.flags:
            direction = b.add(g, b.mul(direction, momentum))
    return s.descend(p, direction, h["lr"]), new


def _adam(s: _Step, p: Node, g: Node, states: States, *, decoupled: bool = False) -> tuple[Node, States]:
    b, h = s.b, s.hypers
    if decoupled and "wd" in s.flags:
        p = b.mul(p, s.wide(s.one_minus(b.mul(h["lr"], h["weight_decay"]))))
    g = s.gradient(p, g, decay=not decoupled)
    step, t = s.counted(states)
    m = s.average(states["exp_avg"], g, h["beta1"])
    v = s.average(states["exp_avg_sq"], b.mul(g, g), h["beta2"])
    new = {"step": step, "exp_avg": m, "exp_avg_sq": v}
    if "amsgrad" in s.flags:
        v = new["max_exp_avg_sq"] = b.maximum(states["max_exp_avg_sq"], v)
    rate = b.div(h["lr"], s.one_minus(b.pow(h["beta1"], t)))
    scale = b.sqrt(s.one_minus(b.pow(h["beta2"], t)))
    denominator = b.add(b.div(b.sqrt(v), s.wide(scale)), s.wide(h["eps"]))
    return s.descend(p, b.div(m, denominator), rate), new


def _adamw(s: _Step, p: Node, g: Node, states: States) -> tuple[Node, States]:
    return _adam(s, p, g, states, decoupled=True)


def _rmsprop(s: _Step, p: Node, g: Node, states: States) -> tuple[Node, States]:
    b, h = s.b, s.hypers
    g = s.gradient(p, g)
    step, _ = s.counted(states)
    v = s.average(states["square_avg"], b.mul(g, g), h["alpha"])
    new = {"step": step, "square_avg": v}
    if "centered" in s.flags:
        mean = new["grad_avg"] = s.average(states["grad_avg"], g, h["alpha"])
        v = b.sub(v, b.mul(mean, mean))
    direction = b.div(g, b.add(b.sqrt(v), s.wide(h["eps"])))
    if "momentum" in s.flags:
        direction = b.add(b.mul(states["momentum_buffer"], s.wide(h["momentum"])), direction)
        new["momentum_buffer"] = direction
    return s.descend(p, direction, h["lr"]), new


def _adagrad(s: _Step, p: Node, g: Node, states: States) -> tuple[Node, States]:
    b, h = s.b, s.hypers
    g = s.gradient(p, g)
    step, t = s.counted(states)
    total = b.add(states["sum"], b.mul(g, g))
    one = b.scalar(1.0, f64)
    rate = b.div(h["lr"], b.add(one, b.mul(b.sub(t, one), h["lr_decay"])))
    direction = b.div(g, b.add(b.sqrt(total), s.wide(h["eps"])))
    return s.descend(p, direction, rate), {"step": step, "sum": total}


_RULES: Mapping[str, Callable[[_Step, Node, Node, States], tuple[Node, States]]] = {
    "sgd": _sgd, "adam": _adam, "adamw": _adamw, "rmsprop": _rmsprop, "adagrad": _adagrad,
}
