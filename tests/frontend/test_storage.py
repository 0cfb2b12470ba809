"""Each sentence of the design about storage, views and donation."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import tracemill as tm
from tracemill.frontends.python import stats
from tracemill.frontends.python.flush import flush
from tracemill.ir.errors import AutogradError, ShapeError


def values(t: tm.Tensor) -> list:
    return t.tolist()


# --- a tensor is a view chain over a cell; an in-place write replaces the cell's value; aliasing is PyTorch's --------
@pytest.mark.parametrize("pending", [False, True])
def test_views_see_writes_to_the_base_and_back(pending: bool) -> None:
    x = tm.zeros(2, 3)
    if not pending:
        flush("test")
    row, column, flat = x[0], x[:, 1], x.view(6)
    x.add_(1.0)
    assert values(row) == [1, 1, 1] and values(column) == [1, 1]
    column.mul_(5.0)
    assert values(x) == [[1, 5, 1], [1, 5, 1]]
    assert values(flat) == [1, 5, 1, 1, 5, 1]
    flat[4] = -1.0
    assert values(column) == [5, -1]


@pytest.mark.parametrize("view", [
    lambda x: x[1:3], lambda x: x[::2], lambda x: x[1], lambda x: x.t(), lambda x: x.view(2, 6), lambda x: x[:, 1:2],
    lambda x: x.unsqueeze(0), lambda x: x[1:, 2], lambda x: x.diagonal(), lambda x: x.diagonal(1),
    lambda x: x.diagonal(-2), lambda x: x.flatten()[2:9:3], lambda x: x.permute(1, 0)[1], lambda x: x[..., None],
    lambda x: x.unfold(1, 2, 2), lambda x: x.split(2)[1], lambda x: x.chunk(3, dim=1)[2], lambda x: x.unbind(1)[0],
    lambda x: x.narrow(0, 1, 2), lambda x: x.select(1, 2), lambda x: x.view(4, 3, 1).squeeze(2),
    lambda x: x.transpose(0, 1).reshape(3, 2, 2), lambda x: x.movedim(0, 1)[2, 1:],
])
@pytest.mark.parametrize("pending", [False, True])
def test_writing_through_a_view_is_numpys(view, pending: bool) -> None:  # type: ignore[no-untyped-def]
    base = np.arange(12, dtype=np.float32).reshape(4, 3)
    x = tm.tensor(base)
    if pending:
        x = x + 0.0
    v = view(x)
    assert v.data_ptr is not None
    before = v.tolist() if not pending else None
    v.mul_(2.0)
    v.add_(100.0)
    expected = base.copy()
    indices = view(tm.arange(12).view(4, 3)).numpy()
    expected.reshape(-1)[indices.reshape(-1)] = expected.reshape(-1)[indices.reshape(-1)] * 2 + 100
    np.testing.assert_array_equal(x.numpy(), expected)
    np.testing.assert_array_equal(v.numpy(), expected.reshape(-1)[indices])
    if before is not None:
        np.testing.assert_array_equal(np.array(before, np.float32) * 2 + 100, v.numpy())


def test_expanded_memory_refuses_writes() -> None:
    x = tm.ones(1, 3).expand(2, 3)
    with pytest.raises(ShapeError, match="more than one element"):
        x.add_(1.0)


def test_view_needs_compatible_strides_and_reshape_copies() -> None:
    x = tm.arange(6).view(2, 3).t()
    with pytest.raises(ShapeError, match="reshape"):
        x.view(6)
    y = x.reshape(6)
    y.zero_()
    assert values(x) == [[0, 3], [1, 4], [2, 5]]
    z = tm.arange(6).view(2, 3).reshape(3, 2)
    base = z._cell
    z.zero_()
    assert z._cell is base


def test_setitem_through_chains() -> None:
    x = tm.zeros(3, 4)
    x[1] = 1.0
    x[:, 2] = tm.tensor([5.0, 6.0, 7.0])
    x[0][1] = 9.0
    x[2, ::2] = -1.0
    assert values(x) == [[0, 9, 5, 0], [1, 1, 6, 1], [-1, 0, -1, 0]]


# --- a pending leaf pins (cell, version); a direct write to a pinned version copies first ----------------------------
def test_direct_write_after_reading_keeps_the_pending_value() -> None:
    x = tm.tensor([1.0, 2.0])
    y = x * 10.0
    x[0] = 7.0
    x.fill_(8.0)
    z = x * 10.0
    assert values(y) == [10, 20] and values(z) == [80, 80] and values(x) == [8, 8]


def test_direct_write_to_an_unpinned_buffer_is_in_place() -> None:
    x = tm.tensor([1.0, 2.0])
    address = x._cell.buffer.ctypes.data
    x[0] = 7.0
    assert x._cell.buffer.ctypes.data == address and not x._cell.stale
    assert stats.runs == 0


def test_window_of_a_dataset_is_pinned_too() -> None:
    data = tm.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = data[0] + 1.0
    data[0] = 0.0
    assert values(y) == [2, 3] and values(data) == [[0, 0], [3, 4]]


# --- memory given to from_numpy is snapshotted at its first use in a pending trace -----------------------------------
def test_from_numpy_shares_and_is_snapshotted_at_use() -> None:
    a = np.array([1.0, 2.0], np.float32)
    x = tm.from_numpy(a)
    y = x * 2.0
    a[0] = 50.0
    assert values(y) == [2, 4]
    assert values(x) == [50, 2]
    assert values(x * 2.0) == [100, 4]
    x.add_(1.0)
    assert a.tolist() == [51, 3]


def test_from_numpy_keeps_strides() -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = tm.from_numpy(a.T)
    assert x.shape == (3, 2) and not x.is_contiguous() and x.stride() == (1, 3)
    assert values(x + 0.0) == a.T.tolist()
    x[0] = -1.0
    assert a[:, 0].tolist() == [-1, -1]
    with pytest.raises(ValueError, match="negative"):
        tm.from_numpy(a[::-1])


def test_tensor_copies() -> None:
    a = np.array([1.0, 2.0])
    x = tm.tensor(a)
    a[0] = 9
    assert x.dtype is tm.float64 and values(x) == [1, 2]


# --- a cell exported by .numpy() or DLPack is never moved: writes flush into the same memory -------------------------
def test_exported_memory_is_written_in_place() -> None:
    x = tm.ones(3) * 2.0
    a = x.numpy()
    x.add_(1.0)
    assert a.tolist() == [3, 3, 3]
    x[1] = 0.0
    assert a.tolist() == [3, 0, 3]
    a[2] = 7.0
    assert values(x) == [3, 0, 7]
    assert x.numpy().ctypes.data == a.ctypes.data
    y = x * 1.0
    a[0] = -5.0
    assert values(y) == [3, 0, 7]


def test_export_ends_with_the_last_array() -> None:
    x = tm.tensor([1.0, 2.0])
    a = x.numpy()[1:]
    assert x._cell.exported
    del a
    gc.collect()
    assert not x._cell.exported


def test_views_of_exported_memory() -> None:
    x = tm.zeros(2, 2)
    a = x[1].numpy()
    x.view(4)[2] = 4.0
    assert a.tolist() == [4, 0]


def test_numpy_of_tracked_is_refused() -> None:
    w = tm.ones(2, requires_grad=True)
    with pytest.raises(AutogradError, match="detach"):
        w.numpy()
    assert w.detach().numpy().tolist() == [1, 1]


def test_dlpack_shares() -> None:
    x = tm.ones(3) + 0.0
    a = np.from_dlpack(x)
    x.mul_(3.0)
    assert a.tolist() == [3, 3, 3]
    y = tm.from_dlpack(np.arange(3.0))
    assert values(y) == [0, 1, 2]


# --- donation only where nothing pending or returned reads the old value ---------------------------------------------
def _step(w: tm.Tensor) -> None:
    (w * w).sum().backward()
    with tm.no_grad():
        w -= 0.5 * w.grad
    w.grad = None


def test_donation_reuses_the_parameters_memory() -> None:
    w = tm.tensor([1.0, 2.0], requires_grad=True)
    _step(w)
    flush("test")
    address = w._cell.buffer.ctypes.data
    _step(w)
    flush("test")
    assert w._cell.buffer.ctypes.data == address


def test_clone_before_a_step_keeps_old_values_detach_sees_new() -> None:
    w = tm.tensor([1.0, 2.0], requires_grad=True)
    kept, shared = w.clone(), w.detach()
    pinned = w.detach().clone()
    _step(w)
    assert values(kept) == [1, 2] and values(pinned) == [1, 2]
    assert values(shared) == [0, 0] and values(w) == [0, 0]


def test_a_live_array_prevents_donation() -> None:
    w = tm.tensor([1.0, 2.0], requires_grad=True)
    flush("test")
    old = w._cell.buffer
    _step(w)
    flush("test")
    assert old is not None and old.tolist() == [1, 2] and values(w) == [0, 0]


def test_a_copy_of_a_leaf_is_taken_before_its_memory_is_reused() -> None:
    x = tm.tensor([1.0, 2.0])
    kept = x * 1.0
    flush("test")
    kept = x.detach()[:]
    y = x + 0.0
    old = tm.cat([x])
    with tm.no_grad():
        x.add_(y)
    assert values(old) == [1, 2] and values(kept) == [2, 4] and values(x) == [2, 4]


def test_histories_keep_the_old_value_of_a_parameter_updated_in_the_same_run() -> None:
    w = tm.tensor([3.0], requires_grad=True)
    loss = (w * w).sum()
    with tm.no_grad():
        w.mul_(100.0)
    assert loss.item() == 9
    loss.backward()
    assert values(w.grad) == [6] and values(w) == [300]


def test_donation_does_not_change_the_graph() -> None:
    w = tm.tensor([1.0, 2.0], requires_grad=True)
    for i in range(4):
        held = w._cell.buffer if i % 2 else None
        _step(w)
        flush("test")
        del held
    assert stats.traced <= 1


def test_data_shares_and_escapes_autograd() -> None:
    w = tm.tensor([1.0, 2.0], requires_grad=True)
    y = w * 3.0
    w.data.mul_(10.0)
    assert values(w) == [10, 20] and w.requires_grad and w.is_leaf
    y.sum().backward()
    assert values(w.grad) == [3, 3]
    w.data = tm.tensor([7.0, 8.0])
    assert values(w) == [7, 8] and w.requires_grad


def test_detached_leaf_has_its_own_gradient() -> None:
    x = tm.tensor([1.0, 2.0], requires_grad=True)
    y = x.detach().requires_grad_()
    (x * y).sum().backward()
    assert values(x.grad) == [1, 2] and values(y.grad) == [1, 2]
    z = x * 2.0
    leaf = z.detach().requires_grad_()
    (z * leaf).sum().backward()
    assert values(leaf.grad) == [2, 4] and values(x.grad) == [5, 10]


# --- autograd through in-place operators and views -------------------------------------------------------------------
def test_leaf_in_place_is_refused() -> None:
    w = tm.ones(3, requires_grad=True)
    with pytest.raises(AutogradError, match="a leaf Variable that requires grad"):
        w.add_(1.0)
    with pytest.raises(AutogradError, match="a view of a leaf Variable"):
        w[0].add_(1.0)
    with pytest.raises(AutogradError):
        w[0] = 2.0
    with tm.no_grad():
        w.add_(1.0)
        w[0] = 5.0
    assert values(w) == [5, 2, 2] and w.is_leaf


def test_writing_a_tracked_value_makes_the_base_tracked() -> None:
    w = tm.tensor([2.0, 3.0], requires_grad=True)
    x = tm.zeros(3)
    v = x[1:]
    x[0] = w[1]
    assert x.requires_grad and v.requires_grad and not x.is_leaf
    x[1:] = w * w
    (x * tm.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert values(w.grad) == [40, 601]


def test_gradient_uses_the_value_before_an_in_place_write() -> None:
    w = tm.tensor([2.0, 3.0], requires_grad=True)
    y = w * 1.0
    z = y * y
    y.zero_()
    z.sum().backward()
    assert values(w.grad) == [4, 6]


def test_overwritten_elements_get_no_gradient() -> None:
    w = tm.tensor([2.0, 3.0], requires_grad=True)
    y = w * 2.0
    y[0] = 0.0
    y.sum().backward()
    assert values(w.grad) == [0, 2]


def test_update_under_no_grad_keeps_a_history_of_values() -> None:
    w = tm.tensor([2.0, 3.0], requires_grad=True)
    y = w * 2.0
    with tm.no_grad():
        y.add_(100.0)
    assert values(y) == [104, 106]
    (y * y).sum().backward()
    assert values(w.grad) == [416, 424]


# --- cells own their buffers -----------------------------------------------------------------------------------------
def test_results_do_not_share_memory() -> None:
    x = tm.tensor([1.0, 2.0])
    a, b = x * 2.0, x * 2.0
    flush("test")
    a[0] = 100.0
    assert values(b) == [2, 4]
    c = x.clone()
    c[0] = 100.0
    assert values(x) == [1, 2]


def test_a_failed_run_leaves_everything_as_it_was() -> None:
    w = tm.tensor([1.0, 2.0], requires_grad=True)
    _step(w)
    flush("test")
    index = tm.tensor([0, 5])
    with tm.no_grad():
        w += 1.0
    bad = tm.tensor([[1.0, 2.0]])[0].gather(0, index)
    with pytest.raises(IndexError) as caught:
        bad.tolist()
    assert "test_storage.py" in str(caught.value)
    assert values(w) == [0, 0]
    with pytest.raises(RuntimeError, match="no value"):
        bad.tolist()
    _step(w)
    assert values(w) == [0, 0]
