"""backward, grad, modes, histories across flushes, and PyTorch's errors."""

from __future__ import annotations

import numpy as np
import pytest
import tracemill as tm
from tracemill.frontends.python import program, stats
from tracemill.frontends.python.autograd import grad, run_backward
from tracemill.frontends.python.flush import flush
from tracemill.ir.errors import AutogradError


def leaf(*data: float) -> tm.Tensor:
    return tm.tensor(list(data), requires_grad=True)


def test_gradients_accumulate_in_place() -> None:
    w = leaf(1.0, 2.0)
    (w * w).sum().backward()
    first = w.grad
    (w * 3.0).sum().backward()
    assert w.grad is first and w.grad.tolist() == [5, 7]
    w.grad = None
    (w * 3.0).sum().backward()
    assert w.grad is not first and w.grad.tolist() == [3, 3]
    assert not w.grad.requires_grad


def test_errors_are_pytorchs() -> None:
    w = leaf(1.0, 2.0)
    with pytest.raises(AutogradError, match="does not require grad and does not have a grad_fn"):
        tm.ones(2).sum().backward()
    with pytest.raises(AutogradError, match="implicitly created only for scalar outputs"):
        (w * 2.0).backward()
    loss = (w * w).sum()
    loss.backward()
    with pytest.raises(AutogradError, match="a second time"):
        loss.backward()
    with pytest.raises(AutogradError, match=r"test_autograd\.py"):
        loss.backward()
    with pytest.raises(AutogradError, match="not have been used"):
        grad((w * 2.0).sum(), leaf(1.0))
    with pytest.raises(AutogradError, match="does not require grad"):
        grad((w * 2.0).sum(), tm.ones(1))
    with pytest.raises(AutogradError, match="floating point"):
        tm.tensor([1, 2], requires_grad=True)


def test_linear_graphs_save_nothing_and_may_be_differentiated_again() -> None:
    w = leaf(1.0, 2.0)
    y = (w + 1.0).sum()
    y.backward()
    y.backward()
    assert w.grad.tolist() == [2, 2]


def test_retain_graph_and_shared_part_freed() -> None:
    w = leaf(1.0, 2.0)
    h = w * w
    a, b = h.sum(), (h * h).sum()
    a.backward(retain_graph=True)
    b.backward()
    assert w.grad.tolist() == [2 + 4, 4 + 32]
    with pytest.raises(AutogradError, match="a second time"):
        a.backward()


@pytest.mark.parametrize("when", ["never", "loss", "hidden", "both"])
def test_history_survives_flushes(when: str) -> None:
    w = leaf(1.0, -2.0)
    h = tm.exp(w * 2.0)
    if when in ("hidden", "both"):
        h.tolist()
    loss = (h * h * w).sum()
    if when in ("loss", "both"):
        loss.item()
    loss.backward()
    x = np.array([1.0, -2.0])
    np.testing.assert_allclose(w.grad.numpy(), np.exp(4 * x) * (1 + 4 * x), rtol=1e-5)
    with pytest.raises(AutogradError, match="a second time"):
        loss.backward()


def test_the_forward_pass_is_not_run_twice() -> None:
    w = leaf(1.0, -2.0)
    loss = tm.exp(w * 2.0).sum()
    loss.item()
    program._families.clear()
    loss.backward()
    w.grad.tolist()
    graphs = [t.graph for f in program._families.values() for t in f.exact.values()]
    from tracemill.frontends.python.engine import expand

    (graph,) = graphs
    assert not any(n.op.name == "exp" for n in expand(graph).nodes)


def test_history_of_a_parameter_written_since() -> None:
    w = leaf(3.0)
    loss = (w * w).sum()
    assert loss.item() == 9
    with tm.no_grad():
        w.mul_(100.0)
    loss.backward()
    assert w.grad.tolist() == [6] and w.tolist() == [300]


def test_hidden_state_kept_over_flushes_and_freed() -> None:
    w = leaf(2.0)
    h = tm.ones(1)
    total = 0.0
    for _ in range(4):
        h = h * w
        total += h.item()
    h.sum().backward()
    assert w.grad.tolist() == [32] and total == 30
    with pytest.raises(AutogradError, match="a second time"):
        (h * 1.0).sum().backward()


def test_no_grad_cuts_even_inside_one_trace() -> None:
    w = leaf(2.0)
    with tm.no_grad():
        y = w * 3.0
    assert not y.requires_grad and y.is_leaf
    (w * y).sum().backward()
    assert w.grad.tolist() == [6]
    with tm.no_grad(), tm.enable_grad():
        assert (w * 2.0).requires_grad


def test_modes_as_decorators() -> None:
    w = leaf(2.0)

    @tm.no_grad()
    def f() -> tm.Tensor:
        return w * 2.0

    @tm.no_grad
    def g() -> tm.Tensor:
        return w * 2.0

    @tm.inference_mode()
    def h() -> tm.Tensor:
        return w * 2.0

    @tm.no_grad()
    def items():  # type: ignore[no-untyped-def]
        yield w * 2.0
        yield tm.is_grad_enabled()

    assert not f().requires_grad and not g().requires_grad and not h().requires_grad
    stream = items()
    assert not next(stream).requires_grad and tm.is_grad_enabled() and next(stream) is False
    with tm.set_grad_enabled(False):
        assert not (w * 2.0).requires_grad
    tm.set_grad_enabled(False)
    assert not tm.is_grad_enabled()
    tm.set_grad_enabled(True)
    assert (w * 2.0).requires_grad


def test_grad_of_leaves_and_inner_tensors() -> None:
    w = leaf(1.0, 2.0)
    h = w * 3.0
    y = (h * h).sum()
    dh, dw = grad(y, [h, w])
    assert dh.tolist() == [6, 12] and dw.tolist() == [18, 36] and w.grad is None
    assert grad((w * 1.0).sum(), [leaf(1.0)], allow_unused=True) == (None,)
    (z,) = grad((w * 1.0).sum(), [leaf(1.0)], materialize_grads=True)
    assert z.tolist() == [0]
    (v,) = grad(w * 3.0, w, grad_outputs=tm.tensor([1.0, 10.0]))
    assert v.tolist() == [3, 30]


def test_inner_tensors_of_equal_structure_stay_apart() -> None:
    w = leaf(1.0)
    hs = [w * 2.0 for _ in range(2)]
    y = (hs[0] * 3.0 + hs[1] * 5.0).sum()
    assert [g.item() for g in grad(y, hs)] == [3, 5]
    a, b = [w.clone() for _ in range(2)]
    assert [g.item() for g in grad((a * 3.0 + b * 5.0).sum(), [a, b])] == [3, 5]


def test_inner_gradient_after_a_flush() -> None:
    w = leaf(1.0, 2.0)
    h = w * w
    y = (h * 3.0).sum()
    y.item()
    (g,) = grad(y, h, retain_graph=True)
    assert g.tolist() == [3, 3]
    h.retain_grad()
    y.backward()
    assert h.grad.tolist() == [3, 3] and w.grad.tolist() == [6, 12]


def test_retain_grad() -> None:
    w = leaf(1.0, 2.0)
    h = w * 3.0
    h.retain_grad()
    (h * h).sum().backward()
    assert h.grad.tolist() == [6, 12] and h.retains_grad and not h.is_leaf


def test_double_backward() -> None:
    w = leaf(2.0, 3.0)
    (g,) = grad((w * w * w).sum(), w, create_graph=True)
    assert g.requires_grad and g.tolist() == [12, 27]
    g.sum().backward()
    assert w.grad.tolist() == [12, 18]


def test_gradient_penalty_through_a_flush() -> None:
    w = leaf(2.0)
    x = leaf(3.0)
    y = (w * x * x).sum()
    (gx,) = grad(y, x, create_graph=True)
    gx.item()
    (gx * gx).sum().backward()
    assert w.grad.item() == pytest.approx(2 * (2 * 2 * 3) * 2 * 3)


def test_create_graph_accumulates_a_differentiable_gradient() -> None:
    w = leaf(2.0)
    (w ** 3).sum().backward(create_graph=True)
    assert w.grad.requires_grad
    (second,) = grad(w.grad.sum(), w)
    assert second.item() == 12


def test_gradients_without_create_graph_are_constants() -> None:
    w = leaf(2.0)
    (w * w).sum().backward()
    g = w.grad
    w.grad = None
    (w * g).sum().backward()
    assert w.grad.tolist() == [4]


def test_backward_of_several_and_into_some() -> None:
    a, b = leaf(1.0), leaf(2.0)
    run_backward([a * 2.0, b * 3.0], [tm.ones(1), tm.full((1,), 10.0)])
    assert a.grad.tolist() == [2] and b.grad.tolist() == [30]
    a.grad = b.grad = None
    (a * b).sum().backward(inputs=[a])
    assert a.grad.tolist() == [2] and b.grad is None


def test_integers_and_comparisons_have_no_history() -> None:
    w = leaf(1.0, 3.0)
    assert not (w > 2.0).requires_grad and not w.argmax().requires_grad and not w.long().requires_grad
    picked = w.max(0)
    assert picked.values.requires_grad and not picked.indices.requires_grad


def test_grad_fn_names() -> None:
    w = leaf(1.0)
    y = w * 2.0
    assert w.grad_fn is None and y.grad_fn.name() == "MulBackward0"
    assert "grad_fn=<MulBackward0>" in repr(y)
    y.sum().backward()
    assert "grad_fn=" in repr(y)


def test_requires_grad_after_use_as_data() -> None:
    x = tm.tensor([2.0])
    y = x * 3.0
    x.requires_grad_()
    (x * y).sum().backward()
    assert x.grad.tolist() == [6]
    with pytest.raises(AutogradError, match="change requires_grad"):
        (x * 2.0).requires_grad_(False)


def test_one_graph_per_iteration() -> None:
    x = tm.randn(20, 3)
    y = x @ tm.tensor([[1.0], [2.0], [3.0]])
    w = tm.zeros(3, 1, requires_grad=True)
    flush("test")
    stats.reset()
    for _ in range(5):
        loss = ((x @ w - y) ** 2).mean()
        w.grad = None
        loss.backward()
        with tm.no_grad():
            w -= 0.1 * w.grad
    flush("test")
    assert stats.snapshot()["runs"] == 5 and stats.traced == 1


def test_zero_initialised_parameters_are_distinct_variables() -> None:
    ws = [tm.zeros(2, requires_grad=True) for _ in range(2)]
    (ws[0] * 3.0 + ws[1] * 5.0).sum().backward()
    assert ws[0].grad.tolist() == [3, 3] and ws[1].grad.tolist() == [5, 5]


def test_the_same_computation_again_is_a_graph_of_its_own() -> None:
    """Gradients accumulate over passes that differ in nothing, recorded at one line before anything runs."""
    model = tm.nn.Sequential(tm.nn.Linear(3, 4), tm.nn.LayerNorm(4), tm.nn.GELU(), tm.nn.Linear(4, 2))
    x, y = tm.ones(4, 3), tm.tensor([0, 1, 0, 1])
    parameters = list(model.parameters())
    once = [g.numpy() for g in grad(tm.nn.functional.cross_entropy(model(x), y), parameters)]
    losses = []
    for _ in range(3):
        losses.append(tm.nn.functional.cross_entropy(model(x), y))
        losses[-1].backward()
    for p, g in zip(parameters, once, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), 3 * g, rtol=1e-5, atol=1e-7)
    for loss in losses:  # each graph is used up all the same
        with pytest.raises(AutogradError, match="second time"):
            loss.backward()


def test_a_used_graph_stays_used_when_its_computation_is_recorded_again() -> None:
    w = leaf(1.0, 2.0)

    def loss_of() -> tm.Tensor:
        return tm.nn.functional.mse_loss(w * w, tm.zeros(2))

    old = loss_of()
    old.backward()
    new = loss_of()
    with pytest.raises(AutogradError, match="second time"):
        old.backward()
    w.grad = None
    new.backward()
    np.testing.assert_allclose(w.grad.numpy(), [2.0, 16.0], rtol=1e-6)
