"""Devices: what memory and programs look like to the rest, whatever runs them.

`cpu` runs plans with the native runner. `null` holds no memory and runs nothing: it records what would be
launched, so that a plan can be compiled and checked for a machine that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..ir.dims import Dim
from ..ir.dtypes import DType, from_numpy
from ..ir.errors import DTypeError, Location, ShapeError, TracemillError
from .buffers import Array, empty
from .executor import Executable, KernelCode
from .plan import Branch, BufferUse, Copy, Entry, Fill, Host, KernelCall, Plan, Repeat, While

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceArray:
    """A C-contiguous array in a device's memory; `data` is the device's own business."""

    device: str
    dtype: DType
    shape: Shape
    data: Any


class Program(Protocol):
    """A plan loaded on a device."""

    plan: Plan

    def run(self, inputs: Sequence[DeviceArray], sizes: Mapping[str, int] | None = None) -> list[DeviceArray]:
        """Run once. Outputs that replace an input are that input's very array; others are new.

        Raises:
            TracemillError: inputs of other devices, or that do not fit the plan.
        """


class Device(Protocol):
    """A place where plans run.

    Attributes:
        name: `cpu`, `null`, …
        computes: values are real; false for `null`, whose memory reads as zero.
    """

    name: str
    computes: bool

    def allocate(self, dtype: DType, shape: Shape) -> DeviceArray:
        """A new array with undefined content."""

    def copy_in(self, array: Array, target: DeviceArray | None = None) -> DeviceArray:
        """A copy of a NumPy array on the device, in `target` if given.

        Raises:
            ShapeError, DTypeError: `target` is of another type.
        """

    def copy_out(self, source: DeviceArray) -> Array:
        """A copy of a device's array as a new NumPy array."""

    def load(
        self,
        plan: Plan,
        kernels: Mapping[str, Any],
        runner: Any = None,
        sites: Sequence[Location | None] = (),
    ) -> Program:
        """Make a plan ready to run, with the code of its kernels in the device's format."""

    def synchronize(self) -> None:
        """Return when all that was started is complete."""


def _own(device: Device, arrays: Sequence[DeviceArray]) -> None:
    for array in arrays:
        if array.device != device.name:
            raise TracemillError(f"an array of device {array.device} was given to device {device.name}")


def _check_target(array: Array, dtype: DType, target: DeviceArray) -> None:
    if target.shape != array.shape:
        raise ShapeError(
            f"cannot copy an array of shape {list(array.shape)} to one of shape {list(target.shape)}"
        )
    if target.dtype is not dtype:
        raise DTypeError(f"cannot copy an array of dtype {dtype} to one of dtype {target.dtype}")


def _dtype_of(array: Array) -> DType:
    try:
        return from_numpy(array.dtype)
    except KeyError:
        raise DTypeError(f"tracemill has no dtype for NumPy's {array.dtype}") from None


class CpuDevice:
    """The processor this runs on. Arrays are NumPy arrays, 64-byte aligned."""

    name = "cpu"
    computes = True

    def allocate(self, dtype: DType, shape: Shape) -> DeviceArray:
        return DeviceArray(self.name, dtype, shape, empty(shape, dtype.numpy))

    def copy_in(self, array: Array, target: DeviceArray | None = None) -> DeviceArray:
        dtype = _dtype_of(array)
        if target is None:
            target = self.allocate(dtype, array.shape)
        _own(self, [target])
        _check_target(array, dtype, target)
        target.data[...] = array
        return target

    def copy_out(self, source: DeviceArray) -> Array:
        _own(self, [source])
        result: Array = source.data.copy()
        return result

    def load(
        self,
        plan: Plan,
        kernels: Mapping[str, KernelCode | int],
        runner: KernelCode | int | None = None,
        sites: Sequence[Location | None] = (),
    ) -> CpuProgram:
        if runner is None:
            raise TracemillError("the CPU needs the native plan runner")
        return CpuProgram(self, Executable(plan, kernels, runner, sites))

    def synchronize(self) -> None:
        """Nothing: runs are complete when they return."""


class CpuProgram:
    """An executable in terms of device arrays."""

    def __init__(self, device: CpuDevice, executable: Executable) -> None:
        self.device = device
        self.executable = executable
        self.plan = executable.plan

    def run(self, inputs: Sequence[DeviceArray], sizes: Mapping[str, int] | None = None) -> list[DeviceArray]:
        _own(self.device, inputs)
        results = self.executable.run([array.data for array in inputs], sizes)
        return [
            inputs[spec.replaces] if spec.replaces >= 0 else DeviceArray("cpu", spec.dtype, data.shape, data)
            for spec, data in zip(self.plan.outputs, results, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Launch:
    """What the null device would have done: `kernel`, `copy`, `fill` or `host`; its key or name; its numbers.

    Attributes:
        range: units of a kernel, bytes of a copy or fill, 0 for a host call.
        operands: (buffer, byte offset in it) of each use.
    """

    kind: str
    name: str
    range: int
    extents: tuple[int, ...]
    operands: tuple[tuple[int, int], ...]


class NullDevice:
    """Records launches. Its memory reads as zero: no `While` passes, every `Branch` goes the other way."""

    name = "null"
    computes = False

    def __init__(self) -> None:
        self.launches: list[Launch] = []

    def allocate(self, dtype: DType, shape: Shape) -> DeviceArray:
        return DeviceArray(self.name, dtype, shape, None)

    def copy_in(self, array: Array, target: DeviceArray | None = None) -> DeviceArray:
        dtype = _dtype_of(array)
        if target is None:
            return self.allocate(dtype, array.shape)
        _own(self, [target])
        _check_target(array, dtype, target)
        return target

    def copy_out(self, source: DeviceArray) -> Array:
        _own(self, [source])
        return np.zeros(source.shape, source.dtype.numpy)

    def load(
        self,
        plan: Plan,
        kernels: Mapping[str, Any],
        runner: Any = None,
        sites: Sequence[Location | None] = (),
    ) -> NullProgram:
        missing = [key for key in plan.kernels if key not in kernels]
        if missing:
            raise TracemillError(f"the plan calls kernels whose code is missing: {', '.join(missing)}")
        return NullProgram(self, plan)

    def synchronize(self) -> None:
        """Nothing: nothing was started."""


class NullProgram:
    """Walks a plan and records it."""

    def __init__(self, device: NullDevice, plan: Plan) -> None:
        self.device = device
        self.plan = plan

    def run(self, inputs: Sequence[DeviceArray], sizes: Mapping[str, int] | None = None) -> list[DeviceArray]:
        _own(self.device, inputs)
        if len(inputs) != len(self.plan.inputs):
            raise TracemillError(f"{self.plan.name} takes {len(self.plan.inputs)} inputs, got {len(inputs)}")
        if sizes is None:
            sizes = {s.name: (inputs[s.input].shape[s.axis] - s.offset) // s.scale for s in self.plan.sizes}
        walk = _Recorder(self.plan.with_lets(sizes), self.device.launches)
        for spec, array in zip(self.plan.inputs, inputs, strict=True):
            if array.shape != walk.values(spec.shape) or array.dtype is not spec.dtype:
                wanted = f"{spec.dtype}{list(walk.values(spec.shape))}"
                raise ShapeError(
                    f"input {spec.name}: expected {wanted}, got {array.dtype}{list(array.shape)}"
                )
        walk.entries(self.plan.entries)
        return [
            inputs[spec.replaces]
            if spec.replaces >= 0
            else self.device.allocate(spec.dtype, walk.values(spec.shape))
            for spec in self.plan.outputs
        ]


class _Recorder:
    def __init__(self, sizes: dict[str, int], launches: list[Launch]) -> None:
        self.sizes = sizes
        self.launches = launches
        self.counters: list[int] = []

    def value(self, dim: Dim) -> int:
        return dim if isinstance(dim, int) else dim.evaluate(self.sizes)

    def values(self, dims: tuple[Dim, ...]) -> Shape:
        return tuple(self.value(dim) for dim in dims)

    def operands(self, uses: Sequence[BufferUse]) -> tuple[tuple[int, int], ...]:
        places = []
        for use in uses:
            moved = sum(self.value(stride) * i for stride, i in zip(use.strides, self.counters, strict=False))
            places.append((use.buffer, self.value(use.offset) + moved))
        return tuple(places)

    def add(
        self, kind: str, name: str, extent: Dim, extents: tuple[Dim, ...], uses: Sequence[BufferUse]
    ) -> None:
        self.launches.append(
            Launch(kind, name, self.value(extent), self.values(extents), self.operands(uses))
        )

    def entries(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            match entry:
                case KernelCall():
                    self.add("kernel", entry.kernel, entry.range, entry.extents, entry.buffers)
                case Copy():
                    self.add("copy", "", entry.nbytes, (), (entry.source, entry.target))
                case Fill():
                    self.add("fill", entry.pattern.hex(), entry.nbytes, (), (entry.target,))
                case Host():
                    self.add("host", entry.name, 0, (), [operand.use for operand in entry.operands])
                case Repeat():
                    self.counters.append(0)
                    for i in range(self.value(entry.count)):
                        self.counters[-1] = i
                        self.entries(entry.body)
                    self.counters.pop()
                case While():
                    self.entries(entry.condition)
                case Branch():
                    self.entries(entry.otherwise)


_factories: dict[str, Callable[[], Device]] = {"cpu": CpuDevice, "null": NullDevice}
_devices: dict[str, Device] = {}


def register_device(name: str, factory: Callable[[], Device]) -> None:
    """Make a kind of device known; it is created when first asked for."""
    _factories[name] = factory
    _devices.pop(name, None)


def device_names() -> tuple[str, ...]:
    """The kinds of devices there are."""
    return tuple(_factories)


def get_device(name: str) -> Device:
    """The device of a name.

    Raises:
        TracemillError: there is none.
    """
    found = _devices.get(name)
    if found is None:
        factory = _factories.get(name)
        if factory is None:
            raise TracemillError(
                f"there is no device {name!r}", hint=f"known devices: {', '.join(_factories)}"
            )
        found = _devices.setdefault(name, factory())
    return found
