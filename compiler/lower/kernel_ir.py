"""The kernel IR: an iteration space and a straight line of scalar instructions over it.

A kernel says what is computed at every point of its space; how the loops run (blocks, lanes, stages, threads) is the
template's business. Index maps are `Dim` polynomials in axis names (`i0, i1, …` kept, `r0, r1, …` reduced), size names
(`n0, …`) and integer values (`v3`), so substitution, collapsing and printing come from `ir.dims`.

An instruction's name is the value it defines. A value that depends on reduced axes exists at every point; a `Reduce`
folds it over them, in the canonical order, to one value per kept point. Over a grid (kept axes are rows, reduced ones
columns) it may also fold the rows, to one value per column, or everything; such values exist only behind a pass over
all rows (`phases`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ...ir.dims import Dim, names
from ...ir.dtypes import DType


@dataclass(frozen=True, slots=True)
class Axis:
    """One loop: `name` runs over `[0, extent)`."""

    name: str
    extent: Dim


@dataclass(frozen=True, slots=True)
class Operand:
    """A buffer: `x…` are inputs, `y…` outputs; row-major, `extents` in size names."""

    name: str
    dtype: DType
    extents: tuple[Dim, ...]
    output: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """`name = operand[address]`, converted to the compute dtype.

    Attributes:
        guard: a condition without which nothing is loaded and the value is 0 (padding, concatenation).
    """

    name: str
    operand: str
    address: Dim
    dtype: DType
    guard: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """`name = value`: an int64 computed from axes, sizes and integer values."""

    name: str
    value: Dim


@dataclass(frozen=True, slots=True)
class Bound:
    """`name = low <= at < high`, a condition on a coordinate; without `low` if it cannot be negative."""

    name: str
    at: Dim
    low: Dim | None
    high: Dim


@dataclass(frozen=True, slots=True)
class Apply:
    """`name = text`, a scalar expression over the values `args`.

    Attributes:
        cost: rough number of machine operations.
        label: the operator it came from, for readers.
    """

    name: str
    text: str
    args: tuple[str, ...]
    dtype: DType
    cost: int
    label: str


@dataclass(frozen=True, slots=True)
class Check:
    """Stop with the status code for a bad index unless `0 <= value < extent`; `site` numbers the kernel's checks.

    Attributes:
        guard: a condition without which nothing is checked.
    """

    value: str
    extent: Dim
    site: int
    guard: str = ""


# Which axes a reduction folds.
Fold = Literal["reduced", "kept", "all"]


@dataclass(frozen=True, slots=True)
class Reduce:
    """`name` = `arg` folded by the monoid of this name (`lower.monoids`) over the reduced axes, over the kept ones
    (leaving a value per column), or over all."""

    name: str
    monoid: str
    arg: str
    dtype: DType
    fold: Fold = "reduced"


@dataclass(frozen=True, slots=True)
class Store:
    """`operand[address] = value`, rounded to the operand's dtype."""

    operand: str
    address: Dim
    value: str


Instruction = Load | Index | Bound | Apply | Check | Reduce | Store


@dataclass(frozen=True)
class Kernel:
    """A kernel before it becomes source.

    Attributes:
        template: `map`, `row`, `column` or `grid`: how the space is walked.
        kept: axes of the results, outermost first; they are shared between threads. The rows of a grid.
        reduced: axes that the reductions fold, outermost first; empty for `map`. The columns of a grid.
        body: instructions, values before their uses.
        comments: lines for readers at the head of the source.
    """

    template: str
    operands: tuple[Operand, ...]
    kept: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    body: tuple[Instruction, ...]
    comments: tuple[str, ...] = ()

    @property
    def cost(self) -> int:
        """Operations of one point."""
        return sum(i.cost for i in self.body if isinstance(i, Apply))

    @cached_property
    def defined(self) -> dict[str, Instruction]:
        """The instruction that defines each value."""
        return {i.name: i for i in self.body if not isinstance(i, (Check, Store))}

    @cached_property
    def axes(self) -> dict[Instruction, frozenset[str]]:
        """The axes each instruction depends on; a reduction depends on those that it leaves."""
        kept, reduced = ({a.name for a in axes} for axes in (self.kept, self.reduced))
        known = kept | reduced
        found: dict[Instruction, frozenset[str]] = {}
        for instruction in self.body:
            own: set[str] = set()
            for name in reads(instruction):
                own |= {name} if name in known else found[self.defined[name]] if name in self.defined else set()
            if isinstance(instruction, Reduce):
                own = {"reduced": own - reduced, "kept": reduced, "all": set()}[instruction.fold]
            found[instruction] = frozenset(own)
        return found

    @cached_property
    def stages(self) -> dict[Instruction, int]:
        """How many loops over the reduced axes must have ended before each instruction can run."""
        return self._after(lambda r: r.fold == "reduced")

    @cached_property
    def phases(self) -> dict[Instruction, int]:
        """How many passes over all rows of a grid must have ended before each instruction can run."""
        return self._after(lambda r: r.fold != "reduced")

    def _after(self, counts: Callable[[Reduce], bool]) -> dict[Instruction, int]:
        """The most reductions of a kind on any way to each instruction."""
        found: dict[Instruction, int] = {}
        for i in self.body:
            before = [found[self.defined[n]] for n in reads(i) if n in self.defined]
            found[i] = max(before, default=0) + (isinstance(i, Reduce) and counts(i))
        return found

    def operand(self, name: str) -> Operand:
        """The buffer of a name."""
        return next(o for o in self.operands if o.name == name)

    def operands_behind(self, instruction: Instruction) -> frozenset[str]:
        """The input buffers that an instruction's value is computed from."""
        return self._behind[instruction]

    @cached_property
    def _behind(self) -> dict[Instruction, frozenset[str]]:
        found: dict[Instruction, frozenset[str]] = {}
        for i in self.body:
            own = frozenset({i.operand}) if isinstance(i, Load) else frozenset()
            found[i] = own.union(*(found[self.defined[n]] for n in reads(i) if n in self.defined))
        return found

    def __str__(self) -> str:
        return dump(self)


def reads(instruction: Instruction) -> Iterator[str]:
    """Names (values, axes and sizes) an instruction reads."""
    match instruction:
        case Index(value=expression):
            yield from names(expression)
        case Bound(at=at, low=low, high=high):
            for expression in (at, low or 0, high):
                yield from names(expression)
        case Load(address=address, guard=guard):
            yield from names(address)
            yield guard
        case Apply(args=args):
            yield from args
        case Check(value=value, extent=extent, guard=guard):
            yield value
            yield from names(extent)
            yield guard
        case Reduce(arg=arg):
            yield arg
        case Store(address=address, value=value):
            yield from names(address)
            yield value


def dump(kernel: Kernel) -> str:
    """The kernel as text, one instruction a line, for `--emit kernel`."""
    def operand(o: Operand) -> str:
        return f"{o.name}: {o.dtype}[{','.join(map(str, o.extents))}]"

    inputs = ", ".join(operand(o) for o in kernel.operands if not o.output)
    outputs = ", ".join(operand(o) for o in kernel.operands if o.output)
    lines = [f"# {c}" for c in kernel.comments]
    lines += [f"kernel {kernel.template} ({inputs}) -> ({outputs}) {{"]
    lines += [f"  for {a.name} < {a.extent}" for a in kernel.kept]
    lines += [f"  reduce {a.name} < {a.extent}" for a in kernel.reduced]
    lines += [f"    {_line(i)}" for i in kernel.body]
    return "\n".join([*lines, "}"]) + "\n"


def _line(instruction: Instruction) -> str:
    match instruction:
        case Load(name, operand, address, dtype, guard):
            return f"{name}: {dtype} = load {operand}[{address}]" + (f" if {guard}" if guard else "")
        case Index(name, value):
            return f"{name}: i64 = {value}"
        case Bound(name, at, low, high):
            return f"{name}: bool = " + (f"{low} <= " if low is not None else "") + f"{at} < {high}"
        case Apply(name, text, _, dtype, _, label):
            return f"{name}: {dtype} = {text}  # {label}"
        case Check(value, extent, site, guard):
            return f"check 0 <= {value} < {extent}" + (f" if {guard}" if guard else "") + f"  # site {site}"
        case Reduce(name, monoid, arg, dtype, fold):
            over = "" if fold == "reduced" else f" over {fold}"
            return f"{name}: {dtype} = reduce {monoid} {arg}{over}"
        case Store(operand, address, value):
            return f"store {operand}[{address}] = {value}"
