"""Grids: kernels that fold rows as well as columns, taken apart into passes over all rows and folds between them.

A pass runs over rows in chunks of a fixed number. Within a row it reduces over the columns as any row-wise kernel does;
into one partial result for each chunk it folds what the kernel wants summed over the rows (the gradients of a norm's
weights) or over everything (a loss). The fold behind it adds the chunks' partial results in order and computes what
follows from them for each column. Whatever is known then may enter the next pass (the mean of a batch norm, then its
variance). Chunks are what threads share, so the order of every sum is the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...ir.dims import Dim, product
from .errors import CannotLower
from .fold import BLOCK, ROWS, Accumulator
from .index_maps import axis, flatten
from .kernel_ir import Apply, Check, Instruction, Kernel, Load, Operand, Reduce, Store, reads

_CARRIED = (Apply, Load, Reduce)


@dataclass(frozen=True)
class Part:
    """One launch: a kernel of template `row` (a pass) or `fold`.

    A pass has the reductions of rows, and of everything, in its body like stores: they write to `partials`. A fold has
    them as the values that it completes.

    Attributes:
        accumulators: of those reductions.
    """

    kernel: Kernel
    accumulators: tuple[Accumulator, ...]


@dataclass(frozen=True)
class Grid:
    """A kernel's launches, in order, and the buffers between them."""

    parts: tuple[Part, ...]
    temporaries: tuple[Operand, ...]


def take_apart(kernel: Kernel) -> Grid:
    """The passes and folds of a grid.

    Raises:
        CannotLower: a pass behind a fold would have to repeat a row's reductions.
    """
    return _Apart(kernel).grid()


class _Apart:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.rows = {a.name for a in kernel.kept}
        self.columns = product([a.extent for a in kernel.reduced])
        self.home = flatten([axis(a.name) for a in kernel.reduced], [a.extent for a in kernel.reduced])
        self.accumulators: dict[Instruction, Accumulator] = {
            i: Accumulator(i, kernel) for i in kernel.body if isinstance(i, Reduce) and i.fold != "reduced"}
        # Values that one launch computes and later ones read.
        self.carried: dict[Instruction, Operand] = {}

    def grid(self) -> Grid:
        """All parts, from the last to the first: the later ones say what they need of the earlier ones."""
        parts: list[Part | None] = []
        for phase in range(max(self.kernel.phases.values()), -1, -1):
            parts.append(self._pass(phase))
            if phase:
                parts += [self._fold(phase, columns=True), self._fold(phase, columns=False)]
        partials = [o for a in self.accumulators.values() for o in self._partials(a)]
        return Grid(tuple(p for p in reversed(parts) if p is not None), (*partials, *self.carried.values()))

    def _partials(self, a: Accumulator) -> list[Operand]:
        """The partial results of a reduction, a line for each chunk of rows."""
        chunks = (product([x.extent for x in self.kernel.kept]) + (ROWS - 1)) // ROWS
        across = self.columns if a.reduce.fold == "kept" else (self.columns + (BLOCK - 1)) // BLOCK
        return [Operand(name, part, (chunks, across)) for name, part in zip(a.partials, a.monoid.parts, strict=True)]

    # -- parts ----------------------------------------------------------------------------------------------------

    def _pass(self, phase: int) -> Part | None:
        """What runs over the rows when `phase` folds are done."""
        phases, roots = self.kernel.phases, []
        for i in self.kernel.body:
            if i in self.accumulators:
                wanted = phases[i] == phase + 1
            elif isinstance(i, Store):
                wanted = phases[i] == phase and self._by_row(i)
            else:
                wanted = isinstance(i, Check) and phase == 0
            roots += [i] if wanted else []
        body = self._closure(roots, lambda i: phases[i] > 0 and not self._by_row(i))
        if phase and any(isinstance(i, Reduce) and i.fold == "reduced" for i in body):
            raise CannotLower("a reduction of a row would be repeated behind a fold over the rows")
        sinks = [self.accumulators[i] for i in roots if isinstance(i, Reduce)]
        return self._part("row", body, sinks) if roots else None

    def _fold(self, phase: int, columns: bool) -> Part | None:
        """What completes the reductions of a pass and computes what follows from them: for each column, or once."""
        phases = self.kernel.phases

        def here(i: Instruction) -> bool:
            return not self._by_row(i) and bool(self.kernel.axes[i]) is columns

        roots: list[Instruction] = [i for i in self.kernel.body if here(i) and (
            max(phases[i], 1) == phase if isinstance(i, Store) else phases[i] == phase and i in self.carried)]
        body = self._closure(roots, lambda i: phases[i] > 0 and not (here(i) and phases[i] == phase), inside=False)
        if any(isinstance(i, Reduce) and i not in self.accumulators for i in body):
            raise CannotLower("a reduction of what no row decides")
        body += [Store(self.carried[i].name, self._place(i), i.name) for i in roots if isinstance(i, _CARRIED)]
        return self._part("fold", body, [a for i, a in self.accumulators.items() if i in body]) if roots else None

    def _by_row(self, i: Instruction) -> bool:
        return bool(self.kernel.axes[i] & self.rows)

    def _closure(self, roots: list[Instruction], given: Callable[[Instruction], bool],
                 inside: bool = True) -> list[Instruction]:
        """The instructions that lead to `roots`, in order; what is `given` is loaded from where it was carried to.

        Args:
            inside: what the grid's reductions read counts too; else they are complete.
        """
        kernel, found, stack = self.kernel, set(roots), list(roots)
        loads: dict[Instruction, Load] = {}
        while stack:
            i = stack.pop()
            if i in self.accumulators and not inside:
                continue
            for n in reads(i):
                d = kernel.defined.get(n)
                if d is not None and d not in found:
                    found.add(d)
                    if given(d):
                        loads[d] = self._carry(d)
                    else:
                        stack.append(d)
        return [loads.get(i, i) for i in kernel.body if i in found]

    def _carry(self, i: Instruction) -> Load:
        """Read a value of an earlier fold from memory."""
        if not isinstance(i, _CARRIED):
            raise CannotLower("an index follows from a fold over rows")
        dtype = i.dtype.compute
        extents = (self.columns,) if self.kernel.axes[i] else ()
        operand = self.carried.setdefault(i, Operand(f"c_{i.name}", dtype, extents))
        return Load(i.name, operand.name, self._place(i), dtype)

    def _place(self, i: Instruction) -> Dim:
        return self.home if self.kernel.axes[i] else 0

    def _part(self, template: str, body: list[Instruction], accumulators: list[Accumulator]) -> Part:
        """A launch, with the buffers that its instructions touch and the partial results that it writes or reads."""
        kernel = self.kernel
        written = {i.operand for i in body if isinstance(i, Store)}
        read = {i.operand for i in body if isinstance(i, Load)}
        mine = [o for o in (*kernel.operands, *self.carried.values()) if o.name in written | read]
        partials = [o for a in accumulators for o in self._partials(a)]
        if template == "row":
            mine += [replace(o, output=True) for o in partials]
            kept, reduced = kernel.kept, kernel.reduced
        else:
            mine = [*partials, *mine]
            kept, reduced = kernel.reduced if any(kernel.axes[i] for i in body if i in kernel.axes) else (), ()
        mine = [replace(o, output=o.output or o.name in written) for o in mine]
        operands = (*(o for o in mine if not o.output), *(o for o in mine if o.output))
        names = " ".join(i.label for i in body if isinstance(i, Apply))
        part = Kernel(template, operands, kept, reduced, tuple(body), (f"{template} of a grid: {names or 'copy'}",))
        return Part(part, tuple(accumulators))
