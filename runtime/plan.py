"""Plans: what a compiled graph is once no pass has anything left to decide.

A plan is a tree of entries (kernel launches, copies, fills, host calls, loops, branches) over a flat table of
buffers. Sizes, offsets and ranges are expressions in the plan's named sizes, so one plan serves every batch
size. Nothing in a plan refers to the compiler: kernels are named by a key, and the runtime gets their code
beside the plan.

Contract with the planner, beyond what `validate` checks:

- `waits` of an entry says that some earlier launch, by any worker, must be complete before it starts. In a
  loop body "earlier" includes the preceding pass. A launch without it may start while other workers are still
  in the one before.
- A predicate is read behind a barrier of its own: entries that follow it need not wait for what preceded it.
- Fallible entries come before every write to a donated input.
- `bind.shares` says which worker gets which part of a range; equal ranges and grains are split equally, and so
  are launches with equally many rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ..ir.dims import Dim, SymDim, evaluate, names
from ..ir.dtypes import DType

FORMAT = 2

BufferKind = Literal["input", "output", "arena", "constant"]


@dataclass(frozen=True, slots=True)
class BufferSpec:
    """A piece of memory: input or output number `index`, constant number `index`, or bytes of the arena.

    Attributes:
        offset: bytes from the start of the input, output, constant or arena.
        nbytes: length (an arena buffer may be longer than its shape needs).
        dtype, shape: how host functions and listings see it.
    """

    kind: BufferKind
    index: int
    offset: Dim
    nbytes: Dim
    dtype: DType
    shape: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class BufferUse:
    """An operand: a buffer from a byte offset on, plus a byte stride per enclosing `Repeat`, outermost first.

    Fewer strides than enclosing loops mean zero for the inner ones. Inputs that are donated may be named by
    the input or by the output: it is the same memory.
    """

    buffer: int
    offset: Dim = 0
    strides: tuple[Dim, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """What a node number that a kernel writes into its status means.

    Attributes:
        node: the number.
        operator: name of the operator, for the message.
        site: number of the place in the table that the executable was given (places are not part of a plan),
            or -1.
    """

    node: int
    operator: str
    site: int = -1


@dataclass(frozen=True, slots=True)
class KernelCall:
    """Launch a kernel over `[0, range)`, split among the workers.

    Attributes:
        kernel: key of its code.
        buffers: operands, inputs then outputs, the last `outputs` of them written.
        extents: its int64 arguments.
        grain: no worker gets fewer units than this (unless the whole range has fewer).
        scratch: bytes of private memory per worker.
        fallible: it may return nonzero; the run then stops before any later entry.
        waits: see the module's text.
        links: keys of kernels that this one calls itself; their addresses come before the operands.
        work: estimated scalar operations and element accesses, to decide whether threads pay.
        node: label for listings and profiles (`layers.0.linear/dot_general`).
        rows: the range has equal parts for so many rows, and the workers share whole rows, all launches with as many
            rows in the same way; 0: there are no rows.
    """

    kernel: str
    buffers: tuple[BufferUse, ...]
    extents: tuple[Dim, ...]
    range: Dim
    outputs: int = 1
    grain: int = 1
    scratch: Dim = 0
    fallible: bool = False
    waits: bool = True
    work: Dim = 0
    node: str = ""
    faults: tuple[Fault, ...] = ()
    links: tuple[str, ...] = ()
    rows: Dim = 0


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy `nbytes` from `source` to `target`; they are the same memory or do not overlap."""

    source: BufferUse
    target: BufferUse
    nbytes: Dim
    waits: bool = True
    node: str = ""


@dataclass(frozen=True, slots=True)
class Fill:
    """Fill `nbytes` of `target` with a repeated pattern of 1, 2, 4 or 8 bytes."""

    target: BufferUse
    nbytes: Dim
    pattern: bytes = b"\0"
    waits: bool = True
    node: str = ""


@dataclass(frozen=True, slots=True)
class HostOperand:
    """An operand of a host call with the type that the function sees."""

    use: BufferUse
    dtype: DType
    shape: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """Park the workers and call the host function `name` with NumPy views (the last `outputs` writable).

    `attrs` are keyword arguments: numbers, strings, booleans, None or (nested) lists of such. Always waits.
    """

    name: str
    operands: tuple[HostOperand, ...]
    outputs: int = 1
    attrs: tuple[tuple[str, Any], ...] = ()
    fallible: bool = True
    node: str = ""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Repeat:
    """The body, `count` times. Uses in it move by their stride with each pass; negative goes backwards.

    `waits`: all that came before must be complete before the first pass, as for a launch.
    """

    count: Dim
    body: tuple[Entry, ...]
    node: str = ""
    waits: bool = False


@dataclass(frozen=True, slots=True)
class While:
    """`condition`, then, while the byte at `predicate` is set, `body` and `condition` again."""

    predicate: BufferUse
    condition: tuple[Entry, ...]
    body: tuple[Entry, ...]
    node: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """`then` if the byte at `predicate` is set, else `otherwise`."""

    predicate: BufferUse
    then: tuple[Entry, ...]
    otherwise: tuple[Entry, ...]
    node: str = ""


Entry = KernelCall | Copy | Fill | Host | Repeat | While | Branch


@dataclass(frozen=True, slots=True)
class PlanInput:
    """An input: its name in messages, dtype and shape."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class PlanOutput:
    """An output; `replaces` is the number of the input whose memory it is written to (donation), or -1."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]
    replaces: int = -1


@dataclass(frozen=True, slots=True)
class SizeSource:
    """Where a size comes from: axis `axis` of input `input` is `scale * size + offset`; -1: the caller."""

    name: str
    input: int = -1
    axis: int = 0
    scale: int = 1
    offset: int = 0


@dataclass(frozen=True)
class Constant:
    """Constant bytes, 64-byte aligned when they run."""

    data: bytes

    @cached_property
    def digest(self) -> str:
        """Identifies the bytes where they are stored outside the plan."""
        return hashlib.blake2b(self.data, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Plan:
    """A whole executable graph without its kernels' code. See the module's text.

    Attributes:
        sizes: the named sizes, in a fixed order; all others must not occur.
        arena: bytes of temporaries: the graph's peak.
        lets: derived sizes `(name, expression)`, each over the sizes and earlier names: what offsets have in
            common.
    """

    name: str
    sizes: tuple[SizeSource, ...]
    inputs: tuple[PlanInput, ...]
    outputs: tuple[PlanOutput, ...]
    buffers: tuple[BufferSpec, ...]
    entries: tuple[Entry, ...]
    constants: tuple[Constant, ...] = ()
    arena: Dim = 0
    attrs: dict[str, Any] = field(default_factory=dict, hash=False)
    lets: tuple[tuple[str, Dim], ...] = ()

    @property
    def donations(self) -> tuple[tuple[int, int], ...]:
        """Pairs (output, input whose memory it replaces)."""
        return tuple((i, o.replaces) for i, o in enumerate(self.outputs) if o.replaces >= 0)

    @cached_property
    def flat(self) -> tuple[tuple[int, Entry], ...]:
        """All entries with their nesting depth, as listed; an entry's number is its position here."""
        return tuple(_flatten(self.entries, 0))

    def with_lets(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Values of the named sizes and of all derived ones."""
        values = dict(sizes)
        for name, d in self.lets:
            values[name] = evaluate(d, values)
        return values

    def read_sizes(self, shapes: Sequence[Sequence[int]], given: Mapping[str, int]) -> dict[str, int]:
        """The named sizes: those of `given`, the others read off the inputs' shapes."""
        values: dict[str, int] = {}
        for s in self.sizes:
            values[s.name] = (
                given[s.name] if s.name in given else (shapes[s.input][s.axis] - s.offset) // s.scale
            )
        return values

    @property
    def kernels(self) -> tuple[str, ...]:
        """Keys of the kernels it calls, linked ones included, each once, in order of first use."""
        calls = [e for _, e in self.flat if isinstance(e, KernelCall)]
        return tuple(dict.fromkeys(key for e in calls for key in (e.kernel, *e.links)))

    @property
    def links(self) -> tuple[str, ...]:
        """Keys of the linked kernels, each once, in order of first use."""
        calls = [e for _, e in self.flat if isinstance(e, KernelCall)]
        return tuple(dict.fromkeys(key for e in calls for key in e.links))

    def to_bytes(self, **options: Any) -> bytes:
        """Serialised form; see `plan_format.encode`."""
        from .plan_format import encode

        return encode(self, **options)

    @staticmethod
    def from_bytes(data: bytes | memoryview, **options: Any) -> Plan:
        """The plan of its serialised form, validated; see `plan_format.decode`."""
        from .plan_format import decode

        return decode(data, **options)

    def to_text(self) -> str:
        """A listing, one line an entry."""
        from .plan_text import listing

        return listing(self)

    def validate(self) -> None:
        """Raise InternalError if the plan breaks its rules; see `plan_check`."""
        from .plan_check import validate

        validate(self)


def _flatten(entries: tuple[Entry, ...], depth: int) -> Iterator[tuple[int, Entry]]:
    for entry in entries:
        yield depth, entry
        for body in bodies(entry):
            yield from _flatten(body, depth + 1)


def bodies(entry: Entry) -> tuple[tuple[Entry, ...], ...]:
    """The entries nested in one, in the order of listings."""
    if isinstance(entry, Repeat):
        return (entry.body,)
    if isinstance(entry, While):
        return (entry.condition, entry.body)
    if isinstance(entry, Branch):
        return (entry.then, entry.otherwise)
    return ()


def uses(entry: Entry) -> tuple[BufferUse, ...]:
    """The operands of one entry itself, nested entries left out: what it reads, then what it writes."""
    if isinstance(entry, KernelCall):
        return entry.buffers
    if isinstance(entry, Copy):
        return (entry.source, entry.target)
    if isinstance(entry, Fill):
        return (entry.target,)
    if isinstance(entry, Host):
        return tuple(operand.use for operand in entry.operands)
    if isinstance(entry, Repeat):
        return ()
    return (entry.predicate,)


def written(entry: Entry) -> tuple[BufferUse, ...]:
    """The operands that one entry itself writes."""
    if isinstance(entry, (KernelCall, Host)):
        return uses(entry)[len(uses(entry)) - entry.outputs :]
    if isinstance(entry, (Copy, Fill)):
        return (entry.target,)
    return ()


def find_sizes(inputs: tuple[PlanInput, ...], extra: tuple[str, ...] = ()) -> tuple[SizeSource, ...]:
    """Where each named size can be read off the inputs: the first axis that is linear in it alone.

    Args:
        inputs: the plan's inputs.
        extra: further names; those that no axis gives must come from the caller of `run`.
    """
    found: dict[str, SizeSource] = {}
    mentioned: dict[str, None] = {}
    for i, spec in enumerate(inputs):
        for axis, dim in enumerate(spec.shape):
            for name in names(dim):
                mentioned.setdefault(name)
            source = _linear(dim, i, axis)
            if source is not None:
                best = found.get(source.name)
                if best is None or (best.scale != 1 and source.scale == 1):
                    found[source.name] = source
    for name in extra:
        mentioned.setdefault(name)
    return tuple(found.get(name) or SizeSource(name) for name in sorted(mentioned))


def _linear(dim: Dim, index: int, axis: int) -> SizeSource | None:
    """`scale * name + offset` as a source, or None."""
    if not isinstance(dim, SymDim):
        return None
    offset = 0
    result: tuple[str, int] | None = None
    for mono, coeff in dim.terms:
        if not mono:
            offset = coeff
        elif result is None and len(mono) == 1 and isinstance(mono[0], str) and coeff > 0:
            result = mono[0], coeff
        else:
            return None
    return SizeSource(result[0], index, axis, result[1], offset) if result else None
