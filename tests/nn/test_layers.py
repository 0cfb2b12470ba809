"""Layers against numbers that PyTorch 2.13 gave for the same weights and inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tracemill as tm
from tracemill import nn
from tracemill.ir.errors import DTypeError, ShapeError


def wave(*shape: int, phase: float = 0.0, scale: float = 1.0) -> tm.Tensor:
    """Numbers without a pattern that a wrong layout could hide in."""
    values = np.cos(np.arange(int(np.prod(shape))) * 0.7 + phase) * scale
    return tm.tensor(values.reshape(shape).astype(np.float32))


def filled(module: nn.Module) -> nn.Module:
    with tm.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(wave(*p.shape, phase=i, scale=0.5))
    return module


# layer -> (module, inputs, first outputs, first gradients of the input, of the first parameter)
CASES: dict[str, tuple[Any, Any, list[float], list[float], list[float]]] = {
    "LSTM": (lambda: nn.LSTM(3, 2, 2, bidirectional=True), lambda: [wave(4, 2, 3)],
             [0.120682, 0.000753, -0.069572, 0.261181, 0.114257, -0.003336],
             [0.011733, 0.019161, 0.017577, 0.001901, 0.009611, 0.012801],
             [-0.001814, -0.005822, -0.007092, -0.004918, -0.007412, -0.00642]),
    "GRU": (lambda: nn.GRU(3, 2, batch_first=True), lambda: [wave(2, 4, 3)],
            [-0.271732, 0.109991, 0.488724, 0.212443, 0.17371, 0.455293],
            [-0.108343, -0.147888, -0.117879, 0.183898, 0.085697, -0.052809],
            [-0.024306, -0.0767, -0.09302, 0.030646, 0.036779, 0.025614]),
    "RNN": (lambda: nn.RNN(3, 2, nonlinearity="relu"), lambda: [wave(4, 2, 3)],
            [0.103867, 0.0, 0.0, 0.133716, 0.0, 0.0],
            [0.438791, 0.335606, 0.07458, 0.216097, 0.403314, 0.400846],
            [0.00025, 0.019071, 0.028923, -0.050588, -0.074375, -0.063183]),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), lambda: [wave(4, 3)],
                    [0.770182, 0.251604, -0.350889, -0.234702, -0.688114, -0.503207],
                    [0.001347, -0.098277, -0.04802, -0.276352, -0.101739, 0.034531],
                    [2.624398, 2.187045, 2.075521]),
    "LayerNorm": (lambda: nn.LayerNorm(3), lambda: [wave(4, 3)],
                  [0.778372, 0.066846, -0.484249, 0.977127, -0.340166, -0.427582],
                  [0.216445, -0.301933, 0.085488, -0.010682, -0.787521, 0.798204],
                  [0.586337, 0.987511, 2.528054]),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), lambda: [wave(2, 4, 3)],
                  [0.963925, 0.81213, 0.428139, -0.276745, -0.49268, -0.489833],
                  [0.18466, -0.040981, -0.213052, -0.120554, 0.013866, 0.176061],
                  [3.429853, 4.587024, 1.964262, 3.734039]),
    "Conv2d": (lambda: nn.Conv2d(2, 2, 3, padding=1, stride=2), lambda: [wave(1, 2, 5, 5)],
               [-1.743074, -0.389104, 0.627719, -2.104127, -0.012201, 1.670459],
               [-0.827686, -0.996575, -0.335874, -0.157745, 0.313905, -0.471863],
               [1.088737, 1.199837, 0.286062, -0.338956, 0.659229, 0.712779]),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(2, 2, 3, 2, 1, 1), lambda: [wave(1, 2, 3, 3)],
                        [-0.677369, -1.054277, -0.449391, -0.520145, 0.116999, 0.119699],
                        [-0.60196, 1.520321, 1.320322, 2.26502, 1.679625, -0.778167],
                        [-2.028114, -2.494417, -1.634054, 1.83932, 1.314989, -1.286889]),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2),
                           lambda: [wave(3, 2, 4), wave(3, 2, 4, phase=1), wave(3, 2, 4, phase=2)],
                           [-0.567782, -0.467305, 0.00063, -0.05852, -0.59155, -0.554622],
                           [-0.026551, -0.021948, -0.007023, 0.011205, 0.026741, 0.023225],
                           [-0.088473, -0.097088, -0.060041, 0.005244, 0.084161, 0.092567]),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str) -> None:
    make, inputs, outputs, of_input, of_weight = CASES[name]
    module, xs = filled(make()), [x.requires_grad_() for x in inputs()]
    y = module(*xs)
    y = y[0] if isinstance(y, tuple) else y
    (y * wave(*y.shape, phase=0.5)).sum().backward()
    for found, wanted in ((y, outputs), (xs[0].grad, of_input), (next(module.parameters()).grad, of_weight)):
        np.testing.assert_allclose(found.detach().reshape(-1).numpy()[: len(wanted)], wanted, rtol=2e-5, atol=2e-6)


def test_batch_norm_moves_its_running_statistics() -> None:
    bn = nn.BatchNorm1d(3)
    bn(wave(4, 3))
    bn(wave(4, 3, phase=2))
    np.testing.assert_allclose(bn.running_mean.numpy(), [0.011962, -0.005631, -0.020576], atol=2e-6)
    np.testing.assert_allclose(bn.running_var.numpy(), [0.931859, 0.938332, 0.928773], atol=2e-6)
    assert bn.num_batches_tracked.item() == 2
    bn.eval()
    before = bn.running_mean.clone()
    x = wave(1, 3)
    wanted = (x - bn.running_mean) / (bn.running_var + bn.eps).sqrt()
    assert tm.allclose(bn(x), wanted, atol=1e-6)
    assert tm.equal(bn.running_mean, before)


def test_cumulative_running_statistics() -> None:
    bn = nn.BatchNorm1d(3, momentum=None)
    batches = [wave(4, 3, phase=i) for i in range(3)]
    for x in batches:
        bn(x)
    assert tm.allclose(bn.running_mean, tm.stack([x.mean(0) for x in batches]).mean(0), atol=1e-6)


def test_a_recurrent_layer_is_one_loop() -> None:
    from tracemill.frontends.python import engine

    graphs: list[Any] = []
    stop = engine.on_compile(lambda graph, inputs: graphs.append(graph))
    lstm = nn.LSTM(3, 2)
    float(lstm(wave(20, 2, 3))[0].detach().sum())
    stop()
    assert [n.op.name for n in graphs[-1].nodes].count("scan") == 1
    assert len(graphs[-1].nodes) < 60  # whatever the length


def test_cells_step_as_their_layers() -> None:
    layer, cell = filled(nn.GRU(3, 2)), filled(nn.GRUCell(3, 2))
    x = wave(5, 2, 3)
    h = None
    for t in range(5):
        h = cell(x[t], h)
    assert tm.allclose(layer(x)[1][0], h, atol=1e-6)


@pytest.mark.parametrize(("module", "shape", "words"), [
    (lambda: nn.Linear(1, 1), (100,), ["Linear(1, 1)", "[100]", "[1, 1]", "unsqueeze(-1) gives [100, 1]"]),
    (lambda: nn.Linear(784, 10), (4, 1, 28, 28), ["Linear(784, 10)", "[4, 1, 28, 28]", "flatten(1)"]),
    (lambda: nn.Conv2d(3, 4, 3), (1, 1, 8, 8), ["Conv2d(3, 4)", "[1, 1, 8, 8]", "3 channels"]),
    (lambda: nn.BatchNorm2d(3), (2, 3, 4), ["BatchNorm2d(3)", "4D", "[2, 3, 4]"]),
    (lambda: nn.BatchNorm1d(3), (2, 4), ["BatchNorm1d(3)", "3 channels", "[2, 4]"]),
    (lambda: nn.LayerNorm(4), (2, 3), ["LayerNorm(4)", "[2, 3]"]),
    (lambda: nn.LSTM(3, 4), (2, 2, 5), ["LSTM(3, 4)", "3 features", "[2, 2, 5]"]),
    (lambda: nn.MaxPool2d(2), (3, 6), ["max_pool2d", "[3, 6]"]),
])
def test_wrong_shapes_are_explained_at_the_line(module: Any, shape: tuple[int, ...], words: list[str]) -> None:
    layer = module()
    with pytest.raises(ShapeError) as caught:
        layer(tm.zeros(shape))
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "test_layers.py:" in text
    assert len(text.splitlines()) <= 4


def test_wrong_dtypes_are_explained() -> None:
    with pytest.raises(DTypeError, match=r"Linear\(2, 1\): the input is float64"):
        nn.Linear(2, 1)(tm.zeros(1, 2).double())
    with pytest.raises(DTypeError, match=r"Embedding\(3, 2\) needs integer indices"):
        nn.Embedding(3, 2)(tm.zeros(2))


def test_an_index_out_of_range_stops_the_run() -> None:
    with pytest.raises(IndexError, match="index 5 is out of range"):
        nn.Embedding(3, 2)(tm.tensor([5])).sum().item()


def test_padding_index_gets_no_gradient() -> None:
    table = nn.Embedding(4, 2, padding_idx=1)
    assert table.weight[1].tolist() == [0.0, 0.0]
    table(tm.tensor([0, 1, 1, 3])).sum().backward()
    assert table.weight.grad[:, 0].tolist() == [1.0, 0.0, 0.0, 1.0]


def test_dropout_is_active_in_training_only() -> None:
    tm.manual_seed(0)
    layer = nn.Dropout(0.25)
    x = tm.ones(4000)
    y = layer(x)
    kept = (y != 0).float().mean().item()
    assert abs(kept - 0.75) < 0.03
    assert y.max().item() == pytest.approx(1 / 0.75)
    layer.eval()
    assert tm.equal(layer(x), x)


def test_the_same_seed_drops_the_same_elements() -> None:
    layer = nn.Dropout(0.5)
    masks = []
    for _ in range(2):
        tm.manual_seed(7)
        masks.append(layer(tm.ones(64)).tolist())
    assert masks[0] == masks[1]
    assert layer(tm.ones(64)).tolist() != masks[0]


def test_channel_dropout_drops_whole_channels() -> None:
    tm.manual_seed(1)
    y = nn.Dropout2d(0.5)(tm.ones(8, 16, 2, 2))
    assert tm.equal(y.amax((2, 3)), y.amin((2, 3)))
    assert set(y.unique().tolist()) == {0.0, 2.0}


def test_dropout_of_everything_has_a_finite_gradient() -> None:
    x = tm.ones(3, requires_grad=True)
    nn.functional.dropout(x, 1.0).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]


def test_initialisations_have_the_stated_spread() -> None:
    tm.manual_seed(0)
    linear = nn.Linear(400, 300)
    bound = 1 / 20
    assert linear.weight.abs().max().item() <= bound
    assert linear.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    w = tm.empty(300, 400)
    assert nn.init.kaiming_normal_(w, nonlinearity="relu").std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert nn.init.xavier_uniform_(w).abs().max().item() <= (6 / 700) ** 0.5
    assert nn.init.trunc_normal_(w, std=2.0, a=-1, b=1).abs().max().item() <= 1
    q = nn.init.orthogonal_(tm.empty(20, 30))
    assert tm.allclose(q @ q.T, tm.eye(20), atol=1e-5)
    assert (nn.init.sparse_(w, 0.25) == 0).sum(0).float().min().item() >= 75
