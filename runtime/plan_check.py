"""The rules of a plan. Breaking one is a bug of the compiler or a damaged file, never the user's doing."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.dims import Dim, SymDim, names
from ..ir.errors import InternalError
from .layout import MAX_LEVELS
from .plan import (
    Branch,
    BufferSpec,
    BufferUse,
    Copy,
    Entry,
    Fill,
    Host,
    KernelCall,
    Plan,
    Repeat,
    While,
    bodies,
    uses,
    written,
)


def validate(plan: Plan) -> None:
    """Raise InternalError if `plan` breaks a rule that does not depend on the sizes' values."""
    _check_sizes(plan)
    for i, output in enumerate(plan.outputs):
        if output.replaces >= 0:
            _require(output.replaces < len(plan.inputs), f"output {i} replaces an input that does not exist")
            source = plan.inputs[output.replaces]
            same = (source.dtype, source.shape) == (output.dtype, output.shape)
            _require(same, f"output {i} ({output.name}) replaces {source.name}, which has another type")
    replaced = [o.replaces for o in plan.outputs if o.replaces >= 0]
    _require(len(set(replaced)) == len(replaced), "two outputs replace one input")
    for number, spec in enumerate(plan.buffers):
        _check_buffer(plan, number, spec)
    for entry, levels in _walk(plan.entries, 0):
        _check_entry(plan, entry, levels)
    _check_donations(plan)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InternalError(f"invalid plan: {message}")


def _walk(entries: tuple[Entry, ...], levels: int) -> Iterator[tuple[Entry, int]]:
    """Entries with the number of `Repeat` loops around them."""
    for entry in entries:
        yield entry, levels
        for body in bodies(entry):
            yield from _walk(body, levels + isinstance(entry, Repeat))


def _dims(plan: Plan) -> Iterator[Dim]:
    yield plan.arena
    for spec in plan.inputs:
        yield from spec.shape
    for output in plan.outputs:
        yield from output.shape
    for buffer in plan.buffers:
        yield from (buffer.offset, buffer.nbytes, *buffer.shape)
    for _, entry in plan.flat:
        for use in uses(entry):
            yield from (use.offset, *use.strides)
        match entry:
            case KernelCall():
                yield from (*entry.extents, entry.range, entry.scratch, entry.work, entry.rows)
            case Copy() | Fill():
                yield entry.nbytes
            case Host():
                for operand in entry.operands:
                    yield from operand.shape
            case Repeat():
                yield entry.count


def _check_sizes(plan: Plan) -> None:
    known = {size.name for size in plan.sizes}
    _require(len(known) == len(plan.sizes), "a size is declared twice")
    for name, let in plan.lets:
        _require(name not in known and set(names(let)) <= known, f"the derived size {name} is out of order")
        known.add(name)
    seen: set[SymDim] = set()
    for dim in _dims(plan):
        if isinstance(dim, SymDim):
            if dim not in seen:
                seen.add(dim)
                unknown = next((name for name in names(dim) if name not in known), None)
                if unknown is not None:
                    _require(False, f"the expression {dim} uses the undeclared size {unknown}")
        elif type(dim) is not int:
            _require(False, f"{dim!r} is not an extent")
    for size in plan.sizes:
        if size.input >= 0:
            exists = size.input < len(plan.inputs) and 0 <= size.axis < len(plan.inputs[size.input].shape)
            _require(exists and size.scale > 0, f"size {size.name} is read from an axis that does not exist")


def _check_buffer(plan: Plan, number: int, spec: BufferSpec) -> None:
    limits = {
        "input": len(plan.inputs),
        "output": len(plan.outputs),
        "arena": 1,
        "constant": len(plan.constants),
    }
    _require(spec.kind in limits, f"buffer {number} is of unknown kind {spec.kind!r}")
    _require(0 <= spec.index < limits[spec.kind], f"buffer {number}: there is no {spec.kind} {spec.index}")


def _check_entry(plan: Plan, entry: Entry, levels: int) -> None:
    what = describe(entry)
    for use in uses(entry):
        _require(0 <= use.buffer < len(plan.buffers), f"{what} uses a buffer that does not exist")
        _require(len(use.strides) <= levels, f"{what} has more strides than loops around it")
    for use in written(entry):
        spec = plan.buffers[use.buffer]
        replaced = spec.kind == "input" and any(o.replaces == spec.index for o in plan.outputs)
        _require(spec.kind in ("output", "arena") or replaced, f"{what} writes to {spec.kind} {spec.index}")
    match entry:
        case KernelCall():
            _require(entry.grain >= 1, f"{what} has grain {entry.grain}")
            _require(0 <= entry.outputs <= len(entry.buffers), f"{what} has {entry.outputs} outputs")
            _require(entry.kernel not in entry.links, f"{what} is linked to itself")
        case Host():
            _require(0 <= entry.outputs <= len(entry.operands), f"{what} has {entry.outputs} outputs")
        case Fill():
            _require(
                len(entry.pattern) in (1, 2, 4, 8), f"{what} has a pattern of {len(entry.pattern)} bytes"
            )
        case Repeat():
            _require(levels < MAX_LEVELS, f"{what} is nested more than {MAX_LEVELS} deep")
        case While() | Branch():
            name = plan.buffers[entry.predicate.buffer].dtype.name
            _require(name == "bool", f"{what} has a predicate of dtype {name}")


def _check_donations(plan: Plan) -> None:
    """Nothing may fail once a donated input has been written: the caller's state would be half of a step."""
    donated = {output.replaces for output in plan.outputs if output.replaces >= 0}
    outputs = {i for i, output in enumerate(plan.outputs) if output.replaces >= 0}

    def memory(use: BufferUse) -> bool:
        spec = plan.buffers[use.buffer]
        return (spec.kind == "output" and spec.index in outputs) or (
            spec.kind == "input" and spec.index in donated
        )

    def scan(entries: tuple[Entry, ...], dirty: bool) -> bool:
        for entry in entries:
            if dirty and isinstance(entry, (KernelCall, Host)) and entry.fallible:
                _require(False, f"{describe(entry)} may fail after a donated input was written")
            dirty = dirty or any(memory(use) for use in written(entry))
            before = dirty
            for body in bodies(entry):
                dirty = scan(body, before) or dirty
            if isinstance(entry, (Repeat, While)) and dirty and not before:
                for body in bodies(entry):  # the next pass
                    scan(body, True)
        return dirty

    scan(plan.entries, False)


def describe(entry: Entry) -> str:
    """An entry in a few words, for messages."""
    name = {
        KernelCall: "kernel",
        Copy: "copy",
        Fill: "fill",
        Host: "host call",
        Repeat: "repeat",
        While: "while",
        Branch: "branch",
    }[type(entry)]
    detail = entry.kernel if isinstance(entry, KernelCall) else entry.name if isinstance(entry, Host) else ""
    node = f" ({entry.node})" if entry.node else ""
    return f"{name} {detail}".rstrip() + node
