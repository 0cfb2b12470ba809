"""Binding: a plan at given sizes, its kernels at given addresses, packed for the native runner.

It happens once for each tuple of sizes and number of workers. Packing decides nothing that could change a
result: it evaluates expressions, turns loops and branches into jumps, places barriers where entries wait, and
splits ranges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from ..ir.dims import Dim
from ..ir.errors import InternalError
from . import layout as L
from .buffers import aligned_bytes
from .host import HostFunction, host_function
from .plan import Branch, BufferUse, Copy, Entry, Fill, Host, KernelCall, Plan, Repeat, While
from .plan_check import describe

# Share boundaries of ranges that are fine enough fall on multiples of this many units (a cache line of
# float32).
_STEP = 16
# Copies and fills: least bytes of a share, and the multiple that its boundaries fall on.
COPY_GRAIN, COPY_STEP = 1 << 16, 64
# Estimates for deciding whether threads pay: operations and bytes per nanosecond and core, nanoseconds for
# starting the workers and for one barrier.
_OPERATIONS, _COPIED, _START, _BARRIER = 8, 16, 4000, 150


def shares(extent: int, grain: int, workers: int, step: int = 0) -> list[int]:
    """Boundaries of the workers' shares of `[0, extent)`: worker w has `[result[w], result[w + 1])`.

    The shares are equal up to rounding, and none is shorter than `grain` units, unless it is empty or the
    only one.
    """
    parts = min(workers, max(extent // grain, 1))
    step = step or (_STEP if grain >= _STEP else 1)
    inner = [extent * w // parts // step * step for w in range(parts)]
    return inner + [extent] * (workers + 1 - parts)


def row_shares(extent: int, rows: int, workers: int) -> list[int]:
    """`shares` of a range that has equal parts for so many rows, in whole rows.

    Raises:
        InternalError: the rows have no equal parts.
    """
    unit = extent // rows if rows else 0
    if unit * rows != extent:
        raise InternalError(f"invalid plan: a range of {extent} has no equal parts for {rows} rows")
    return [row * unit for row in shares(rows, 1, workers)]


@dataclass(frozen=True, slots=True)
class HostOperandBinding:
    """Where a host call's operand lies (as a use in packed code) and the array to show."""

    slot: int
    offset: int
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    writable: bool


@dataclass(frozen=True, slots=True)
class HostBinding:
    """A host call ready to be made."""

    function: HostFunction
    operands: tuple[HostOperandBinding, ...]
    attrs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OutputBinding:
    """An output: the input it replaces (or -1), the slot of its address in the base table, its array."""

    replaces: int
    slot: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int


class BoundPlan:
    """A plan at given sizes. Immutable but for `states`, the idle run states of the executor.

    Attributes:
        sizes: values of the named sizes.
        workers: number of shares that every range is split into.
        alone: too little work for threads: the caller walks all shares by itself.
        code: the packed words.
        bases: initial base table: slot 0 is the arena, then constants, inputs, outputs that replace nothing, linked
            kernels.
        input_slot: slot of the first input.
        input_shapes: required shapes.
        arena: bytes of temporaries.
        scratch: bytes of scratch per worker.
        pointers: the greatest number of operands and links of a launch.
        hosts: host calls by entry number.
    """

    def __init__(
        self,
        plan: Plan,
        sizes: Mapping[str, int],
        workers: int,
        kernels: Mapping[str, int],
        constants: Sequence[int],
    ) -> None:
        self.plan = plan
        self.sizes = plan.with_lets(sizes)
        self.workers = workers
        self.states: list[Any] = []
        packer = _Packer(plan, self.sizes, workers, kernels)
        self.input_shapes = packer.input_shapes
        self.outputs = packer.outputs
        self.input_slot = packer.input_slot
        links = [kernels[key] for key in plan.links]
        self.bases = [0, *constants, *[0] * (packer.slot_count - 1 - len(constants)), *links]
        packer.pack()
        raw, offset = aligned_bytes(len(packer.words) * L.WORD)
        self.code = np.ndarray((len(packer.words),), np.int64, raw, offset)
        self.code[:] = packer.words
        self.arena = packer.value(plan.arena)
        self.scratch = -(-packer.scratch // 128) * 128
        self.pointers = packer.pointers
        self.hosts = packer.hosts
        self.alone = workers == 1 or packer.gain < 2 * packer.cost

    @property
    def memory(self) -> int:
        """Bytes of arena and scratch that a run takes."""
        return -(-self.arena // 128) * 128 + self.scratch * (1 if self.alone else self.workers)


class _Packer:
    """Writes the code. `synced` holds while every worker is known to have finished all earlier launches."""

    def __init__(self, plan: Plan, sizes: dict[str, int], workers: int, kernels: Mapping[str, int]) -> None:
        self.plan, self.sizes, self.workers, self.kernels = plan, sizes, workers, kernels
        self.memo: dict[Dim, int] = {}
        self.words: list[int] = []
        self.entry = -1
        self.loops: list[int] = []  # counts of the enclosing repeats
        self.synced = True
        self.scratch = 0
        self.pointers = 1
        self.hosts: dict[int, HostBinding] = {}
        self.gain, self.cost = 0.0, float(_START)
        self.input_shapes = [self.values(spec.shape) for spec in plan.inputs]
        self._place_buffers()

    def value(self, dim: Dim) -> int:
        if isinstance(dim, int):
            return dim
        known = self.memo.get(dim)
        if known is None:
            known = self.memo[dim] = dim.evaluate(self.sizes)
        return known

    def values(self, dims: tuple[Dim, ...]) -> tuple[int, ...]:
        return tuple(self.value(dim) for dim in dims)

    def _place_buffers(self) -> None:
        """Give every buffer a slot of the base table, a byte offset and a length."""
        plan = self.plan
        self.input_slot = 1 + len(plan.constants)
        self.outputs: list[OutputBinding] = []
        self.slot_count = self.input_slot + len(plan.inputs)
        for spec in plan.outputs:
            shape, dtype = self.values(spec.shape), spec.dtype.numpy
            slot = self.input_slot + spec.replaces if spec.replaces >= 0 else self.slot_count
            self.slot_count += spec.replaces < 0
            self.outputs.append(
                OutputBinding(spec.replaces, slot, shape, dtype, prod(shape) * dtype.itemsize)
            )
        self.links = {key: self.slot_count + i for i, key in enumerate(plan.links)}
        self.places: list[tuple[int, int, int]] = []
        for number, buffer in enumerate(plan.buffers):
            offset, nbytes = self.value(buffer.offset), self.value(buffer.nbytes)
            slot, room = self._memory(buffer.kind, buffer.index)
            if not 0 <= offset <= offset + nbytes <= room:
                raise InternalError(
                    f"invalid plan: buffer {number} is outside its memory at sizes {self.sizes}"
                )
            self.places.append((slot, offset, nbytes))

    def _memory(self, kind: str, index: int) -> tuple[int, int]:
        """The slot of an arena, constant, input or output, and how many bytes there are."""
        if kind == "arena":
            return 0, self.value(self.plan.arena)
        if kind == "constant":
            return 1 + index, len(self.plan.constants[index].data)
        if kind == "input":
            return self.input_slot + index, prod(self.input_shapes[index]) * self.plan.inputs[
                index
            ].dtype.itemsize
        return self.outputs[index].slot, self.outputs[index].nbytes

    # Entries.

    def pack(self) -> None:
        self.entries(self.plan.entries)
        self.emit(L.OP_END, self.entry)

    def entries(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            self.entry += 1
            match entry:
                case KernelCall():
                    self.kernel(entry)
                case Copy():
                    self.move(entry, L.OP_COPY, (entry.target, entry.source), [])
                case Fill():
                    word = np.frombuffer(entry.pattern * (8 // len(entry.pattern)), np.int64)
                    self.move(entry, L.OP_FILL, (entry.target,), [int(word[0])])
                case Host():
                    self.host(entry)
                case Repeat():
                    self.repeat(entry)
                case While():
                    self.loop(entry)
                case Branch():
                    self.branch(entry)

    def emit(self, op: int, entry: int, *words: int) -> int:
        """Append an instruction; the position of its first word."""
        at = len(self.words)
        self.words += (op, 3 + len(words), entry, *words)
        return at

    def sync(self) -> None:
        if not self.synced:
            self.emit(L.OP_SYNC, self.entry)
            self.synced = True
            self.cost += _BARRIER * prod(self.loops)

    def use(self, use: BufferUse, nbytes: int = 0) -> tuple[int, int, tuple[int, ...]]:
        """Slot, offset and strides; checks that `nbytes` are in the buffer wherever the loops move it."""
        slot, base, room = self.places[use.buffer]
        offset, strides = self.value(use.offset), self.values(use.strides)
        if 0 not in self.loops:
            last = [stride * (count - 1) for stride, count in zip(strides, self.loops, strict=False)]
            low = offset + sum(min(step, 0) for step in last)
            high = offset + sum(max(step, 0) for step in last)
            if low < 0 or high + nbytes > room:
                what = describe(self.plan.flat[self.entry][1])
                raise InternalError(
                    f"invalid plan: {what} reaches bytes {low} to {high + nbytes} of buffer {use.buffer}, "
                    f"which has {room}, at sizes {self.sizes}"
                )
        return slot, base + offset, strides

    def launch(
        self,
        op: int,
        function: int,
        uses: list[tuple[int, int, tuple[int, ...]]],
        bounds: list[int],
        operands: Sequence[int],
    ) -> int:
        """Append a launch-like instruction; the position of its first word."""
        levels = max(
            (i + 1 for _, _, strides in uses for i, stride in enumerate(strides) if stride), default=0
        )
        shares_at = L.AT_USES + len(uses) * (2 + levels)
        words = [function, len(uses), levels, shares_at, shares_at + len(bounds)]
        for slot, offset, strides in uses:
            words += (slot, offset, *strides[:levels], *[0] * (levels - len(strides)))
        self.pointers = max(self.pointers, len(uses))
        return self.emit(op, self.entry, *words, *bounds, *operands)

    def kernel(self, call: KernelCall) -> None:
        if call.waits:
            self.sync()
        span = self.value(call.range)
        bounds = shares(span, call.grain, self.workers)
        if call.rows != 0:
            bounds = row_shares(span, self.value(call.rows), self.workers)
        uses: list[tuple[int, int, tuple[int, ...]]] = [(self.links[key], 0, ()) for key in call.links]
        uses += [self.use(use) for use in call.buffers]
        self.launch(L.OP_KERNEL, self.kernels[call.kernel], uses, bounds, self.values(call.extents))
        self.scratch = max(self.scratch, self.value(call.scratch))
        self.synced = False
        self.credit(self.value(call.work) / _OPERATIONS, bounds)
        if call.fallible:  # nobody goes on before all are known to be fine
            self.sync()

    def move(self, entry: Copy | Fill, op: int, uses: tuple[BufferUse, ...], operands: list[int]) -> None:
        if entry.waits:
            self.sync()
        nbytes = self.value(entry.nbytes)
        bounds = shares(nbytes, COPY_GRAIN, self.workers, COPY_STEP)
        self.launch(op, 0, [self.use(use, nbytes) for use in uses], bounds, operands)
        self.synced = False
        self.credit(nbytes / _COPIED, bounds)

    def credit(self, nanoseconds: float, bounds: list[int]) -> None:
        """Add what threads save on a launch."""
        longest = max(high - low for low, high in pairwise(bounds))
        if bounds[-1] > 0:
            self.gain += nanoseconds * (1 - longest / bounds[-1]) * prod(self.loops)

    def host(self, call: Host) -> None:
        operands = []
        for i, operand in enumerate(call.operands):
            dtype, shape = operand.dtype.numpy, self.values(operand.shape)
            slot, offset, strides = self.use(operand.use, prod(shape) * dtype.itemsize)
            writable = i >= len(call.operands) - call.outputs
            operands.append(HostOperandBinding(slot, offset, strides, dtype, shape, writable))
        self.hosts[self.entry] = HostBinding(host_function(call.name), tuple(operands), dict(call.attrs))
        self.emit(L.OP_HOST, self.entry)
        self.synced = True

    def repeat(self, loop: Repeat) -> None:
        if loop.waits:
            self.sync()
        count, level, entry, before = self.value(loop.count), len(self.loops), self.entry, self.synced
        head = self.emit(L.OP_REPEAT, entry, level, count, 0)
        begin = len(self.words)
        self.loops.append(count)
        self.synced = False  # the code is also reached from its own end
        self.entries(loop.body)
        self.loops.pop()
        self.emit(L.OP_NEXT, entry, level, count, begin)
        self.words[head + L.AT_TARGET] = len(self.words)
        self.synced = self.synced and before

    def test(self, predicate: BufferUse) -> int:
        """Append the test of a predicate; the position of the word that says where to go if it is zero."""
        at = self.launch(L.OP_TEST, 0, [self.use(predicate, 1)], [], [0])
        self.synced = True
        self.cost += _BARRIER * prod(self.loops)
        return at + self.words[at + L.AT_OPERANDS]

    def loop(self, loop: While) -> None:
        entry, begin = self.entry, len(self.words)
        self.synced = False
        self.entries(loop.condition)
        number, self.entry = self.entry, entry
        leave = self.test(loop.predicate)
        self.entry = number
        self.entries(loop.body)
        self.emit(L.OP_JUMP, entry, begin)
        self.words[leave] = len(self.words)
        self.synced = True  # only the test leads here

    def branch(self, branch: Branch) -> None:
        entry = self.entry
        otherwise = self.test(branch.predicate)
        self.entries(branch.then)
        then_synced = self.synced
        jump = self.emit(L.OP_JUMP, entry, 0)
        self.words[otherwise] = len(self.words)
        self.synced = True
        self.entries(branch.otherwise)
        self.words[jump + L.AT_JUMP] = len(self.words)
        self.synced = self.synced and then_synced
