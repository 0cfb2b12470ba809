"""Plans as text for people: one line an entry, phase `planned` of `tracemill dump`."""

from __future__ import annotations

from ..ir.dims import Dim
from .plan import (
    Branch,
    BufferUse,
    Copy,
    Entry,
    Fill,
    Host,
    KernelCall,
    Plan,
    Repeat,
    SizeSource,
    While,
)


def listing(plan: Plan) -> str:
    """The plan's declarations, buffers in use, and entries, ending in a newline."""
    lines = [f"plan {plan.name}"]
    lines += [f"  size {size.name} = {_source(plan, size)}" for size in plan.sizes]
    lines += [
        f"  input {_label('in', i)} {spec.name}: {_type(spec.dtype, spec.shape)}"
        for i, spec in enumerate(plan.inputs)
    ]
    for i, out in enumerate(plan.outputs):
        into = f" replaces {_label('in', out.replaces)}" if out.replaces >= 0 else ""
        lines.append(f"  output {_label('out', i)} {out.name}: {_type(out.dtype, out.shape)}{into}")
    lines += [f"  constant {_label('const', i)}: {len(c.data)} bytes" for i, c in enumerate(plan.constants)]
    lines += [f"  let {name} = {d}" for name, d in plan.lets]
    lines.append(f"  arena {plan.arena} bytes")
    for number, spec in enumerate(plan.buffers):
        if spec.kind == "arena":
            lines.append(
                f"  buffer b{number}: {_type(spec.dtype, spec.shape)} at {spec.offset}, {spec.nbytes} bytes"
            )
    lines.append("entries")
    printer = _Printer(plan)
    printer.entries(plan.entries, 0)
    return "\n".join(lines + printer.lines) + "\n"


def _label(kind: str, index: int) -> str:
    return f"{kind}{index}"


def _type(dtype: object, shape: tuple[Dim, ...]) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"


def _source(plan: Plan, size: SizeSource) -> str:
    if size.input < 0:
        return "given"
    text = f"{plan.inputs[size.input].name}.shape[{size.axis}]"
    if size.offset:
        text = f"({text}{-size.offset:+d})"
    return f"{text}//{size.scale}" if size.scale != 1 else text


class _Printer:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.lines: list[str] = []
        self.number = 0

    def entries(self, entries: tuple[Entry, ...], depth: int) -> None:
        for entry in entries:
            self.entry(entry, depth)

    def line(self, depth: int, text: str, node: str = "", waits: bool = False) -> None:
        """One numbered line; `|` marks an entry that waits for the ones before."""
        comment = f"  # {node}" if node else ""
        self.lines.append(f"{self.number:4} {'|' if waits else ' '} {'  ' * depth}{text}{comment}")
        self.number += 1

    def plain(self, depth: int, text: str) -> None:
        self.lines.append(f"       {'  ' * depth}{text}")

    def use(self, use: BufferUse) -> str:
        spec = self.plan.buffers[use.buffer]
        name = (
            f"b{use.buffer}"
            if spec.kind == "arena"
            else {"input": "in", "output": "out", "constant": "const"}[spec.kind] + str(spec.index)
        )
        offset = spec.offset + use.offset if spec.kind != "arena" else use.offset
        moved = f"+{offset}" if offset != 0 else ""
        steps = "".join(f"+{stride}*i{level}" for level, stride in enumerate(use.strides) if stride != 0)
        return f"{name}{moved}{steps}"

    def uses(self, uses: tuple[BufferUse, ...]) -> str:
        return ", ".join(map(self.use, uses))

    def entry(self, e: Entry, depth: int) -> None:
        match e:
            case KernelCall():
                split = len(e.buffers) - e.outputs
                extents = f" extents({', '.join(map(str, e.extents))})" if e.extents else ""
                extra = (f" grain {e.grain}" if e.grain != 1 else "") + (
                    f" scratch {e.scratch}" if e.scratch else ""
                )
                extra += " fallible" if e.fallible else ""
                extra += f" rows {e.rows}" if e.rows != 0 else ""
                name = "+".join((e.kernel, *e.links))
                text = f"{name}[{e.range}]({self.uses(e.buffers[:split])}) -> {self.uses(e.buffers[split:])}"
                self.line(depth, text + extents + extra, e.node, e.waits)
            case Copy():
                self.line(
                    depth,
                    f"copy {self.use(e.source)} -> {self.use(e.target)}, {e.nbytes} bytes",
                    e.node,
                    e.waits,
                )
            case Fill():
                self.line(
                    depth,
                    f"fill {self.use(e.target)}, {e.nbytes} bytes with 0x{e.pattern.hex()}",
                    e.node,
                    e.waits,
                )
            case Host():
                split = len(e.operands) - e.outputs
                operands = tuple(operand.use for operand in e.operands)
                attrs = "".join(f" {name}={value}" for name, value in e.attrs)
                text = f"host {e.name}({self.uses(operands[:split])}) -> {self.uses(operands[split:])}{attrs}"
                self.line(depth, text, e.node, True)
            case Repeat():
                self.line(depth, f"repeat {e.count} times", e.node, e.waits)
                self.entries(e.body, depth + 1)
            case While():
                self.line(depth, f"while {self.use(e.predicate)}", e.node)
                self.entries(e.condition, depth + 1)
                self.plain(depth, "do")
                self.entries(e.body, depth + 1)
            case Branch():
                self.line(depth, f"if {self.use(e.predicate)}", e.node, True)
                self.entries(e.then, depth + 1)
                self.plain(depth, "else")
                self.entries(e.otherwise, depth + 1)
