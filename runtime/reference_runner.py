"""A slow runner in plain Python: the same plans, kernels as Python functions on flat NumPy arrays.

It shows what a plan means, checks the native runner, and runs generated kernels as plain Python. Workers are
played one after the other, share by share, in the native runner's shares: an order in which no correct plan
can tell the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from ..ir.dims import Dim
from ..ir.errors import Location
from .bind import COPY_GRAIN, COPY_STEP, row_shares, shares
from .buffers import Array, empty
from .executor import check_array
from .faults import host_error, kernel_error
from .host import HostFault, host_function
from .plan import Branch, BufferUse, Copy, Entry, Fill, Host, KernelCall, Plan, Repeat, While, bodies

# (buffers, extents, begin, end, scratch, status) -> 0 or an error; linked kernels come before the operands
PythonKernel = Callable[[list[Any], Array, int, int, Array, Array], int]


def run_reference(
    plan: Plan,
    kernels: Mapping[str, PythonKernel],
    inputs: Sequence[Array],
    sizes: Mapping[str, int] | None = None,
    *,
    workers: int = 1,
    backwards: bool = False,
    sites: Sequence[Location | None] = (),
) -> list[Array]:
    """Run a plan once; arguments and results as `Executable.run`, errors too.

    Args:
        kernels: for each key a function that gets, for every operand, the flat array from where the use
            begins to the end of its buffer.
        workers: number of shares.
        backwards: play the workers in descending order.
    """
    if sizes is None:
        sizes = {s.name: (inputs[s.input].shape[s.axis] - s.offset) // s.scale for s in plan.sizes}
    return ReferenceRun(plan, kernels, plan.with_lets(sizes), workers, backwards, sites).run(inputs)


class ReferenceRun:
    """One run of a plan; see `run_reference`."""

    def __init__(
        self,
        plan: Plan,
        kernels: Mapping[str, PythonKernel],
        sizes: dict[str, int],
        workers: int,
        backwards: bool,
        sites: Sequence[Location | None],
    ) -> None:
        self.plan, self.kernels, self.sizes, self.sites = plan, kernels, sizes, sites
        self.workers, self.backwards = workers, backwards
        self.counters: list[int] = []
        self.entry = -1

    def value(self, dim: Dim) -> int:
        return dim if isinstance(dim, int) else dim.evaluate(self.sizes)

    def shape(self, dims: tuple[Dim, ...]) -> tuple[int, ...]:
        return tuple(self.value(dim) for dim in dims)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        plan = self.plan
        for spec, array in zip(plan.inputs, inputs, strict=True):
            check_array(spec, "input", array, self.shape(spec.shape))
        results = [
            inputs[spec.replaces] if spec.replaces >= 0 else empty(self.shape(spec.shape), spec.dtype.numpy)
            for spec in plan.outputs
        ]
        memory: dict[tuple[str, int], Array] = {("arena", 0): np.empty(self.value(plan.arena), np.uint8)}
        memory |= {("constant", i): np.frombuffer(c.data, np.uint8) for i, c in enumerate(plan.constants)}
        memory |= {("input", i): array.reshape(-1).view(np.uint8) for i, array in enumerate(inputs)}
        memory |= {("output", i): array.reshape(-1).view(np.uint8) for i, array in enumerate(results)}
        self.buffers = []
        for place in plan.buffers:
            offset = self.value(place.offset)
            self.buffers.append(memory[place.kind, place.index][offset : offset + self.value(place.nbytes)])
        self.entries(plan.entries)
        return results

    def bytes_at(self, use: BufferUse) -> Array:
        """The bytes of a use's buffer from where it begins in this pass of the loops."""
        at = self.value(use.offset)
        at += sum(self.value(stride) * i for stride, i in zip(use.strides, self.counters, strict=False))
        return self.buffers[use.buffer][at:]

    def flat(self, use: BufferUse) -> Array:
        """`bytes_at` in the buffer's dtype."""
        dtype = self.plan.buffers[use.buffer].dtype.numpy
        data = self.bytes_at(use)
        return data[: data.size // dtype.itemsize * dtype.itemsize].view(dtype)

    def entries(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            self.entry += 1
            match entry:
                case KernelCall():
                    self.kernel(entry)
                case Copy() | Fill():
                    self.move(entry)
                case Host():
                    self.host(entry)
                case Repeat():
                    self.repeat(entry)
                case While():
                    self.loop(entry)
                case Branch():
                    self.branch(entry)

    def parts(self, bounds: Sequence[int]) -> list[tuple[int, int, int]]:
        """The workers' shares that are not empty, in the order they are played: worker, begin, end."""
        parts = [(w, begin, end) for w, (begin, end) in enumerate(pairwise(bounds)) if begin < end]
        return parts[::-1] if self.backwards else parts

    def move(self, entry: Copy | Fill) -> None:
        bounds = shares(self.value(entry.nbytes), COPY_GRAIN, self.workers, COPY_STEP)
        for worker, begin, end in self.parts(bounds):
            self.move_share(entry, worker, begin, end)

    def move_share(self, entry: Copy | Fill, worker: int, begin: int, end: int) -> None:
        """Bytes [begin, end) of a copy or fill."""
        target = self.bytes_at(entry.target)
        if isinstance(entry, Copy):
            target[begin:end] = self.bytes_at(entry.source)[begin:end]
        else:
            target[begin:end] = np.resize(np.frombuffer(entry.pattern, np.uint8), end)[begin:]

    def kernel(self, call: KernelCall) -> None:
        failures: dict[int, Array] = {}
        for worker, begin, end in self.parts(self.bounds(call)):
            status = self.launch(call, worker, begin, end)
            if status is not None:
                failures[begin] = status
        if failures:
            status = failures[min(failures)]
            raise kernel_error(self.plan, self.entry, [int(word) for word in status], self.sites)

    def bounds(self, call: KernelCall) -> list[int]:
        """Boundaries of the workers' shares of a launch."""
        span = self.value(call.range)
        if call.rows != 0:
            return row_shares(span, self.value(call.rows), self.workers)
        return shares(span, call.grain, self.workers)

    def launch(self, call: KernelCall, worker: int, begin: int, end: int) -> Array | None:
        """Run a worker's share of a launch; the status of one that fails."""
        buffers: list[Any] = [self.kernels[key] for key in call.links]
        buffers += [self.flat(use) for use in call.buffers]
        extents = np.array(self.shape(call.extents), np.int64)
        scratch = np.full(self.value(call.scratch), 0xFF, np.uint8)
        status = np.zeros(4, np.int64)
        failed = self.kernels[call.kernel](buffers, extents, begin, end, scratch, status)
        return status if failed else None

    def host(self, call: Host) -> None:
        views = []
        for i, operand in enumerate(call.operands):
            shape, dtype = self.shape(operand.shape), operand.dtype.numpy
            view = self.bytes_at(operand.use)[: prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
            view.flags.writeable = i >= len(call.operands) - call.outputs
            views.append(view)
        try:
            host_function(call.name)(*views, **dict(call.attrs))
        except HostFault as fault:
            raise host_error(call, fault, self.sites) from None

    def repeat(self, loop: Repeat) -> None:
        first = self.entry
        self.counters.append(0)
        for i in range(self.value(loop.count)):
            self.counters[-1] = i
            self.entry = first
            self.entries(loop.body)
        self.counters.pop()
        self.entry = first + _size(loop.body)

    def loop(self, loop: While) -> None:
        first = self.entry
        middle = first + _size(loop.condition)
        while True:
            self.entry = first
            self.entries(loop.condition)
            if not self.bytes_at(loop.predicate)[0]:
                break
            self.entry = middle
            self.entries(loop.body)
        self.entry = middle + _size(loop.body)

    def branch(self, branch: Branch) -> None:
        first = self.entry
        middle = first + _size(branch.then)
        if self.bytes_at(branch.predicate)[0]:
            self.entries(branch.then)
        else:
            self.entry = middle
            self.entries(branch.otherwise)
        self.entry = middle + _size(branch.otherwise)


def _size(entries: tuple[Entry, ...]) -> int:
    """How many entries there are, nested ones included."""
    return sum(1 + sum(map(_size, bodies(entry))) for entry in entries)
