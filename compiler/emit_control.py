"""Emission of control flow: loops over slices, branches, loops with a condition.

A loop's body writes its results where they belong. A stacked result's slice is written by the kernel that computes it.
A carry that is also stacked (its value before a step, after it, or both) lives in one array with a slice more than
there are steps: a step reads one slice and writes the next, and both stacks are views of that array. Any other carry
has one place; its new value takes over the old one's memory if all that read the old one have run by then. What cannot
be had like that is copied at the end of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..ir.dims import Dim
from ..ir.node import Node
from ..ir.types import TensorType
from ..runtime import plan as rt
from .schedule import Cell, cell_of
from .slots import Place, PlanEntry

if TYPE_CHECKING:
    from .emit import Level

Targets = Mapping[Cell, Place]
_LAUNCHLESS = frozenset({"input", "constant"})


class _Scan:
    """Places of one scan: of its carries before and after a step, of its stacked results, of its results."""

    def __init__(self, level: Level, node: Node, targets: Targets) -> None:
        self.level, self.node, self.attrs = level, node, node.attrs
        self.n_carry = self.attrs.n_carry
        self.body = self.attrs.body
        self.before: list[Place] = []  # of each carry, moving with the loop
        self.after: list[Place] = []
        self.inits: list[Place] = []
        self.results: dict[int, Place] = {}
        self.wanted = {r: p for (n, r), p in targets.items() if n is node}
        self.shared = self._shared()
        for k in range(self.n_carry):
            if k in self.shared:
                self._history(k)
            else:
                where = self.wanted.get(k) or level.temporary(node.result_types[k])
                self.before.append(where)
                self.after.append(where)
                self.inits.append(where)
                self.results[k] = where
        self.stacks = self._stacks()

    def _shared(self) -> dict[int, list[int]]:
        """Carries that live in an array of all their values, each with the stacked results that are views of it."""
        cells = [cell_of(o) for o in self.body.outputs]
        found: dict[int, list[int]] = {}
        for k in range(self.n_carry):
            old, new = (self.body.input_node(k), 0), cells[k]
            stacks = [i for i in range(self.n_carry, len(cells)) if cells[i] in (old, new)]
            if stacks and new[0].op.name not in _LAUNCHLESS and new not in cells[:k]:
                found[k] = stacks
        return found

    def _history(self, k: int) -> None:
        """Give a carry an array with a slice for its first value and one for each step."""
        a, t = self.attrs, self.node.result_types[k]
        size = t.nbytes
        array = self.level.temporary(t.with_shape((a.length + 1, *t.shape)))
        last: Dim = a.length * size
        old, new = (last, last - size) if a.reverse else (0, size)
        first, final = (last, 0) if a.reverse else (0, last)
        self.before.append(self.moving(replace(array, offset=old, nbytes=size), size))
        self.after.append(self.moving(replace(array, offset=new, nbytes=size), size))
        self.inits.append(replace(array, offset=first, nbytes=size))
        self.results[k] = replace(array, offset=final, nbytes=size)
        for i in self.shared[k]:
            is_old = cell_of(self.body.outputs[i]) == (self.body.input_node(k), 0)
            at: Dim = size if is_old == a.reverse else 0
            self.results[i] = replace(array, offset=at, nbytes=last)

    def _stacks(self) -> dict[int, Place]:
        """The other stacked results: their slices of the current step. Equal ones share their memory."""
        found: dict[int, Place] = {}
        known: dict[Cell, int] = {}
        for i in range(self.n_carry, len(self.body.outputs)):
            cell = cell_of(self.body.outputs[i])
            if i in self.results:
                continue
            if cell in known:
                self.results[i] = self.results[known[cell]]
                continue
            t = self.node.result_types[i]
            self.results[i] = self.wanted.get(i) or self.level.temporary(t)
            known[cell] = i
            found[i] = self.row(self.results[i], t)
        return found

    def row(self, where: Place, t: TensorType) -> Place:
        """The slice of the current step of a stack."""
        a = self.attrs
        size = t.with_shape(t.shape[1:]).nbytes
        return self.moving(where.shifted((a.length - 1) * size if a.reverse else 0), size)

    def moving(self, where: Place, size: Dim) -> Place:
        """A place of `size` bytes that moves by its size with each step."""
        outer = (*where.strides, *(0,) * (self.level.depth - len(where.strides)))
        return replace(where, strides=(*outer, -size if self.attrs.reverse else size), nbytes=size)

    def emit(self) -> None:
        """The first values, the loop, and copies of results that have to be elsewhere."""
        a, level, node = self.attrs, self.level, self.node
        for init, where in zip(node.inputs, self.inits, strict=False):
            level.copy(level.at(init), where, init.tensor_type, "carry")
        level.touch_later([*self.results.values()])
        xs = node.inputs[self.n_carry : self.n_carry + a.n_xs]
        level.open_loop()
        operands = [
            *self.before,
            *(self.row(level.at(x), x.tensor_type) for x in xs),
            *(level.at(c) for c in node.inputs[self.n_carry + a.n_xs :]),
        ]
        outputs = [*range(self.n_carry), *self.stacks]
        replaces = [k if k < self.n_carry and k not in self.shared else None for k in outputs]
        body = replace(
            self.body, outputs=tuple(self.body.outputs[i] for i in outputs), output_names=(), donations=tuple(replaces)
        )
        inner = level.body(body, operands, [*self.after, *self.stacks.values()], loops=1)
        step = level.close_loop()
        label = f"{node.place.scope}/scan"

        def make(uses: Sequence[rt.BufferUse], waits: bool, body: tuple[rt.Entry, ...]) -> rt.Entry:
            return rt.Repeat(a.length, body, label, waits)

        level.entries.append(PlanEntry(make, [], [], step, (inner,), repeats=level.depth + 1))
        for r, where in sorted(self.results.items()):
            target = self.wanted.get(r, where)
            if target is not where:
                level.copy(where, target, node.result_types[r], "output")
            level.values[node, r] = target


def _scan(level: Level, node: Node, targets: Targets) -> None:
    _Scan(level, node, targets).emit()


def _cond(level: Level, node: Node, targets: Targets) -> None:
    predicate = level.at(node.inputs[0])
    operands = [level.at(i) for i in node.inputs[1:]]
    results = level.results_at(node, targets)
    level.touch([predicate, *operands, *results])
    branches = tuple(level.body(g, operands, results, loops=0) for g in (node.attrs.then, node.attrs.other))
    step = level.touch([*operands, *results])

    def make(
        uses: Sequence[rt.BufferUse], waits: bool, then: tuple[rt.Entry, ...], other: tuple[rt.Entry, ...]
    ) -> rt.Entry:
        return rt.Branch(uses[0], then, other, f"{node.place.scope}/cond")

    level.entries.append(PlanEntry(make, [predicate], [], step, branches))


def _while(level: Level, node: Node, targets: Targets) -> None:
    a = node.attrs
    results = level.results_at(node, targets)
    for init, where in zip(node.inputs[: a.n_carry], results, strict=True):
        level.copy(level.at(init), where, init.tensor_type, "carry")
    predicate = level.temporary(a.cond.outputs[0].tensor_type)
    level.touch_later([predicate])
    level.open_loop()
    operands = [*results, *(level.at(c) for c in node.inputs[a.n_carry :])]
    test = level.body(a.cond, operands, [predicate], loops=0)
    body = replace(a.body, donations=tuple(range(a.n_carry)))
    inner = level.body(body, operands, results, loops=0)
    level.touch([predicate, *operands])
    step = level.close_loop()

    def make(
        uses: Sequence[rt.BufferUse], waits: bool, condition: tuple[rt.Entry, ...], body: tuple[rt.Entry, ...]
    ) -> rt.Entry:
        return rt.While(uses[0], condition, body, f"{node.place.scope}/while")

    level.entries.append(PlanEntry(make, [predicate], [], step, (test, inner)))


def _custom_vjp(level: Level, node: Node, targets: Targets) -> None:
    results = level.results_at(node, targets)
    level.entries += level.body(node.attrs.forward, [level.at(i) for i in node.inputs], results, loops=0)


CONTROL: Mapping[str, Callable[..., None]] = {
    "scan": _scan,
    "cond": _cond,
    "while": _while,
    "custom_vjp": _custom_vjp,
}

__all__ = ["CONTROL"]
