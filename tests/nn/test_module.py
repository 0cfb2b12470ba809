"""Module: registration, walking, state, hooks, conversions, scopes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import tracemill as tm
from tracemill import nn
from tracemill.frontends.python import engine, version
from tracemill.ir.errors import CheckpointError, NotSupportedError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2)])
        self.norm = nn.BatchNorm1d(4)
        self.scale = nn.Parameter(tm.ones(2))
        self.register_buffer("seen", tm.zeros(()), persistent=False)

    def forward(self, x: tm.Tensor) -> tm.Tensor:
        return self.layers[1](self.norm(self.layers[0](x)).relu()) * self.scale


def test_names_and_their_order() -> None:
    names = [name for name, _ in Net().named_parameters()]
    assert names == ["scale", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", "norm.weight",
                     "norm.bias"]
    assert [n for n, _ in Net().named_modules()] == ["", "layers", "layers.0", "layers.1", "norm"]
    assert [n for n, _ in Net().named_buffers()] == ["seen", "norm.running_mean", "norm.running_var",
                                                     "norm.num_batches_tracked"]
    assert list(Net().state_dict()) == [*names, "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]


def test_text_is_pytorchs() -> None:
    assert repr(Net()) == """Net(
  (layers): ModuleList(
    (0): Linear(in_features=3, out_features=4, bias=True)
    (1): Linear(in_features=4, out_features=2, bias=True)
  )
  (norm): BatchNorm1d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
)"""
    short = nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Tanh()])
    assert repr(short) == "ModuleList(\n  (0-1): 2 x ReLU()\n  (2): Tanh()\n)"


def test_a_shared_parameter_counts_once() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert len(list(net.parameters())) == 3
    assert "1.weight" in net.state_dict()


def test_state_round_trip_and_shared_memory() -> None:
    a, b = Net(), Net()
    state = a.state_dict()
    assert not state["scale"].requires_grad
    with tm.no_grad():
        a.scale.add_(1)
    assert state["scale"].tolist() == [2.0, 2.0]
    assert str(b.load_state_dict(state)) == "<All keys matched successfully>"
    assert tm.equal(b.layers[0].weight, a.layers[0].weight)
    assert b.layers[0].weight is not a.layers[0].weight


def test_a_state_that_does_not_fit_lists_everything_and_changes_nothing() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    bad = {"0.weight": tm.zeros(2, 2), "0.bias": tm.zeros(2).long(), "1.weight": tm.zeros(3, 2), "extra": tm.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        net.load_state_dict(bad)
    text = str(caught.value)
    assert 'Missing key(s) in state_dict: "1.bias"' in text
    assert 'Unexpected key(s) in state_dict: "extra"' in text
    assert "size mismatch for 1.weight: copying a param with shape torch.Size([3, 2])" in text
    assert "dtype mismatch for 0.bias" in text
    assert all(tm.equal(v, before[k]) for k, v in net.state_dict().items())
    found = nn.Linear(2, 1).load_state_dict({"weight": tm.zeros(1, 2), "x": tm.zeros(1)}, strict=False)
    assert found.missing_keys == ["bias"]
    assert found.unexpected_keys == ["x"]


def test_assign_takes_the_tensors() -> None:
    net = nn.Linear(2, 1)
    given = {"weight": tm.ones(1, 2), "bias": tm.ones(1)}
    net.load_state_dict(given, assign=True)
    given["weight"].mul_(3)
    assert net.weight.tolist() == [[3.0, 3.0]]
    assert isinstance(net.weight, nn.Parameter)
    assert net.weight.requires_grad


def test_attributes_are_registered_replaced_and_deleted() -> None:
    net = nn.Module()
    net.x = nn.Parameter(tm.ones(1))
    net.x = None
    assert list(net.parameters()) == []
    assert net._parameters == {"x": None}
    with pytest.raises(TypeError, match="cannot assign 'Tensor' as parameter 'x'"):
        net.x = tm.ones(1)
    net.child = nn.ReLU()
    del net.child
    assert not hasattr(net, "child")
    with pytest.raises(KeyError, match="already exists"):
        nn.Linear(1, 1).register_buffer("weight", tm.ones(1))
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'weigth'"):
        _ = nn.Linear(1, 1).weigth

    class Late(nn.Module):
        def __init__(self) -> None:
            self.w = nn.Parameter(tm.ones(1))

    with pytest.raises(AttributeError, match=r"cannot assign parameters before Module.__init__\(\) call"):
        Late()


def test_look_up_by_path() -> None:
    net = Net()
    assert net.get_submodule("layers.0") is net.layers[0]
    assert net.get_parameter("layers.1.bias") is net.layers[1].bias
    assert net.get_buffer("norm.running_var") is net.norm.running_var
    with pytest.raises(AttributeError, match="has no attribute `2`"):
        net.get_submodule("layers.2")


def test_hooks_see_and_change_calls() -> None:
    net, seen = nn.Linear(1, 1), []
    first = net.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    second = net.register_forward_hook(lambda m, args, out: seen.append(args[0].item()) or out + 1)
    x = tm.tensor([[3.0]])
    plain = net.forward(x * 2)
    assert net(x).item() == pytest.approx(plain.item() + 1)
    assert seen == [6.0]
    first.remove()
    second.remove()
    assert net(x).item() == pytest.approx(net.forward(x).item())


def test_a_hook_may_run_even_if_forward_fails() -> None:
    seen = []
    net = nn.Linear(2, 1)
    net.register_forward_hook(lambda m, a, out: seen.append(out), always_call=True)
    with pytest.raises(ValueError, match="cannot take"):
        net(tm.zeros(3))
    assert seen == [None]
    assert tm.zeros(1).sum().item() == 0  # the scope and the trace are in order


def test_copies_are_independent() -> None:
    net = Net()
    other = copy.deepcopy(net)
    with tm.no_grad():
        other.scale.fill_(5)
    assert net.scale.tolist() == [1.0, 1.0]
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in net.named_parameters()]
    again = pickle.loads(pickle.dumps(nn.Linear(2, 1)))
    assert again(tm.zeros(1, 2)).shape == (1, 1)


def test_conversions_keep_the_objects() -> None:
    net = Net()
    p = net.scale
    net.double()
    assert net.scale is p
    assert {t.dtype for t in net.parameters()} == {tm.float64}
    assert net.norm.num_batches_tracked.dtype is tm.int64
    assert net(tm.zeros(2, 3).double()).dtype is tm.float64
    net.to("cpu", tm.float32)
    assert net.norm.running_mean.dtype is tm.float32
    with pytest.raises(NotSupportedError, match="no device cuda"):
        net.to("cuda")
    with pytest.raises(NotSupportedError, match=r"leave .cuda\(\) out"):
        net.cuda()
    with pytest.raises(TypeError, match="only accepts floating point"):
        net.to(tm.int64)


def test_apply_train_and_requires_grad() -> None:
    net, seen = Net(), []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "Linear", "ModuleList", "BatchNorm1d", "Net"]
    assert not net.eval().layers[0].training
    assert net.train().norm.training
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_gradients_are_dropped_or_zeroed() -> None:
    net = nn.Linear(2, 1)
    net(tm.ones(1, 2)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert net.weight.grad.tolist() == [[0.0, 0.0]]
    net.zero_grad()
    assert net.weight.grad is None


def test_guards_count_what_a_captured_function_may_depend_on() -> None:
    net = Net()

    def bumps(change: Any) -> bool:
        before = version.current()
        change()
        return version.current() != before

    assert bumps(lambda: setattr(net, "depth", 3))
    assert not bumps(lambda: setattr(net, "depth", 3))
    assert bumps(lambda: setattr(net, "depth", 3.0))
    assert bumps(net.eval)
    assert not bumps(net.eval)
    assert bumps(lambda: setattr(net, "state", tm.zeros(2)))
    assert not bumps(lambda: setattr(net, "state", tm.ones(2)))
    assert bumps(lambda: net.register_forward_hook(lambda m, a, o: None))
    assert not bumps(lambda: net(tm.zeros(2, 3)))


def test_graphs_name_parameters_buffers_and_scopes() -> None:
    graphs: list[Any] = []
    stop = engine.on_compile(lambda graph, inputs: graphs.append(graph))
    net = Net()
    loss = nn.functional.mse_loss(net(tm.ones(2, 3)), tm.zeros(2, 2))
    loss.backward()
    net.layers[0].weight.grad.tolist()
    stop()
    graph = next(g for g in graphs if any(s.name == "scale" for s in g.inputs))
    roles = {s.name: s.role for s in graph.inputs}
    assert roles["layers.0.weight"] == "parameter"
    assert roles["norm.running_mean"] == "state"
    scopes = {n.place.scope for n in graph.nodes}
    assert {"", "layers.0", "norm", "layers.1", "mse_loss"} <= scopes


def test_sequential_edits() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    net.append(nn.Linear(3, 1)).insert(1, nn.Identity())
    assert [type(m).__name__ for m in net] == ["Linear", "Identity", "ReLU", "Linear"]
    del net[1]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert net(tm.zeros(4, 2)).shape == (4, 1)
    assert len(net[:2]) == 2
    assert isinstance(net[-1], nn.Linear)
    with pytest.raises(IndexError, match="index 3 is out of range"):
        _ = net[3]


def test_parameter_containers() -> None:
    items = nn.ParameterList([tm.ones(2), nn.Parameter(tm.zeros(1))])
    items.append(tm.ones(3))
    assert [n for n, _ in items.named_parameters()] == ["0", "1", "2"]
    table = nn.ParameterDict({"a": tm.ones(1)})
    table["b"] = nn.Parameter(tm.ones(2))
    assert list(table) == ["a", "b"]
    assert table.pop("a").tolist() == [1.0]
    assert [n for n, _ in table.named_parameters()] == ["b"]


def test_gradient_clipping_and_vectors() -> None:
    net = nn.Linear(2, 2)
    (net(tm.ones(1, 2)) * tm.tensor([3.0, 4.0])).sum().backward()
    norm = tm.cat([p.grad.reshape(-1) for p in net.parameters()]).norm()
    assert nn.utils.clip_grad_norm_(net.parameters(), 1.0).item() == pytest.approx(norm.item())
    assert tm.cat([p.grad.reshape(-1) for p in net.parameters()]).norm().item() == pytest.approx(1.0, rel=1e-4)
    nn.utils.clip_grad_value_(net.parameters(), 0.1)
    assert max(p.grad.abs().max().item() for p in net.parameters()) <= 0.1000001
    vector = nn.utils.parameters_to_vector(net.parameters())
    nn.utils.vector_to_parameters(vector.detach() * 0, net.parameters())
    assert net.weight.abs().max().item() == 0


def test_sequences_are_padded_and_unpadded() -> None:
    from tracemill.nn.utils.rnn import pad_sequence, unpad_sequence

    given = [tm.ones(2, 3), tm.ones(4, 3)]
    padded = pad_sequence(given, batch_first=True, padding_value=-1.0)
    assert padded.shape == (2, 4, 3)
    assert padded[0, :, 0].tolist() == [1.0, 1.0, -1.0, -1.0]
    assert [t.shape[0] for t in unpad_sequence(padded, tm.tensor([2, 4]), batch_first=True)] == [2, 4]
