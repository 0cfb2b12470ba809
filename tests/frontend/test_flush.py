"""Keys, number slots, sizes: what compiles when."""

from __future__ import annotations

import numpy as np
import pytest
import tracemill as tm
from tracemill.frontends.python import engine, program, stats, trace
from tracemill.frontends.python.flush import flush


@pytest.fixture
def graphs() -> list:
    """Every graph handed to the engine during the test."""
    seen: list = []
    stop = engine.on_compile(lambda graph, inputs: seen.append(graph))
    yield seen  # type: ignore[misc]
    stop()


def run(t: tm.Tensor) -> list:
    return t.tolist()


def with_op(graphs: list, name: str) -> list:
    return [g for g in graphs if any(n.op.name == name for n in g.nodes)]


def test_only_what_is_held_is_an_output(graphs: list) -> None:
    x = tm.tensor([1.0, 2.0])
    kept = tm.exp(x)
    result = (kept * 2.0).sum()
    tm.exp(x * 5.0)
    result.item()
    (graph,) = graphs
    assert len(graph.outputs) == 2 and len(graph.inputs) == 1
    assert not kept._cell.stale


def test_a_loop_body_has_one_key(graphs: list) -> None:
    x = tm.tensor([1.0, 2.0])
    for _ in range(5):
        tm.exp(x * 2.0).sum().item()
    assert len(graphs) == 1 and stats.traced == 1 and stats.runs == 5


def test_numbers_never_compile_a_third_time(graphs: list) -> None:
    x = tm.tensor([1.0, 2.0])
    seen = []
    for i in range(6):
        seen.append(run(tm.exp(x * 0.0) * float(i) + 1.5))
    assert seen == [[i + 1.5] * 2 for i in range(6)]
    assert len(graphs) == 2
    assert [s.role for s in graphs[0].inputs] == ["batch"]
    assert [s.role for s in graphs[1].inputs] == ["batch", "hyper", "hyper", "hyper"]
    assert graphs[1].inputs[2].default == 1.0


def test_kinds_and_signs_of_numbers_matter() -> None:
    x = tm.tensor([1.0, -1.0])
    out = []
    for c in (0.0, -0.0, 0.0):
        out.append(run(1.0 / (tm.exp(x * 0.0) * c)))
    assert out == [[np.inf] * 2, [-np.inf] * 2, [np.inf] * 2]
    kinds = [run(x * c) for c in (2, 2.0, True)]
    assert kinds == [[2, -2], [2, -2], [1, -1]]


def test_exponents_are_structure(graphs: list) -> None:
    x = tm.tensor([4.0, 9.0])
    assert run(tm.exp((x ** 2) * 0.0) + x ** 0.5) == [3, 4]
    ops = {n.op.name for n in graphs[0].nodes}
    assert "sqrt" in ops and "pow" not in ops


def test_a_second_size_makes_a_symbolic_graph_and_a_third_none(graphs: list) -> None:
    w = tm.randn(4, 3)
    flush("test")
    graphs.clear()
    for n in (8, 5, 7, 8, 5, 100):
        x = tm.ones(n, 4)
        flush("test")
        y = tm.exp((x @ w) * 0.0)
        assert y.mean(0).tolist() == [1, 1, 1]
        assert run(y) == [[1, 1, 1]] * n
    big = with_op(graphs, "dot")
    assert len(big) == 2
    assert str(big[1].inputs[0].type) == "f32[B,4]"
    assert "extent" in str(big[1]) and not big[1].sizes


def test_reshapes_follow_their_sizes(graphs: list) -> None:
    for b, t in ((2, 3), (4, 5), (6, 7), (3, 9)):
        x = tm.ones(b, t, 4)
        flush("test")
        y = tm.exp(x.view(b * t, 4) * 0.0).view(b, t, 2, 2).transpose(1, 2).sum(-1)
        assert y.shape == (b, 2, t) and y.sum().item() == b * t * 4
    assert len(with_op(graphs, "exp")) == 2
    assert "B*T" in str(with_op(graphs, "exp")[-1])


def test_slice_starts_become_free_sizes(graphs: list) -> None:
    table = tm.randn(10, 4, requires_grad=True)
    flush("test")
    for i in range(1, 7):
        picked = tm.exp(table[i])
        np.testing.assert_allclose(picked.detach().numpy(), np.exp(table.detach().numpy()[i]), rtol=1e-6)
        picked = None
    big = with_op(graphs, "exp")
    assert len(big) == 2 and len(big[1].sizes) == 1


def test_a_wrong_explanation_is_not_used(graphs: list) -> None:
    def f(n: int, m: int) -> None:
        x, y = tm.ones(n, 2), tm.ones(m, 2)
        flush("test")
        a = tm.exp(x * 0.0).sum() + tm.exp(y * 0.0).sum()
        assert a.item() == 2 * (n + m)

    for n, m in ((3, 4), (5, 6), (7, 8), (4, 9), (10, 2), (30, 7)):
        f(n, m)
    assert len(with_op(graphs, "exp")) == 2


def test_extents_that_belong_together_stay_together(graphs: list) -> None:
    for n in (3, 4, 9):
        x, y = tm.ones(2 * n, 2), tm.ones(n, 2)
        flush("test")
        a = tm.exp(x.view(n, 4)[:, :2] * 0.0) + y
        assert a.sum().item() == 4 * n
    assert len(with_op(graphs, "exp")) == 2
    for n in (3, 4, 9):
        x, y = tm.ones(n + 1, 2), tm.ones(n, 2)
        flush("test")
        assert (tm.log((x * 1.0)[1:]) + y).sum().item() == 2 * n
    assert len(with_op(graphs, "log")) == 2


def test_exact_graphs_seen_once_are_not_compiled(graphs: list) -> None:
    print(tm.arange(5) * 2 + 1)
    assert not graphs and stats.interpreted == 1
    for _ in range(2):
        run(tm.arange(5) * 2 - 1)
    assert len(graphs) == 1


def test_bounded_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "LIMIT", 50)
    flush("test")
    x = tm.zeros(2)
    for _ in range(120):
        x = x + 1.0
    assert run(x) == [120, 120]
    assert stats.runs >= 2


def test_reading_values_uses_every_door() -> None:
    x = tm.tensor([3.0])
    y = x * 2.0
    assert float(y) == 6 and int(y) == 6 and bool(y) and y.item() == 6 and f"{y.sum():.1f}" == "6.0"
    assert [v.item() for v in tm.arange(3)] == [0, 1, 2]
    assert range(10)[tm.tensor(3)] == 3
    assert 3.0 in tm.arange(5)
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(tm.ones(2))
    with pytest.raises(RuntimeError, match="cannot be converted to Scalar"):
        tm.ones(2).item()


def test_flushes_are_counted_at_the_users_line() -> None:
    (tm.ones(2) * 2.0).tolist()
    (where,) = stats.snapshot()["flushes"]  # type: ignore[misc]
    assert "test_flush.py" in where["line"] and where["reason"] == "tolist()"


def test_names_and_roles_of_inputs(graphs: list) -> None:
    w = tm.Tensor([1.0, 2.0])
    p = tm.randn(2, requires_grad=True)
    p._cell.name = "fc1.weight"
    run(tm.exp(w * p).detach())
    (graph,) = with_op(graphs, "exp")
    assert [(s.name, s.role) for s in graph.inputs] == [("x0", "batch"), ("fc1.weight", "parameter")]


def test_programs_are_found_again_after_other_traces(graphs: list) -> None:
    x = tm.ones(3)
    flush("test")
    for i in range(4):
        if i % 2:
            run(tm.exp(x))
        else:
            run(tm.log(x))
    assert len(graphs) == 2
    assert program._families


def test_turns_of_an_evaluation_loop_are_one_graph(graphs: list) -> None:
    model = tm.nn.Linear(3, 2)
    correct = tm.zeros(())
    with tm.no_grad():
        for _ in range(6):
            correct += tm.exp(model(tm.ones(4, 3)) * 0.0).sum()
    assert correct.item() == 48
    assert max(len(with_op([g], "exp")[0].nodes) if with_op([g], "exp") else 0 for g in graphs) < 40
    assert stats.runs >= 6
