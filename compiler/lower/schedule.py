"""Stages of a kernel with reductions: what runs in which pass over the reduced axes.

Stage s runs between the s-th and the next pass: first the values of the kept point that are known by then, then a pass
that folds the reductions and writes the outputs whose values are. Values that a later pass needs again are computed
again if that is cheap, else held.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .kernel_ir import Apply, Check, Instruction, Kernel, Reduce, Store, reads
from .scalars import EXPENSIVE


@dataclass
class Pass:
    """One pass over the reduced axes.

    Attributes:
        body: the values computed at every point, in order.
        reduces, stores: what the pass is for.
        sinks: reductions of rows or of everything that take a value at every point, like stores.
        restored: values held by an earlier pass that this one reads back.
        held: values of `body` that this pass keeps for later ones.
    """

    body: list[Instruction] = field(default_factory=list)
    reduces: list[Reduce] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    sinks: list[Reduce] = field(default_factory=list)
    restored: list[Apply] = field(default_factory=list)
    held: list[Apply] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.reduces or self.stores or self.sinks or any(isinstance(i, Check) for i in self.body))


@dataclass
class Stage:
    """Instructions of the kept point, then a pass."""

    head: list[Instruction]
    work: Pass


class Schedule:
    """The stages of a kernel.

    Args:
        hold: whether expensive values are kept between passes.
    """

    def __init__(self, kernel: Kernel, hold: bool) -> None:
        self.kernel, self._hold = kernel, hold
        reduced = {a.name for a in kernel.reduced}
        self.full = {i for i in kernel.body if kernel.axes[i] & reduced}
        self.position = {i: k for k, i in enumerate(kernel.body)}
        self._computed: dict[Instruction, Pass] = {}
        self.held: list[Apply] = []
        self.stages = [self._stage(s) for s in range(max(kernel.stages.values(), default=0) + 1)]

    def _stage(self, number: int) -> Stage:
        kernel, stages = self.kernel, self.kernel.stages
        head: list[Instruction] = [
            i for i in kernel.body if stages[i] == number and i not in self.full and not isinstance(i, Reduce)]
        work = Pass()
        roots: list[Instruction] = []
        for i in kernel.body:
            if isinstance(i, Reduce) and i.fold != "reduced":
                if stages[i] == number:
                    work.sinks.append(i)
                    roots.append(kernel.defined[i.arg])
            elif isinstance(i, Reduce) and stages[i] == number + 1:
                work.reduces.append(i)
                roots.append(kernel.defined[i.arg])
            elif i in self.full and stages[i] == number and isinstance(i, (Store, Check)):
                if isinstance(i, Store):
                    work.stores.append(i)
                roots.append(i)
        needed: set[Instruction] = set()
        pending = [i for i in roots if i in self.full]
        while pending:
            i = pending.pop()
            if i in needed or i in work.restored:
                continue
            if isinstance(i, Apply) and self._worth_holding(i):
                work.restored.append(i)
                continue
            needed.add(i)
            pending += [d for n in reads(i) if (d := kernel.defined.get(n)) in self.full and d is not None]
        work.body = sorted((i for i in needed if not isinstance(i, Store)), key=self.position.__getitem__)
        work.restored.sort(key=self.position.__getitem__)
        for i in work.body:
            self._computed.setdefault(i, work)
        return Stage(head, work)

    def _worth_holding(self, i: Apply) -> bool:
        """Whether an earlier pass computed this value at a cost; if so it is held there from now on."""
        earlier = self._computed.get(i)
        if earlier is None or not self._hold or self._cost(i, set()) < EXPENSIVE:
            return False
        if i not in earlier.held:
            earlier.held.append(i)
            self.held.append(i)
        return True

    def _cost(self, i: Instruction, seen: set[Instruction]) -> int:
        if i in seen or i not in self.full:
            return 0
        seen.add(i)
        own = i.cost if isinstance(i, Apply) else 0
        return own + sum(self._cost(self.kernel.defined[n], seen) for n in reads(i) if n in self.kernel.defined)


__all__ = ["Pass", "Schedule", "Stage"]
