"""Do a plan's barriers suffice? A run in plain Python that watches every access.

Each byte remembers who wrote it and who read it since the last barrier that all workers passed. What one worker
touches between two barriers no other may write, and what it writes no other may touch: then no timing of the workers
can change a result. (Happens-before with barriers as the only synchronisation; Netzer and Miller, "What are race
conditions?", 1992.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from .buffers import Array
from .plan import Branch, BufferUse, Copy, Entry, Fill, Host, KernelCall, Plan, Repeat, While
from .plan_check import describe
from .reference_runner import PythonKernel, ReferenceRun


def find_races(
    plan: Plan,
    kernels: Mapping[str, PythonKernel],
    inputs: Sequence[Array],
    sizes: Mapping[str, int] | None = None,
    *,
    workers: int = 3,
) -> list[str]:
    """Run a plan once, as `run_reference` does, and say which entries meet another worker's bytes without a barrier.

    Args:
        workers: number of shares.

    Returns:
        one line an entry, none if there is no race.
    """
    if sizes is None:
        sizes = {s.name: (inputs[s.input].shape[s.axis] - s.offset) // s.scale for s in plan.sizes}
    run = _Watched(plan, kernels, plan.with_lets(sizes), workers, False, ())
    run.run(inputs)
    return list(run.found)


class _Pointer:
    """An operand that notes what is read and written through it."""

    def __init__(self, run: _Watched, values: Array, at: Array) -> None:
        self._run, self._values, self._at = run, values, at
        self.dtype, self.size = values.dtype, values.size

    def view(self, dtype: Any) -> _Pointer:
        values = self._values.view(dtype)
        if values.itemsize != self._values.itemsize:
            raise TypeError("a watched operand keeps the size of its elements")
        return _Pointer(self._run, values, self._at)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Pointer(self._run, self._values[index], self._at[index])
        self._run.read(self._at[index], self.dtype.itemsize)
        return self._values[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._run.write(self._at[index], self.dtype.itemsize)
        self._values[index] = value

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        self._run.read(self._at, self.dtype.itemsize)
        return np.array(self._values, dtype)


def _bytes(at: Any, itemsize: int) -> Array:
    """Places of all bytes of the elements that begin at `at`."""
    return (np.asarray(at)[..., None] + np.arange(itemsize)).reshape(-1)


class _Watched(ReferenceRun):
    """The reference run with a shadow of all memory, byte by byte."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        self.found: dict[str, None] = {}
        self.worker = 0
        self.epoch = 1
        self._body: tuple[Entry, ...] = ()
        self._place_shadow()
        return super().run(inputs)

    # -- memory -------------------------------------------------------------------------------------------------

    def _place_shadow(self) -> None:
        """Give every input, output, constant and the arena a part of the shadow."""
        keys = []
        spaces: dict[tuple[str, int], int] = {}
        for spec in self.plan.buffers:
            replaced = self.plan.outputs[spec.index].replaces if spec.kind == "output" else -1
            keys.append(("input", replaced) if replaced >= 0 else (spec.kind, spec.index))
            spaces[keys[-1]] = max(spaces.get(keys[-1], 0), self.value(spec.offset) + self.value(spec.nbytes))
        starts = dict(zip(spaces, accumulate(spaces.values(), initial=0), strict=False))
        self._bases = [
            starts[key] + self.value(spec.offset) for key, spec in zip(keys, self.plan.buffers, strict=True)
        ]
        total = sum(spaces.values())
        self._writer, self._written = np.zeros(total, np.int32), np.zeros(total, np.int32)
        self._read = np.zeros((self.workers, total), np.int32)

    def _address(self, use: BufferUse) -> int:
        at = self._bases[use.buffer] + self.value(use.offset)
        return at + sum(self.value(stride) * i for stride, i in zip(use.strides, self.counters, strict=False))

    def flat(self, use: BufferUse) -> Any:
        values = super().flat(use)
        return _Pointer(self, values, self._address(use) + np.arange(values.size) * values.itemsize)

    def read(self, at: Any, itemsize: int) -> None:
        """The current worker reads elements."""
        touched = _bytes(at, itemsize)
        self._read[self.worker, touched] = self.epoch
        self._compare_writers(touched)

    def write(self, at: Any, itemsize: int) -> None:
        """The current worker writes elements."""
        touched = _bytes(at, itemsize)
        self._compare_writers(touched)
        others = [w for w in range(self.workers) if w != self.worker]
        if np.any(self._read[others][:, touched] == self.epoch):
            self._note()
        self._written[touched] = self.epoch
        self._writer[touched] = self.worker

    def _compare_writers(self, touched: Array) -> None:
        if np.any((self._written[touched] == self.epoch) & (self._writer[touched] != self.worker)):
            self._note()

    def _note(self) -> None:
        self.found.setdefault(f"entry {self.entry}: {describe(self.plan.flat[self.entry][1])}")

    # -- entries ------------------------------------------------------------------------------------------------

    def barrier(self) -> None:
        """All workers meet."""
        self.epoch += 1

    def entries(self, entries: tuple[Entry, ...]) -> None:
        if entries is not self._body:  # a way that a predicate decided, or the start
            self.barrier()
        for entry in entries:
            if isinstance(entry, (Host, While, Branch)) or entry.waits:
                self.barrier()
            super().entries((entry,))
            if isinstance(entry, (Host, While, Branch)) or (isinstance(entry, KernelCall) and entry.fallible):
                self.barrier()

    def repeat(self, loop: Repeat) -> None:
        around, self._body = self._body, loop.body
        super().repeat(loop)
        self._body = around

    def move_share(self, entry: Copy | Fill, worker: int, begin: int, end: int) -> None:
        self.worker = worker
        if isinstance(entry, Copy):
            self.read(self._address(entry.source) + np.arange(begin, end), 1)
        self.write(self._address(entry.target) + np.arange(begin, end), 1)
        super().move_share(entry, worker, begin, end)

    def launch(self, call: KernelCall, worker: int, begin: int, end: int) -> Array | None:
        self.worker = worker
        return super().launch(call, worker, begin, end)


__all__ = ["find_races"]
