"""tm.compile: capture, guards, lifted state, gradients, errors."""

from __future__ import annotations

import numpy as np
import pytest
import tracemill as tm
from tracemill.frontends.python import engine, stats
from tracemill.frontends.python.flush import flush
from tracemill.ir.errors import AutogradError, CaptureError


@pytest.fixture
def graphs() -> list:
    seen: list = []
    stop = engine.on_compile(lambda graph, inputs: seen.append(graph))
    yield seen  # type: ignore[misc]
    stop()


def leaf(*data: float) -> tm.Tensor:
    return tm.tensor(list(data), requires_grad=True)


def test_a_plain_function_is_captured_once() -> None:
    calls = []

    @tm.compile
    def f(x: tm.Tensor, scale: float = 2.0) -> dict:
        calls.append(1)
        return {"y": tm.exp(x) * scale, "n": 3}

    for v in (0.0, 1.0, 2.0):
        out = f(tm.tensor([v]))
        assert out["y"].item() == pytest.approx(2 * np.exp(v)) and out["n"] == 3
    assert len(calls) == 1 and f.captures == 1
    assert f(tm.tensor([0.0]), 5.0)["y"].item() == 5 and f.captures == 2


def train_step(w: tm.Tensor, b: tm.Tensor):  # type: ignore[no-untyped-def]
    def step(x: tm.Tensor, y: tm.Tensor) -> tm.Tensor:
        w.grad = b.grad = None
        loss = ((x @ w + b - y) ** 2).mean()
        loss.backward()
        with tm.no_grad():
            w.sub_(0.1 * w.grad)
            b.sub_(0.1 * b.grad)
        return loss

    return step


def test_a_whole_training_step_is_one_graph(graphs: list) -> None:
    x = tm.randn(16, 3)
    y = x @ tm.tensor([[1.0], [2.0], [3.0]]) + 0.5
    flush("test")
    graphs.clear()
    results = []
    for compiled in (False, True):
        w, b = tm.zeros(3, 1, requires_grad=True), tm.zeros(1, requires_grad=True)
        step = train_step(w, b)
        if compiled:
            step = tm.compile(step)
        losses = [step(x, y).item() for _ in range(10)]
        results.append((losses, w.tolist(), b.tolist()))
        if compiled:
            assert step.captures == 1
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    assert results[0][1] == results[1][1] and results[0][2] == results[1][2]
    donated = [sum(d is not None for d in g.donations) for g in graphs]
    assert donated[-1] == 2


def test_parameters_keep_their_memory() -> None:
    w, b = leaf(1.0), leaf(2.0)
    step = tm.compile(train_step(w.view(1, 1).detach().requires_grad_(), b))
    x, y = tm.ones(4, 1), tm.ones(4, 1)
    step(x, y)
    step(x, y)
    address = b._cell.buffer.ctypes.data
    step(x, y)
    assert b._cell.buffer.ctypes.data == address
    kept = b.detach().clone()
    seen = b.detach().numpy()
    before = kept.item()
    step(x, y)
    assert kept.item() == before and b.item() == seen[0] != before


def test_gradients_are_consumed_unless_kept() -> None:
    w, b = tm.zeros(1, 1, requires_grad=True), tm.zeros(1, requires_grad=True)
    x, y = tm.ones(4, 1), tm.ones(4, 1)
    step = tm.compile(train_step(w, b))
    step(x, y)
    with pytest.raises(AutogradError, match="keep_grads"):
        w.grad  # noqa: B018
    w2, b2 = tm.zeros(1, 1, requires_grad=True), tm.zeros(1, requires_grad=True)
    step = tm.compile(train_step(w2, b2), keep_grads=True)
    step(x, y)
    assert w2.grad.tolist() == [[-2]]


def test_gradients_without_a_step_accumulate() -> None:
    w = leaf(2.0)

    @tm.compile
    def f(x: tm.Tensor) -> None:
        (w * w * x).sum().backward()

    for expected in (4.0, 8.0, 12.0):
        f(tm.ones(1))
        assert w.grad.item() == expected
    w.grad = None
    f(tm.ones(1))
    assert w.grad.item() == 4


def test_forgetting_zero_grad_is_an_error_not_a_wrong_result() -> None:
    w = leaf(2.0)

    @tm.compile
    def step(x: tm.Tensor) -> None:
        (w * x).sum().backward()
        with tm.no_grad():
            w.sub_(w.grad)

    step(tm.ones(1))
    with pytest.raises(AutogradError, match="zero_grad"):
        step(tm.ones(1))


def test_sizes_recapture_but_compile_twice_at_most(graphs: list) -> None:
    w = tm.randn(3, 2)
    flush("test")
    graphs.clear()

    @tm.compile
    def f(x: tm.Tensor) -> tm.Tensor:
        return tm.exp((x @ w) * 0.0).sum(0)

    for n in (4, 6, 9, 4, 6):
        assert f(tm.ones(n, 3)).tolist() == [n, n]
    assert len([g for g in graphs if any(n.op.name == "exp" for n in g.nodes)]) == 2 and f.captures == 3


def test_random_numbers_and_state_move_on() -> None:
    counter = tm.zeros(())

    @tm.compile
    def f() -> tm.Tensor:
        counter.add_(1.0)
        return tm.rand(3)

    tm.manual_seed(5)
    compiled = [f().tolist() for _ in range(3)]
    tm.manual_seed(5)
    assert compiled == [tm.rand(3).tolist() for _ in range(3)]
    assert counter.item() == 3 and f.captures == 1


def test_constants_made_inside_start_afresh() -> None:
    @tm.compile
    def f(x: tm.Tensor) -> tm.Tensor:
        total = tm.tensor(0.0)
        for i in range(3):
            total += x.sum() * i
        return total

    assert [f(tm.ones(2)).item() for _ in range(3)] == [6, 6, 6]


def test_arguments_may_be_views_and_may_be_written() -> None:
    data = tm.arange(12.0).view(4, 3)
    flush("test")

    @tm.compile
    def f(x: tm.Tensor) -> tm.Tensor:
        x.mul_(2.0)
        return x.sum()

    assert f(data[1]).item() == 24 and f(data[2]).item() == 42 and f.captures == 1
    assert data.tolist() == [[0, 1, 2], [6, 8, 10], [12, 14, 16], [9, 10, 11]]


def test_a_forward_alone_joins_the_pending_trace(graphs: list) -> None:
    w = tm.randn(3, 3, requires_grad=True)

    @tm.compile
    def forward(x: tm.Tensor) -> tm.Tensor:
        return tm.tanh(x @ w)

    x = tm.randn(2, 3)
    flush("test")
    forward(x).sum().item()
    w.grad = None
    graphs.clear()
    for _ in range(3):
        w.grad = None
        forward(x).sum().backward()
        w.grad.tolist()
    assert len(graphs) == 1 and forward.captures == 1
    with tm.no_grad():
        assert not forward(x).requires_grad


def test_values_cannot_be_needed_and_the_line_is_named() -> None:
    w = leaf(1.0, 2.0)

    @tm.compile
    def f(x: tm.Tensor) -> tm.Tensor:
        with tm.no_grad():
            w.add_(1.0)
        if x.sum() > 0:
            return x * 2.0
        return x

    with pytest.raises(CaptureError, match=r"test_compile.py.*bool\(\)") as caught:
        f(tm.ones(2))
    assert "tm.cond" in str(caught.value)
    assert w.tolist() == [1, 2]
    assert (tm.ones(2) * 2.0).tolist() == [2, 2]


def test_globals_and_closure_are_guarded() -> None:
    scale = 2.0

    @tm.compile
    def f(x: tm.Tensor) -> tm.Tensor:
        return x * scale

    assert f(tm.ones(1)).item() == 2
    scale = 3.0
    assert f(tm.ones(1)).item() == 3 and f.captures == 2


def test_results_are_fresh_and_known_tensors_come_back_themselves() -> None:
    w = leaf(1.0)

    @tm.compile
    def f(x: tm.Tensor) -> tuple:
        y = x + 1.0
        return x, y, y, w

    x = tm.ones(1)
    a, b, c, d = f(x)
    assert a is x and d is w
    b[0] = 7.0
    assert c.item() == 2 and f(x)[1].item() == 2


def test_attributes_written_inside_are_updated_at_each_call() -> None:
    class Box:
        last: tm.Tensor

    box = Box()

    @tm.compile
    def f(x: tm.Tensor) -> tm.Tensor:
        box.last = x * 2.0
        return x.sum()

    f(tm.ones(2))
    assert box.last.tolist() == [2, 2]
    f(tm.full((2,), 4.0))
    assert box.last.tolist() == [8, 8]


def test_nested_and_disabled() -> None:
    @tm.compile
    def g(x: tm.Tensor) -> tm.Tensor:
        return x + 1.0

    @tm.compile()
    def f(x: tm.Tensor) -> tm.Tensor:
        return g(x) * 2.0

    assert f(tm.ones(1)).item() == 4 and g.captures == 0
    assert tm.compile(len, disable=True) is len


def test_fast_path_runs_without_recording() -> None:
    @tm.compile
    def f(x: tm.Tensor) -> tm.Tensor:
        return tm.exp(x * 0.0)

    x = tm.ones(2)
    f(x)
    f(x)
    stats.reset()
    f(x)
    assert stats.traced == stats.compiled == 0 and stats.runs == 1


def test_a_copy_of_state_is_taken_before_it_is_replaced() -> None:
    total = tm.zeros(2)

    @tm.compile
    def f(x: tm.Tensor) -> tuple:
        old = tm.cat([total])
        total.add_(x)
        return old, total

    assert [f(tm.ones(2))[0].tolist() for _ in range(3)] == [[0, 0], [1, 1], [2, 2]]
    assert f(tm.ones(2))[1] is total and total.tolist() == [4, 4]


def test_modules_follow_train_and_eval() -> None:
    from tracemill import nn

    model = tm.compile(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)))
    x = tm.ones(4, 3)
    with tm.no_grad():
        model.eval()
        first = model(x)
        assert (model(x) == first).all()
        model.train()
        assert (model(x) == 0).any()
        model.eval()
        assert (model(x) == first).all()
    assert len(model.state_dict()) == 2


def test_learning_rates_are_read_at_each_call() -> None:
    from tracemill import optim

    w = tm.nn.Parameter(tm.ones(1))
    opt = optim.SGD([w], lr=1.0)

    @tm.compile
    def step() -> None:
        opt.zero_grad()
        w.sum().backward()
        opt.step()

    values = []
    for lr in (1.0, 0.5, 0.25, 0.25):
        opt.param_groups[0]["lr"] = lr
        step()
        values.append(w.item())
    assert values == [0.0, -0.5, -0.75, -1.0] and step.captures == 1
    opt.param_groups[0]["weight_decay"] = 0.5
    step()
    assert w.item() == pytest.approx(-1.0 - 0.25 * (1.0 - 0.5)) and step.captures == 2
