"""What every device must do, and what the null device records."""

from __future__ import annotations

import numpy as np
import pytest
from tracemill.ir import dtypes
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import boolean, f32
from tracemill.ir.errors import DTypeError, ShapeError, TracemillError
from tracemill.runtime import device as module
from tracemill.runtime.device import Device, Launch, NullDevice, device_names, get_device, register_device
from tracemill.runtime.plan import Branch, BufferUse, Copy, Fill, Repeat, While


@pytest.fixture(params=["cpu", "null"])
def device(request) -> Device:
    return get_device(request.param)


def test_arrays_go_in_and_out(device):
    for kind in dtypes.ALL:
        for shape in ((), (3,), (2, 0), (4, 5)):
            array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind.numpy)
            there = device.copy_in(array)
            assert (there.device, there.dtype, there.shape) == (device.name, kind, shape)
            back = device.copy_out(there)
            assert back.dtype == array.dtype and back.shape == shape and back.flags.c_contiguous
            assert back is not array
            if device.computes:
                assert back.tobytes() == array.tobytes()
            array[...] = 1  # the device has its own copy
            if device.computes and array.size > 1:
                assert device.copy_out(there).tobytes() == back.tobytes()


def test_copies_keep_to_the_target(device):
    target = device.allocate(f32, (2, 3))
    assert device.copy_in(np.ones((2, 3), np.float32), target) is target
    with pytest.raises(ShapeError):
        device.copy_in(np.ones((3, 2), np.float32), target)
    with pytest.raises(DTypeError):
        device.copy_in(np.ones((2, 3)), target)
    with pytest.raises(DTypeError):
        device.copy_in(np.ones((2, 3), np.complex64))


def test_programs_run(device, kit, b):
    B = sym("B")
    x, _ = b.input("x", B), b.input("p", 8)
    y, q = b.output("y", B), b.output("q", 8, replaces=1)
    plan = b.plan(b.call("affine", x, y, range=B), b.call("bump", q, range=8))
    program = device.load(plan, {key: kit.native(key) for key in plan.kernels}, kit.runner)
    assert program.plan is plan
    state = device.copy_in(np.zeros(8, np.float32))
    for n in (3, 6):
        results = program.run([device.copy_in(np.arange(n, dtype=np.float32)), state])
        device.synchronize()
        assert [(r.device, r.dtype, r.shape) for r in results] == [
            (device.name, f32, (n,)),
            (device.name, f32, (8,)),
        ]
        assert results[1] is state
        if device.computes:
            np.testing.assert_array_equal(device.copy_out(results[0]), np.arange(n) * 2 + 1)
    if device.computes:
        np.testing.assert_array_equal(device.copy_out(state), np.full(8, 2))
    with pytest.raises(TracemillError):
        program.run([device.copy_in(np.zeros(3, np.float64)), state])
    with pytest.raises(TracemillError):
        program.run([state])


def test_devices_do_not_mix(device, kit, b):
    other = get_device("null" if device.name == "cpu" else "cpu")
    x, y = b.input("x", 3), b.output("y", 3)
    plan = b.plan(b.call("affine", x, y, range=3))
    program = device.load(plan, {"affine": kit.native("affine")}, kit.runner)
    foreign = other.allocate(f32, (3,))
    with pytest.raises(TracemillError, match=f"device {other.name} was given to device {device.name}"):
        program.run([foreign])
    with pytest.raises(TracemillError, match="was given to"):
        device.copy_out(foreign)
    with pytest.raises(TracemillError, match="code is missing"):
        device.load(plan, {}, kit.runner)


def test_registry(monkeypatch):
    monkeypatch.setattr(module, "_factories", dict(module._factories))
    monkeypatch.setattr(module, "_devices", {})
    assert device_names() == ("cpu", "null")
    assert get_device("null") is get_device("null")
    with pytest.raises(TracemillError, match="there is no device 'tpu'"):
        get_device("tpu")
    register_device("tpu", NullDevice)
    assert isinstance(get_device("tpu"), NullDevice)


def test_null_device_records_launches(b):
    B = sym("B")
    x, flag, t, y = b.input("x", B, 2), b.temporary(1, dtype=boolean), b.temporary(B), b.output("y", B)
    row = BufferUse(x.buffer, 0, (8,))
    plan = b.plan(
        b.call("affine", x, y, range=B * 2, extents=(B,)),
        Repeat(B, (Copy(row, t, 8),)),
        While(flag, (b.call("below", x, x, flag, range=1),), (Fill(t, 4),)),
        Branch(flag, (Fill(t, 4),), (Fill(y, 4, b"\1"),)),
    )
    device = NullDevice()
    device.load(plan, dict.fromkeys(plan.kernels)).run([device.allocate(f32, (2, 2))])
    assert device.launches == [
        Launch("kernel", "affine", 4, (2,), ((0, 0), (3, 0))),
        Launch("copy", "", 8, (), ((0, 0), (2, 0))),
        Launch("copy", "", 8, (), ((0, 8), (2, 0))),
        Launch("kernel", "below", 1, (), ((0, 0), (0, 0), (1, 0))),
        Launch("fill", "01", 4, (), ((3, 0),)),
    ]
