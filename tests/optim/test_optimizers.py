"""Optimizers against PyTorch's numbers, their state, and what they compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tracemill as tm
import tracemill.nn.functional as F
from tracemill import nn, optim
from tracemill.frontends.python import engine
from tracemill.ir.errors import CheckpointError


def wave(*shape: int, phase: float = 0.0, scale: float = 1.0) -> tm.Tensor:
    values = np.cos(np.arange(int(np.prod(shape))) * 0.7 + phase) * scale
    return tm.tensor(values.reshape(shape).astype(np.float32))


def linear() -> nn.Linear:
    net = nn.Linear(3, 2)
    with tm.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(wave(*p.shape, phase=i, scale=0.5))
    return net


def steps(net: nn.Module, opt: Any, first: int, last: int) -> None:
    for i in range(first, last):
        opt.zero_grad()
        F.mse_loss(net(wave(4, 3, phase=0.3 * i)), wave(4, 2, phase=1 + i)).backward()
        opt.step()


def values(net: nn.Linear) -> list[float]:
    return [*net.weight.detach().reshape(-1).tolist(), *net.bias.tolist()]


Make = Callable[[Any], Any]
# optimizer -> weight and bias after five steps, as PyTorch 2.13 gives them
GOLDEN: dict[str, tuple[Make, list[float]]] = {
    "sgd": (lambda p: optim.SGD(p, lr=0.1),
            [0.32014, 0.287034, 0.118932, -0.178475, -0.282731, -0.254015, 0.133422, -0.015302]),
    "sgd momentum": (lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
                     [0.135849, 0.178504, 0.137206, 0.061401, 0.122167, 0.125475, -0.144165, 0.084799]),
    "sgd nesterov": (lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
                     [0.051295, 0.139082, 0.161457, -0.007399, 0.103308, 0.165427, -0.118175, 0.087805]),
    "sgd dampening": (lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.4, maximize=True),
                      [0.813836, 0.581617, 0.075854, -0.754251, -1.195988, -1.075233, 0.804234, -0.234944]),
    "adam": (lambda p: optim.Adam(p, lr=0.1, betas=(0.8, 0.95), weight_decay=0.01),
             [0.010779, 0.058202, 0.1724, -0.011362, -0.088816, -6.6e-05, -0.079081, 0.131035]),
    "adam amsgrad": (lambda p: optim.Adam(p, lr=0.1, amsgrad=True),
                     [0.020117, 0.060015, 0.149149, 0.01899, -0.07019, 0.007867, -0.102704, 0.160228]),
    "adamw": (lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.1),
              [0.006428, 0.058821, 0.148622, 0.021158, -0.058678, 0.019812, -0.103938, 0.155801]),
    "rmsprop": (lambda p: optim.RMSprop(p, lr=0.01, centered=True, momentum=0.9),
                [-0.517046, 0.009184, 0.218006, 0.106347, 0.111824, 0.343262, -0.241649, 0.176294]),
    "adagrad": (lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.5),
                [0.345513, 0.284694, 0.117575, -0.173837, -0.322518, -0.287918, 0.140978, -0.008129]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_five_steps(name: str) -> None:
    make, wanted = GOLDEN[name]
    net = linear()
    steps(net, make(net.parameters()), 0, 5)
    np.testing.assert_allclose(values(net), wanted, rtol=1e-4, atol=5e-6)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_saved_state_continues_bit_for_bit(name: str) -> None:
    make, _ = GOLDEN[name]
    net = linear()
    opt = make(net.parameters())
    steps(net, opt, 0, 5)
    first = linear()
    one = make(first.parameters())
    steps(first, one, 0, 2)
    second = linear()
    second.load_state_dict(first.state_dict())
    two = make(second.parameters())
    two.load_state_dict(one.state_dict())
    steps(second, two, 2, 5)
    assert values(second) == values(net)


def test_state_has_pytorchs_layout() -> None:
    net = linear()
    opt = optim.Adam(net.parameters(), lr=0.1)
    steps(net, opt, 0, 1)
    saved = opt.state_dict()
    assert saved["param_groups"][0]["params"] == [0, 1]
    assert saved["param_groups"][0]["betas"] == (0.9, 0.999)
    assert sorted(saved["state"][0]) == ["exp_avg", "exp_avg_sq", "step"]
    assert saved["state"][1]["step"].item() == 1.0
    assert saved["state"][0]["exp_avg"].shape == (2, 3)
    dampened = linear()
    opt = optim.SGD(dampened.parameters(), lr=0.1, momentum=0.9, dampening=0.1)
    steps(dampened, opt, 0, 1)
    assert list(opt.state_dict()["state"][0]) == ["momentum_buffer"]


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    net = linear()
    opt = optim.Adam(net.parameters(), lr=0.1)
    steps(net, opt, 0, 1)
    saved = opt.state_dict()
    other = optim.Adam(nn.Linear(4, 2).parameters(), lr=0.5)
    with pytest.raises(CheckpointError, match=r"exp_avg has shape \[2, 3\], its parameter \[2, 4\]"):
        other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == 0.5
    assert not other.state
    with pytest.raises(CheckpointError, match="different number of parameter groups"):
        optim.SGD([{"params": [p]} for p in net.parameters()], lr=0.1).load_state_dict(saved)
    with pytest.raises(CheckpointError, match="doesn't match the size"):
        optim.SGD([net.weight], lr=0.1).load_state_dict(saved)


def _compiled(run: Callable[[], None]) -> list[Any]:
    graphs: list[Any] = []
    stop = engine.on_compile(lambda graph, inputs: graphs.append(graph))
    run()
    stop()
    return [g for g in graphs if any(n.op.name == "update" for n in g.nodes)]


def test_a_loop_is_one_graph_whatever_the_learning_rate() -> None:
    net = linear()
    opt = optim.Adam(net.parameters(), lr=0.1)
    x, y = wave(4, 3), wave(4, 2)

    def run() -> None:
        for i in range(6):
            opt.param_groups[0]["lr"] = 0.1 / (i + 1)
            loss = F.mse_loss(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
        float(loss)

    graph, = _compiled(run)
    hypers = {s.name: s.default for s in graph.inputs if s.role == "hyper"}
    assert set(hypers) == {"lr", "beta1", "beta2", "eps", "weight_decay"}
    assert "weight.exp_avg" in {s.name for s in graph.inputs if s.role == "state"}


@pytest.mark.parametrize("order", ["head", "middle", "tail"])
def test_zero_grad_may_stand_anywhere(order: str) -> None:
    # an operator that no other test's graph has, so that the graph is not known already
    own = {"head": tm.sinh, "middle": tm.cosh, "tail": tm.tan}[order]
    net = linear()
    opt = optim.SGD(net.parameters(), lr=0.1)
    x, y = wave(4, 3), wave(4, 2)

    def run() -> None:
        for _ in range(5):
            if order == "head":
                opt.zero_grad()
            loss = F.mse_loss(own(net(x)), y)
            if order == "middle":
                opt.zero_grad()
            loss.backward()
            opt.step()
            if order == "tail":
                opt.zero_grad()
        net.weight.tolist()

    # At the head it drops the gradients before they become outputs; only the last step's are still held.
    assert len(_compiled(run)) == (2 if order == "head" else 1)


def test_two_optimizers_stepping_in_a_row_are_one_graph() -> None:
    a, b = linear(), linear()
    first, second = optim.SGD(a.parameters(), lr=0.1), optim.Adam(b.parameters(), lr=0.1)
    x, y = wave(4, 3), wave(4, 2)

    def run() -> None:
        for _ in range(4):
            loss = F.mse_loss(a(x) + b(x), y)
            first.zero_grad()
            second.zero_grad()
            loss.backward()
            first.step()
            second.step()
        a.weight.tolist()

    graph, = _compiled(run)
    assert [n.op.name for n in graph.nodes].count("update") == 2


def test_groups_have_options_of_their_own() -> None:
    net = linear()
    before = values(net)
    opt = optim.SGD([{"params": [net.weight], "lr": 0.0}, {"params": [net.bias]}], lr=0.5)
    steps(net, opt, 0, 1)
    after = values(net)
    assert after[:6] == before[:6]
    assert after[6:] != before[6:]


def test_parameters_without_a_gradient_stay() -> None:
    used, unused = linear(), linear()
    before = values(unused)
    opt = optim.Adam([*used.parameters(), *unused.parameters()], lr=0.1, weight_decay=0.1)
    steps(used, opt, 0, 2)
    assert values(unused) == before
    assert unused.weight not in opt.state


def test_values_from_before_the_step_are_kept_by_clones_only() -> None:
    net = linear()
    opt = optim.SGD(net.parameters(), lr=0.1)
    old, alias = net.weight.detach().clone(), net.weight.detach()
    steps(net, opt, 0, 1)
    assert not tm.equal(old, net.weight)
    assert tm.equal(alias, net.weight)


def test_a_closure_is_called_with_gradients_on() -> None:
    net = linear()
    opt = optim.SGD(net.parameters(), lr=0.1)

    def closure() -> tm.Tensor:
        opt.zero_grad()
        loss = F.mse_loss(net(wave(4, 3)), wave(4, 2))
        loss.backward()
        return loss

    with tm.no_grad():
        losses = [opt.step(closure).item() for _ in range(3)]
    assert losses[2] < losses[0]


def test_an_optimizer_of_ones_own() -> None:
    class Descent(optim.Optimizer):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, {"lr": lr})

        @tm.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(p.grad, alpha=-group["lr"])

    mine, theirs = linear(), linear()
    steps(mine, Descent(mine.parameters(), 0.1), 0, 3)
    steps(theirs, optim.SGD(theirs.parameters(), lr=0.1), 0, 3)
    np.testing.assert_allclose(values(mine), values(theirs), rtol=1e-6)


@pytest.mark.parametrize(("make", "error", "text"), [
    (lambda p: optim.SGD(p, lr=-1), ValueError, "Invalid learning rate: -1"),
    (lambda p: optim.SGD(p, momentum=-1), ValueError, "Invalid momentum value: -1"),
    (lambda p: optim.SGD(p, nesterov=True), ValueError, "Nesterov momentum requires a momentum and zero dampening"),
    (lambda p: optim.Adam(p, betas=(1.0, 0.9)), ValueError, "Invalid beta parameter at index 0: 1.0"),
    (lambda p: optim.AdamW(p, weight_decay=-1), ValueError, "Invalid weight_decay value: -1"),
    (lambda p: optim.RMSprop(p, alpha=-1), ValueError, "Invalid alpha value: -1"),
    (lambda p: optim.SGD([]), ValueError, "optimizer got an empty parameter list"),
    (lambda p: optim.SGD(p[0]), TypeError, "should be an iterable of Tensors or dicts"),
    (lambda p: optim.SGD([p[0] * 2]), ValueError, "can't optimize a non-leaf Tensor"),
    (lambda p: optim.SGD([{"params": p}, {"params": p}]), ValueError, "appear in more than one parameter group"),
    (lambda p: optim.SGD([1]), TypeError, "optimizer can only optimize Tensors, but one of the params is int"),
])
def test_wrong_arguments(make: Callable[[Any], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text.replace("(", r"\(").replace(")", r"\)")):
        make(list(nn.Linear(1, 1).parameters()))


def test_text() -> None:
    text = repr(optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5))
    assert text.startswith("SGD (\nParameter Group 0\n    dampening: 0\n")
    assert "    lr: 0.5\n" in text
