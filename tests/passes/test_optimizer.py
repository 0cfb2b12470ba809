"""Optimizer insertion: every rule and flag over several steps against formulas written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tracemill.compiler.passes.optimizer import Optimizer
from tracemill.ir.build import Builder
from tracemill.ir.dtypes import bf16, f32, f64
from tracemill.ir.errors import AttributeValueError
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.interp import evaluate
from tracemill.ir.types import TensorType
from tracemill.ir.update_rules import UPDATE_RULES, format_flags, parse_flags
from tracemill.ir.verify import verify

Numbers = dict[str, float]
State = dict[str, Any]

HYPERS: dict[str, Numbers] = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05},
    "adam": {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.05},
    "adamw": {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.05},
    "rmsprop": {"lr": 0.01, "alpha": 0.95, "eps": 1e-8, "weight_decay": 0.05, "momentum": 0.8},
    "adagrad": {"lr": 0.1, "lr_decay": 0.2, "eps": 1e-10, "weight_decay": 0.05},
}


def sgd(p: Any, g: Any, s: State, h: Numbers, flags: tuple[str, ...], t: int) -> Any:
    if "momentum" in flags:
        damp = h["dampening"] if "dampening" in flags and t > 1 else 0.0
        s["m"] = g if t == 1 else h["momentum"] * s["m"] + (1 - damp) * g
        g = g + h["momentum"] * s["m"] if "nesterov" in flags else s["m"]
    return p - h["lr"] * g


def adam(p: Any, g: Any, s: State, h: Numbers, flags: tuple[str, ...], t: int) -> Any:
    s["m"] = h["beta1"] * s.get("m", 0) + (1 - h["beta1"]) * g
    s["v"] = h["beta2"] * s.get("v", 0) + (1 - h["beta2"]) * g * g
    v = s["v"]
    if "amsgrad" in flags:
        v = s["vmax"] = np.maximum(s.get("vmax", 0), v)
    m_hat = s["m"] / (1 - h["beta1"] ** t)
    return p - h["lr"] * m_hat / (np.sqrt(v / (1 - h["beta2"] ** t)) + h["eps"])


def adamw(p: Any, g: Any, s: State, h: Numbers, flags: tuple[str, ...], t: int) -> Any:
    p = p * (1 - h["lr"] * h["weight_decay"]) if "wd" in flags else p
    return adam(p, g, s, h, flags, t)


def rmsprop(p: Any, g: Any, s: State, h: Numbers, flags: tuple[str, ...], t: int) -> Any:
    s["v"] = h["alpha"] * s.get("v", 0) + (1 - h["alpha"]) * g * g
    v = s["v"]
    if "centered" in flags:
        s["a"] = h["alpha"] * s.get("a", 0) + (1 - h["alpha"]) * g
        v = v - s["a"] ** 2
    d = g / (np.sqrt(v) + h["eps"])
    if "momentum" in flags:
        d = s["b"] = h["momentum"] * s.get("b", 0) + d
    return p - h["lr"] * d


def adagrad(p: Any, g: Any, s: State, h: Numbers, flags: tuple[str, ...], t: int) -> Any:
    s["s"] = s.get("s", 0) + g * g
    return p - h["lr"] / (1 + (t - 1) * h["lr_decay"]) * g / (np.sqrt(s["s"]) + h["eps"])


REFERENCES: dict[str, Callable[..., Any]] = {
    "sgd": sgd, "adam": adam, "adamw": adamw, "rmsprop": rmsprop, "adagrad": adagrad,
}

CASES = [
    ("sgd", ""), ("sgd", "wd"), ("sgd", "maximize"), ("sgd", "momentum"), ("sgd", "momentum,nesterov,wd"),
    ("sgd", "dampening,momentum,wd"),
    ("adam", ""), ("adam", "wd"), ("adam", "amsgrad"), ("adam", "maximize,wd"), ("adamw", "wd"),
    ("adamw", "amsgrad,wd"),
    ("rmsprop", ""), ("rmsprop", "wd"), ("rmsprop", "centered"), ("rmsprop", "centered,momentum,wd"),
    ("adagrad", ""), ("adagrad", "wd"), ("adagrad", "maximize"),
]


def step_graph(rule: str, flags: str, params: list[TensorType]) -> Graph:
    """(params, grads, states) -> (params, states), hyper-parameters as inputs with defaults."""
    record = UPDATE_RULES[rule]
    names = record.state_names(parse_flags(record, flags))
    specs = [InputSpec(f"p{i}", t, "parameter") for i, t in enumerate(params)]
    specs += [InputSpec(f"g{i}", t) for i, t in enumerate(params)]
    specs += [InputSpec(f"{s}{i}", record.state_type(s, t), "state") for s in names for i,
              t in enumerate(params)]
    specs += [InputSpec(h, TensorType(f64, ()), "hyper", HYPERS[rule][h]) for h in record.hypers]
    b = Builder()
    inputs = [input_node(i, s.type) for i, s in enumerate(specs)]
    update = b.update(*inputs, rule=rule, n=len(params), n_states=len(names), flags=flags)
    out = Optimizer().run(Graph("step", tuple(specs), b.results(update)))
    verify(out)
    assert "update" not in {n.op.name for n in out.nodes}
    return out


def gradient_at(t: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng([seed, t]).normal(size=shape)


@pytest.mark.parametrize("rule, flags", CASES)
@pytest.mark.parametrize("dtype, rtol", [(f64, 1e-12), (f32, 3e-6)])
def test_rule_over_several_steps(rule: str, flags: str, dtype: Any, rtol: float) -> None:
    shapes = [(3, 4), (), (5,)]
    graph = step_graph(rule, flags, [TensorType(dtype, s) for s in shapes])
    n = len(shapes)
    params = [np.random.default_rng(i).normal(size=s) for i, s in enumerate(shapes)]
    expected, memory = [p.copy() for p in params], [{} for _ in shapes]
    live = [p.astype(dtype.numpy) for p in params]
    live += [np.zeros(s.type.shape, s.type.dtype.numpy) for s in graph.inputs[2 * n:] if s.role == "state"]
    told = tuple(flags.split(",")) if flags else ()
    for t in range(1, 6):
        grads = [gradient_at(t, s, i) for i, s in enumerate(shapes)]
        fed = [*live[:n], *(np.asarray(g, dtype.numpy) for g in grads), *live[n:]]
        live = evaluate(graph, [*fed, *[None] * (len(graph.inputs) - len(fed))])
        for i, g in enumerate(grads):
            g = -g if "maximize" in told else g
            if "wd" in told and rule != "adamw":
                g = g + HYPERS[rule]["weight_decay"] * expected[i]
            expected[i] = REFERENCES[rule](expected[i], g, memory[i], HYPERS[rule], told, t)
    for found, wanted in zip(live[:n], expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol)


def test_states_are_grouped_by_kind_and_steps_count() -> None:
    graph = step_graph("adam", "", [TensorType(f32, (2,)), TensorType(f32, (3,))])
    assert [s.name for s in graph.inputs[4:10]] == ["step0", "step1", "exp_avg0", "exp_avg1", "exp_avg_sq0",
                                                    "exp_avg_sq1"]
    assert [o.type for o in graph.outputs] == [s.type for s in (*graph.inputs[:2], *graph.inputs[4:10])]
    zeros = [np.zeros(s.type.shape, s.type.dtype.numpy) for s in graph.inputs[:10]]
    out = evaluate(graph, [*zeros, *[None] * 5])
    assert [float(o) for o in out[2:4]] == [1.0, 1.0]


def test_sixteen_bit_parameters_are_updated_in_float32() -> None:
    graph = step_graph("adam", "wd", [TensorType(bf16, (4,))])
    assert graph.outputs[0].dtype is bf16 and graph.outputs[2].dtype is bf16
    arithmetic = {n.dtype.name for n in graph.nodes if n.op.name in ("mul", "add", "div") and n.shape}
    assert arithmetic == {"f32"}


def test_a_learning_rate_is_an_input_not_structure() -> None:
    graph = step_graph("sgd", "", [TensorType(f64, (2,))])
    p, g = np.ones(2), np.full(2, 2.0)
    np.testing.assert_allclose(evaluate(graph, [p, g, 0.25, None, None, None])[0], 0.5)


def test_flags_that_make_no_sense_are_refused() -> None:
    record = UPDATE_RULES["sgd"]
    for flags in ("amsgrad", "nesterov", "dampening", "dampening,momentum,nesterov"):
        with pytest.raises(AttributeValueError):
            parse_flags(record, flags)
    assert parse_flags(record, format_flags(("wd", "momentum"))) == ("momentum", "wd")


def test_a_wrong_number_of_states_names_the_states() -> None:
    b = Builder()
    t = TensorType(f64, (2,))
    specs = tuple(InputSpec(f"x{i}", t) for i in range(3)) + tuple(
        InputSpec(h, TensorType(f64, ())) for h in UPDATE_RULES["adam"].hypers)
    inputs = [input_node(i, s.type) for i, s in enumerate(specs)]
    node = b.update(*inputs, rule="adam", n=1, n_states=1)
    with pytest.raises(AttributeValueError, match="step, exp_avg, exp_avg_sq"):
        Optimizer().run(Graph("step", specs, (b.result(node, index=0),)))
