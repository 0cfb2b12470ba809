"""Writing a kernel's Python: lines, extents as arguments, index expressions, instructions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ...ir.dims import Atom, Dim, sym
from ...ir.dtypes import DType
from ..backend import intrinsics
from ..kernel import STATUS_INDEX, KernelSource
from ..mathlib import FUNCTIONS
from . import helpers, lanes, memory
from .index_maps import coefficients, is_size
from .kernel_ir import Apply, Axis, Bound, Check, Index, Instruction, Kernel, Load, Operand, Store
from .scalars import literal

_WORD = re.compile(r"[A-Za-z_]\w*")
SIGNATURE = "def kernel(buffers, extents, begin, end, scratch, status):"


def storage(dtype: DType) -> str:
    """The pointer type of a dtype's storage."""
    return "u16" if dtype.name in ("f16", "bf16") else dtype.name


class Writer:
    """Lines of one kernel function, and the extents it takes.

    Extents are expressions in the group's size names; each distinct one that the text needs becomes an argument, in
    order of first use, so products and strides are computed when sizes are bound and not in the kernel.

    Args:
        prefix: of the arguments' names.
    """

    def __init__(self, prefix: str = "n") -> None:
        self._prefix = prefix
        self.lines: list[str] = []
        self.extents: dict[Dim, str] = {}
        self._depth = 1

    def line(self, text: str = "") -> None:
        """One line at the current depth."""
        self.lines.append("    " * self._depth + text if text else "")

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """A statement with an indented body."""
        self.line(head)
        self._depth += 1
        yield
        self._depth -= 1

    # -- index expressions ----------------------------------------------------------------------------------------

    def extent(self, d: Dim) -> str:
        """An expression in size names as the text of an argument (a plain integer stays)."""
        if isinstance(d, int):
            return str(d)
        return self.extents.setdefault(d, f"{self._prefix}{len(self.extents)}")

    def expression(self, d: Dim) -> str:
        """An index expression as text."""
        terms = []
        for moving, coefficient in coefficients(d).items():
            parts = [self._atom(a) for a in moving]
            factor = self.extent(coefficient)
            if not parts or factor != "1":
                parts.append(factor)
            terms.append(" * ".join(parts))
        return " + ".join(terms) or "0"

    def _atom(self, atom: Atom) -> str:
        if isinstance(atom, str):
            return self.extent(sym(atom)) if is_size(atom) else atom
        left, right = self.expression(atom.left), self.expression(atom.right)
        function = {"//": "udiv", "%": "urem", "max": "max"}[atom.op]
        return f"{function}({left}, {right})"

    def decode(self, position: str, axes: tuple[Axis, ...]) -> None:
        """Set the axes' variables from a row-major position (an expression) over them."""
        if len(axes) == 1:
            self.line(f"{axes[0].name} = {position}")
            return
        rest = position
        for k in range(len(axes) - 1, 0, -1):
            extent = self.extent(axes[k].extent)
            self.line(f"rest{k} = udiv({rest}, {extent})")
            self.line(f"{axes[k].name} = {rest} - rest{k} * {extent}")
            rest = f"rest{k}"
        if axes:
            self.line(f"{axes[0].name} = {rest}")

    # -- instructions ---------------------------------------------------------------------------------------------

    def pointers(self, operands: Iterable[Operand]) -> None:
        """Bind the operands to their slots."""
        for slot, operand in enumerate(operands):
            self.line(f"{operand.name} = {storage(operand.dtype)}_ptr(buffers, {slot})")

    def instruction(self, instruction: Instruction, operands: dict[str, Operand]) -> None:
        """The line of one instruction other than a reduction."""
        match instruction:
            case Load(name, operand, address, dtype, guard):
                text = load(dtype, f"{operand}[{self.expression(address)}]")
                otherwise = f" if {guard} else {literal(0, dtype.compute)}" if guard else ""
                self.line(f"{name} = {text}{otherwise}")
            case Index(name, value):
                self.line(f"{name} = {self.expression(value)}")
            case Bound(name, at, low, high):
                position = self.expression(at)
                text = f"({position} < {self.expression(high)})"
                if low is not None:
                    text = f"({position} >= {self.expression(low)}) & {text}"
                self.line(f"{name} = {text}")
            case Apply(name, text):
                self.line(f"{name} = {text}")
            case Check(value, extent, site, guard):
                limit = self.expression(extent)
                bad = f"({value} < 0 or {value} >= {limit})"
                with self.block(f"if {guard} and {bad}:" if guard else f"if {bad[1:-1]}:"):
                    self.line(f"return fail(status, {STATUS_INDEX}, {site}, {value}, {limit})")
            case Store(operand, address, value):
                text = store(operands[operand].dtype, value)
                self.line(f"{operand}[{self.expression(address)}] = {text}")

    def instructions(self, body: Iterable[Instruction], kernel: Kernel) -> None:
        """The lines of instructions, in order."""
        operands = {o.name: o for o in kernel.operands}
        for i in body:
            self.instruction(i, operands)

    def kernel(self, kernel: Kernel, operands: Iterable[Operand]) -> KernelSource:
        """The finished source."""
        head = [f"    n{i} = extents[{i}]" for i in range(len(self.extents))]
        body = "\n".join([SIGNATURE, *head, *self.lines, "    return 0"])
        fallible = any(isinstance(i, Check) for i in kernel.body)
        return KernelSource("kernel", module(body, kernel.comments), len(list(operands)),
                            tuple(str(d) for d in self.extents), fallible=fallible)


def load(dtype: DType, text: str) -> str:
    """A stored element in its compute dtype."""
    return f"{dtype}_to_f32({text})" if storage(dtype) == "u16" else text


def store(dtype: DType, value: str) -> str:
    """A value in the compute dtype as it is stored."""
    return f"f32_to_{dtype}({value})" if storage(dtype) == "u16" else value


def module(body: str, comments: Iterable[str] = ()) -> str:
    """A module around a kernel: comments for readers, imports of exactly the names it uses."""
    used = sorted(set(_WORD.findall(body)))
    homes: dict[str, list[str]] = {}
    for name in used:
        if name in intrinsics.__all__:
            homes.setdefault("backend.intrinsics", []).append(name)
        elif name in helpers.__all__:
            homes.setdefault("lower.helpers", []).append(name)
        elif name in lanes.__all__:
            homes.setdefault("lower.lanes", []).append(name)
        elif name in memory.__all__:
            homes.setdefault("lower.memory", []).append(name)
        elif name.startswith("tm_"):
            _, operator, dtype = name.split("_")
            python = FUNCTIONS[operator, dtype].python
            homes.setdefault(python.__module__.removeprefix("tracemill.compiler."), []).append(name)
    lines = [f"# {c}" for c in comments]
    lines += [f"from tracemill.compiler.{home} import {', '.join(homes[home])}" for home in sorted(homes)]
    return "\n".join(lines) + "\n\n\n" + body + "\n"
