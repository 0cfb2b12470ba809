"""Functions: losses against PyTorch's numbers, pooling and padding against plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tracemill as tm
import tracemill.nn.functional as F
from tracemill.ir.errors import DTypeError, ShapeError

Array = np.ndarray[Any, Any]


def wave(*shape: int, phase: float = 0.0, scale: float = 1.0) -> tm.Tensor:
    values = np.cos(np.arange(int(np.prod(shape))) * 0.7 + phase) * scale
    return tm.tensor(values.reshape(shape).astype(np.float32))


def _labels() -> tm.Tensor:
    return tm.tensor([1, 0, 2, 1])


def _probabilities() -> tm.Tensor:
    return wave(4, 3, phase=1).abs()


# loss -> (function of the input, input, value and first gradients as PyTorch 2.13 gives them)
LOSSES: dict[str, tuple[Callable[[tm.Tensor], tm.Tensor], Callable[[], tm.Tensor], list[float]]] = {
    "ce": (lambda x: F.cross_entropy(x, _labels()), lambda: wave(4, 3),
           [0.87845, 0.112285, -0.161245, 0.04896, -0.141077]),
    "ce weight ignore smoothing": (
        lambda x: F.cross_entropy(x, _labels(), tm.tensor([0.5, 1.0, 2.0]), ignore_index=0, label_smoothing=0.1),
        lambda: wave(4, 3), [0.846839, 0.10999, -0.143099, 0.033109, 0.0]),
    "ce probabilities": (lambda x: F.cross_entropy(x, _probabilities()), lambda: wave(4, 3),
                         [2.057456, 0.022858, 0.092626, -0.115484, -0.031839]),
    "nll sum": (lambda x: F.nll_loss(x, _labels(), reduction="sum"), lambda: wave(4, 3),
                [-1.789464, 0.0, -1.0, 0.0, -1.0]),
    "huber": (lambda x: F.huber_loss(x, _probabilities(), delta=0.5), lambda: wave(4, 3),
              [0.279482, 0.038308, 0.041667, -0.041667, -0.041667]),
    "smooth_l1": (lambda x: F.smooth_l1_loss(x, _probabilities(), beta=0.5), lambda: wave(4, 3),
                  [0.558964, 0.076616, 0.083333, -0.083333, -0.083333]),
    "bce": (lambda x: F.binary_cross_entropy(x, _probabilities()), lambda: wave(4, 3, scale=0.4) + 0.5,
            [0.95463, 0.333053, 0.360764, -0.057533, -0.27924]),
    "bce logits": (
        lambda x: F.binary_cross_entropy_with_logits(x * 20, _probabilities(), pos_weight=tm.tensor([1.0, 2.0, 3.0])),
        lambda: wave(4, 3), [8.68041, 0.766163, 1.451926, 0.304385, -1.665157]),
    "kl": (lambda x: F.kl_div(x, _probabilities(), reduction="batchmean"), lambda: wave(4, 3),
           [-0.848083, -0.135076, -0.032211, -0.184348, -0.249784]),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    f, make, wanted = LOSSES[name]
    x = make().detach().requires_grad_()
    loss = f(x)
    loss.backward()
    found = [loss.item(), *x.grad.reshape(-1).tolist()[:4]]
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_reductions(reduction: str) -> None:
    x, y = wave(4, 3), wave(4, 3, phase=1)
    each = (x - y) ** 2
    wanted = {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]
    assert tm.allclose(F.mse_loss(x, y, reduction=reduction), wanted)


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="average is not a valid value for reduction"):
        F.mse_loss(wave(2), wave(2), reduction="average")


def test_broadcasting_targets_warn_at_the_users_line() -> None:
    with pytest.warns(UserWarning, match="Using a target size") as caught:
        F.mse_loss(wave(4, 1), wave(4))
    assert caught[0].filename == __file__


def test_losses_do_not_overflow() -> None:
    x = tm.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = F.cross_entropy(x, tm.tensor([1, 1]), reduction="none")
    assert loss.tolist() == [2e4, 0.0]
    assert F.binary_cross_entropy_with_logits(tm.tensor([-200.0, 200.0]), tm.tensor([0.0, 1.0])).item() == 0.0
    assert F.binary_cross_entropy(tm.tensor([0.0, 1.0]), tm.tensor([1.0, 0.0])).item() == 100.0


def test_a_label_out_of_range_is_found_while_running() -> None:
    with pytest.raises(IndexError, match="index 7 is out of range"):
        F.cross_entropy(wave(2, 3), tm.tensor([0, 7])).item()


def test_wrong_targets_are_explained() -> None:
    with pytest.raises(ShapeError, match=r"\[4, 3\] needs class numbers of shape \[4\].*\n.*squeeze\(-1\)"):
        F.cross_entropy(wave(4, 3), tm.zeros(4, 1).long())
    with pytest.raises(DTypeError, match=r"class numbers must be integers, got float32\n.*long\(\)"):
        F.cross_entropy(wave(4, 3), tm.zeros(4))
    with pytest.raises(ShapeError, match="must be the same as input size"):
        F.binary_cross_entropy_with_logits(wave(4, 1), tm.zeros(4))
    with pytest.raises(ShapeError, match="one element for each of 3 classes"):
        F.cross_entropy(wave(4, 3), _labels(), weight=tm.ones(2))


def _windows(x: Array, k: int, s: int, p: int, ceil: bool, f: Callable[[Array, int], float]) -> Array:
    """Pooling of the last axis, one window after the other; `f(window, size with padding)`."""
    extent = x.shape[-1]
    room = extent + 2 * p - k
    count = (-(-room // s) if ceil else room // s) + 1
    if ceil and (count - 1) * s >= extent + p:
        count -= 1
    out = np.empty((*x.shape[:-1], count), x.dtype)
    for at in np.ndindex(*x.shape[:-1]):
        for i in range(count):
            start, end = i * s - p, min(i * s - p + k, extent + p)
            out[(*at, i)] = f(x[at][max(start, 0):max(min(end, extent), 0)], end - start)
    return out


@pytest.mark.parametrize(("k", "s", "p", "ceil"),
                         [(2, 2, 0, False), (3, 2, 1, False), (3, 2, 1, True), (2, 3, 1, True)])
def test_pooling(k: int, s: int, p: int, ceil: bool) -> None:
    x = wave(2, 3, 10)
    a = x.numpy()
    np.testing.assert_array_equal(F.max_pool1d(x, k, s, p, ceil_mode=ceil).numpy(),
                                  _windows(a, k, s, p, ceil, lambda w, _: w.max()))
    for include, f in ((True, lambda w, n: w.sum() / n), (False, lambda w, n: w.mean())):
        np.testing.assert_allclose(F.avg_pool1d(x, k, s, p, ceil, include).numpy(),
                                   _windows(a, k, s, p, ceil, f), atol=1e-6)


def test_pooling_tells_where_the_greatest_elements_are() -> None:
    x = wave(2, 3, 6, 8)
    values, places = F.max_pool2d(x, 2, return_indices=True)
    assert tm.equal(x.flatten(2).gather(2, places.flatten(2)), values.flatten(2))
    values, places = F.adaptive_max_pool2d(x, (4, 3), return_indices=True)
    assert tm.equal(x.flatten(2).gather(2, places.flatten(2)), values.flatten(2))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_adaptive_pooling(size: int) -> None:
    x = wave(2, 3, 6)
    bounds = [(i * 6 // size, -(-(i + 1) * 6 // size)) for i in range(size)]
    wanted = np.stack([x.numpy()[..., a:b].mean(-1) for a, b in bounds], -1)
    np.testing.assert_allclose(F.adaptive_avg_pool1d(x, size).numpy(), wanted, atol=1e-6)
    wanted = np.stack([x.numpy()[..., a:b].max(-1) for a, b in bounds], -1)
    np.testing.assert_array_equal(F.adaptive_max_pool1d(x, size).numpy(), wanted)


@pytest.mark.parametrize(("mode", "name"), [("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge"),
                                            ("circular", "wrap")])
def test_padding(mode: str, name: Any) -> None:
    x = wave(2, 3, 4, 5)
    wanted = np.pad(x.numpy(), [(0, 0), (0, 0), (1, 3), (2, 1)], mode=name)
    np.testing.assert_array_equal(F.pad(x, (2, 1, 1, 3), mode=mode).numpy(), wanted)


def test_negative_padding_crops_with_its_gradient() -> None:
    for pads in ((1, 2), (-1, 2), (2, -3)):  # the second and third share a graph with named sizes
        x = wave(3, 6).requires_grad_()
        y = F.pad(x, pads)
        y.sum().backward()
        kept = np.zeros((3, 6), np.float32)
        kept[:, max(-pads[0], 0):6 - max(-pads[1], 0)] = 1
        assert y.shape == (3, 6 + sum(pads))
        np.testing.assert_array_equal(x.grad.numpy(), kept)


def test_softmax_sums_to_one_and_shifts_freely() -> None:
    x = wave(4, 6)
    y = F.softmax(x, dim=1)
    assert tm.allclose(y.sum(1), tm.ones(4))
    assert tm.allclose(F.softmax(x + 500, dim=1), y, atol=1e-5)
    assert tm.allclose(F.log_softmax(x, dim=1).exp(), y)
    assert F.softmax(tm.tensor([[-float("inf"), 0.0]]), 1).tolist() == [[0.0, 1.0]]


def test_attention_is_softmax_of_products() -> None:
    q, k, v = wave(2, 3, 4, 5), wave(2, 3, 4, 5, phase=1), wave(2, 3, 4, 6, phase=2)
    scores = (q @ k.transpose(-1, -2)) / 5**0.5
    assert tm.allclose(F.scaled_dot_product_attention(q, k, v), F.softmax(scores, -1) @ v, atol=1e-6)
    seen = tm.ones(4, 4).tril().bool()
    masked = F.softmax(scores.masked_fill(~seen, -float("inf")), -1) @ v
    assert tm.allclose(F.scaled_dot_product_attention(q, k, v, is_causal=True), masked, atol=1e-6)
    assert tm.allclose(F.scaled_dot_product_attention(q, k, v, attn_mask=seen), masked, atol=1e-6)


def test_relu_has_pytorchs_gradient_at_zero_and_keeps_nan() -> None:
    x = tm.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    F.relu(x).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 1.0]
    assert F.relu(tm.tensor(float("nan"))).isnan().item()


def test_in_place_activations_write_their_input() -> None:
    x = tm.tensor([-1.0, 2.0])
    y = F.relu(x, inplace=True)
    assert y is x
    assert x.tolist() == [0.0, 2.0]


def test_narrow_floats_are_computed_wide() -> None:
    x = wave(64).half()
    wide = F.gelu(x.float()).half()
    assert tm.equal(F.gelu(x), wide)
